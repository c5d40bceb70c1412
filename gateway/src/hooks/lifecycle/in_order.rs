//! Telling somebody of events: those of one session or channel in their order, those of others side by side. One that is
//! not taken holds up what follows of its own session or channel; it is tried again beside the others.

use std::{
    collections::HashMap,
    future::pending,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::stream::{self, StreamExt as _};
use prost::Message as _;
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    OLDEST, dropped,
    event::{Fact, Stored},
    held::{Held, Item, Told, Tried},
    inbox::{Done, Wanted, Work},
};
use crate::broker::WorkItem;

/// Sessions and channels that are told of side by side.
const SIDE_BY_SIDE: usize = 8;
/// Those that are tried again at a time, beside these: so they cannot hold them up.
const AGAIN: usize = 4;

/// Somebody who is told of events.
pub(super) trait Audience: Send + Sync + 'static {
    /// Tells of an event.
    ///
    /// Cancel: it is told again.
    fn tell(&self, fact: &Fact) -> impl Future<Output = Told> + Send;
}

/// One lane's events on their way. See the module.
pub(super) struct InOrder<A> {
    audience: Arc<A>,
    held: Held,
    /// Those that are tried again now.
    trying: JoinSet<(String, Told)>,
    /// What became of one of them, until it is looked at.
    tried: Option<Result<(String, Told), JoinError>>,
}

/// What became of the events of one session or channel.
struct Outcome {
    done: Vec<String>,
    /// The first that is not done, what it was told, and whether others come after it.
    first: Option<(Item, Told, bool)>,
}

impl<A: Audience> InOrder<A> {
    pub fn new(audience: Arc<A>) -> Self {
        Self { audience, held: Held::new(Instant::now()), trying: JoinSet::new(), tried: None }
    }

    /// Sorts items by what they are about, without those that are not to be told, or not now.
    fn sort(&mut self, items: Vec<WorkItem>, done: &mut Vec<String>) -> Vec<Vec<Item>> {
        let mut subjects: Vec<Vec<Item>> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for item in items {
            let Some(fact) = Stored::decode(&*item.payload).ok().and_then(|stored| stored.fact) else {
                tracing::warn!("an event that cannot be read is dropped");
                dropped("unreadable", 1);
                done.push(item.id);
                continue;
            };
            if self.held.passes(&item, fact.subject()) {
                continue;
            }
            if is_old(&fact) {
                dropped("old", 1);
                done.push(item.id);
                continue;
            }
            let place = *places.entry(fact.subject().to_owned()).or_insert(subjects.len());
            if place == subjects.len() {
                subjects.push(Vec::new());
            }
            subjects[place].push(Item { id: item.id, fact });
        }
        subjects
    }

    /// Looks at what became of those that were tried again, and tries those whose time has come. `false`: the lane is to be
    /// read from its beginning, whatever has been read.
    fn try_again(&mut self, done: &mut Vec<String>) -> bool {
        while let Some(tried) = self.tried.take().or_else(|| self.trying.try_join_next()) {
            let Ok((subject, told)) = tried else {
                tracing::error!("telling of an event panicked: the lane is read again from its beginning");
                self.forget();
                return false;
            };
            match self.held.tried(&subject, told, Instant::now()) {
                Tried::Done(id) => done.push(id),
                Tried::GivenUp(id) => {
                    tracing::warn!(subject, "an event is given up: it was never taken, though others were");
                    dropped("tries", 1);
                    done.push(id);
                }
                Tried::Held => {}
            }
        }
        while self.trying.len() < AGAIN
            && let Some(item) = self.held.next_due(Instant::now())
        {
            let audience = self.audience.clone();
            self.trying.spawn(async move {
                let told = if is_old(&item.fact) {
                    dropped("old", 1);
                    Told::Taken
                } else {
                    audience.tell(&item.fact).await
                };
                (item.fact.subject().to_owned(), told)
            });
        }
        true
    }
}

impl<A: Audience> Work for InOrder<A> {
    fn wanted(&self) -> Wanted {
        let (after, most) = self.held.wanted();
        Wanted { after, most }
    }

    async fn work(&mut self, items: Vec<WorkItem>) -> Done {
        let end = items.len() < self.wanted().most;
        let last = items.last().map(|item| item.id.clone());
        let mut done = Vec::new();
        if !self.try_again(&mut done) {
            return Done { ids: done, away: false };
        }
        let subjects = self.sort(items, &mut done);
        let audience = &*self.audience;
        let telling = stream::iter(subjects).map(|items| tell_in_order(audience, items));
        let outcomes = telling.buffer_unordered(SIDE_BY_SIDE).collect::<Vec<_>>().await;
        let mut away = false;
        for outcome in outcomes {
            self.held.count_taken(outcome.done.len());
            done.extend(outcome.done);
            match outcome.first {
                Some((item, Told::NotTaken, more)) => self.held.hold(item, more, Instant::now()),
                Some(_) => away = true,
                None => {}
            }
        }
        self.held.read(last, end, away, Instant::now());
        Done { ids: done, away }
    }

    async fn more(&mut self) {
        let (_, most) = self.held.wanted();
        if most > 0 && self.held.to_read_again() {
            return;
        }
        let due = self.held.due().filter(|_| self.trying.len() < AGAIN);
        let due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        tokio::select! {
            Some(tried) = self.trying.join_next() => self.tried = Some(tried),
            () = due => {}
        }
    }

    fn forget(&mut self) {
        self.held = Held::new(Instant::now());
        self.trying = JoinSet::new();
        self.tried = None;
    }
}

/// Tells of one session or channel until it fails.
async fn tell_in_order<A: Audience>(audience: &A, items: Vec<Item>) -> Outcome {
    let mut outcome = Outcome { done: Vec::new(), first: None };
    let mut items = items.into_iter();
    while let Some(item) = items.next() {
        match audience.tell(&item.fact).await {
            Told::Taken => outcome.done.push(item.id),
            told => {
                outcome.first = Some((item, told, items.len() > 0));
                break;
            }
        }
    }
    outcome
}

fn is_old(fact: &Fact) -> bool {
    now_ms().saturating_sub(fact.time_ms()) > OLDEST.as_millis() as u64
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use super::*;
    use crate::{broker::Occupancy, channel::Channel};

    /// Takes everything but what is about `bad`, which it refuses or never answers, and takes nothing while it is `away`.
    #[derive(Default)]
    struct Picky {
        told: Mutex<Vec<String>>,
        bad: Mutex<Option<&'static str>>,
        hangs: Mutex<bool>,
        away: Mutex<bool>,
    }

    impl Audience for Picky {
        async fn tell(&self, fact: &Fact) -> Told {
            if *self.away.lock().unwrap() {
                return Told::Away;
            }
            let Fact::Occupied(event) = fact else { panic!("{fact:?}") };
            self.told.lock().unwrap().push(event.event_id.clone());
            if *self.bad.lock().unwrap() != Some(event.channel.as_str()) {
                return Told::Taken;
            }
            let hangs = *self.hangs.lock().unwrap();
            if hangs {
                pending::<()>().await;
            }
            Told::NotTaken
        }
    }

    impl Picky {
        fn told(&self) -> Vec<String> {
            let mut told = std::mem::take(&mut *self.told.lock().unwrap());
            told.sort_unstable();
            told
        }
    }

    /// A lane's storage and its events on their way.
    struct Lane {
        stored: Vec<WorkItem>,
        events: InOrder<Picky>,
    }

    impl Lane {
        fn new(bad: &'static str) -> Self {
            let picky = Picky { bad: Mutex::new(Some(bad)), ..Picky::default() };
            Self { stored: Vec::new(), events: InOrder::new(Arc::new(picky)) }
        }

        fn add(&mut self, id: &str, channel: &str, time_ms: u64) {
            let told = Occupancy { channel: Channel::parse(channel).unwrap(), occupied: true, time_ms };
            let payload = Fact::of_channel(told, id.to_owned()).to_stored().into();
            self.stored.push(WorkItem { id: id.to_owned(), payload });
        }

        /// Reads and tells once; answers what was told.
        async fn turn(&mut self) -> Vec<String> {
            let Wanted { after, most } = self.events.wanted();
            let after = after.map_or(0, |after| after.parse::<u64>().unwrap());
            let unread = self.stored.iter().filter(|item| item.id.parse::<u64>().unwrap() > after);
            let done = self.events.work(unread.take(most).cloned().collect()).await;
            self.stored.retain(|item| !done.ids.contains(&item.id));
            self.told()
        }

        fn told(&self) -> Vec<String> {
            self.events.audience.told()
        }

        fn left(&self) -> Vec<&str> {
            self.stored.iter().map(|item| item.id.as_str()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_not_taken_holds_up_what_follows_of_its_subject_alone() {
        let mut lane = Lane::new("bad");
        let now = now_ms();
        for (id, channel) in [("1", "bad"), ("2", "good"), ("3", "bad"), ("4", "good")] {
            lane.add(id, channel, now);
        }
        lane.stored.push(WorkItem { id: "5".to_owned(), payload: "\u{1}".into() });
        lane.add("6", "good", now - OLDEST.as_millis() as u64 - 1_000);
        assert_eq!(lane.turn().await, ["1", "2", "4"]);
        assert_eq!(lane.left(), ["1", "3"]);
        // Others that come later are told, too.
        lane.add("7", "good", now);
        lane.add("8", "bad", now);
        assert_eq!(lane.turn().await, ["7"]);
        assert_eq!(lane.left(), ["1", "3", "8"]);
        // It is tried again, until it is taken, and then the rest in its order.
        lane.events.more().await;
        lane.turn().await;
        lane.events.more().await;
        assert_eq!(lane.turn().await, ["1"]);
        *lane.events.audience.bad.lock().unwrap() = None;
        lane.events.more().await;
        lane.turn().await;
        lane.events.more().await;
        assert_eq!(lane.turn().await, ["1"]);
        assert_eq!(lane.left(), ["3", "8"]);
        lane.add("9", "bad", now);
        let mut told = lane.turn().await;
        told.extend(lane.turn().await);
        assert_eq!((told, lane.left()), (vec!["3".to_owned(), "8".into(), "9".into()], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_when_it_is_tried_again_holds_up_nobody() {
        let mut lane = Lane::new("slow");
        lane.add("1", "slow", now_ms());
        assert_eq!(lane.turn().await, ["1"]);
        *lane.events.audience.hangs.lock().unwrap() = true;
        tokio::time::sleep(Duration::from_secs(1)).await;
        lane.add("2", "good", now_ms());
        assert!(lane.turn().await.contains(&"2".to_owned()));
        tokio::task::yield_now().await;
        lane.add("3", "good", now_ms());
        assert!(lane.turn().await.contains(&"3".to_owned()));
        assert_eq!(lane.left(), ["1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_past_while_nothing_can_be_told() {
        let mut lane = Lane::new("bad");
        lane.add("1", "bad", now_ms());
        lane.turn().await;
        *lane.events.audience.away.lock().unwrap() = true;
        lane.add("2", "good", now_ms());
        lane.turn().await;
        *lane.events.audience.away.lock().unwrap() = false;
        assert_eq!(lane.turn().await, ["2"]);
    }
}
