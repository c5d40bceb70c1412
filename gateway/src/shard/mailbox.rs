//! The way into a shard: what other threads hand to it.
//!
//! Deliveries are bounded in bytes. What does not fit is not lost: the channel is marked, and the shard reads the
//! missing part from history ([`Mail::FellBehind`]). Only publications without a position, which promise nothing,
//! are dropped, and counted.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::{ConnId, DrainProgress};
use crate::{
    broker::{Delivery, Publication, Sink},
    channel::Channel,
    error::CloseCode,
    position::Position,
    transport::Outlet,
};

/// Bytes of deliveries that may wait for one shard.
const MAILBOX_BYTES: usize = 64 * 1024 * 1024;

/// One thing for the shard to take.
pub enum Mail {
    /// A connection to serve HTTP and WebSocket on.
    Accepted(std::net::TcpStream, SocketAddr),
    /// A session on a transport whose socket lives elsewhere; answered with its id.
    Open(Box<dyn Outlet + Send>, oneshot::Sender<ConnId>),
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
}

impl Sink for Mailbox {
    fn deliver(&self, delivery: Delivery) {
        if let Delivery::Publication(publication) = &delivery {
            let size = delivery.weight();
            let queued = self.shared.queued_bytes.load(Ordering::Relaxed);
            if queued + size > MAILBOX_BYTES || self.is_behind(&publication.channel) {
                return self.fell_behind(publication);
            }
            self.shared.queued_bytes.fetch_add(size, Ordering::Relaxed);
        }
        self.send(Mail::Delivered(delivery));
    }
}

impl Inbox {
    /// Waits for mail and moves up to `limit` items to `batch`; `false` when all senders are gone. Safe to cancel:
    /// what was not moved stays.
    pub async fn receive(&mut self, batch: &mut Vec<Mail>, limit: usize) -> bool {
        let received = self.queue.recv_many(batch, limit).await;
        for mail in &batch[batch.len() - received..] {
            match mail {
                Mail::Delivered(delivery @ Delivery::Publication(_)) => {
                    self.shared.queued_bytes.fetch_sub(delivery.weight(), Ordering::Relaxed);
                }
                Mail::FellBehind(channel, _) => {
                    let mut behind = self.shared.behind.lock().unwrap_or_else(PoisonError::into_inner);
                    behind.remove(channel);
                    self.shared.any_behind.store(!behind.is_empty(), Ordering::Release);
                }
                _ => {}
            }
        }
        received > 0
    }
}
