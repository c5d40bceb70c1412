//! `publish` and `broadcast`.

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use prost::Message as _;
use streamgate_proto::{
    cloudevents::CloudEvent,
    server::{
        BroadcastRequest, BroadcastResponse, Destination, Publication, PublicationOptions, PublishRequest,
        PublishResponse, PublishResult,
    },
};

use super::{Operations, Who, check_items, missing, wire_outcome};
use crate::{
    broker::{Publish, Published, Stored},
    error::{ClientError, ErrorCode},
    session::{check_event, check_key, check_ttl, wire_position},
};

/// Scope of the API's idempotency keys: no user has an id with control characters, so no client's key is one of these.
const KEY_SCOPE: &str = "\0api";

/// What becomes of one destination.
type Outcome = BoxFuture<'static, PublishResult>;

impl Operations {
    /// Publishes events to channels, sessions and users. Those of one channel are stored in the order of the request.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] if a publication goes nowhere, or there are too many.
    pub async fn publish(&self, request: PublishRequest) -> Result<PublishResponse, ClientError> {
        check_items("publications", request.publications.len())?;
        let mut destinations = 0;
        for (at, publication) in request.publications.iter().enumerate() {
            let here = publication.destination.as_ref().map_or(0, count);
            if here == 0 {
                return Err(missing(&format!("publications[{at}].destination")));
            }
            destinations += here;
        }
        check_items("the destinations of all publications", destinations)?;
        let outcomes = request.publications.into_iter().flat_map(|publication| self.start(publication));
        // All are started before the first one is waited for.
        let outcomes: Vec<Outcome> = outcomes.collect();
        Ok(PublishResponse { results: join_all(outcomes).await })
    }

    /// Publishes one event to many channels.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] if there are no channels, or too many.
    pub async fn broadcast(&self, request: BroadcastRequest) -> Result<BroadcastResponse, ClientError> {
        check_items("channels", request.channels.len())?;
        let destination = Destination { channels: request.channels, ..Destination::default() };
        let outcomes = self.start(Publication {
            destination: Some(destination),
            options: request.options,
            payload: request.payload,
            ..Publication::default()
        });
        Ok(BroadcastResponse { results: join_all(outcomes).await })
    }

    /// Starts one publication at all its destinations.
    fn start(&self, publication: Publication) -> Vec<Outcome> {
        let Publication { id, destination, options, payload, channel } = publication;
        let Destination { sessions, channels, users } = destination.unwrap_or_default();
        let (options, event) = (options.unwrap_or_default(), payload.as_ref());
        let result = PublishResult { id, ..PublishResult::default() };
        let mut outcomes = Vec::with_capacity(channels.len() + sessions.len() + users.len());
        for name in channels {
            let outcome = self.to_channel(&name, event, &options);
            let result = PublishResult { channel: name, ..result.clone() };
            outcomes.push(outcome.map(|outcome| stored(result, &outcome)).boxed());
        }
        for session_id in sessions {
            let outcome = self.to_sessions(Who::Session(session_id.clone()), &channel, event, &options);
            let result = PublishResult { session_id, ..result.clone() };
            outcomes.push(outcome.map(|outcome| handed_over(result, outcome)).boxed());
        }
        for user_id in users {
            let outcome = self.to_sessions(Who::User(user_id.clone()), &channel, event, &options);
            let result = PublishResult { user_id, ..result.clone() };
            outcomes.push(outcome.map(|outcome| handed_over(result, outcome)).boxed());
        }
        outcomes
    }

    fn to_channel(
        &self,
        channel: &str,
        event: Option<&CloudEvent>,
        options: &PublicationOptions,
    ) -> BoxFuture<'static, Result<Published, ClientError>> {
        let publish = || {
            let event = event.ok_or_else(|| missing("payload"))?;
            let (channel, policy) = check_event(&self.settings.policies, channel, event)?;
            let stored = Stored {
                id: Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
                event: event.encode_to_vec().into(),
                ttl_ms: check_ttl(options.ttl_ms)?,
                ..Stored::default()
            };
            Ok(Publish {
                channel,
                stored,
                user_id: KEY_SCOPE.to_owned(),
                idempotency_key: check_key(&options.idempotency_key)?,
                transient: options.transient || policy.transient,
                job: crate::broker::queue::JobOptions::default(),
            })
        };
        match publish() {
            Ok(publish) => {
                let work = self
                    .broker
                    .publish(publish)
                    .map(|outcome| outcome.map_err(|error| ClientError::from(&error)));
                self.within(work).boxed()
            }
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }

    fn to_sessions(
        &self,
        who: Who,
        channel: &str,
        event: Option<&CloudEvent>,
        options: &PublicationOptions,
    ) -> BoxFuture<'static, Result<u32, ClientError>> {
        let send = || {
            if matches!(&who, Who::Session(id) | Who::User(id) if id.is_empty()) {
                return Err(ClientError::bad_request("the id is empty"));
            }
            if !options.idempotency_key.is_empty() {
                let text = "an idempotency key is for channels: nothing is kept of what goes to sessions";
                return Err(ClientError::new(ErrorCode::NotSupported, text));
            }
            if options.ttl_ms > 0 {
                let text = "a time to live is for channels: what goes to sessions is handed over at once";
                return Err(ClientError::new(ErrorCode::NotSupported, text));
            }
            let event = event.ok_or_else(|| missing("payload"))?;
            let channel = if channel.is_empty() { &event.source } else { channel };
            let (channel, _) = check_event(&self.settings.policies, channel, event)?;
            Ok(self.control()?.send(who, channel.as_str().to_owned(), event.clone()))
        };
        match send() {
            Ok(work) => self.within(work).boxed(),
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }
}

fn count(destination: &Destination) -> usize {
    destination.channels.len() + destination.sessions.len() + destination.users.len()
}

fn stored(result: PublishResult, outcome: &Result<Published, ClientError>) -> PublishResult {
    let published = outcome.as_ref().ok();
    PublishResult {
        position: published.and_then(|published| published.position).map(wire_position),
        duplicate: published.is_some_and(|published| published.duplicate),
        error: wire_outcome(outcome),
        ..result
    }
}

fn handed_over(result: PublishResult, outcome: Result<u32, ClientError>) -> PublishResult {
    let outcome = super::sessions::found(outcome);
    let delivered = outcome.as_ref().copied().unwrap_or_default();
    PublishResult { delivered, error: wire_outcome(&outcome), ..result }
}
