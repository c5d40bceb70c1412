//! `publish` and `broadcast`.

use std::{future::Future, time::Duration};

use streamgate_proto::{cloudevents::CloudEvent, server as wire};
use tokio::time::Instant;

use super::api::{ApiClient, Stub, outcome, sent_once};
use crate::{backoff::Backoff, error::Error, position::Position};

/// Ceilings of the delays between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// An event and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication(wire::Publication);

impl Publication {
    /// This event, going nowhere yet.
    #[must_use]
    pub fn new(event: CloudEvent) -> Self {
        Self(wire::Publication { payload: Some(event), ..wire::Publication::default() })
    }

    /// To this channel, too.
    #[must_use]
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.to().channels.push(channel.into());
        self
    }

    /// To this session, too: it gets the event without a subscription, and nothing is kept.
    #[must_use]
    pub fn session(mut self, session_id: impl Into<String>) -> Self {
        self.to().sessions.push(session_id.into());
        self
    }

    /// To every session of this user, too, in the same way.
    #[must_use]
    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.to().users.push(user_id.into());
        self
    }

    /// Names it in the results.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.0.id = id.into();
        self
    }

    /// A publish with the same key (up to 255 bytes) gets the first one's position and delivers nothing: that is what makes it
    /// safe to try again. For channels alone.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.options().idempotency_key = key.into();
        self
    }

    /// Only for who listens now: no history, no position.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.options().transient = true;
        self
    }

    /// Worthless after this time (rounded up to a millisecond, at least one): then it is neither delivered nor shown. At most
    /// 365 days. For channels alone.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options().ttl_ms = crate::options::whole_millis(ttl).max(1);
        self
    }

    /// What messages to sessions and users say as their channel (default: the event's source).
    #[must_use]
    pub fn shown_as(mut self, channel: impl Into<String>) -> Self {
        self.0.channel = channel.into();
        self
    }

    fn to(&mut self) -> &mut wire::Destination {
        self.0.destination.get_or_insert_default()
    }

    fn options(&mut self) -> &mut wire::PublicationOptions {
        self.0.options.get_or_insert_default()
    }

    fn has_key(&self) -> bool {
        self.0.options.as_ref().is_some_and(|options| !options.idempotency_key.is_empty())
    }
}

/// Where an event went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A channel.
    Channel(String),
    /// A session.
    Session(String),
    /// All sessions of a user.
    User(String),
}

/// What became of one publication at one destination.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishResult {
    /// Id of the publication.
    pub id: String,
    /// The destination.
    pub to: Destination,
    /// Whether it got there. `NOT_FOUND`: no such session, or none of the user.
    pub outcome: Result<Delivered, Error>,
}

/// It got there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Position in the channel; `None` where there is no history, and for sessions and users.
    pub position: Option<Position>,
    /// The idempotency key was known: this is the position first given. Also if it was an attempt of this request that was
    /// carried out without an answer.
    pub duplicate: bool,
    /// How many sessions it was handed to, for sessions and users; 0 for channels.
    pub sessions: u32,
}

impl ApiClient {
    /// Publishes events, up to 1,000 destinations in all. Those of one channel are stored in this order. The results are by
    /// publication: first its channels, then its sessions, then its users.
    ///
    /// If every publication has an idempotency key, it is tried again until the deadline
    /// ([`publish_timeout`](super::ApiBuilder::publish_timeout)): the whole request if there was no answer, and what was not
    /// available. Without keys nothing is tried again.
    ///
    /// # Errors
    /// See [`ApiClient`]; the last attempt's.
    pub async fn publish(
        &self,
        publications: impl IntoIterator<Item = Publication>,
    ) -> Result<Vec<PublishResult>, Error> {
        let publications: Vec<_> = publications.into_iter().collect();
        let safe = !publications.is_empty() && publications.iter().all(Publication::has_key);
        let request = wire::PublishRequest {
            publications: publications.into_iter().map(|publication| publication.0).collect(),
            ..wire::PublishRequest::default()
        };
        self.attempts(safe, |timeout| {
            let request = request.clone();
            async move {
                let send = |mut api: Stub, request| async move { api.publish(request).await };
                let answer: wire::PublishResponse = self.ask("publish", timeout, request, send).await?;
                Ok(answer.results)
            }
        })
        .await
    }

    /// Publishes one event to many channels: the destinations of `publication` must be channels alone. Tried again as
    /// [`publish`](Self::publish) is.
    ///
    /// # Errors
    /// See [`ApiClient`]; [`Error::Invalid`] if there are other destinations.
    pub async fn broadcast(&self, publication: Publication) -> Result<Vec<PublishResult>, Error> {
        let safe = publication.has_key();
        let wire::Publication { destination, options, payload, .. } = publication.0;
        let wire::Destination { channels, sessions, users } = destination.unwrap_or_default();
        if !sessions.is_empty() || !users.is_empty() {
            return Err(Error::Invalid("a broadcast goes to channels alone".to_owned()));
        }
        let request =
            wire::BroadcastRequest { channels, options, payload, ..wire::BroadcastRequest::default() };
        self.attempts(safe, |timeout| {
            let request = request.clone();
            async move {
                let send = |mut api: Stub, request| async move { api.broadcast(request).await };
                let answer: wire::BroadcastResponse = self.ask("broadcast", timeout, request, send).await?;
                Ok(answer.results)
            }
        })
        .await
    }

    /// Tries once; if it is `safe`, until there is nothing left that may go better next time. What once went well stays.
    async fn attempts<F>(&self, safe: bool, once: impl Fn(Duration) -> F) -> Result<Vec<PublishResult>, Error>
    where
        F: Future<Output = Result<Vec<wire::PublishResult>, Error>>,
    {
        if !safe {
            let answer = once(self.timeout).await.map_err(|error| sent_once("publish", error));
            return answer.map(|results| merged(None, results));
        }
        let deadline = Instant::now() + self.publish_timeout;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut best: Option<Vec<PublishResult>> = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = once(left.min(self.timeout)).await.map(|results| merged(best.take(), results));
            let again = match &answer {
                Ok(results) => {
                    results.iter().any(|result| matches!(&result.outcome, Err(error) if error.is_retryable()))
                }
                Err(error) => error.is_retryable(),
            };
            let next = Instant::now() + backoff.next(rand::random());
            if !again || next >= deadline {
                // What went well before is more than why the rest did not.
                return answer.or_else(|error| best.ok_or(error));
            }
            if let Ok(results) = answer {
                best = Some(results);
            }
            tokio::time::sleep_until(next).await;
        }
    }
}

/// The results of an attempt, but for those that went well before.
fn merged(before: Option<Vec<PublishResult>>, now: Vec<wire::PublishResult>) -> Vec<PublishResult> {
    let mut before = before.unwrap_or_default().into_iter();
    now.into_iter()
        .map(|now| match before.next() {
            Some(before) if before.outcome.is_ok() => before,
            _ => PublishResult::from(now),
        })
        .collect()
}

impl From<wire::PublishResult> for PublishResult {
    fn from(result: wire::PublishResult) -> Self {
        let to = match (result.session_id, result.user_id) {
            (session, _) if !session.is_empty() => Destination::Session(session),
            (_, user) if !user.is_empty() => Destination::User(user),
            _ => Destination::Channel(result.channel),
        };
        let delivered = Delivered {
            position: result.position.map(Position::from),
            duplicate: result.duplicate,
            sessions: result.delivered,
        };
        Self { id: result.id, to, outcome: outcome(result.error, delivered) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use streamgate_proto::shared;

    use super::*;

    fn stored(offset: u64, duplicate: bool) -> wire::PublishResult {
        let position = Some(streamgate_proto::v1::Position { epoch: "1".into(), offset });
        wire::PublishResult { position, duplicate, ..wire::PublishResult::default() }
    }

    fn away() -> wire::PublishResult {
        let error = shared::Error { code: "NOT_AVAILABLE".into(), ..shared::Error::default() };
        wire::PublishResult { error: Some(error), ..wire::PublishResult::default() }
    }

    async fn attempts(
        safe: bool,
        answers: [Result<Vec<wire::PublishResult>, Error>; 3],
    ) -> (usize, Result<Vec<PublishResult>, Error>) {
        let api = ApiClient::builder("127.0.0.1:1").build().unwrap();
        let tried = AtomicUsize::new(0);
        let once = |_| std::future::ready(answers[tried.fetch_add(1, Relaxed)].clone());
        let answer = api.attempts(safe, once).await;
        (tried.load(Relaxed), answer)
    }

    #[tokio::test(start_paused = true)]
    async fn what_went_well_stays_and_the_rest_is_tried_again() {
        let lost = || Err(Error::ConnectionLost("reset".into()));
        let answers =
            || [Ok(vec![stored(1, false), away()]), lost(), Ok(vec![stored(1, true), stored(7, false)])];
        let (tried, results) = attempts(true, answers()).await;
        let results: Vec<_> = results.unwrap().into_iter().map(|result| result.outcome.unwrap()).collect();
        assert_eq!((tried, results[0].duplicate, results[1].duplicate), (3, false, false));
        assert_eq!(results[1].position.as_ref().unwrap().offset, 7);
        let wrong = || {
            let (code, kind, message) = ("BAD_REQUEST".to_owned(), String::new(), String::new());
            Err(Error::Server { code, kind, message })
        };
        let (_, results) = attempts(true, [Ok(vec![stored(1, false), away()]), wrong(), wrong()]).await;
        let results = results.unwrap();
        assert!(results[0].outcome.is_ok() && results[1].outcome.is_err());
        // Without keys: once, whatever comes of it.
        let (tried, results) = attempts(false, answers()).await;
        assert!(tried == 1 && results.unwrap()[1].outcome.is_err());
        let (tried, error) = attempts(false, [lost(), lost(), lost()]).await;
        assert!(tried == 1 && matches!(error, Err(Error::OutcomeUnknown { what: "publish", .. })));
        // What is wrong stays wrong.
        assert_eq!(attempts(true, [wrong(), wrong(), wrong()]).await.0, 1);
    }
}
