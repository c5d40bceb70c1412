//! When a doubt is settled: only by answers to questions that were asked after it arose. Without a server: what is asked
//! waits, what is answered is made up.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        keys::Keys,
        link::Link,
        locate::Fixed,
        options::RedisOptions,
        range::{Ends, Part, Range},
        replay_cache::ReplayCache,
        sinks::Sinks,
    },
    Environment,
    actor::Actor,
    resync::Differing,
    slot::{Cached, Fill, Slot},
};
use crate::{
    broker::{Delivery, From, Publication, Sink, SinkId, Stored},
    channel::{Channel, Target},
    policy::Policies,
    position::Position,
};

pub(super) fn actor() -> Actor {
    let options = RedisOptions { port: 1, ..RedisOptions::default() };
    let keys = Keys::new("t", 1).unwrap();
    Actor::new(Environment {
        partition: 0,
        link: Arc::new(Link::start("nowhere", Arc::new(Fixed(options.server())), Arc::new(options), vec![])),
        keys: Arc::new(keys),
        policies: Policies::default(),
        sinks: Sinks::default(),
        node: watch::channel(Some(1)).1,
        lease: Duration::from_secs(10),
        deadline: Duration::from_secs(1),
        inbox_max: 1,
        catalogue_max: 1,
        records_occupancy: Arc::default(),
        queues: tokio::sync::mpsc::unbounded_channel().0,
        stop: CancellationToken::new(),
    })
}

pub(super) fn channel() -> Channel {
    Channel::parse("a").unwrap()
}

pub(super) const LAST: Position = Position { epoch: 5, offset: 3 };

/// An actor that follows one channel and doubts it.
fn doubting() -> Actor {
    let mut actor = actor();
    actor.slots.insert(channel(), Slot::new(Some(LAST)));
    actor.resync("a reason");
    assert!(actor.slots[&channel()].doubtful);
    actor
}

pub(super) fn nothing() -> Range {
    Range {
        top: 9,
        now_ms: 0,
        ends: None,
        lost_epoch: None,
        end_of_cursor_epoch: None,
        entries: Vec::new(),
        read_to: None,
        more: false,
        hole: false,
    }
}

fn cached() -> Cached {
    let cache = ReplayCache::from_range(&nothing(), Part::From(From::Start)).unwrap();
    Cached { cache, used: Instant::now(), now_ms: 0, read: Instant::now() }
}

#[tokio::test]
async fn a_quiet_channel_that_is_served_from_memory_is_compared_with_every_tick() {
    let mut actor = actor();
    let quiet = Slot { seen: Instant::now() - Duration::from_secs(2), ..Slot::new(Some(LAST)) };
    actor.slots.insert(Channel::parse("other").unwrap(), Slot::new(Some(LAST)));
    actor.slots.insert(channel(), Slot { cache: Some(cached()), ..quiet });
    actor.tick();
    assert_eq!(actor.unchecked, [channel()]);
    // Removed by another node.
    actor.finish_check(vec![(channel(), Some(LAST))], Vec::new(), 0, Ok(Differing::all_gone(1)));
    assert!(actor.slots[&channel()].cache.is_none());
}

#[tokio::test]
async fn a_comparison_from_before_the_doubt_does_not_settle_it() {
    let mut actor = doubting();
    let batch = || vec![(channel(), Some(LAST))];
    let doubts = actor.doubts;
    actor.finish_check(batch(), Vec::new(), doubts - 1, Ok(Differing::default()));
    assert!(actor.slots[&channel()].doubtful);
    assert!(actor.unchecked.contains(&channel()), "it is asked again");
    actor.finish_check(batch(), Vec::new(), doubts, Ok(Differing::default()));
    assert!(!actor.slots[&channel()].doubtful);
}

#[tokio::test]
async fn a_history_that_is_gone_is_asked_for_again_if_deliveries_moved_meanwhile() {
    let mut actor = doubting();
    actor.unchecked.clear();
    let before = Position { offset: LAST.offset - 1, ..LAST };
    let doubts = actor.doubts;
    actor.finish_check(vec![(channel(), Some(before))], Vec::new(), doubts, Ok(Differing::all_gone(1)));
    assert!(actor.slots[&channel()].doubtful && actor.unchecked.contains(&channel()));
}

#[tokio::test]
async fn a_back_fill_from_before_the_doubt_does_not_settle_it() {
    let mut actor = doubting();
    let doubts = actor.doubts;
    let fill = |actor: &mut Actor, doubts| {
        actor.slots.get_mut(&channel()).unwrap().fill = Some(Fill::default());
        actor.finish_fill(&channel(), actor.slots[&channel()].last.unwrap(), doubts, Ok(nothing()));
    };
    fill(&mut actor, doubts - 1);
    assert!(actor.slots[&channel()].doubtful);
    fill(&mut actor, doubts);
    assert!(!actor.slots[&channel()].doubtful);
}

#[tokio::test]
async fn what_was_missing_without_a_doubt_has_its_interest_told_again() {
    let mut actor = actor();
    actor.slots.insert(channel(), Slot { registered: true, ..Slot::new(Some(LAST)) });
    let batch = vec![(channel(), Some(LAST))];
    actor.finish_check(batch, Vec::new(), 0, Ok(Differing::all_elsewhere(1)));
    assert_eq!(actor.unconfirmed, ["i:a"]);
    assert!(actor.slots[&channel()].fill.is_some());
}

#[tokio::test]
async fn a_re_sync_forgets_what_was_kept_for_recoveries_and_tells_interest_before_it_compares() {
    let mut actor = doubting();
    let slot = actor.slots.get_mut(&channel()).unwrap();
    (slot.registered, slot.cache) = (true, Some(cached()));
    actor.resync("another reason");
    assert!(actor.slots[&channel()].cache.is_none());
    assert_eq!(actor.unconfirmed, ["i:a"]);
    assert_eq!(actor.doubts, 2);
}

#[tokio::test]
async fn a_gap_says_what_was_delivered_before_the_loss() {
    let mut actor = doubting();
    let (sink, told) = listening(&actor);
    actor.interest.insert(&Target::Channel(channel()), sink);
    actor.slots.get_mut(&channel()).unwrap().fill = Some(Fill::default());
    let doubts = actor.doubts;
    actor.finish_fill(&channel(), LAST, doubts, Ok(nothing()));
    let gap = told.lock().unwrap().pop();
    let Some(Delivery::Gap { after, position, .. }) = gap else { panic!("{gap:?}") };
    assert_eq!((after, position), (Some(LAST), Some(Position { epoch: 9, offset: 0 })));
}

#[tokio::test]
async fn what_is_left_of_a_history_that_lost_a_whole_epoch_is_not_delivered_again() {
    for (entries, goes_on) in [(vec![(4, 1), (4, 2), (6, 3), (6, 4)], (6, 2)), (vec![(4, 1), (4, 2)], (4, 2))]
    {
        let mut actor = doubting();
        let (sink, told) = listening(&actor);
        actor.interest.insert(&Target::Channel(channel()), sink);
        actor.slots.get_mut(&channel()).unwrap().fill = Some(Fill::default());
        let doubts = actor.doubts;
        let entries: Vec<_> =
            entries.into_iter().map(|(epoch, offset)| stored(Position { epoch, offset })).collect();
        let (first, last) = (entries[0].position.unwrap(), entries.last().unwrap().position.unwrap());
        let ends = Some(Ends { raw: first, first, last });
        actor.finish_fill(&channel(), LAST, doubts, Ok(Range { ends, entries, ..nothing() }));
        let told: Vec<_> = told.lock().unwrap().drain(..).collect();
        let [Delivery::Gap { position, .. }, rest @ ..] = &told[..] else { panic!("{told:?}") };
        assert_eq!(*position, Some(Position { epoch: goes_on.0, offset: goes_on.1 }));
        let offsets: Vec<_> = rest
            .iter()
            .map(|delivery| match delivery {
                Delivery::Publication(publication) => publication.position.unwrap().offset,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(offsets, (goes_on.1 + 1..=last.offset).collect::<Vec<_>>());
    }
}

pub(super) fn stored(position: Position) -> Arc<Publication> {
    Arc::new(Publication {
        channel: channel(),
        position: Some(position),
        time_ms: 0,
        stored: Stored::default(),
    })
}

#[derive(Default)]
struct Told(Arc<Mutex<Vec<Delivery>>>);

impl Sink for Told {
    fn deliver(&self, delivery: Delivery) {
        self.0.lock().unwrap().push(delivery);
    }
}

pub(super) fn listening(actor: &Actor) -> (SinkId, Arc<Mutex<Vec<Delivery>>>) {
    let sink = Told::default();
    let told = sink.0.clone();
    (actor.environment.sinks.attach(&(Arc::new(sink) as Arc<dyn Sink>)), told)
}
