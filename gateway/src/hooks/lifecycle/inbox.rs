//! From storage to where it is to go: one lane of one queue, by the node that has it.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Turn, WorkItem};

/// Items that are taken together.
const BATCH: usize = 64;
/// How often a lane is looked at, unless something is known to be there.
const LOOK: Duration = Duration::from_millis(250);
/// First and longest pause while not all can be done.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Longest that giving up the lane may take at the end.
const GIVE_UP: Duration = Duration::from_secs(1);

/// What is done with the items of a queue.
pub(super) trait Work: Send + Sync + 'static {
    /// Does items of a lane, as far as that is possible now; answers the ids of those that need not be done again.
    ///
    /// Cancel: some may be done; all of them come again, to this node or another.
    fn work(&self, lane: usize, items: Vec<WorkItem>) -> impl Future<Output = Vec<String>> + Send;
}

/// See the module.
pub(super) struct Inbox<W> {
    pub work: Arc<W>,
    pub broker: Arc<dyn Broker>,
    pub queue: String,
    pub lane: usize,
    /// How long the lane is this node's without a word.
    pub lease: Duration,
    /// Somebody here has stored something in this lane.
    pub nudge: Arc<Notify>,
}

impl<W: Work> Inbox<W> {
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

    /// Has the items done; answers whether all are.
    async fn deliver(&self, items: Vec<WorkItem>) -> bool {
        let count = items.len();
        let done = tokio::select! {
            done = self.work.work(self.lane, items) => done,
            // Somebody else has the lane, and does it all again.
            () = self.stay() => return false,
        };
        let all = done.len() == count;
        if let Err(error) = self.broker.finish_work(&self.queue, self.lane, done).await {
            tracing::debug!(queue = self.queue, lane = self.lane, %error, "events that were told will be told again");
            return false;
        }
        all
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
