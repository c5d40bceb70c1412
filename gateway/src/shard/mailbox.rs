//! The way into a shard: what other threads hand to it.
//!
//! Deliveries are bounded in bytes. What does not fit is not lost: the channel is marked, and the shard reads the
//! missing part from history ([`Mail::FellBehind`]). Joins and leaves have no history: whoever watches the channel is
//! closed, to come back and ask anew ([`Mail::PresenceLost`]). Only publications without a position, which promise
//! nothing, are dropped, and counted.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::{ConnId, DrainProgress, Errand};
use crate::{
    broker::{Delivery, PresenceEvent, Publication, Sink},
    channel::Channel,
    error::CloseCode,
    position::Position,
    session::Arrival,
    transport::{Accepted, Outlet},
};

/// Bytes of deliveries that may wait for one shard.
const MAILBOX_BYTES: usize = 64 * 1024 * 1024;

/// One thing for the shard to take.
pub enum Mail {
    /// A connection to serve HTTP and WebSocket on.
    Accepted(Accepted),
    /// A session on a transport whose socket lives elsewhere; answered with its id.
    Open(Box<dyn Outlet + Send>, Arrival, oneshot::Sender<ConnId>),
    /// A frame for such a session; the permit bounds how many of a client may wait.
    Frame(ConnId, Bytes, OwnedSemaphorePermit),
    /// Such a transport saw something that ends the session.
    Failed(ConnId, CloseCode, String),
    /// Such a transport has written enough that more may follow.
    Drained(ConnId),
    /// Such a transport is gone.
    Gone(ConnId),
    /// From the broker.
    Delivered(Delivery),
    /// Publications of the channel after the position did not fit into the mailbox.
    FellBehind(Channel, Position),
    /// Joins and leaves of the channel did not fit into the mailbox.
    PresenceLost(Channel),
    /// Something to do with sessions, for others.
    Errand(Box<Errand>),
    /// Tokens were revoked: look whose.
    Revoked,
    /// What storage keeps of sessions, or what others said of them, may have been lost: keep it anew.
    Doubt,
    /// Send every client away, evenly over that time, and tell how far that is.
    Drain(Duration, watch::Sender<Option<DrainProgress>>),
    /// End, with whatever is still connected.
    Stop,
}

/// The sending side; cheap to clone.
#[derive(Clone)]
pub struct Mailbox {
    queue: mpsc::UnboundedSender<Mail>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    /// Whether `behind` may be non-empty; spares the lock while all is well.
    any_behind: AtomicBool,
    behind: Mutex<HashSet<Channel>>,
    /// The same for joins and leaves.
    any_lost: AtomicBool,
    lost: Mutex<HashSet<Channel>>,
}

/// The shard's side.
pub struct Inbox {
    queue: mpsc::UnboundedReceiver<Mail>,
    shared: Arc<Shared>,
}

/// A mailbox and its inbox.
#[must_use]
pub fn mailbox() -> (Mailbox, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    (Mailbox { queue: sender, shared: shared.clone() }, Inbox { queue: receiver, shared })
}

impl Mailbox {
    /// One that nobody reads.
    #[cfg(test)]
    pub fn unheard() -> Self {
        mailbox().0
    }

    /// Hands `mail` over; `false` if the shard is gone.
    pub fn send(&self, mail: Mail) -> bool {
        self.queue.send(mail).is_ok()
    }

    /// Marks the channel of a publication that does not fit; only the first of a row sends mail.
    fn fell_behind(&self, publication: &Publication) {
        let Some(position) = publication.position else {
            metrics::counter!(crate::telemetry::metrics::SHARD_DROPPED).increment(1);
            return;
        };
        let mut behind = self.shared.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if behind.insert(publication.channel.clone()) {
            self.shared.any_behind.store(true, Ordering::Release);
            let before = Position { offset: position.offset.saturating_sub(1), ..position };
            self.send(Mail::FellBehind(publication.channel.clone(), before));
        }
    }

    fn is_behind(&self, channel: &Channel) -> bool {
        self.shared.any_behind.load(Ordering::Acquire)
            && self.shared.behind.lock().unwrap_or_else(PoisonError::into_inner).contains(channel)
    }

    /// Marks the channel of a join or leave that does not fit; only the first of a row sends mail.
    fn lose(&self, event: &PresenceEvent) {
        let mut lost = self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.insert(event.channel.clone()) {
            self.shared.any_lost.store(true, Ordering::Release);
            self.send(Mail::PresenceLost(event.channel.clone()));
        }
    }

    fn is_lost(&self, channel: &Channel) -> bool {
        self.shared.any_lost.load(Ordering::Acquire)
            && self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner).contains(channel)
    }
}

impl Sink for Mailbox {
    fn deliver(&self, delivery: Delivery) {
        if is_bounded(&delivery) {
            let size = delivery.weight();
            let full = self.shared.queued_bytes.load(Ordering::Relaxed) + size > MAILBOX_BYTES;
            match &delivery {
                Delivery::Publication(publication) if full || self.is_behind(&publication.channel) => {
                    return self.fell_behind(publication);
                }
                Delivery::Presence(event) if full || self.is_lost(&event.channel) => return self.lose(event),
                _ => {}
            }
            self.shared.queued_bytes.fetch_add(size, Ordering::Relaxed);
        }
        self.send(Mail::Delivered(delivery));
    }
}

/// Whether a delivery counts for the bound. Gaps do not: they are few, and nothing could tell of one that is missing.
fn is_bounded(delivery: &Delivery) -> bool {
    !matches!(delivery, Delivery::Gap { .. })
}

impl Inbox {
    /// Waits for mail and moves up to `limit` items to `batch`; `false` when all senders are gone. Safe to cancel:
    /// what was not moved stays.
    pub async fn receive(&mut self, batch: &mut Vec<Mail>, limit: usize) -> bool {
        let received = self.queue.recv_many(batch, limit).await;
        for mail in &batch[batch.len() - received..] {
            match mail {
                Mail::Delivered(delivery) if is_bounded(delivery) => {
                    self.shared.queued_bytes.fetch_sub(delivery.weight(), Ordering::Relaxed);
                }
                Mail::FellBehind(channel, _) => {
                    let mut behind = self.shared.behind.lock().unwrap_or_else(PoisonError::into_inner);
                    behind.remove(channel);
                    self.shared.any_behind.store(!behind.is_empty(), Ordering::Release);
                }
                Mail::PresenceLost(channel) => {
                    let mut lost = self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner);
                    lost.remove(channel);
                    self.shared.any_lost.store(!lost.is_empty(), Ordering::Release);
                }
                _ => {}
            }
        }
        received > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Member, PresenceAction};

    #[tokio::test]
    async fn joins_and_leaves_that_do_not_fit_are_told_as_lost_once() {
        let (mailbox, mut inbox) = mailbox();
        let delivery = |name: &str| {
            Delivery::Presence(Arc::new(PresenceEvent {
                channel: Channel::parse(name).unwrap(),
                action: PresenceAction::Join,
                member: Arc::new(Member::default()),
            }))
        };
        let fits = MAILBOX_BYTES / delivery("a").weight();
        for _ in 0..fits + 10 {
            mailbox.deliver(delivery("a"));
        }
        let mut batch = Vec::new();
        assert!(inbox.receive(&mut batch, 1).await);
        // There is room again, but what follows what is lost is worth nothing.
        mailbox.deliver(delivery("a"));
        mailbox.deliver(delivery("b"));
        assert!(inbox.receive(&mut batch, usize::MAX).await);
        assert!(batch[..fits].iter().all(|mail| matches!(mail, Mail::Delivered(_))));
        let [Mail::PresenceLost(channel), Mail::Delivered(Delivery::Presence(other))] = &batch[fits..] else {
            panic!("{} after {fits}", batch.len());
        };
        assert_eq!((channel.as_str(), other.channel.as_str()), ("a", "b"));
        mailbox.deliver(delivery("a"));
        batch.clear();
        assert!(inbox.receive(&mut batch, 2).await);
        assert!(matches!(&batch[..], [Mail::Delivered(Delivery::Presence(_))]));
        assert_eq!(mailbox.shared.queued_bytes.load(Ordering::Relaxed), 0);
    }
}
