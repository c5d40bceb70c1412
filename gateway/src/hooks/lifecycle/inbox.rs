//! From storage to a backend: one lane of one backend, by the node that has it.

use std::{
    collections::HashMap,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::stream::{self, StreamExt as _};
use prost::Message as _;
use tokio::{
    sync::Notify,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{OLDEST, dropped, event::Stored};
use crate::{
    broker::{Broker, BrokerError, Turn, WorkItem},
    hooks::{Hook, HookError, backend::Backend},
};

/// Events that are taken together.
const BATCH: usize = 64;
/// Sessions that are told of side by side.
const SIDE_BY_SIDE: usize = 8;
/// How often a lane is looked at, unless something is known to be there.
const LOOK: Duration = Duration::from_millis(250);
/// First and longest pause while the backend cannot be told.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Longest that giving up the lane may take at the end.
const GIVE_UP: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Inbox {
    pub backend: Arc<Backend>,
    pub broker: Arc<dyn Broker>,
    pub queue: String,
    pub lane: usize,
    /// How long the lane is this node's without a word.
    pub lease: Duration,
    /// Somebody here has stored something in this lane.
    pub nudge: Arc<Notify>,
}

impl Inbox {
    /// Delivers until `stop`, then lets another node have the lane.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.keep_delivering() => {}
            () = stop.cancelled() => {
                // If it fails, the lease ends by itself.
                let _ = timeout(GIVE_UP, self.broker.give_up_work(&self.queue, self.lane)).await;
            }
        }
    }

    async fn keep_delivering(&self) {
        let mut pause = PAUSES.0;
        loop {
            let mut nudged = pin!(self.nudge.notified());
            // From here on, so that nothing that is stored while the lane is read goes unnoticed.
            nudged.as_mut().enable();
            match self.broker.take_work(&self.queue, self.lane, BATCH).await {
                Ok(Turn::Here(items)) if items.is_empty() => {
                    tokio::select! {
                        () = nudged => {}
                        () = sleep(LOOK.min(self.lease / 3)) => {}
                    }
                }
                Ok(Turn::Here(items)) => {
                    let all = self.deliver(items).await;
                    if all {
                        pause = PAUSES.0;
                    } else {
                        self.rest(pause).await;
                        pause = (pause * 2).min(PAUSES.1);
                    }
                }
                // Not all nodes at the same time.
                Ok(Turn::Elsewhere) => sleep((self.lease / 3).mul_f64(0.5 + rand::random::<f64>())).await,
                Err(BrokerError::Stopped) => return,
                Err(error) => {
                    tracing::debug!(queue = self.queue, lane = self.lane, %error, "events cannot be read");
                    sleep(PAUSES.0).await;
                }
            }
        }
    }

    /// Waits while the lane stays this node's.
    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stay() => {}
        }
    }

    /// Tells the backend; answers whether it was told of all.
    async fn deliver(&self, items: Vec<WorkItem>) -> bool {
        let count = items.len();
        let mut sessions: Vec<Vec<(String, Stored)>> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut done = Vec::new();
        for item in items {
            let stored = Stored::decode(item.payload).unwrap_or_default();
            let Some((session, time_ms)) = stored.of() else {
                tracing::warn!(queue = self.queue, "an event that cannot be read is dropped");
                dropped("unreadable", 1);
                done.push(item.id);
                continue;
            };
            if now_ms().saturating_sub(time_ms) > OLDEST.as_millis() as u64 {
                dropped("old", 1);
                done.push(item.id);
                continue;
            }
            let place = *places.entry(session.to_owned()).or_insert(sessions.len());
            if place == sessions.len() {
                sessions.push(Vec::new());
            }
            sessions[place].push((item.id, stored));
        }
        let telling = stream::iter(sessions).map(|events| self.tell_in_order(events));
        let telling = telling.buffer_unordered(SIDE_BY_SIDE).collect::<Vec<_>>();
        let told = tokio::select! {
            told = telling => told,
            // Somebody else has the lane, and does it all again.
            () = self.stay() => return false,
        };
        done.extend(told.into_iter().flatten());
        let all = done.len() == count;
        if let Err(error) = self.broker.finish_work(&self.queue, self.lane, done).await {
            tracing::debug!(queue = self.queue, lane = self.lane, %error, "events that were told will be told again");
            return false;
        }
        all
    }

    /// Tells of one session until it fails; answers what need not be told again.
    async fn tell_in_order(&self, events: Vec<(String, Stored)>) -> Vec<String> {
        let mut done = Vec::new();
        for (id, stored) in events {
            let told = match stored {
                Stored { connected: Some(event), .. } => self.tell(&event).await,
                Stored { subscribed: Some(event), .. } => self.tell(&event).await,
                Stored { unsubscribed: Some(event), .. } => self.tell(&event).await,
                Stored { disconnected: Some(event), .. } => self.tell(&event).await,
                _ => true,
            };
            if !told {
                break;
            }
            done.push(id);
        }
        done
    }

    /// Whether the backend has taken the event, or will never take it.
    async fn tell<H: Hook>(&self, event: &H) -> bool {
        match self.backend.ask(event, Duration::MAX).await {
            Ok(_) => true,
            Err(error @ (HookError::Refused { .. } | HookError::Failed { unwell: false, .. })) => {
                tracing::debug!(backend = self.backend.name(), hook = H::NAME, %error, "the backend does not want an event");
                dropped("refused", 1);
                true
            }
            Err(_) => false,
        }
    }

    /// Keeps the lane; ends when it is no longer this node's.
    async fn stay(&self) {
        let mut beats = interval(self.lease / 3);
        beats.tick().await;
        loop {
            beats.tick().await;
            if let Ok(Turn::Elsewhere) = self.broker.take_work(&self.queue, self.lane, 0).await {
                return;
            }
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
