//! Writes down what the client library hands out.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use streamgate_client::{Error, Event, Message, Position, PublishAck};
use streamgate_proto::cloudevents::{CloudEvent, Data};

use super::log::{Ack, History, Place, Seen};

/// A history under construction and its clock. Cheap to clone: all clones write the same history.
#[derive(Debug, Clone)]
pub struct Recorder {
    start: Instant,
    history: Arc<Mutex<History>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { start: Instant::now(), history: Arc::default() }
    }
}

impl Recorder {
    /// Time since the start of the run.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// What was written down up to now.
    pub fn history(&self) -> MutexGuard<'_, History> {
        // Whoever panicked while writing did not leave half an entry behind.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A publish begins: `id` tells it from all others, and is the id of its event.
    pub fn publishing(&self, id: &str, channel: &str, data: &str) {
        let now = self.now();
        self.history().publishing(id, channel, data, now);
    }

    /// It has an answer.
    ///
    /// # Panics
    /// It was acknowledged without a position.
    pub fn answered(&self, id: &str, answer: &Result<PublishAck, Error>) {
        let at = self.now();
        match answer {
            Ok(ack) => {
                let position =
                    ack.position.as_ref().unwrap_or_else(|| panic!("{id} was acked without a position"));
                self.history().acked(id, Ack { place: place(position), at, duplicate: ack.duplicate });
            }
            Err(error) if surely_not_stored(error) => self.history().refused(id),
            Err(_) => self.history().left_open(id),
        }
    }

    /// A publish of before anybody took notes was acknowledged: everybody who listens is owed it. Its text is its name.
    ///
    /// # Panics
    /// As [`answered`](Self::answered).
    pub fn stored(&self, channel: &str, ack: &PublishAck, text: &str) {
        let now = self.now();
        self.history().publishing(text, channel, text, now);
        self.answered(text, &Ok(ack.clone()));
    }

    /// A subscription was acknowledged: it is owed everything that is sent from now on.
    pub fn listens(&self, name: &str, target: &str) {
        let now = self.now();
        self.history().subscribed(name, target, now);
    }

    /// It yielded something.
    ///
    /// # Panics
    /// A message without position or text.
    pub fn event(&self, name: &str, event: &Event) {
        let at = self.now();
        let seen = match event {
            Event::Message(message) => return self.saw(name, message),
            Event::Gap(gap) => Seen::Gap {
                channel: gap.channel.as_str().into(),
                place: gap.position.as_ref().map(place),
                reason: gap.reason.to_string(),
                at,
            },
            Event::Recovered(end) => {
                if let Some(error) = &end.error {
                    let error = format!("the recovery failed: {error}");
                    return self.history().saw(name, Seen::Ended { error });
                }
                let place = end.position.as_ref().and_then(try_place);
                let reason = end.gap.as_ref().map(ToString::to_string);
                let truncated = end.truncated.then(|| "TRUNCATED".to_owned());
                Seen::Recovered { place, gap: reason.or(truncated), at }
            }
            Event::Closed(error) => Seen::Ended { error: error.to_string() },
            _ => return,
        };
        self.history().saw(name, seen);
    }

    /// It yielded a message.
    ///
    /// # Panics
    /// A message without position or text.
    pub fn saw(&self, name: &str, message: &Message) {
        let position =
            message.position.as_ref().unwrap_or_else(|| panic!("{} has no position", message.channel));
        let seen = Seen::Publication {
            channel: message.channel.as_str().into(),
            place: place(position),
            id: message.event.id.as_str().into(),
            digest: History::digest(&payload_of(&message.event)),
            replay: message.replay,
            at: self.now(),
        };
        self.history().saw(name, seen);
    }

    /// It is over for this subscriber; nothing is owed to it any more.
    pub fn leaves(&self, name: &str) {
        self.history().saw(name, Seen::Unsubscribed);
    }

    /// Ends the test if anything is wrong.
    ///
    /// # Panics
    /// With the report.
    pub fn assert_sound(&self) {
        self.history().assert_sound();
    }
}

/// The server said no before it did anything. `NOT_AVAILABLE` does not say that.
fn surely_not_stored(error: &Error) -> bool {
    matches!(error, Error::Server { code, .. } if code != "NOT_AVAILABLE")
        || matches!(error, Error::Invalid(_))
}

fn place(position: &Position) -> Place {
    try_place(position).unwrap_or_else(|| panic!("{position} is no position of this gateway"))
}

/// `None` for the marker of a pattern.
fn try_place(position: &Position) -> Option<Place> {
    Some(Place { epoch: position.epoch.parse().ok()?, offset: position.offset })
}

/// The text of an event's data.
///
/// # Panics
/// The event has none.
#[must_use]
pub fn payload_of(event: &CloudEvent) -> String {
    match &event.data {
        Some(Data::TextData(text)) => text.clone(),
        Some(Data::BinaryData(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("an event with text is expected, this one has {other:?}"),
    }
}
