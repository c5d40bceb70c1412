//! Publishing: the event is checked here, at the edge, and from here on stays the bytes that it was.

use bytes::Bytes;
use prost::Message as _;
use streamgate_proto::{
    cloudevents::CloudEvent,
    v1::{PublishAck, PublishOptions, outbound_message as out},
};

use super::{Effect, Effects, Now, ReplyTo, Session, subscribe::wire_position};
use crate::{
    broker::{BrokerError, Publish, Published, PublisherInfo, Stored},
    channel::Channel,
    error::{ClientError, ErrorCode},
};

/// Longest idempotency key, in bytes.
const KEY_BYTES: usize = 255;

impl Session {
    pub(super) fn publish(
        &mut self,
        now: Now,
        reply: ReplyTo,
        channel: &str,
        event: CloudEvent,
        options: PublishOptions,
        fx: &mut Effects,
    ) {
        // A v1 client cannot mean fields that its schema does not have.
        let options = if self.extended { options } else { PublishOptions::default() };
        match self.checked(now, channel, &event, &options) {
            Ok(publish) => fx.push(Effect::Publish { reply, publish: Box::new(publish) }),
            Err(error) => {
                fx.push(Effect::PublishRefused);
                self.fail(now, reply, &error, fx);
            }
        }
    }

    fn checked(
        &mut self,
        now: Now,
        channel: &str,
        event: &CloudEvent,
        options: &PublishOptions,
    ) -> Result<Publish, ClientError> {
        let channel = Channel::parse(if channel.is_empty() { &event.source } else { channel })?;
        streamgate_proto::cloudevent::validate(event)
            .map_err(|error| ClientError::bad_request(error.to_string()))?;
        check_options(options)?;
        let policy = self.settings.policies.of(channel.as_str());
        let size = event.encoded_len();
        if size > policy.max_message_size {
            let text =
                format!("the event has {size} bytes, {channel} takes at most {}", policy.max_message_size);
            return Err(ClientError::new(ErrorCode::TooLarge, text));
        }
        self.within_limits(now, &channel)?;
        let publisher = policy
            .publisher_identity
            .then(|| PublisherInfo { client_id: self.client_id.clone(), user_id: self.user_id.clone() });
        let stored = Stored {
            id: Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
            event: event.encode_to_vec().into(),
            exclude_session: if options.exclude_self { self.id.clone() } else { String::new() },
            publisher,
        };
        Ok(Publish {
            channel,
            stored,
            user_id: self.user_id.clone(),
            idempotency_key: Some(options.idempotency_key.clone()).filter(|key| !key.is_empty()),
            transient: options.transient || policy.transient,
        })
    }

    fn within_limits(&mut self, now: Now, channel: &Channel) -> Result<(), ClientError> {
        let limits = self.settings.limits.load();
        if !self.publishes.take(now.mono_ms, limits.publishes_per_second) {
            let text = format!("more than {} publishes a second", limits.publishes_per_second);
            return Err(ClientError::new(ErrorCode::RateLimited, text));
        }
        if !self.channels.take(now.mono_ms, channel.as_str(), false, limits.new_channels_per_minute) {
            let text = format!("more than {} new channels in a minute", limits.new_channels_per_minute);
            return Err(ClientError::new(ErrorCode::RateLimited, text));
        }
        Ok(())
    }

    /// Answers a publish.
    pub fn publish_done(
        &mut self,
        now: Now,
        reply: ReplyTo,
        result: Result<Published, BrokerError>,
        fx: &mut Effects,
    ) {
        let published = match result {
            Ok(published) => published,
            Err(error) => return self.fail(now, reply, &(&error).into(), fx),
        };
        let ack = PublishAck {
            offset: published.position.map_or(0, |position| position.offset),
            position: published.position.map(wire_position),
            duplicate: published.duplicate,
        };
        self.answer(now, reply, out::Envelope::PublishAck(ack), fx);
    }
}

fn check_options(options: &PublishOptions) -> Result<(), ClientError> {
    let got = options.idempotency_key.len();
    if got > KEY_BYTES {
        return Err(ClientError::bad_request(format!(
            "the idempotency key has {got} bytes, at most {KEY_BYTES} are allowed"
        )));
    }
    let later = [
        ("ttl_ms", options.ttl_ms > 0),
        ("delay_ms", options.delay_ms > 0),
        ("ordering_key", !options.ordering_key.is_empty()),
    ];
    match later.into_iter().find(|(_, used)| *used) {
        Some((name, _)) => {
            Err(ClientError::new(ErrorCode::NotSupported, format!("publish option {name} is not offered")))
        }
        None => Ok(()),
    }
}
