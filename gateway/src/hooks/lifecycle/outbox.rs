//! From the shards into storage, in order. While storage is away it is tried again and again, and what comes meanwhile
//! waits in the channel, which is bounded.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{MOST, Told, dropped};
use crate::broker::Broker;

/// Events that are stored together.
const BATCH: usize = 256;
/// First and longest pause before what could not be stored is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Where events of sessions go.
pub(super) struct Queue {
    pub name: String,
    /// Whether it gets those about subscriptions as well.
    pub subscriptions: bool,
}

/// Wakes those who deliver a lane when this node has stored something in it.
pub(super) type Nudges = Arc<[Arc<Notify>]>;

/// One for each lane: for who stores, and for those who deliver.
pub(super) fn nudges(lanes: usize) -> (Nudges, Nudges) {
    let nudges: Nudges = (0..lanes).map(|_| Arc::default()).collect();
    (nudges.clone(), nudges)
}

/// Stores until `stop`, or until nobody can tell any more.
pub(super) async fn run(
    mut told: mpsc::Receiver<Told>,
    broker: Arc<dyn Broker>,
    queues: Vec<Queue>,
    nudges: Nudges,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let storing = async {
        while told.recv_many(&mut batch, BATCH).await > 0 {
            // By lane: all events, and those that are not about subscriptions.
            let mut lanes: Vec<[Vec<Bytes>; 2]> = vec![Default::default(); nudges.len()];
            let mut flushed = Vec::new();
            for told in batch.drain(..) {
                match told {
                    Told::Event(event) => {
                        let lane = broker.lane_of(&event.session_id);
                        if let Some([all, of_sessions]) = lanes.get_mut(lane) {
                            let stored = Bytes::from(event.stored);
                            if !event.of_subscription {
                                of_sessions.push(stored.clone());
                            }
                            all.push(stored);
                        }
                    }
                    Told::Flush(done) => flushed.push(done),
                }
            }
            let each = lanes.into_iter().enumerate().flat_map(|(lane, [all, of_sessions])| {
                queues.iter().map(move |queue| {
                    (queue, lane, if queue.subscriptions { all.clone() } else { of_sessions.clone() })
                })
            });
            let stores = each.filter(|(_, _, items)| !items.is_empty());
            let stores =
                stores.map(|(queue, lane, items)| store(&*broker, &queue.name, lane, items, &nudges));
            join_all(stores).await;
            for done in flushed {
                // Whoever waits no longer does not mind.
                let _ = done.send(());
            }
        }
    };
    tokio::select! {
        () = storing => {}
        () = stop.cancelled() => {}
    }
}

/// Stores the items of one lane, however long that takes.
pub(super) async fn store(broker: &dyn Broker, queue: &str, lane: usize, items: Vec<Bytes>, nudges: &Nudges) {
    let mut pause = PAUSES.0;
    loop {
        match broker.add_work(queue, lane, items.clone(), MOST).await {
            Ok(added) => {
                let lost = items.len().saturating_sub(added);
                if lost > 0 {
                    tracing::warn!(
                        queue,
                        lane,
                        lost,
                        "as many events wait as are kept: these will not be told"
                    );
                    dropped("full", lost as u64);
                }
                if let Some(nudge) = nudges.get(lane) {
                    nudge.notify_waiters();
                }
                return;
            }
            Err(error) => {
                if pause == PAUSES.0 {
                    tracing::warn!(queue, lane, %error, "events cannot be stored yet");
                }
                sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}
