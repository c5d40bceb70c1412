//! Telling backends, and whoever subscribes to the system channel, of sessions, subscriptions and channels: the hooks
//! `OnConnected`, `OnSubscribed`, `OnUnsubscribed`, `OnDisconnected`, `OnChannelOccupied` and `OnChannelVacated`, and the
//! events of `client_events`.
//!
//! What a node sees of sessions goes into a queue of shared work for each backend and one for the system channel, and from
//! there to where it is to go by whichever node has the lane: so it arrives even if the node that saw it dies. What the
//! broker records of channels is handed on into the same queues. At least once: an answer that is lost makes it come again,
//! under the same `event_id`. All events of a session, or of a channel, are in one lane, so they come in the order in which
//! they were seen; those of different ones come side by side.
//!
//! Bounds: [`WAITING`] events in the node while storage is away, [`MOST`] unfinished ones in a lane of a queue; beyond
//! that new ones are dropped, counted and logged. An event that is older than [`OLDEST`] is not told any more.

mod event;
mod in_order;
mod inbox;
mod occupancy;
mod outbox;
mod to_backend;
mod to_channel;

use std::{sync::Arc, time::Duration};

use metrics::counter;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use event::{Happening, Who};
pub use to_channel::SystemChannel;

use super::Hooks;
use crate::{
    broker::{Broker, OCCUPANCY},
    telemetry::metrics::HOOK_EVENTS_DROPPED,
};
use event::Event;
use in_order::InOrder;
use inbox::{Inbox, Work};
use occupancy::HandOn;
use outbox::{Nudges, Queue};
use to_backend::ToBackend;

/// Events that wait in the node to be stored.
const WAITING: usize = 65_536;
/// Events of one queue that may be unfinished in a lane.
const MOST: u64 = 100_000;
/// Why events are dropped.
const REASONS: [&str; 5] = ["node", "full", "old", "refused", "unreadable"];
/// Age from which an event is given up.
const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The queue of the system channel.
const SYSTEM: &str = "client-events";

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
    /// Starts to store and to deliver, until `stop`; `None` if nobody wants to be told. Events are delivered by this node as
    /// well as by any other.
    #[must_use]
    pub fn start(
        hooks: &Hooks,
        system: Option<SystemChannel>,
        broker: &Arc<dyn Broker>,
        lease: Duration,
        stop: &CancellationToken,
    ) -> Option<Self> {
        let backends = hooks.told();
        if backends.is_empty() && system.is_none() {
            return None;
        }
        for reason in REASONS {
            dropped(reason, 0);
        }
        let (stored, nudges) = outbox::nudges(broker.lanes());
        let delivery = Delivery { broker, lease, nudges, stop };
        let (mut queues, mut of_channels) = (Vec::new(), Vec::new());
        for backend in backends {
            let name = format!("hooks:{}", backend.name());
            if backend.occupancy {
                of_channels.push(name.clone());
            }
            queues.push(Queue { name: name.clone(), subscriptions: true });
            delivery.start(&name, InOrder(ToBackend(backend)));
        }
        if let Some(system) = system {
            of_channels.push(SYSTEM.to_owned());
            queues.push(Queue { name: SYSTEM.to_owned(), subscriptions: false });
            delivery.start(SYSTEM, InOrder(system));
        }
        if !of_channels.is_empty() {
            broker.record_occupancy();
            let nudges = stored.clone();
            delivery.start(OCCUPANCY, HandOn { broker: broker.clone(), queues: of_channels, nudges });
        }
        let (sender, events) = mpsc::channel(WAITING);
        tokio::spawn(outbox::run(events, broker.clone(), queues, stored, stop.clone()));
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

/// How queues are worked off.
struct Delivery<'a> {
    broker: &'a Arc<dyn Broker>,
    lease: Duration,
    nudges: Nudges,
    stop: &'a CancellationToken,
}

impl Delivery<'_> {
    /// Starts to work off every lane of a queue that is or becomes this node's.
    fn start<W: Work>(&self, queue: &str, work: W) {
        let work = Arc::new(work);
        for (lane, nudge) in self.nudges.iter().enumerate() {
            let inbox = Inbox {
                work: work.clone(),
                broker: self.broker.clone(),
                queue: queue.to_owned(),
                lane,
                lease: self.lease,
                nudge: nudge.clone(),
            };
            tokio::spawn(inbox.run(self.stop.clone()));
        }
    }
}

/// Counts events that somebody will not be told of.
fn dropped(reason: &'static str, count: u64) {
    counter!(HOOK_EVENTS_DROPPED, "reason" => reason).increment(count);
}
