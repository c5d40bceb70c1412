//! How long a client may take to read an answer that is complete: one that does not read would hold its connection for ever.

use std::{cell::Cell, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Time for the rest of an answer, as WebSocket clients have for what is left before the close.
const REST: Duration = Duration::from_secs(30);

/// Of one connection.
#[derive(Default)]
pub(in crate::transport) struct Patience {
    until: Cell<Option<Instant>>,
    changed: Notify,
}

impl Patience {
    /// A request is being answered, or a stream goes on.
    pub fn rest_comes_later(&self) {
        self.until.set(None);
        self.changed.notify_one();
    }

    /// Nothing is added to what is on its way.
    pub fn rest_is_there(&self) {
        self.until.set(Some(Instant::now() + REST));
        self.changed.notify_one();
    }

    /// Resolves when it is over. Cancel: safe.
    pub async fn ends(&self) {
        loop {
            match self.until.get() {
                None => self.changed.notified().await,
                Some(until) => tokio::select! {
                    () = sleep_until(until) => return,
                    () = self.changed.notified() => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_only_when_all_of_an_answer_is_there_and_not_taken() {
        let patience = Patience::default();
        tokio::time::advance(2 * REST).await;
        assert!(patience.ends().now_or_never().is_none());
        patience.rest_is_there();
        tokio::time::advance(REST / 2).await;
        patience.rest_comes_later();
        tokio::time::advance(2 * REST).await;
        assert!(patience.ends().now_or_never().is_none());
        patience.rest_is_there();
        patience.ends().await;
    }
}
