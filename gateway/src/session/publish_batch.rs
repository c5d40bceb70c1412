//! Publishing several events as one: all are looked at before the first one leaves.
//!
//! What is refused for one of them is refused for all, and says which. What storage does with them afterwards is told of
//! each: the broker takes publishes one by one.

use streamgate_proto::{cloudevents::CloudEvent, v1::PublishOptions};

use super::{
    Effect, Effects, Now, ReplyTo, Session,
    publish_queue::Draft,
    publish_rules::{check_event, check_key},
    rights::not_allowed,
};
use crate::{
    channel::Channel,
    error::{ClientError, ErrorCode},
    policy::rights::{Action, Verdict},
};

/// One event of a batch.
#[derive(Debug)]
pub struct BatchItem {
    /// Of its answer.
    pub reply: ReplyTo,
    /// What.
    pub event: CloudEvent,
    /// Its idempotency key; empty: none.
    pub key: String,
}

impl Session {
    /// Publishes events to one channel, in their order, or none of them. Each is answered like a publish of its own; a
    /// refusal is the answer to all.
    pub fn publish_batch(&mut self, now: Now, channel: &str, items: Vec<BatchItem>, fx: &mut Effects) {
        if !self.is_open() {
            return;
        }
        let (channel, verdict) = match self.checked_batch(now, channel, &items) {
            Ok(checked) => checked,
            Err(error) => {
                let replies = items.into_iter().map(|item| item.reply).collect();
                return self.batch_refused(now, replies, &error, fx);
            }
        };
        let policy = self.settings.policies.of(channel.as_str());
        let len = items.len();
        for BatchItem { reply, event, key } in items {
            let options = PublishOptions { idempotency_key: key, ..PublishOptions::default() };
            if verdict == Verdict::Ask {
                let asked = Box::new(self.asked(Action::Publish, channel.as_str(), ""));
                let number = self.waiting.ask(Draft { reply, channel: channel.clone(), options });
                fx.push(Effect::AskPublish { number, asked, event: Box::new(event) });
                continue;
            }
            let publish = Box::new(self.stored(channel.clone(), &policy, &event, &options));
            match self.waiting.is_empty() {
                true => fx.push(Effect::Publish { reply, publish }),
                false => self.waiting.wait(reply, publish),
            }
        }
        if verdict == Verdict::Ask {
            self.waiting.bind(len);
        }
    }

    fn checked_batch(
        &mut self,
        now: Now,
        channel: &str,
        items: &[BatchItem],
    ) -> Result<(Channel, Verdict), ClientError> {
        let channel = Channel::parse(channel)?;
        for (item, index) in items.iter().zip(0..) {
            let checked = check_event(&self.settings.policies, channel.as_str(), &item.event);
            checked.and_then(|_| check_key(&item.key)).map_err(|error| error.at(index))?;
        }
        let verdict = self.may(Action::Publish, channel.as_str());
        if matches!(verdict, Verdict::Denied | Verdict::Unallowed) {
            return Err(not_allowed(Action::Publish, channel.as_str()));
        }
        if (verdict == Verdict::Ask || !self.waiting.is_empty())
            && let Some(full) = self.waiting.full(items.len())
        {
            return Err(ClientError::new(ErrorCode::RateLimited, full));
        }
        // A batch that does not fit has used up what was left: who sends it again at once must not get in by trying.
        for (_, index) in items.iter().zip(0..) {
            self.within_limits(now, &channel).map_err(|error| error.at(index))?;
        }
        Ok((channel, verdict))
    }

    /// Refuses all of a batch for one error.
    pub(super) fn batch_refused(
        &self,
        now: Now,
        replies: Vec<ReplyTo>,
        error: &ClientError,
        fx: &mut Effects,
    ) {
        for reply in replies {
            self.publish_refused(now, reply, error, fx);
        }
    }
}
