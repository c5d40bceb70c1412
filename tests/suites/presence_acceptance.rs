//! Presence from end to end: gateway processes that die and sleep, a Redis that stops, and members that move about, as
//! clients of the library see it. The scenarios take where Redis is: here it is one server, in
//! `cluster_presence_acceptance` a Cluster.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use streamgate_client::Status;
use streamgate_e2e::{
    cluster,
    crowd::Crowd,
    faults::{relay::Relay, rng::Rng},
    gateway::Addrs,
    history::Recorder,
    place::Place,
    process::GatewayProcess,
    raw::Via,
    watchers::{View, Watchers},
    within,
};
use tokio::task::JoinSet;

use super::outage_stage::says_that_it_is_back;

/// Short, so that the tests are; longer than the timeouts of calls to Redis.
const LEASE: Duration = Duration::from_secs(4);

fn channels() -> Vec<String> {
    (0..10).map(|number| format!("crowd.{number}")).collect()
}

async fn four_nodes(redis: &Place) -> Vec<GatewayProcess> {
    let yaml = format!("presence: {{lease: {}s}}", LEASE.as_secs());
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(redis.node(&yaml).await);
    }
    nodes
}

fn addrs(nodes: &[GatewayProcess]) -> Vec<Addrs> {
    nodes.iter().map(GatewayProcess::addrs).collect()
}

/// Waits until somebody who was taken for gone would have left.
async fn two_leases() {
    // For what must not happen there is no event.
    tokio::time::sleep(2 * LEASE).await;
}

fn watches_all(view: &View) -> bool {
    view.target.contains('*')
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_members_of_a_killed_node_leave_once_within_two_leases_and_nobody_else_does() {
    node_is_killed(Place::server()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_while_redis_is_stopped_for_three_leases_and_afterwards_leaves_are_told() {
    redis_is_stopped(Place::server()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_node_that_sleeps_past_its_lease_leave_once_and_return_when_it_wakes() {
    node_sleeps(Place::server()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_members_hop_between_four_nodes_for_thirty_seconds_and_every_view_is_exact() {
    members_hop(Place::server()).await;
}

/// A node with 500 members dies.
pub async fn node_is_killed(redis: Place) {
    let mut nodes = four_nodes(&redis).await;
    let survivors = addrs(&nodes[1..]);
    let (recorder, channels) = (Recorder::default(), channels());
    let watchers = Watchers::start(&recorder, &survivors, &["crowd.*", "crowd.3"], &channels).await;
    let (mut doomed, mut others) = (Crowd::none(&recorder), Crowd::none(&recorder));
    doomed.grow(500, &addrs(&nodes[..1]), &channels).await;
    others.grow(60, &survivors, &channels).await;
    watchers.agree().await;

    nodes[0].kill9();
    let died = Instant::now();
    doomed.all_gone();
    let sessions = doomed.sessions();
    drop(doomed);
    watchers.agree().await;
    two_leases().await;
    watchers.assert_sound(false).await;
    for view in watchers.views() {
        let took = view.last_leave.expect("they left") - died;
        println!("{}: {} leaves, the last after {took:?}", view.name, view.left.len());
        assert!(took <= 2 * LEASE, "{}: the last leave came after {took:?}", view.name);
        let left: BTreeSet<String> = view.left.iter().cloned().collect();
        assert_eq!(view.left.len(), if watches_all(&view) { 500 } else { 50 }, "{}", view.name);
        assert!(left.len() == view.left.len() && left.is_subset(&sessions), "{}", view.name);
        assert_eq!(view.joins, if watches_all(&view) { 560 } else { 56 }, "{}", view.name);
    }
    watchers.assert_stayed();
    others.assert_stayed();
}

/// Redis stops for three leases.
pub async fn redis_is_stopped(redis: Place) {
    let nodes = four_nodes(&redis).await;
    let (recorder, channels, all) = (Recorder::default(), channels(), addrs(&nodes));
    let watchers = Watchers::start(&recorder, &all, &["crowd.*"], &channels).await;
    let mut crowd = Crowd::none(&recorder);
    crowd.grow(200, &all, &channels).await;
    watchers.agree().await;

    redis.pause();
    tokio::time::sleep(3 * LEASE).await;
    redis.resume();
    redis.settled().await;
    for node in &nodes {
        says_that_it_is_back(node).await;
    }
    two_leases().await;
    for view in watchers.views() {
        assert_eq!((view.joins, view.left.len()), (200, 0), "{}", view.name);
    }
    let gone = crowd.one_leaves().await;
    watchers.assert_sound(false).await;
    for view in watchers.views() {
        assert_eq!(view.left, [gone.as_str()], "{}", view.name);
    }
    watchers.assert_stayed();
    crowd.assert_stayed();
}

/// A node with members is stopped for longer than its lease.
pub async fn node_sleeps(redis: Place) {
    const ASLEEP: usize = 60;
    const AWAKE: usize = 30;
    let nodes = four_nodes(&redis).await;
    let (recorder, channels, all) = (Recorder::default(), channels(), addrs(&nodes));
    // Of the sleeper's node, too.
    let watchers = Watchers::start(&recorder, &all, &["crowd.*"], &channels).await;
    let (mut sleepers, mut others) = (Crowd::none(&recorder), Crowd::none(&recorder));
    sleepers.grow(ASLEEP, &all[..1], &channels).await;
    others.grow(AWAKE, &all[1..], &channels).await;
    watchers.agree().await;

    nodes[0].pause();
    let slept = Instant::now();
    sleepers.all_gone();
    let asleep = |view: &View| view.name.ends_with("node 0");
    watchers.until("the sleepers leave", |view| asleep(view) || view.left.len() == ASLEEP).await;
    println!("{ASLEEP} leaves within {:?} of a lease of {LEASE:?}", slept.elapsed());
    // The sleeper is to learn on waking what happened meanwhile.
    let gone = others.one_leaves().await;
    others.grow(5, &all[1..], &channels).await;
    watchers.until("one more leave", |view| asleep(view) || view.left.len() == ASLEEP + 1).await;
    nodes[0].resume();
    sleepers.all_back();
    watchers.agree().await;
    two_leases().await;
    watchers.assert_sound(false).await;

    let sessions = sleepers.sessions();
    for view in watchers.views().iter().filter(|view| !asleep(view)) {
        let left: BTreeSet<&String> = view.left.iter().collect();
        assert_eq!((view.left.len(), left.len()), (ASLEEP + 1, ASLEEP + 1), "{}", view.name);
        assert!(left.into_iter().all(|session| *session == gone || sessions.contains(session)));
        assert_eq!(view.joins, 2 * ASLEEP + AWAKE + 5, "{}", view.name);
    }
    watchers.assert_stayed();
    sleepers.assert_stayed();
    others.assert_stayed();
}

/// A member that reaches its node through a relay of its own, which can be led to another node.
struct Hopper {
    recorder: Recorder,
    nodes: Vec<Addrs>,
    via: Via,
    channel: String,
    rng: Rng,
}

impl Hopper {
    fn upstream(&mut self) -> std::net::SocketAddr {
        let node = self.nodes[self.rng.index(self.nodes.len())];
        if self.via == Via::Grpc { node.grpc } else { node.websocket }
    }

    /// Hops until `end`, then stays where it is until it is aborted. Answers how often it came to a node.
    async fn hop(mut self, end: Instant, arrived: tokio::sync::mpsc::Sender<(usize, usize)>) {
        let (mut moves, mut newcomers) = (0, 0);
        loop {
            let relay = Relay::start(self.upstream()).await;
            let at = Addrs { websocket: relay.addr(), grpc: relay.addr(), admin: relay.addr() };
            let client = cluster::connect(&[at], self.via).await;
            let mut status = client.status();
            let mut session = connected(&mut status).await;
            self.joined(&session);
            let mut subscription = within("a subscription", client.subscribe(&*self.channel)).await.unwrap();
            let reader = tokio::spawn(async move { while subscription.next().await.is_some() {} });
            newcomers += 1;
            loop {
                tokio::time::sleep(self.rng.millis(100, 2_000)).await;
                if Instant::now() >= end {
                    arrived.send((moves, newcomers)).await.unwrap();
                    // Holds on to all that keeps it there.
                    return std::future::pending().await;
                }
                self.left(&session);
                if self.rng.chance(20) {
                    break;
                }
                // The same session, mostly elsewhere: before its node of before knows that it went.
                relay.lead_to(self.upstream());
                relay.cut();
                within("the loss is noticed", status.changed()).await.unwrap();
                session = connected(&mut status).await;
                self.joined(&session);
                moves += 1;
            }
            if self.rng.chance(50) {
                client.close().await;
            }
            reader.abort();
        }
    }

    fn joined(&self, session: &str) {
        let at = self.recorder.now();
        self.recorder.history().presence.joined(&self.channel, session, at);
    }

    fn left(&self, session: &str) {
        let at = self.recorder.now();
        self.recorder.history().presence.left(&self.channel, session, at);
    }
}

fn is_connected(status: &Status) -> bool {
    matches!(status, Status::Connected { .. })
}

async fn connected(status: &mut tokio::sync::watch::Receiver<Status>) -> String {
    match &*within("a connection", status.wait_for(is_connected)).await.unwrap() {
        Status::Connected { session_id, .. } => session_id.clone(),
        other => panic!("{other:?}"),
    }
}

/// Members change nodes all the time.
pub async fn members_hop(redis: Place) {
    const MEMBERS: usize = 200;
    const TIME: Duration = Duration::from_secs(30);
    let nodes = four_nodes(&redis).await;
    let (recorder, channels, all) = (Recorder::default(), channels(), addrs(&nodes));
    let watchers = Watchers::start(&recorder, &all, &["crowd.*", "crowd.3"], &channels).await;
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let (arrived, mut arrivals) = tokio::sync::mpsc::channel(MEMBERS);
    let (mut hoppers, end) = (JoinSet::new(), Instant::now() + TIME);
    for number in 0..MEMBERS {
        let hopper = Hopper {
            recorder: recorder.clone(),
            nodes: all.clone(),
            via: Via::ALL[number % Via::ALL.len()],
            channel: channels[number % channels.len()].clone(),
            rng: Rng::new(seed ^ ((number as u64) << 32)),
        };
        hoppers.spawn(hopper.hop(end, arrived.clone()));
    }
    drop(arrived);
    let (mut moves, mut newcomers) = (0, 0);
    for _ in 0..MEMBERS {
        let patience = TIME + streamgate_e2e::DEADLINE * 2;
        let arrival = tokio::time::timeout(patience, arrivals.recv()).await.expect("all have arrived");
        let (moved, came) = arrival.expect("nobody fails");
        (moves, newcomers) = (moves + moved, newcomers + came);
    }
    let begun = Instant::now();
    watchers.agree().await;
    println!("{moves} moves, {newcomers} newcomers; everybody knows after {:?}", begun.elapsed());
    two_leases().await;
    watchers.assert_sound(false).await;
    watchers.assert_stayed();
    for view in watchers.views() {
        println!("{}: {} joins, {} leaves", view.name, view.joins, view.left.len());
        let members = if watches_all(&view) { MEMBERS } else { MEMBERS / channels.len() };
        assert_eq!(view.joins - view.left.len(), members, "{}", view.name);
        assert!(hoppers.try_join_next().is_none());
    }
}
