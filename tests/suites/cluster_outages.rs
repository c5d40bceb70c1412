//! Servers of a Redis Cluster stop, lose their clients, or are killed and come back with all that was acked: nobody is
//! disconnected, nothing is lost, nothing is told, and nobody seems to come or go.
//!
//! Where a replica may be elected meanwhile, replication is asynchronous: then whatever was lost must be announced.

use std::{collections::BTreeSet, time::Duration};

use streamgate_client::{Event, GapReason};
use streamgate_e2e::{
    audience::{Acked, Audience, Publishing, publish, slowest},
    clustered::{Clustered, channels, slot},
    crowd::Crowd,
    gateway::Addrs,
    history::Recorder,
    raw::Via,
    redis_cluster::RedisCluster,
    watchers::Watchers,
};

/// The first master has the slots up to this one.
const LAST_OF_FIRST: u16 = 5_460;
const SYNCED: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const MEMBERS: usize = 24;
const STOPPED_FOR: Duration = Duration::from_secs(10);

/// Listeners over every transport, publishers, members and watchers on two nodes.
struct Stage {
    audience: Audience,
    crowd: Crowd,
    watchers: Watchers,
    publishing: Publishing,
    channels: Vec<String>,
    setup: Clustered,
}

impl Stage {
    async fn set(args: &'static [&'static str]) -> Self {
        let setup = Clustered::start_with(2, args).await;
        let mut channels = of_first(3);
        channels.extend(elsewhere(3));
        let addrs = [setup.nodes[0].addrs(), setup.nodes[1].addrs()];
        let mut audience = setup.audience(&channels).await;
        audience.0.extend(Audience::assemble(&addrs, &["room.*"]).await.0);
        let (crowd, watchers) = meet(&addrs).await;
        let mut publishers = Vec::new();
        for (number, via) in Via::ALL.into_iter().enumerate() {
            publishers.push(setup.client(number % 2, via).await);
        }
        let publishing = Publishing::at_rate(publishers, channels.clone(), 150);
        audience.0[0].hears(200).await;
        Self { audience, crowd, watchers, publishing, channels, setup }
    }

    /// Which servers own slots of each share.
    async fn owners(&self) -> [usize; 3] {
        self.setup.redis(|redis| [0, 8_000, 16_000].map(|slot| redis.owner(slot))).await
    }

    /// Asserts that all members are there, and that nobody was ever told otherwise.
    async fn assert_nobody_moved(&self) {
        self.watchers.assert_sound(false).await;
        for view in self.watchers.views() {
            assert_eq!((view.joins, view.left.len()), (MEMBERS, 0), "{}", view.name);
        }
        self.watchers.assert_stayed();
        self.crowd.assert_stayed();
    }

    /// Goes on for a while, stops, and asserts that nothing is missing and nothing was told.
    async fn close(self) {
        self.audience.0[0].hears_more(300).await;
        self.assert_nobody_moved().await;
        let acked = self.publishing.stop().await;
        report(&acked);
        self.audience.assert_undisturbed(&acked).await;
    }

    /// As [`Self::close`], where acked writes may have been lost in an election.
    async fn close_honestly(self) {
        self.audience.0[0].hears_more(300).await;
        self.assert_nobody_moved().await;
        let mut acked = self.publishing.stop().await;
        report(&acked);
        // Behind everything that can still come.
        let client = self.setup.client(0, Via::WsProto).await;
        let mut last = Vec::new();
        for channel in &self.channels {
            last.push(publish(&client, channel, &format!("the last of {channel}")).await);
        }
        self.audience.heard_all(&last).await;
        acked.extend(last);
        self.audience.assert_honest(&acked, &[]);
        self.audience.assert_stayed();
        let mut reset = BTreeSet::new();
        for event in self.audience.0.iter().flat_map(|listener| listener.heard()) {
            match event {
                Event::Message(_) => {}
                Event::Gap(gap) if gap.reason == GapReason::EpochReset => {
                    reset.insert(gap.channel);
                }
                other => panic!("{other:?}"),
            }
        }
        println!("  resets announced: {reset:?}");
    }
}

/// Members, in partitions of all masters, and watchers of all of them on each node.
async fn meet(nodes: &[Addrs]) -> (Crowd, Watchers) {
    let recorder = Recorder::default();
    let channels: Vec<String> = (0..6).map(|number| format!("lobby.{number}")).collect();
    let watchers = Watchers::start(&recorder, nodes, &["lobby.*"], &channels).await;
    let mut crowd = Crowd::none(&recorder);
    crowd.grow(MEMBERS, nodes, &channels).await;
    watchers.agree().await;
    (crowd, watchers)
}

fn of_first(count: usize) -> Vec<String> {
    channels(count, |slot| slot <= LAST_OF_FIRST)
}

fn elsewhere(count: usize) -> Vec<String> {
    channels(count, |slot| slot > LAST_OF_FIRST)
}

fn report(acked: &[Acked]) {
    let (longest, slow) = slowest(acked, Duration::from_secs(1));
    println!("  {} publications acked, the longest took {longest:?}, {slow} more than 1 s", acked.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_that_is_stopped_for_ten_seconds_costs_time_and_what_is_lost_is_told() {
    let stage = Stage::set(&[]).await;
    stage.setup.redis(|redis| redis.server(0).pause()).await;
    tokio::time::sleep(STOPPED_FOR).await;
    stage
        .setup
        .redis(|redis| {
            redis.server(0).resume();
            redis.agreed();
        })
        .await;
    assert_ne!(stage.owners().await[0], 0, "its replica was elected");
    stage.close_honestly().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_that_is_stopped_for_ten_seconds_costs_time_and_no_message() {
    let stage = Stage::set(&[]).await;
    let before = stage.owners().await;
    stage.setup.redis(|redis| redis.pause_all()).await;
    tokio::time::sleep(STOPPED_FOR).await;
    stage
        .setup
        .redis(|redis| {
            redis.resume_all();
            redis.agreed();
        })
        .await;
    if stage.owners().await == before {
        stage.close().await;
    } else {
        println!("  replicas were elected when the servers woke up");
        stage.close_honestly().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_cuts_all_its_clients_again_and_again_costs_no_message() {
    let stage = Stage::set(&[]).await;
    for _ in 0..8 {
        let kill = |redis: &mut RedisCluster| {
            for server in redis.servers() {
                server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
        };
        stage.setup.redis(kill).await;
        stage.audience.0[0].hears_more(60).await;
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_that_are_killed_and_back_before_a_replica_is_elected_have_lost_nothing() {
    let stage = Stage::set(&SYNCED).await;
    for master in [0, 1] {
        stage
            .setup
            .redis(move |redis| {
                redis.kill9(master);
                redis.restart(master);
                redis.agreed();
                assert_eq!(redis.owner(if master == 0 { 0 } else { 8_000 }), master);
            })
            .await;
        stage.audience.0[0].hears_more(200).await;
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_without_failover_has_lost_nothing_when_it_is_back_and_the_others_go_on() {
    const ALONE: [&str; 8] = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--cluster-replica-no-failover",
        "yes",
        "--cluster-require-full-coverage",
        "no",
    ];
    let stage = Stage::set(&ALONE).await;
    stage.setup.redis(|redis| redis.kill9(0)).await;
    // Longer than the servers need to take it for failed.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let others: Vec<String> =
        stage.channels.iter().filter(|name| slot(name) > LAST_OF_FIRST).cloned().collect();
    let listener = &stage.audience.0[0];
    let heard = |channel: &String| listener.messages(channel).len();
    for channel in &others {
        let before = heard(channel);
        listener
            .until("what the other masters have", |events| {
                let of_it = |event: &&Event| matches!(event, Event::Message(m) if m.channel == *channel);
                events.iter().filter(of_it).count() >= before + 20
            })
            .await;
    }
    stage
        .setup
        .redis(|redis| {
            redis.restart(0);
            redis.agreed();
            assert_eq!(redis.owner(0), 0);
        })
        .await;
    stage.close().await;
}
