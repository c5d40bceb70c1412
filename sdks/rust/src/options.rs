//! What requests may be told.

use std::time::Duration;

use streamgate_proto::v1;

use crate::{
    error::Error,
    position::{Cursors, Position},
    target::is_pattern,
};

/// Messages that a subscription holds until they are taken, if not said otherwise.
pub const DEFAULT_CAPACITY: usize = 1024;

/// Where a subscription without a cursor starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// With what is published from now on.
    #[default]
    Live,
    /// With the first message that history holds.
    Start,
    /// With the first message at or after this time, in milliseconds since the Unix epoch.
    TimeMs(u64),
    /// With the last N messages.
    Last(u32),
}

/// What to subscribe, and how.
///
/// ```
/// use streamgate_client::{StartAt, SubscribeOptions};
/// let options = SubscribeOptions::new("room.*").start_at(StartAt::Start).capacity(64);
/// ```
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    pub(crate) target: String,
    pub(crate) recover: bool,
    pub(crate) cursors: Cursors,
    pub(crate) start: StartAt,
    pub(crate) ephemeral: bool,
    pub(crate) presence: bool,
    pub(crate) queue: Option<v1::Queue>,
    pub(crate) token: String,
    pub(crate) capacity: usize,
}

impl SubscribeOptions {
    /// The channel or pattern `target`, live, recovering after reconnects.
    pub fn new(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            recover: true,
            cursors: Cursors::new(),
            start: StartAt::Live,
            ephemeral: false,
            presence: false,
            queue: None,
            token: String::new(),
            capacity: DEFAULT_CAPACITY,
        }
    }

    /// Whether to ask for what was missed after a reconnect (default: yes). Without it, every reconnect yields a
    /// [`Gap`](crate::Event::Gap).
    #[must_use]
    pub fn recover(mut self, recover: bool) -> Self {
        self.recover = recover;
        self
    }

    /// Starts after `cursor`; for an exact channel.
    #[must_use]
    pub fn cursor(mut self, cursor: Position) -> Self {
        self.cursors.insert(self.target.clone(), cursor);
        self
    }

    /// Starts after `cursors`, as [`Subscription::cursors`](crate::Subscription::cursors) gave them.
    #[must_use]
    pub fn cursors(mut self, cursors: Cursors) -> Self {
        self.cursors = cursors;
        self
    }

    /// Where to start, if there is no cursor.
    #[must_use]
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Does not appear in presence.
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// Wants to be told who joins and leaves, by [`Event::Presence`](crate::Event::Presence). For who is there, and for what
    /// happens while the connection is away, see [`Client::watch_presence`](crate::Client::watch_presence).
    #[must_use]
    pub fn presence(mut self) -> Self {
        self.presence = true;
        self
    }

    /// Consumes as one of `group`, with at most `credit` unacknowledged deliveries at a time.
    #[must_use]
    pub fn queue(mut self, group: impl Into<String>, credit: u32) -> Self {
        self.queue = Some(v1::Queue { group: group.into(), credit });
        self
    }

    /// Credential for this channel alone.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// How many events wait for the subscriber (default 1,024, at least 1) before the client stops reading its
    /// connection. Nothing is ever dropped. A program that publishes *and waits for the ack* from the loop that takes
    /// the messages should use [`unbounded`](Self::unbounded) instead: the ack is read from the same connection.
    #[must_use]
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// Any number of events may wait for the subscriber; memory is the only limit.
    #[must_use]
    pub fn unbounded(self) -> Self {
        self.capacity(usize::MAX)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let invalid = |text: &str| Err(Error::Invalid(format!("subscription of {:?}: {text}", self.target)));
        if self.target.is_empty() {
            return invalid("the channel is empty");
        }
        if !self.cursors.is_empty() && self.start != StartAt::Live {
            return invalid("a cursor and a starting point exclude each other");
        }
        if !self.cursors.is_empty() && !is_pattern(&self.target) && self.cursors.get(&self.target).is_none() {
            return invalid("the cursors have no entry for this channel");
        }
        if !self.cursors.is_empty() && !self.recover {
            return invalid("a cursor needs recovery");
        }
        Ok(())
    }
}

impl<T: Into<String>> From<T> for SubscribeOptions {
    fn from(target: T) -> Self {
        Self::new(target)
    }
}

impl StartAt {
    pub(crate) fn to_wire(self) -> Option<v1::StartFrom> {
        use v1::start_from::Point;
        let point = match self {
            Self::Live => return None,
            Self::Start => Point::Start(true),
            Self::TimeMs(time) => Point::TimeMs(time),
            Self::Last(count) => Point::Last(count),
        };
        Some(v1::StartFrom { point: Some(point) })
    }
}

/// How to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// A retry with the same key gets the first position and delivers nothing new. `None`: a random key, so that
    /// the client's own retries are safe.
    pub idempotency_key: Option<String>,
    /// Only for who listens now: no history, no position. Not retried once it was sent.
    pub transient: bool,
    /// Not to this client itself.
    pub exclude_self: bool,
    /// Worthless after this time (rounded up to a millisecond): then it is neither delivered nor shown in history. More than
    /// 0, at most 365 days.
    pub ttl: Option<Duration>,
    /// Deliver after this time.
    pub delay: Option<Duration>,
    /// Queue messages with the same key are delivered one after the other.
    pub ordering_key: Option<String>,
    /// How long to try; `None`: the client's setting.
    pub timeout: Option<Duration>,
}

impl PublishOptions {
    /// With this idempotency key.
    pub fn with_key(key: impl Into<String>) -> Self {
        Self { idempotency_key: Some(key.into()), ..Self::default() }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        // On the wire that is no time to live at all.
        if self.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(Error::Invalid("a time to live must not be 0".to_owned()));
        }
        Ok(())
    }

    pub(crate) fn to_wire(&self) -> v1::PublishOptions {
        let millis = |time: Option<Duration>| time.map_or(0, whole_millis);
        v1::PublishOptions {
            idempotency_key: match &self.idempotency_key {
                Some(key) => key.clone(),
                // Nothing of a transient publication is stored, so there is nothing to compare a key with.
                None if self.transient => String::new(),
                None => uuid::Uuid::new_v4().to_string(),
            },
            transient: self.transient,
            exclude_self: self.exclude_self,
            ttl_ms: millis(self.ttl),
            delay_ms: millis(self.delay),
            ordering_key: self.ordering_key.clone().unwrap_or_default(),
        }
    }
}

/// The time in milliseconds, rounded up.
pub(crate) fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Which page of history to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Only what follows (in reverse: precedes) this.
    pub since: Option<Position>,
    /// At most this many messages; `None`: all that the server gives in one page; 0: the position alone.
    pub limit: Option<u32>,
    /// Newest first.
    pub reverse: bool,
}

impl HistoryOptions {
    pub(crate) fn to_wire(&self, channel: &str) -> v1::HistoryRequest {
        v1::HistoryRequest {
            channel: channel.to_owned(),
            since: self.since.clone().map(v1::Position::from),
            limit: self.limit.map_or(-1, |limit| i32::try_from(limit).unwrap_or(i32::MAX)),
            reverse: self.reverse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_without_a_key_gets_one_unless_it_is_transient() {
        let one = PublishOptions::default().to_wire().idempotency_key;
        let two = PublishOptions::default().to_wire().idempotency_key;
        assert!(!one.is_empty() && one != two);
        let transient = PublishOptions { transient: true, ..PublishOptions::default() };
        assert!(transient.to_wire().idempotency_key.is_empty());
    }

    #[test]
    fn a_time_to_live_is_rounded_up_and_never_0() {
        let with = |ttl| PublishOptions { ttl: Some(ttl), ..PublishOptions::default() };
        assert_eq!(with(Duration::from_nanos(1)).to_wire().ttl_ms, 1);
        assert_eq!(with(Duration::from_micros(2_001)).to_wire().ttl_ms, 3);
        assert!(with(Duration::ZERO).check().is_err() && PublishOptions::default().check().is_ok());
    }

    #[test]
    fn contradictions_are_refused_before_anything_is_sent() {
        let cursor = Position { epoch: "1".into(), offset: 1 };
        assert!(SubscribeOptions::new("").check().is_err());
        assert!(SubscribeOptions::new("a").cursor(cursor.clone()).start_at(StartAt::Start).check().is_err());
        assert!(SubscribeOptions::new("a").cursor(cursor.clone()).recover(false).check().is_err());
        let foreign = Cursors::from_iter([("b".to_owned(), cursor.clone())]);
        assert!(SubscribeOptions::new("a").cursors(foreign.clone()).check().is_err());
        assert!(SubscribeOptions::new("*").cursors(foreign).check().is_ok());
        assert!(SubscribeOptions::new("a").cursor(cursor).check().is_ok());
    }
}
