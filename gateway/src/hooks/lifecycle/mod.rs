//! Telling backends, and whoever subscribes to the system channel, of sessions, subscriptions and channels: the hooks
//! `OnConnected`, `OnSubscribed`, `OnUnsubscribed`, `OnDisconnected`, `OnChannelOccupied` and `OnChannelVacated`, and the
//! events of `client_events`.
//!
//! What a node sees of sessions goes into a queue of shared work for each backend and one for the system channel, and from
//! there to where it is to go by whichever node has the lane: so it arrives even if the node that saw it dies. What the
//! broker records of channels is handed on into the same queues. At least once: an answer that is lost makes it come again,
//! under the same `event_id`. All events of a session, or of a channel, are in one lane, so they come in the order in which
//! they were seen; those of different ones come side by side, also while one of them cannot be told.
//!
//! Bounds: [`WAITING`] events in the node while storage is away, [`MOST`] unfinished ones in a lane of a queue; beyond
//! that new ones are dropped, counted and logged. An event that is older than [`OLDEST`] is not told any more, nor one
//! that was not taken in about an hour while others were (`held`).

mod event;
mod held;
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
use inbox::{Inbox, Lane, Work};
use occupancy::HandOn;
use outbox::{Nudges, Queue};
use to_backend::ToBackend;

/// Events that wait in the node to be stored.
const WAITING: usize = 65_536;
/// Events of one queue that may be unfinished in a lane.
const MOST: u64 = 100_000;
/// Why events are dropped.
const REASONS: [&str; 6] = ["node", "full", "old", "refused", "tries", "unreadable"];
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
            let audience = Arc::new(ToBackend(backend));
            delivery.start(&name, |_| InOrder::new(audience.clone()));
        }
        if let Some(system) = system {
            of_channels.push(SYSTEM.to_owned());
            queues.push(Queue { name: SYSTEM.to_owned(), subscriptions: false });
            let audience = Arc::new(system);
            delivery.start(SYSTEM, |_| InOrder::new(audience.clone()));
        }
        if !of_channels.is_empty() {
            broker.record_occupancy();
            let nudges = stored.clone();
            let hand_on = HandOn { lane: 0, broker: broker.clone(), queues: of_channels, nudges };
            delivery.start(OCCUPANCY, |lane| HandOn { lane, ..hand_on.clone() });
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
    /// Starts to work off every lane of a queue that is or becomes this node's, each by a `work` of its own.
    fn start<W: Work>(&self, queue: &str, work: impl Fn(usize) -> W) {
        for (number, nudge) in self.nudges.iter().enumerate() {
            let lane =
                Lane { broker: self.broker.clone(), queue: queue.to_owned(), number, lease: self.lease };
            let inbox = Inbox { work: work(number), lane, nudge: nudge.clone() };
            tokio::spawn(inbox.run(self.stop.clone()));
        }
    }
}

/// Counts events that somebody will not be told of.
fn dropped(reason: &'static str, count: u64) {
    counter!(HOOK_EVENTS_DROPPED, "reason" => reason).increment(count);
}
