//! Publishing: the event is checked here, at the edge, and from here on stays the bytes that it was.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use streamgate_proto::{
    cloudevents::CloudEvent,
    v1::{PublishAck, PublishOptions, outbound_message as out},
};

use super::{
    Effect, Effects, Now, ReplyTo, Session,
    publish_queue::Draft,
    publish_rules::{check_event, check_key, check_ttl, sound},
    rights::not_allowed,
    subscribe::wire_position,
};
use crate::{
    broker::{BrokerError, Publish, Published, PublisherInfo, Stored},
    channel::Channel,
    error::{ClientError, ErrorCode},
    policy::{
        ChannelPolicy,
        rights::{Action, Verdict},
    },
};

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
        let refused = match self.checked(now, channel, &event, &options) {
            Ok((channel, policy)) => match self.may(Action::Publish, channel.as_str()) {
                Verdict::Allowed if self.waiting.is_empty() => {
                    let publish = Box::new(self.stored(channel, &policy, &event, &options));
                    return fx.push(Effect::Publish { reply, publish });
                }
                verdict => {
                    return self.publish_later(now, verdict, Draft { reply, channel, options }, event, fx);
                }
            },
            Err(error) => error,
        };
        self.publish_refused(now, reply, &refused, fx);
    }

    /// Takes a publish that cannot go at once.
    fn publish_later(
        &mut self,
        now: Now,
        verdict: Verdict,
        draft: Draft,
        event: CloudEvent,
        fx: &mut Effects,
    ) {
        if let Some(full) = self.waiting.full(1) {
            let error = ClientError::new(ErrorCode::RateLimited, full);
            return self.publish_refused(now, draft.reply, &error, fx);
        }
        match verdict {
            Verdict::Allowed => {
                let policy = self.settings.policies.of(draft.channel.as_str());
                let publish = self.stored(draft.channel, &policy, &event, &draft.options);
                self.waiting.wait(draft.reply, Box::new(publish));
            }
            Verdict::Ask => {
                let asked = Box::new(self.asked(Action::Publish, draft.channel.as_str(), ""));
                let number = self.waiting.ask(draft);
                fx.push(Effect::AskPublish { number, asked, event: Box::new(event) });
            }
            Verdict::Denied | Verdict::Unallowed => {
                let error = not_allowed(Action::Publish, draft.channel.as_str());
                self.publish_refused(now, draft.reply, &error, fx);
            }
        }
    }

    /// Takes a backend's verdict on a publish: the event to publish, or why not.
    pub fn publish_judged(
        &mut self,
        now: Now,
        number: u64,
        verdict: Result<CloudEvent, ClientError>,
        fx: &mut Effects,
    ) {
        if !self.is_open() {
            return;
        }
        let Some(Draft { reply, channel, options }) = self.waiting.draft(number) else { return };
        match verdict.and_then(|event| self.rewritten(&channel, event)) {
            Ok(event) => {
                let policy = self.settings.policies.of(channel.as_str());
                let publish = self.stored(channel, &policy, &event, &options);
                self.waiting.allow(number, reply, Box::new(publish));
            }
            Err(error) => match self.waiting.refuse(number) {
                None => self.publish_refused(now, reply, &error, fx),
                Some((index, mut replies)) => {
                    replies.push(reply);
                    self.batch_refused(now, replies, &error.at(index), fx);
                }
            },
        }
        while let Some((reply, publish)) = self.waiting.next() {
            fx.push(Effect::Publish { reply, publish });
        }
    }

    /// Checks what a backend gave back; rights may have changed meanwhile, too.
    fn rewritten(&self, channel: &Channel, event: CloudEvent) -> Result<CloudEvent, ClientError> {
        if matches!(self.may(Action::Publish, channel.as_str()), Verdict::Denied | Verdict::Unallowed) {
            return Err(not_allowed(Action::Publish, channel.as_str()));
        }
        sound(channel, &self.settings.policies.of(channel.as_str()), &event).map_err(|error| {
            let text = format!("the event that the backend allows: {}", error.message);
            ClientError::new(ErrorCode::ProxyError, text)
        })?;
        Ok(event)
    }

    pub(super) fn publish_refused(&self, now: Now, reply: ReplyTo, error: &ClientError, fx: &mut Effects) {
        fx.push(Effect::PublishRefused);
        self.fail(now, reply, error, fx);
    }

    /// The channel of a publish that is in order and within the limits, and its policy.
    fn checked(
        &mut self,
        now: Now,
        channel: &str,
        event: &CloudEvent,
        options: &PublishOptions,
    ) -> Result<(Channel, Arc<ChannelPolicy>), ClientError> {
        let channel = if channel.is_empty() { &event.source } else { channel };
        let (channel, policy) = check_event(&self.settings.policies, channel, event)?;
        check_key(&options.idempotency_key)?;
        check_options(options)?;
        check_ttl(options.ttl_ms)?;
        self.within_limits(now, &channel)?;
        Ok((channel, policy))
    }

    pub(super) fn stored(
        &self,
        channel: Channel,
        policy: &ChannelPolicy,
        event: &CloudEvent,
        options: &PublishOptions,
    ) -> Publish {
        let publisher = policy
            .publisher_identity
            .then(|| PublisherInfo { client_id: self.client_id.clone(), user_id: self.user_id.clone() });
        let stored = Stored {
            id: Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
            event: event.encode_to_vec().into(),
            exclude_session: if options.exclude_self { self.id.clone() } else { String::new() },
            publisher,
            ttl_ms: options.ttl_ms,
        };
        Publish {
            channel,
            stored,
            user_id: self.user_id.clone(),
            idempotency_key: Some(options.idempotency_key.clone()).filter(|key| !key.is_empty()),
            transient: options.transient || policy.transient,
            job: crate::broker::queue::JobOptions::default(),
        }
    }

    pub(super) fn within_limits(&mut self, now: Now, channel: &Channel) -> Result<(), ClientError> {
        let limits = self.settings.limits.load();
        if !self.publishes.take(now.mono_ms, limits.publishes_per_second) {
            let text = format!("more than {} publishes a second", limits.publishes_per_second);
            return Err(ClientError::new(ErrorCode::RateLimited, text));
        }
        if let (Some(limit), Some(stay)) = (limits.publishes_per_second_per_user, &self.stay)
            && !stay.take_publish(now.unix_ms, limit)
        {
            let text = format!("more than {limit} publishes a second of this user");
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
    let later = [("delay_ms", options.delay_ms > 0), ("ordering_key", !options.ordering_key.is_empty())];
    match later.into_iter().find(|(_, used)| *used) {
        Some((name, _)) => {
            Err(ClientError::new(ErrorCode::NotSupported, format!("publish option {name} is not offered")))
        }
        None => Ok(()),
    }
}
