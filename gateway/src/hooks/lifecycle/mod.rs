//! Telling backends of sessions and subscriptions: `OnConnected`, `OnSubscribed`, `OnUnsubscribed`, `OnDisconnected`.
//!
//! What a node sees goes into a queue of shared work for each backend, and from there to the backend by whichever node has
//! the lane: so it arrives even if the node that saw it dies. At least once: an answer that is lost makes it come again,
//! under the same `event_id`. All events of a session are in one lane, so they come in the order in which its node saw
//! them; those of different sessions come side by side.
//!
//! Bounds: [`WAITING`] events in the node while storage is away, [`MOST`] unfinished ones in a lane of a backend; beyond
//! that new ones are dropped, counted and logged. An event that is older than [`OLDEST`] is not told any more.

mod event;
mod inbox;
mod outbox;

use std::{sync::Arc, time::Duration};

use metrics::counter;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use event::{Happening, Who};

use super::Hooks;
use crate::{broker::Broker, telemetry::metrics::HOOK_EVENTS_DROPPED};
use event::Event;

/// Events that wait in the node to be stored.
const WAITING: usize = 65_536;
/// Events of one backend that may be unfinished in a lane.
const MOST: u64 = 100_000;
/// Why events are dropped.
const REASONS: [&str; 5] = ["node", "full", "old", "refused", "unreadable"];
/// Age from which an event is given up.
const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Where shards tell what happened. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lifecycle(mpsc::Sender<Told>);

#[derive(Debug)]
enum Told {
    Event(Event),
    /// To be answered when all before it is stored.
    Flush(oneshot::Sender<()>),
}

impl Lifecycle {
    /// Starts to store and to deliver, until `stop`; `None` if no backend wants to be told. Events are delivered by this
    /// node as well as by any other.
    #[must_use]
    pub fn start(
        hooks: &Hooks,
        broker: &Arc<dyn Broker>,
        lease: Duration,
        stop: &CancellationToken,
    ) -> Option<Self> {
        let backends = hooks.told();
        if backends.is_empty() {
            return None;
        }
        for reason in REASONS {
            dropped(reason, 0);
        }
        let (sender, events) = mpsc::channel(WAITING);
        let queues: Vec<_> = backends.iter().map(|backend| queue(backend.name())).collect();
        let (stored, nudges) = outbox::nudges(broker.lanes());
        tokio::spawn(outbox::run(events, broker.clone(), queues.clone(), stored, stop.clone()));
        for (backend, queue) in backends.iter().zip(queues) {
            for (lane, nudge) in nudges.iter().enumerate() {
                let inbox = inbox::Inbox {
                    backend: backend.clone(),
                    broker: broker.clone(),
                    queue: queue.clone(),
                    lane,
                    lease,
                    nudge: nudge.clone(),
                };
                tokio::spawn(inbox.run(stop.clone()));
            }
        }
        Some(Self(sender))
    }

    /// Tells that something happened. Returns at once.
    pub fn tell(&self, who: Who<'_>, unix_ms: u64, happening: Happening<'_>) {
        if self.0.try_send(Told::Event(Event::new(who, unix_ms, happening))).is_err() {
            dropped("node", 1);
        }
    }

    /// Waits until all that was told before is stored. Cancel: safe.
    pub async fn flush(&self) {
        let (done, stored) = oneshot::channel();
        if self.0.send(Told::Flush(done)).await.is_ok() {
            // Fails if the node ends.
            let _ = stored.await;
        }
    }
}

/// The queue of a backend.
fn queue(backend: &str) -> String {
    format!("hooks:{backend}")
}

/// Counts events that no backend will be told of.
fn dropped(reason: &'static str, count: u64) {
    counter!(HOOK_EVENTS_DROPPED, "reason" => reason).increment(count);
}
