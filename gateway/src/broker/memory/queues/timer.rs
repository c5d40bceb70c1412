//! The task that wakes up when a queue is due.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{select, sync::Notify, time};

use crate::broker::memory::Shared;

/// Brings queues up to date when they are due, until the broker is gone; `earlier` says that one is due before all that
/// were. Safe to cancel: all work is done under the broker's lock, between two waits.
pub(in crate::broker::memory) async fn run(shared: Weak<Shared>, earlier: Arc<Notify>) {
    loop {
        let wait = {
            let Some(shared) = shared.upgrade() else { return };
            let mut state = shared.lock();
            if state.stopped {
                return;
            }
            let now_ms = shared.clock.now_ms();
            state.store.run_due_queues(now_ms);
            state.flush(now_ms);
            let due_ms = state.store.queues.due_ms();
            state.awake_ms = due_ms.unwrap_or(u64::MAX);
            due_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms)))
        };
        let due = async {
            match wait {
                Some(wait) => time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        select! {
            () = due => {}
            () = earlier.notified() => {}
        }
    }
}
