//! Telling somebody of events: those of one session or channel in their order, those of others side by side.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::stream::{self, StreamExt as _};
use prost::Message as _;

use super::{
    OLDEST, dropped,
    event::{Fact, Stored},
    inbox::Work,
};
use crate::broker::WorkItem;

/// Sessions and channels that are told of side by side.
const SIDE_BY_SIDE: usize = 8;

/// Somebody who is told of events.
pub(super) trait Audience: Send + Sync + 'static {
    /// Tells; answers whether the event was taken, or never will be.
    ///
    /// Cancel: it is told again.
    fn tell(&self, fact: &Fact) -> impl Future<Output = bool> + Send;
}

/// See the module.
pub(super) struct InOrder<A>(pub A);

impl<A: Audience> Work for InOrder<A> {
    async fn work(&self, _lane: usize, items: Vec<WorkItem>) -> Vec<String> {
        let mut subjects: Vec<Vec<(String, Fact)>> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut done = Vec::new();
        for item in items {
            let Some(fact) = Stored::decode(item.payload).ok().and_then(|stored| stored.fact) else {
                tracing::warn!("an event that cannot be read is dropped");
                dropped("unreadable", 1);
                done.push(item.id);
                continue;
            };
            if now_ms().saturating_sub(fact.time_ms()) > OLDEST.as_millis() as u64 {
                dropped("old", 1);
                done.push(item.id);
                continue;
            }
            let place = *places.entry(fact.subject().to_owned()).or_insert(subjects.len());
            if place == subjects.len() {
                subjects.push(Vec::new());
            }
            subjects[place].push((item.id, fact));
        }
        let telling = stream::iter(subjects).map(|facts| self.tell_in_order(facts));
        let told = telling.buffer_unordered(SIDE_BY_SIDE).collect::<Vec<_>>().await;
        done.extend(told.into_iter().flatten());
        done
    }
}

impl<A: Audience> InOrder<A> {
    /// Tells of one session or channel until it fails; answers what need not be told again.
    async fn tell_in_order(&self, facts: Vec<(String, Fact)>) -> Vec<String> {
        let mut done = Vec::new();
        for (id, fact) in facts {
            if !self.0.tell(&fact).await {
                break;
            }
            done.push(id);
        }
        done
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{broker::Occupancy, channel::Channel};

    /// Takes everything but what is about one channel.
    struct Picky(&'static str, Mutex<Vec<String>>);

    impl Audience for Picky {
        async fn tell(&self, fact: &Fact) -> bool {
            self.1.lock().unwrap().push(fact.subject().to_owned());
            fact.subject() != self.0
        }
    }

    fn item(id: &str, channel: &str, time_ms: u64) -> WorkItem {
        let told = Occupancy { channel: Channel::parse(channel).unwrap(), occupied: true, time_ms };
        let payload = Fact::of_channel(told, id.to_owned()).to_stored().into();
        WorkItem { id: id.to_owned(), payload }
    }

    #[tokio::test]
    async fn one_that_is_not_taken_holds_up_what_follows_of_its_subject_alone() {
        let picky = InOrder(Picky("bad", Mutex::default()));
        let now = now_ms();
        let garbage = WorkItem { id: "5".to_owned(), payload: "\u{1}".into() };
        let items = vec![
            item("1", "bad", now),
            item("2", "good", now),
            item("3", "bad", now),
            item("4", "good", now),
            garbage,
            item("6", "good", now - OLDEST.as_millis() as u64 - 1_000),
        ];
        let mut done = picky.work(0, items).await;
        done.sort_unstable();
        assert_eq!(done, ["2", "4", "5", "6"]);
        let mut told = picky.0.1.into_inner().unwrap();
        told.sort_unstable();
        assert_eq!(told, ["bad", "good", "good"]);
    }
}
