//! Watchers of presence, and what they were told: every join and leave as it comes, without a view that would hide a
//! repeated one.
//!
//! Who is truly there is written down by others with the same [`Recorder`], before it happens (a join) or when it
//! happens (a leave). A watcher begins before anybody is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use streamgate_client::{Client, Event, Status, SubscribeOptions, is_pattern, matches};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    cluster,
    gateway::Addrs,
    history::{Recorder, Seen, presence::Told},
    raw::Via,
    within,
};

/// How long the last change may take to be told: two long leases, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(45);

/// How late the leave of a session may be told that has moved on: two leases of the default length.
const GRACE: Duration = Duration::from_secs(20);

/// Sessions by channel; channels without any are absent.
type Members = BTreeMap<String, BTreeSet<String>>;

/// What one watcher knows.
#[derive(Debug, Clone)]
pub struct View {
    /// Transport, target and node.
    pub name: String,
    /// Which it watches: a channel or a pattern.
    pub target: String,
    /// Joins so far.
    pub joins: usize,
    /// The sessions of all leaves so far, in order.
    pub left: Vec<String>,
    /// When the last leave was told.
    pub last_leave: Option<Instant>,
    members: Members,
}

/// Watchers of some channels. Dropping it ends them.
pub struct Watchers {
    recorder: Recorder,
    channels: Vec<String>,
    nodes: Vec<Addrs>,
    clients: Vec<(Client, watch::Receiver<Status>)>,
    views: Arc<watch::Sender<Vec<View>>>,
    tasks: JoinSet<()>,
}

impl Watchers {
    /// One on each node for each target, all of which match only channels of `channels`.
    ///
    /// # Panics
    /// A subscription is refused, or somebody is on one of the channels already.
    pub async fn start(recorder: &Recorder, nodes: &[Addrs], targets: &[&str], channels: &[String]) -> Self {
        let mut watchers = Self {
            recorder: recorder.clone(),
            channels: channels.to_vec(),
            nodes: nodes.to_vec(),
            clients: Vec::new(),
            views: Arc::default(),
            tasks: JoinSet::new(),
        };
        for (number, node) in nodes.iter().enumerate() {
            for target in targets {
                watchers.watch(number, *node, target).await;
            }
        }
        watchers
    }

    async fn watch(&mut self, node: usize, addrs: Addrs, target: &str) {
        let number = self.clients.len();
        let via = Via::ALL[number % Via::ALL.len()];
        let client = cluster::connect(&[addrs], via).await;
        let name = format!("watcher of {target} via {via:?} on node {node}");
        let options = SubscribeOptions::new(target).presence().ephemeral().unbounded();
        let mut subscription = within("a watcher", client.subscribe(options)).await.expect("a watcher");
        let at = self.recorder.now();
        self.recorder.history().subscribed(&name, target, at);
        for channel in self.channels.iter().filter(|channel| covers(target, channel)) {
            let answer = client.presence(channel).await.expect("an answer");
            assert_eq!(answer.count, 0, "somebody is on {channel}");
            let told = Told::Members { channel: channel.clone(), sessions: BTreeSet::new(), at };
            self.recorder.history().presence.told(&name, told);
        }
        let view = View {
            name: name.clone(),
            target: target.to_owned(),
            joins: 0,
            left: Vec::new(),
            last_leave: None,
            members: Members::new(),
        };
        self.views.send_modify(|views| views.push(view));
        let (recorder, views) = (self.recorder.clone(), self.views.clone());
        self.tasks.spawn(async move {
            while let Some(event) = subscription.next().await {
                let at = recorder.now();
                match event {
                    Event::Presence(change) => {
                        let (channel, session) = (change.channel, change.member.session_id);
                        views.send_modify(|views| views[number].take(&channel, &session, change.joined));
                        let told = if change.joined {
                            Told::Join { channel, session, at }
                        } else {
                            Told::Leave { channel, session, at }
                        };
                        recorder.history().presence.told(&name, told);
                    }
                    Event::Closed(error) => {
                        recorder.history().saw(&name, Seen::Ended { error: error.to_string() });
                    }
                    // It watches; what is published there is others' to check.
                    _ => {}
                }
            }
        });
        let mut status = client.status();
        status.mark_unchanged();
        self.clients.push((client, status));
    }

    /// What everybody knows now.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        self.views.borrow().clone()
    }

    /// Waits until every view is as wanted.
    ///
    /// # Panics
    /// One is not in time; tells how many joins and leaves each was told.
    pub async fn until(&self, what: &str, wanted: impl Fn(&View) -> bool) {
        let mut views = self.views.subscribe();
        let all = views.wait_for(|views| views.iter().all(&wanted));
        if timeout(PATIENCE, all).await.is_err() {
            panic!("{what}: not within {PATIENCE:?}\n{}", self.summary());
        }
    }

    /// Waits until every watcher knows exactly those who are there.
    pub async fn agree(&self) {
        self.until("everybody knows who is there", |view| view.members == self.expected(&view.target)).await;
    }

    /// Waits until everybody knows who is there and every node answers so, and checks everything that was told.
    /// `lossy`: Redis forgot something in this run.
    ///
    /// # Panics
    /// With what is wrong.
    pub async fn assert_sound(&self, lossy: bool) {
        self.agree().await;
        for node in &self.nodes {
            let client = cluster::connect(&[*node], Via::WsProto).await;
            for channel in &self.channels {
                let listed = self.listed(&client, channel).await;
                self.recorder.history().presence.members_at_end(channel, listed);
            }
            // Everybody was waited for: nothing is under way any more.
            let settled = self.recorder.now() + GRACE;
            self.recorder.history().presence.terms(GRACE, settled, lossy);
            self.recorder.assert_sound();
        }
    }

    /// Asserts that no watcher lost its connection.
    ///
    /// # Panics
    /// One did.
    pub fn assert_stayed(&self) {
        for (_, status) in &self.clients {
            assert!(
                !status.has_changed().unwrap_or(true),
                "a watcher was disconnected: {:?}",
                *status.borrow()
            );
        }
    }

    /// What the node lists; asked again until it is right or time is up.
    async fn listed(&self, client: &Client, channel: &str) -> BTreeSet<String> {
        let begun = Instant::now();
        loop {
            let answer =
                within("a list of members", client.presence(channel)).await.expect("a list of members");
            assert!(!answer.truncated, "{channel}: {} members are more than are named at once", answer.count);
            assert_eq!(answer.count, answer.members.len() as u64, "{channel}");
            let listed: BTreeSet<String> =
                answer.members.into_iter().map(|member| member.session_id).collect();
            if listed == self.recorder.history().presence.members(channel) || begun.elapsed() > PATIENCE {
                return listed;
            }
            // A list has no event to wait for.
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn expected(&self, target: &str) -> Members {
        let history = self.recorder.history();
        let channels = self.channels.iter().filter(|channel| covers(target, channel));
        let members = channels.map(|channel| (channel.clone(), history.presence.members(channel)));
        members.filter(|(_, members)| !members.is_empty()).collect()
    }

    fn summary(&self) -> String {
        let line = |view: &View| {
            let expected = self.expected(&view.target);
            let count = |members: &Members| members.values().map(BTreeSet::len).sum::<usize>();
            format!(
                "{}: {} joins, {} leaves, knows {} of {} members",
                view.name,
                view.joins,
                view.left.len(),
                count(&view.members),
                count(&expected)
            )
        };
        self.views().iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl View {
    fn take(&mut self, channel: &str, session: &str, joined: bool) {
        let members = self.members.entry(channel.to_owned()).or_default();
        if joined {
            self.joins += 1;
            members.insert(session.to_owned());
            return;
        }
        self.left.push(session.to_owned());
        self.last_leave = Some(Instant::now());
        members.remove(session);
        if members.is_empty() {
            self.members.remove(channel);
        }
    }
}

fn covers(target: &str, channel: &str) -> bool {
    if is_pattern(target) { matches(target, channel) } else { target == channel }
}
