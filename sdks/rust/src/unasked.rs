//! What the server gives a client that none of its subscriptions asked for.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

use crate::{
    event::{Gap, Message},
    options::DEFAULT_CAPACITY,
};

/// What [`Unasked`] yields.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are messages")]
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum UnaskedEvent {
    /// A message of a channel that no subscription of this client matches.
    Message(Message),
    /// Messages of such a channel are missing here.
    Gap(Gap),
    /// So many events are missing here, as those before them were not taken in time.
    Missed(u64),
    /// The connection is gone. What is published until the next one is not brought back, as no cursor asks for it.
    Interrupted,
}

/// Messages that no subscription of this client asked for: of channels to which its token or the server API has subscribed it,
/// and what backends publish to its session or its user. Made by [`Client::unasked`](crate::Client::unasked).
///
/// It does not keep its client open, and does not slow the connection: 1,024 events may wait, more are dropped, and
/// [`UnaskedEvent::Missed`] tells of it in their place.
#[derive(Debug)]
pub struct Unasked(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Told of every change; there is one who waits for it.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<UnaskedEvent>,
    /// Nothing follows.
    closed: bool,
}

impl Unasked {
    /// The next event; `None` when the client is closed. Safe to cancel: an event that was not returned is returned next.
    pub async fn next(&mut self) -> Option<UnaskedEvent> {
        loop {
            {
                let mut queue = lock(&self.0.queue);
                if let Some(event) = queue.events.pop_front() {
                    return Some(event);
                }
                if queue.closed {
                    return None;
                }
            }
            // A change since then is remembered.
            self.0.changed.notified().await;
        }
    }
}

impl Shared {
    fn offer(&self, event: UnaskedEvent) {
        let mut queue = lock(&self.queue);
        if queue.events.len() < DEFAULT_CAPACITY {
            queue.events.push_back(event);
        } else if let Some(UnaskedEvent::Missed(count)) = queue.events.back_mut() {
            *count += 1;
        } else {
            queue.events.push_back(UnaskedEvent::Missed(1));
        }
        drop(queue);
        self.changed.notify_one();
    }

    fn close(&self) {
        lock(&self.queue).closed = true;
        self.changed.notify_one();
    }
}

/// All streams of a client, as its handles and its task share them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Listeners(Arc<Mutex<Option<Vec<Weak<Shared>>>>>);

impl Default for Listeners {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }
}

impl Listeners {
    /// A new one; `None`: the client is closed.
    pub(crate) fn listen(&self) -> Option<Unasked> {
        let mut listeners = lock(&self.0);
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Notify::new() });
        listeners.as_mut()?.push(Arc::downgrade(&shared));
        Some(Unasked(shared))
    }

    /// Gives it to all who are still there.
    pub(crate) fn tell(&self, event: &UnaskedEvent) {
        let mut listeners = lock(&self.0);
        let there = |listener: &Weak<Shared>| {
            let listener = listener.upgrade();
            listener.inspect(|listener| listener.offer(event.clone())).is_some()
        };
        listeners.iter_mut().for_each(|all| all.retain(there));
    }

    /// Nothing follows for anybody.
    pub(crate) fn close(&self) {
        let listeners = lock(&self.0).take().unwrap_or_default();
        listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.close());
    }
}

/// Nothing panics while it is held.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_taken_in_time_is_counted_in_its_place() {
        let listeners = Listeners::default();
        let mut unasked = listeners.listen().unwrap();
        let gap = |number: usize| {
            let (channel, reason) = (number.to_string(), crate::event::GapReason::Middle);
            UnaskedEvent::Gap(Gap { channel, position: None, reason })
        };
        for number in 0..DEFAULT_CAPACITY + 3 {
            listeners.tell(&gap(number));
        }
        assert_eq!(unasked.next().await, Some(gap(0)));
        assert_eq!(unasked.next().await, Some(gap(1)));
        listeners.tell(&gap(9_999));
        listeners.close();
        for number in 2..DEFAULT_CAPACITY {
            assert_eq!(unasked.next().await, Some(gap(number)));
        }
        assert_eq!(unasked.next().await, Some(UnaskedEvent::Missed(3)));
        assert_eq!(unasked.next().await, Some(gap(9_999)));
        assert_eq!(unasked.next().await, None);
        assert!(listeners.listen().is_none());
    }
}
