//! From storage to where it is to go: one lane of one queue, by the node that has it.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Turn, WorkItem};

/// How often a lane is looked at, unless something is known to be there.
const LOOK: Duration = Duration::from_millis(250);
/// First and longest pause while not all can be done.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Longest that giving up the lane may take at the end.
const GIVE_UP: Duration = Duration::from_secs(1);

/// Which items are to be read next.
pub(super) struct Wanted {
    /// Those after this one; `None`: from the first one on.
    pub after: Option<String>,
    /// At most so many; with 0 none, and the lane is only kept.
    pub most: usize,
}

/// What has been done.
pub(super) struct Done {
    /// Items that need not be done again.
    pub ids: Vec<String>,
    /// Whether nothing can be done for now.
    pub away: bool,
}

/// What is done with the items of a lane.
pub(super) trait Work: Send + 'static {
    /// Which items [`Self::work`] gets next.
    fn wanted(&self) -> Wanted;

    /// Does items of the lane, as far as that is possible now. It may be none: something may be left of former ones.
    ///
    /// Cancel: some may be done; all of them come again, to this node or another. [`Self::forget`] is to follow.
    fn work(&mut self, items: Vec<WorkItem>) -> impl Future<Output = Done> + Send;

    /// Waits until something is to be done that needs no new item. Cancel: safe.
    fn more(&mut self) -> impl Future<Output = ()> + Send;

    /// Begins anew: what was not done may be done by another node.
    fn forget(&mut self);
}

/// What comes after items have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The next ones.
    Read,
    /// Nothing, until there is something.
    Wait,
    /// Nothing for now.
    Rest,
}

/// See the module.
pub(super) struct Inbox<W> {
    pub work: W,
    pub lane: Lane,
    /// Somebody here has stored something in this lane.
    pub nudge: Arc<Notify>,
}

/// A lane of a queue in storage.
pub(super) struct Lane {
    pub broker: Arc<dyn Broker>,
    pub queue: String,
    pub number: usize,
    /// How long the lane is this node's without a word.
    pub lease: Duration,
}

impl<W: Work> Inbox<W> {
    /// Delivers until `stop`, then lets another node have the lane.
    pub async fn run(mut self, stop: CancellationToken) {
        let stopped = stop.run_until_cancelled(self.keep_delivering()).await.is_none();
        if stopped {
            // Nothing is told any more when another node begins.
            self.work.forget();
            // If it fails, the lease ends by itself.
            let given_up = self.lane.broker.give_up_work(&self.lane.queue, self.lane.number);
            let _ = timeout(GIVE_UP, given_up).await;
        }
    }

    async fn keep_delivering(&mut self) {
        let mut pause = PAUSES.0;
        loop {
            let nudge = self.nudge.clone();
            let mut nudged = pin!(nudge.notified());
            // From here on, so that nothing that is stored while the lane is read goes unnoticed.
            nudged.as_mut().enable();
            match self.lane.take(self.work.wanted()).await {
                Ok(Turn::Here(items)) => {
                    let next = self.deliver(items).await;
                    if next == Next::Rest {
                        self.lane.rest(pause).await;
                        pause = (pause * 2).min(PAUSES.1);
                        continue;
                    }
                    pause = PAUSES.0;
                    if next == Next::Wait {
                        tokio::select! {
                            () = nudged => {}
                            () = self.work.more() => {}
                            () = sleep(LOOK.min(self.lane.lease / 3)) => {}
                        }
                    }
                }
                Ok(Turn::Elsewhere) => {
                    self.work.forget();
                    // Not all nodes at the same time.
                    sleep((self.lane.lease / 3).mul_f64(0.5 + rand::random::<f64>())).await;
                }
                Err(BrokerError::Stopped) => return,
                Err(error) => {
                    let Lane { queue, number, .. } = &self.lane;
                    tracing::debug!(queue, lane = number, %error, "events cannot be read");
                    sleep(PAUSES.0).await;
                }
            }
        }
    }

    /// Has the items done.
    async fn deliver(&mut self, items: Vec<WorkItem>) -> Next {
        let none = items.is_empty();
        let done = tokio::select! {
            done = self.work.work(items) => Some(done),
            // Somebody else has the lane, and does it all again.
            () = self.lane.stay() => None,
        };
        let Some(Done { ids, away }) = done else {
            self.work.forget();
            return Next::Rest;
        };
        let next = match away {
            true => Next::Rest,
            false if none && ids.is_empty() => Next::Wait,
            false => Next::Read,
        };
        if ids.is_empty() {
            return next;
        }
        let Lane { broker, queue, number, .. } = &self.lane;
        if let Err(error) = broker.finish_work(queue, *number, ids).await {
            tracing::debug!(queue, lane = number, %error, "events that were told will be told again");
            self.work.forget();
            return Next::Rest;
        }
        next
    }
}

impl Lane {
    async fn take(&self, wanted: Wanted) -> Result<Turn, BrokerError> {
        self.broker.take_work(&self.queue, self.number, wanted.after, wanted.most).await
    }

    /// Waits while the lane stays this node's.
    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stay() => {}
        }
    }

    /// Keeps the lane; ends when it is no longer this node's.
    async fn stay(&self) {
        let mut beats = interval(self.lease / 3);
        beats.tick().await;
        loop {
            beats.tick().await;
            if let Ok(Turn::Elsewhere) = self.broker.take_work(&self.queue, self.number, None, 0).await {
                return;
            }
        }
    }
}
