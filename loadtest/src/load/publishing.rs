//! How a thread of clients publishes: a burst, at a pace, or as much as goes; and how it waits for what comes of it.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    clock,
    pace::Pace,
    traffic::{Counters, Saturation},
    worker::{LOOK, Load, PATIENCE, Worker},
};

/// Publications of one thread that may be without an answer while it publishes a burst.
const BURST: usize = 1_000;
/// After the last delivery that was due.
const AFTERWARDS: Duration = Duration::from_millis(300);

impl Worker {
    /// Publishes so often to each stream of this thread, and waits for the answers.
    pub async fn publish_burst(&self, times: usize) {
        let own = self.own_streams();
        for _ in 0..times {
            for _ in 0..own {
                self.traffic.borrow_mut().publish_next(clock::now(), self.links());
            }
            self.links().flush();
            self.answered_but(BURST).await;
        }
        self.answered_but(0).await;
    }

    /// Waits until no more than so many publications of this thread have no answer, or no answer comes any more.
    async fn answered_but(&self, rest: usize) {
        let (mut last, mut since) = (usize::MAX, clock::now());
        loop {
            let open = self.traffic.borrow().in_flight();
            if open != last {
                (last, since) = (open, clock::now());
            }
            if open <= rest || u128::from(clock::now() - since) > PATIENCE.as_nanos() {
                return;
            }
            sleep(LOOK).await;
        }
    }

    fn own_streams(&self) -> usize {
        let own = self.plan.topology.streams.iter();
        own.filter(|stream| stream.publisher % self.plan.threads == self.index).count()
    }

    /// Publishes as the plan says until that time.
    ///
    /// # Errors
    /// The system has no thread left.
    pub async fn publish_until(&self, end: u64) -> anyhow::Result<()> {
        let streams = self.plan.topology.streams.len().max(1) as f64;
        match self.plan.load {
            Load::Silence => {}
            Load::Rate(rate) => {
                let own = self.own_streams();
                if own > 0 {
                    let offset = self.index as f64 / self.plan.threads as f64;
                    let pace = Pace::new(rate * own as f64 / streams, offset)?;
                    return before(end, self.keep_pace(pace)).await.unwrap_or(Ok(()));
                }
            }
            Load::Saturate(window) => {
                let limit = self.saturation(window);
                self.traffic.borrow_mut().saturate(Some(limit), self.links());
                let pumping = async {
                    loop {
                        self.links().flush();
                        sleep(LOOK).await;
                        // Deliveries to other threads make room, too.
                        self.traffic.borrow_mut().pump(self.links());
                    }
                };
                before::<()>(end, pumping).await;
                self.traffic.borrow_mut().saturate(None, self.links());
                return Ok(());
            }
        }
        self.wait_until(end).await;
        Ok(())
    }

    /// Waits until everything is answered and delivered, or nothing comes any more.
    pub async fn settle(&self) {
        let (mut last, mut since) = (u64::MAX, clock::now());
        loop {
            let Counters { owed, delivered, answered, published, .. } = &*self.stage.counters;
            let (answered, delivered) = (answered.load(Relaxed), delivered.load(Relaxed));
            if answered >= published.load(Relaxed) && delivered >= owed.load(Relaxed) {
                // What comes again, or to the wrong client, may come last.
                return sleep(AFTERWARDS).await;
            }
            let now = clock::now();
            if answered + delivered != last {
                (last, since) = (answered + delivered, now);
            } else if u128::from(now - since) > PATIENCE.as_nanos() {
                return;
            }
            sleep(LOOK * 10).await;
        }
    }

    async fn keep_pace(&self, mut pace: Pace) -> anyhow::Result<()> {
        loop {
            for due in pace.due().await {
                self.traffic.borrow_mut().publish_next(due, self.links());
            }
            self.links().flush();
        }
    }

    /// A window for each stream, and the deliveries of all windows for all threads together.
    fn saturation(&self, window: u64) -> Saturation {
        Saturation { window, deliveries: (window * self.plan.topology.deliveries()).max(1) }
    }
}

/// Does this until that time; its result if it ended before.
async fn before<T>(end: u64, doing: impl Future<Output = T>) -> Option<T> {
    let left = Duration::from_nanos(end.saturating_sub(clock::now()));
    timeout(left, doing).await.ok()
}
