//! Where everything is in a Redis Cluster.
//!
//! Owns: the slot map and the task that keeps it. Never does: send a command of the broker, or follow a redirection: a
//! redirection says that what is known is old, and then the nodes are asked again (decision 0013).
//!
//! Invariants:
//! - However many links ask or suspect at the same time, at most one survey is under way, and two are at least
//!   [`GAP`] apart.
//! - After [`SlotMap::look_again`] nobody is answered from a survey that began before it.
//! - A link leaves a connection that works only when two surveys in a row say that the slot is elsewhere: one node's
//!   view may be old.

mod slots;
mod survey;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use rand::seq::SliceRandom;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

pub use slots::Slots;
use survey::ask_any;

use super::{
    error::ConnectError,
    locate::{Address, Locate},
    options::RedisOptions,
};

/// How often the nodes are asked when nothing gives reason to.
const PERIOD: Duration = Duration::from_secs(10);
/// Shortest pause between two surveys.
const GAP: Duration = Duration::from_millis(100);

/// Who owns each slot. Dropping it ends its task.
#[derive(Debug)]
pub struct SlotMap {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    options: Arc<RedisOptions>,
    /// Number of the last survey that began, from 1.
    begun: AtomicU64,
    /// The survey that must have been made before anybody is answered.
    needed: watch::Sender<u64>,
    survey: watch::Sender<Survey>,
}

/// What the last survey brought.
#[derive(Debug, Clone, Default)]
struct Survey {
    number: u64,
    /// Of the last survey that succeeded.
    slots: Arc<Slots>,
    /// Why this one failed.
    failure: Option<ConnectError>,
}

impl SlotMap {
    /// Starts to ask the nodes that `options` name, later also those that they tell of. Within a Tokio runtime.
    #[must_use]
    pub fn start(options: Arc<RedisOptions>) -> Self {
        let map = Self::unkept(options);
        let (keeper, stopped) = (map.shared.clone(), map.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = keeper.keep() => {}
            }
        });
        map
    }

    /// A map that nobody keeps so far.
    fn unkept(options: Arc<RedisOptions>) -> Self {
        let shared = Arc::new(Shared {
            options,
            begun: AtomicU64::new(0),
            needed: watch::channel(1).0,
            survey: watch::channel(Survey::default()).0,
        });
        Self { shared, stop: CancellationToken::new() }
    }

    /// What is known may be old: whoever asks from now on waits for a new survey.
    pub fn look_again(&self) -> u64 {
        let next = self.shared.begun.load(Ordering::SeqCst) + 1;
        self.shared.needed.send_if_modified(|needed| {
            let later = next > *needed;
            *needed = next.max(*needed);
            later
        });
        next
    }

    /// The owner of `slot`, from a survey that nobody has reason to doubt. Safe to cancel.
    ///
    /// # Errors
    /// The survey failed, or the slot has no owner.
    async fn owner(&self, slot: u16) -> Result<Address, ConnectError> {
        let needed = *self.shared.needed.borrow();
        let survey = self.after(needed).await;
        if let Some(failure) = survey.failure {
            return Err(failure);
        }
        survey.slots.owner(slot).cloned().ok_or_else(|| ConnectError::Unusable {
            address: self.shared.options.address(),
            reason: format!("slot {slot} of the Cluster has no owner"),
        })
    }

    /// Resolves when `slot` is not at `address` any more.
    async fn moved(&self, slot: u16, address: &Address) {
        let elsewhere = |survey: &Survey| {
            survey.failure.is_none() && survey.slots.owner(slot).is_some_and(|owner| owner != address)
        };
        let mut surveys = self.shared.survey.subscribe();
        loop {
            if surveys.wait_for(elsewhere).await.is_err() {
                return std::future::pending().await;
            }
            let next = self.look_again();
            if elsewhere(&self.after(next).await) {
                return;
            }
        }
    }

    /// The first survey that was finished and has at least this number.
    async fn after(&self, number: u64) -> Survey {
        let mut surveys = self.shared.survey.subscribe();
        match surveys.wait_for(|survey| survey.number >= number).await {
            Ok(survey) => survey.clone(),
            // The sender lives as long as `self`.
            Err(_) => Survey::default(),
        }
    }
}

impl Drop for SlotMap {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    async fn keep(&self) {
        let mut needed = self.needed.subscribe();
        let mut pause = GAP;
        loop {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let known = self.survey.borrow().slots.clone();
            let outcome = ask_any(&self.options, self.nodes(&known)).await;
            let failed = outcome.is_err();
            let survey = match outcome {
                Ok(slots) => Survey { number, slots: Arc::new(slots), failure: None },
                Err(failure) => Survey { number, slots: known, failure: Some(failure) },
            };
            self.survey.send_replace(survey);
            sleep(jittered(pause)).await;
            pause = if failed { (pause * 2).min(self.options.backoff_max.max(GAP)) } else { GAP };
            tokio::select! {
                _ = needed.wait_for(|needed| *needed > number) => {}
                () = sleep(jittered(PERIOD)) => {}
            }
        }
    }

    /// Whom to ask, in an order that is another one each time: no node's old view is asked again and again.
    fn nodes(&self, known: &Slots) -> Vec<Address> {
        let mut nodes = known.nodes().to_vec();
        for seed in &self.options.cluster {
            if !nodes.contains(seed) {
                nodes.push(seed.clone());
            }
        }
        nodes.shuffle(&mut rand::rng());
        nodes
    }
}

/// Half to all of it, so that nodes do not ask in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// The owner of one slot.
#[derive(Debug)]
pub struct SlotOwner {
    map: Arc<SlotMap>,
    slot: u16,
    key: Bytes,
}

impl SlotOwner {
    /// The owner of the slot that `key` is in.
    #[must_use]
    pub fn of(map: Arc<SlotMap>, key: Bytes, slot: u16) -> Self {
        Self { map, slot, key }
    }
}

impl Locate for SlotOwner {
    fn locate(&self) -> BoxFuture<'_, Result<Address, ConnectError>> {
        self.map.owner(self.slot).boxed()
    }

    fn moved_from<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, ()> {
        self.map.moved(self.slot, address).boxed()
    }

    fn suspect(&self, _address: &Address) {
        self.map.look_again();
    }

    fn owned_key(&self) -> Option<Bytes> {
        Some(self.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::reply::Reply, *};

    fn unkept() -> SlotMap {
        SlotMap::unkept(Arc::default())
    }

    /// What the keeper does, with all slots at `owner`, or a failure.
    fn survey(map: &SlotMap, owner: Result<u16, ()>) {
        let number = map.shared.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let node = |port| Reply::Array(vec![Reply::Bulk("h".into()), Reply::Int(i64::from(port))]);
        let range = |port| Reply::Array(vec![Reply::Int(0), Reply::Int(16_383), node(port)]);
        let slots = owner.map(|port| Slots::from_reply(&Reply::Array(vec![range(port)]), &at(0)).unwrap());
        let known = map.shared.survey.borrow().slots.clone();
        map.shared.survey.send_replace(match slots {
            Ok(slots) => Survey { number, slots: Arc::new(slots), failure: None },
            Err(()) => {
                let failure = ConnectError::Unusable { address: String::new(), reason: "away".to_owned() };
                Survey { number, slots: known, failure: Some(failure) }
            }
        });
    }

    fn at(port: u16) -> Address {
        Address::new("h", port)
    }

    #[tokio::test]
    async fn who_suspects_is_answered_from_a_later_survey_only() {
        let map = unkept();
        assert!(map.owner(5).now_or_never().is_none(), "nobody was asked so far");
        survey(&map, Ok(1));
        assert_eq!(map.owner(5).await.unwrap(), at(1));
        map.look_again();
        assert!(map.owner(5).now_or_never().is_none());
        survey(&map, Ok(2));
        assert_eq!(map.owner(5).await.unwrap(), at(2));
        map.look_again();
        survey(&map, Err(()));
        assert!(map.owner(5).await.is_err(), "what was known is not passed off as new");
    }

    #[tokio::test]
    async fn a_connection_is_left_when_two_surveys_in_a_row_say_so() {
        let map = unkept();
        survey(&map, Ok(1));
        let here = at(1);
        let mut moved = Box::pin(map.moved(5, &here));
        assert!((&mut moved).now_or_never().is_none());
        // One node's old view.
        survey(&map, Ok(2));
        assert!((&mut moved).now_or_never().is_none());
        survey(&map, Ok(1));
        assert!((&mut moved).now_or_never().is_none());
        survey(&map, Err(()));
        assert!((&mut moved).now_or_never().is_none(), "a failed survey says nothing");
        survey(&map, Ok(2));
        assert!((&mut moved).now_or_never().is_none());
        survey(&map, Ok(2));
        assert!((&mut moved).now_or_never().is_some());
    }
}
