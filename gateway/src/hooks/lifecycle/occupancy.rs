//! From what the broker records of channels to everybody who is to be told of it.

use std::{future::pending, sync::Arc};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    dropped,
    event::Fact,
    held::BATCH,
    inbox::{Done, Wanted, Work},
    outbox::{Nudges, store},
};
use crate::broker::{Broker, Occupancy, WorkItem};

/// Hands each item to the queues of all who are told. One that is handed on twice has the same `event_id` both times.
#[derive(Clone)]
pub(super) struct HandOn {
    pub lane: usize,
    pub broker: Arc<dyn Broker>,
    pub queues: Vec<String>,
    pub nudges: Nudges,
}

impl Work for HandOn {
    fn wanted(&self) -> Wanted {
        Wanted { after: None, most: BATCH }
    }

    async fn work(&mut self, items: Vec<WorkItem>) -> Done {
        let lane = self.lane;
        let mut stored: Vec<Bytes> = Vec::with_capacity(items.len());
        for item in &items {
            match Occupancy::parse(&item.payload) {
                Some(told) => {
                    // With the time: the memory broker counts its items from 1 at every start.
                    let event_id = format!("{lane}-{}-{}", told.time_ms, item.id);
                    stored.push(Fact::of_channel(told, event_id).to_stored().into());
                }
                None => {
                    tracing::warn!(lane, "what is recorded of a channel cannot be read and is dropped");
                    dropped("unreadable", 1);
                }
            }
        }
        if !stored.is_empty() {
            let each = self.queues.iter().map(|queue| (queue, stored.clone()));
            join_all(each.map(|(queue, items)| store(&*self.broker, queue, lane, items, &self.nudges))).await;
        }
        Done { ids: items.into_iter().map(|item| item.id).collect(), away: false }
    }

    async fn more(&mut self) {
        pending().await
    }

    fn forget(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::{super::outbox::nudges, *};
    use crate::{
        broker::{
            Turn,
            memory::{MemoryBroker, MemoryOptions},
        },
        policy::Policies,
    };

    #[tokio::test]
    async fn an_item_goes_to_every_queue_under_the_same_id_however_often() {
        let broker: Arc<dyn Broker> =
            Arc::new(MemoryBroker::new(Policies::default(), MemoryOptions::default()));
        let queues = vec!["one".to_owned(), "other".to_owned()];
        let mut hand_on =
            HandOn { lane: 0, broker: broker.clone(), queues: queues.clone(), nudges: nudges(1).0 };
        let item = |id: &str, payload: &'static str| WorkItem { id: id.into(), payload: payload.into() };
        for _ in 0..2 {
            assert_eq!(hand_on.work(vec![item("7", "o 5 a"), item("8", "?")]).await.ids, ["7", "8"]);
        }
        for queue in queues {
            let Turn::Here(items) = broker.take_work(&queue, 0, None, 9).await.unwrap() else {
                panic!("alone")
            };
            assert_eq!(items.len(), 2);
            assert_eq!(items[0].payload, items[1].payload);
        }
    }
}
