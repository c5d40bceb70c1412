//! Members who stay, and watchers of them: whoever is told that one comes or goes was told something false.

use std::collections::BTreeSet;

use streamgate_client::{Client, Event, PresenceView, Status, SubscribeOptions, Subscription};
use tokio::{sync::watch, task::JoinSet};

use crate::{cluster, gateway::Addrs, raw::Via, within};

/// Members of some channels, on all nodes, and a watcher of each channel on each node.
pub struct Gathering {
    members: Vec<Member>,
    watchers: Vec<Watcher>,
    channels: Vec<String>,
    tasks: JoinSet<()>,
}

/// A client that is on every channel.
struct Member {
    client: Client,
    session: String,
    _subscriptions: Vec<Subscription>,
}

struct Watcher {
    name: String,
    status: watch::Receiver<Status>,
    told: watch::Receiver<Vec<Event>>,
    /// Who is there, as it knows.
    there: watch::Receiver<BTreeSet<String>>,
}

impl Gathering {
    /// So many members on each node, all of them on each of the channels; returns when every watcher knows of all.
    pub async fn assemble(nodes: &[Addrs], channels: &[String], members: usize) -> Self {
        let channels = channels.to_vec();
        let mut gathering =
            Self { members: Vec::new(), watchers: Vec::new(), channels, tasks: JoinSet::new() };
        for (number, node) in nodes.iter().enumerate() {
            gathering.watch(number, *node).await;
            for member in 0..members {
                let client = cluster::connect(&[*node], Via::ALL[member % Via::ALL.len()]).await;
                gathering.join(client).await;
            }
        }
        let all = gathering.sessions();
        for watcher in &gathering.watchers {
            let mut there = watcher.there.clone();
            let knows = within("a watcher knows of all members", there.wait_for(|there| *there == all));
            drop(knows.await.expect("it watches"));
        }
        gathering
    }

    async fn join(&mut self, client: Client) {
        let mut subscriptions = Vec::new();
        for channel in &self.channels {
            subscriptions
                .push(within("a member", client.subscribe(channel.as_str())).await.expect("it joins"));
        }
        let Status::Connected { session_id, .. } = client.status().borrow().clone() else {
            panic!("a member is connected")
        };
        self.members.push(Member { client, session: session_id, _subscriptions: subscriptions });
    }

    async fn watch(&mut self, number: usize, node: Addrs) {
        let client = cluster::connect(&[node], Via::WsProto).await;
        for channel in &self.channels {
            let mut status = client.status();
            status.mark_unchanged();
            let options = SubscribeOptions::new(channel.as_str()).ephemeral().unbounded();
            let view = within("a view", client.watch_presence(options)).await.expect("a view");
            let (teller, told) = watch::channel(Vec::new());
            let (list, there) = watch::channel(sessions(&view));
            self.tasks.spawn(follow(view, teller, list));
            let name = format!("the watcher of {channel} on node {number}");
            self.watchers.push(Watcher { name, status, told, there });
        }
    }

    fn sessions(&self) -> BTreeSet<String> {
        self.members.iter().map(|member| member.session.clone()).collect()
    }

    /// Asserts that all members are still there, that they are the same sessions, and that nobody was told otherwise
    /// after all had come.
    ///
    /// # Panics
    /// With what is wrong.
    pub async fn assert_unmoved(&self) {
        let all = self.sessions();
        for (number, channel) in self.channels.iter().enumerate() {
            let client = &self.members[number % self.members.len()].client;
            let answer = within("a list", client.presence(channel)).await.expect("a list");
            let listed: BTreeSet<String> =
                answer.members.into_iter().map(|member| member.session_id).collect();
            assert_eq!(listed, all, "members of {channel}");
        }
        for watcher in &self.watchers {
            let told = watcher.told.borrow();
            let joins =
                told.iter().filter(|event| matches!(event, Event::Presence(told) if told.joined)).count();
            let others: Vec<_> =
                told.iter().filter(|event| !matches!(event, Event::Presence(told) if told.joined)).collect();
            assert!(others.is_empty(), "{}: {others:?}", watcher.name);
            assert!(joins <= all.len(), "{}: {joins} joins of {} members", watcher.name, all.len());
            assert_eq!(*watcher.there.borrow(), all, "{}", watcher.name);
            assert!(!watcher.status.has_changed().unwrap_or(true), "{} was disconnected", watcher.name);
        }
    }
}

fn sessions(view: &PresenceView) -> BTreeSet<String> {
    view.members().map(|member| member.session_id.clone()).collect()
}

async fn follow(
    mut view: PresenceView,
    told: watch::Sender<Vec<Event>>,
    there: watch::Sender<BTreeSet<String>>,
) {
    while let Some(event) = view.next().await {
        if matches!(event, Event::Presence(_) | Event::Closed(_)) {
            told.send_modify(|told| told.push(event));
            there.send_replace(sessions(&view));
        }
    }
}
