//! What a case works with: two nodes, names of its own, and short ways to publish, subscribe and look.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Recorder, queues};
use crate::{
    broker::{
        Broker, Catchup, Delivery, GapReason, HistoryPage, HistoryQuery, PatternCursors, Publication,
        Publish, SinkId, Start, Stored, Subscribe, SubscribeTo, Subscribed,
    },
    channel::{Channel, Pattern, Target},
    policy::{ChannelPolicy, Policies, PolicyRule},
    position::Position,
};

/// How long something that must happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Entries that a channel `small.…` keeps.
pub(super) const SMALL: u64 = 10;

/// Age and window of the channels `short.…` and `brief.…`.
pub(super) const SHORT: Duration = Duration::from_secs(1);

/// The policies that the cases rely on, by the first segment of a channel; every other channel has the defaults.
#[must_use]
pub fn policies() -> Policies {
    let usual = ChannelPolicy::default;
    let rules = [
        ("small.**", ChannelPolicy { history_size: SMALL, ..usual() }),
        ("short.**", ChannelPolicy { history_ttl: SHORT, ..usual() }),
        ("brief.**", ChannelPolicy { idempotency_window: SHORT, ..usual() }),
        ("none.**", ChannelPolicy { history_size: 0, ..usual() }),
        ("quiet.**", ChannelPolicy { join_leave: false, ..usual() }),
        ("transient.**", ChannelPolicy { transient: true, ..usual() }),
    ];
    let rule =
        |(pattern, policy): (&str, _)| PolicyRule { pattern: pattern.into(), policy: Arc::new(policy) };
    Policies::new(rules.into_iter().chain(queues::policies::all()).map(rule).collect(), usual())
}

/// Two nodes on one storage.
#[derive(Clone)]
pub struct Context {
    nodes: [Arc<dyn Broker>; 2],
    word: String,
}

/// A sink of one node, with its deliveries.
pub struct Listener {
    pub(super) node: Arc<dyn Broker>,
    /// Its id at the node.
    pub id: SinkId,
    /// Its deliveries.
    pub recorder: Arc<Recorder>,
}

impl Context {
    /// Names of its own for a case.
    #[must_use]
    pub fn new(nodes: [Arc<dyn Broker>; 2]) -> Self {
        Self { nodes, word: Uuid::new_v4().simple().to_string() }
    }

    /// A node: the first for even numbers, the second for odd ones.
    #[must_use]
    pub fn node(&self, number: usize) -> &Arc<dyn Broker> {
        &self.nodes[number % 2]
    }

    /// `policy.<word of this case>.rest`, a channel or pattern.
    pub(super) fn name(&self, policy: &str, rest: &str) -> String {
        format!("{policy}.{}.{rest}", self.word)
    }

    pub(super) fn channel(&self, policy: &str, rest: &str) -> Channel {
        Channel::parse(&self.name(policy, rest)).unwrap()
    }

    pub(super) fn pattern(&self, policy: &str, rest: &str) -> Pattern {
        Pattern::parse(&self.name(policy, rest)).unwrap()
    }

    /// A new sink at a node.
    pub(super) fn listener(&self, node: usize) -> Listener {
        let recorder = Arc::new(Recorder::default());
        let node = self.node(node).clone();
        Listener { id: node.attach(recorder.clone()), node, recorder }
    }

    /// Publishes `text` and answers the position.
    pub(super) async fn publish(&self, node: usize, channel: &Channel, text: &str) -> Position {
        let published = self.node(node).publish(message(channel, text)).await.unwrap();
        assert!(!published.duplicate);
        published.position.unwrap()
    }

    /// Publishes so many messages through both nodes; answers their positions in order, which must be contiguous.
    pub(super) async fn fill(&self, channel: &Channel, count: usize) -> Vec<Position> {
        let publish = |n: usize| async move { self.publish(n, channel, &format!("entry {n}")).await };
        let mut positions = join_all((0..count).map(publish)).await;
        positions.sort();
        for two in positions.windows(2) {
            assert_eq!(two[1], Position { offset: two[0].offset + 1, ..two[0] });
        }
        positions
    }

    /// Reads history through a node.
    pub(super) async fn history(&self, node: usize, query: HistoryQuery) -> HistoryPage {
        self.node(node).history(query).await.unwrap()
    }

    /// Reads all of a history.
    pub(super) async fn all(&self, channel: &Channel) -> HistoryPage {
        self.history(0, all_of(channel)).await
    }

    /// Where a live subscription to a channel starts.
    pub(super) async fn end(&self, node: usize, channel: &Channel) -> Position {
        only_position(&self.listener(node).channel(channel, Start::Live).await, channel)
    }

    /// Waits until the history of `channel` is gone by age.
    pub(super) async fn gone(&self, channel: &Channel) {
        eventually(|| async { self.all(channel).await.position.is_none().then_some(()) }).await;
    }
}

impl Listener {
    /// Subscribes to a channel.
    pub(super) async fn channel(&self, channel: &Channel, start: Start<Position>) -> Subscribed {
        let to = SubscribeTo::Channel { channel: channel.clone(), start };
        self.node.subscribe(self.id, Subscribe { to }).await.unwrap()
    }

    /// Subscribes to a pattern.
    pub(super) async fn pattern(&self, pattern: &Pattern, start: Start<PatternCursors>) -> Subscribed {
        let to = SubscribeTo::Pattern { pattern: pattern.clone(), start };
        self.node.subscribe(self.id, Subscribe { to }).await.unwrap()
    }

    /// Recovers a channel; answers the offsets replayed and the gap, after checking what always holds.
    pub(super) async fn recover(&self, channel: &Channel, cursor: Position) -> (Vec<u64>, Option<GapReason>) {
        self.start(channel, Start::After(cursor)).await
    }

    /// Subscribes to a channel with a replay; answers the offsets replayed and the gap.
    pub(super) async fn start(
        &self,
        channel: &Channel,
        start: Start<Position>,
    ) -> (Vec<u64>, Option<GapReason>) {
        let subscribed = self.channel(channel, start).await;
        let end = only_position(&subscribed, channel);
        let catchup = subscribed.catchup.unwrap();
        assert!(!catchup.truncated);
        assert!(catchup.channels.iter().all(|item| item.channel == *channel));
        let (offsets, gap) = replayed(&catchup, channel);
        assert!(offsets.windows(2).all(|two| two[1] == two[0] + 1), "{offsets:?}");
        assert!(offsets.last().is_none_or(|last| *last == end.offset), "{offsets:?} {end}");
        (offsets, gap)
    }

    /// Ends the interest.
    pub(super) fn unsubscribe(&self, name: &str) {
        self.node.unsubscribe(self.id, Target::parse(name).unwrap());
    }

    /// The next publication, which must come and not be a gap.
    pub(super) async fn next(&self) -> Arc<Publication> {
        match self.recorder.next(PATIENCE).await {
            Some(Delivery::Publication(publication)) => publication,
            Some(gap) => panic!("{gap:?} instead of a publication"),
            None => panic!("no publication within {PATIENCE:?}"),
        }
    }

    /// The position of the next publication.
    pub(super) async fn next_position(&self) -> Position {
        self.next().await.position.unwrap()
    }

    /// The text of the next publication.
    pub(super) async fn next_text(&self) -> String {
        text(self.next().await.as_ref())
    }
}

/// A publish of `text` without options.
pub(super) fn message(channel: &Channel, text: &str) -> Publish {
    Publish {
        channel: channel.clone(),
        stored: Stored {
            id: Bytes::copy_from_slice(Uuid::new_v4().as_bytes()),
            event: Bytes::copy_from_slice(text.as_bytes()),
            ..Stored::default()
        },
        user_id: String::new(),
        idempotency_key: None,
        transient: false,
        job: crate::broker::queue::JobOptions::default(),
    }
}

pub(super) fn text(publication: &Publication) -> String {
    String::from_utf8(publication.stored.event.to_vec()).unwrap()
}

pub(super) fn all_of(channel: &Channel) -> HistoryQuery {
    HistoryQuery { channel: channel.clone(), since: None, limit: None, reverse: false }
}

pub(super) fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
    publications.iter().map(|publication| publication.position.unwrap().offset).collect()
}

/// The one position that a subscription to a channel with history answers.
pub(super) fn only_position(subscribed: &Subscribed, channel: &Channel) -> Position {
    let [(of, position)] = subscribed.positions.as_slice() else { panic!("{:?}", subscribed.positions) };
    assert_eq!(of, channel);
    *position
}

/// Offsets replayed of a channel, and its gap.
pub(super) fn replayed(catchup: &Catchup, channel: &Channel) -> (Vec<u64>, Option<GapReason>) {
    let mut of = catchup.channels.iter().filter(|item| item.channel == *channel);
    let Some(item) = of.next() else { return (Vec::new(), None) };
    assert!(of.next().is_none(), "{channel} twice in one answer");
    assert!(item.reason().is_some() || !item.publications.is_empty(), "{channel} has nothing to say");
    (offsets(&item.publications), item.reason())
}

/// Asks again and again until there is an answer. For what only time brings.
pub(super) async fn eventually<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
