//! The client library's view of a channel stays exact while members move about and while its own node goes.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use streamgate_client::{Event, PresenceView, SubscribeOptions};
use streamgate_e2e::{
    cluster::{self, Cluster},
    events::{extended, live},
    gateway::{Addrs, TestNode},
    raw::{RawClient, Via},
    within,
};
use streamgate_proto::v1::Connect;

const MEMBERS: usize = 20;
const HOPS: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_hop_between_connections_leave_an_exact_view() {
    let node = TestNode::start("").await;
    hop(&[node.addrs()], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_hop_between_nodes_leave_an_exact_view_on_both() {
    let cluster = Cluster::start(2).await;
    hop(&[cluster.addrs(0), cluster.addrs(1)], 2).await;
}

async fn view(nodes: &[Addrs], via: Via) -> PresenceView {
    let client = cluster::connect(nodes, via).await;
    let options = SubscribeOptions::new("room.hop").ephemeral().unbounded();
    within("the view", client.watch_presence(options)).await.unwrap()
}

/// Takes events until the view names exactly these sessions; then nothing may follow. Every session comes and goes in turn.
async fn settles(view: &mut PresenceView, expected: &[String], there: &mut BTreeMap<String, bool>) {
    let settled = |view: &PresenceView| view.members().map(|member| &member.session_id).eq(expected);
    within("the view settles", async {
        loop {
            while let Some(event) = view.next().now_or_never() {
                note(event.unwrap(), there);
            }
            if settled(view) {
                return;
            }
            note(view.next().await.unwrap(), there);
        }
    })
    .await;
    let mut present: Vec<_> =
        there.iter().filter(|(_, there)| **there).map(|(session, _)| session.clone()).collect();
    present.sort_unstable();
    assert_eq!(present, expected, "the events lead to the same list");
}

fn note(event: Event, there: &mut BTreeMap<String, bool>) {
    let Event::Presence(change) = event else { return };
    let session = change.member.session_id;
    let before = there.insert(session.clone(), change.joined).unwrap_or(false);
    assert_ne!(before, change.joined, "{session} came or went twice in a row");
}

/// Numbers that are the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

async fn hop(nodes: &[Addrs], seed: u64) {
    let mut random = Random(seed);
    let mut views = Vec::new();
    for node in nodes {
        views.push((view(&[*node], Via::WsProto).await, BTreeMap::new()));
    }
    let mut members = Vec::new();
    for n in 0..MEMBERS {
        let node = nodes[random.below(nodes.len())];
        members.push(RawClient::connect_as(node, Via::ALL[n % 3], extended([live("room.hop")])).await);
    }
    for _ in 0..HOPS {
        let old = members.swap_remove(random.below(members.len()));
        let token = old.connected.resume_token.clone();
        let connect = Connect { resume_token: token, ..extended([]) };
        let (node, via) = (nodes[random.below(nodes.len())], old.via());
        match random.below(4) {
            // Comes back before it goes, after it went, before anybody knows that it went, or as somebody else.
            0 => {
                members.push(RawClient::connect_as(node, via, connect).await);
                old.close().await;
            }
            1 => {
                old.close().await;
                members.push(RawClient::connect_as(node, via, connect).await);
            }
            2 => {
                drop(old);
                members.push(RawClient::connect_as(node, via, connect).await);
            }
            _ => {
                drop(old);
                members.push(RawClient::connect_as(node, via, extended([live("room.hop")])).await);
            }
        }
    }
    let mut expected: Vec<_> = members.iter().map(|member| member.connected.session_id.clone()).collect();
    expected.sort_unstable();
    for (view, there) in &mut views {
        settles(view, &expected, there).await;
    }
    // Who looks for the first time sees the same.
    for node in nodes {
        let client = cluster::connect(&[*node], Via::WsJson).await;
        let mut sessions: Vec<_> =
            client.presence("room.hop").await.unwrap().members.into_iter().map(|m| m.session_id).collect();
        sessions.sort_unstable();
        assert_eq!(sessions, expected);
    }
    // And no news came late.
    for (view, there) in &mut views {
        settles(view, &expected, there).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_whose_node_goes_is_exact_at_the_other_one() {
    let mut cluster = Cluster::start(2).await;
    let (first, second) = (cluster.addrs(0), cluster.addrs(1));
    let mut view = view(&[first, second], Via::WsJson).await;
    let mut there = BTreeMap::new();
    let stays = RawClient::connect_as(second, Via::WsJson, extended([live("room.hop")])).await;
    let goes = RawClient::connect_as(second, Via::WsProto, extended([live("room.hop")])).await;
    let with = RawClient::connect_as(first, Via::Grpc, extended([live("room.hop")])).await;
    let mut all = [&stays, &goes, &with].map(|client| client.connected.session_id.clone());
    all.sort_unstable();
    settles(&mut view, &all, &mut there).await;
    // Nobody takes the view's events meanwhile: what it missed must come all the same.
    let (_, ()) = tokio::join!(cluster.nodes.remove(0).shutdown(), async {
        drop(with);
        goes.close().await;
    });
    settles(&mut view, std::slice::from_ref(&stays.connected.session_id), &mut there).await;
}
