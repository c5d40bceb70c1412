//! Live messages that wait until a subscription has recovered.

use crate::event::Message;

/// Messages that one subscription holds; what comes later is asked for again with the next connection.
const MOST: usize = 4096;

/// Messages in the order of their arrival.
///
/// The server sends a message once per connection, however many subscriptions match it. So while one of them replays
/// its history, another may get the message that the first one needs next but one.
#[derive(Debug, Default)]
pub(super) struct Held {
    messages: Vec<Message>,
    overflowed: bool,
}

impl Held {
    pub(super) fn push(&mut self, message: Message) {
        if self.messages.len() < MOST {
            self.messages.push(message);
        } else {
            self.overflowed = true;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What was held, and whether there was more.
    pub(super) fn take(&mut self) -> (Vec<Message>, bool) {
        let Self { messages, overflowed } = std::mem::take(self);
        (messages, overflowed)
    }
}
