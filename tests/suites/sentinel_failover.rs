//! A master under Sentinels is killed, loses acked writes, is demoted, stands still: subscribers of two nodes lose
//! nothing without being told, and no history is written twice.

use std::{net::SocketAddr, time::Duration};

use streamgate::broker::BrokerStatus;
use streamgate_e2e::{
    DEADLINE,
    certificates::Authority,
    failover::Audience,
    gateway::{Addrs, TestNode},
    history::Recorder,
    redis_server::{RedisServer, RedisServerOptions},
    sentinel::{FAILOVER, StaleSentinel, Watched},
    within,
};
use tokio_util::sync::CancellationToken;

const CHANNELS: [&str; 4] = ["fail.a", "fail.b", "fail.c", "fail.d"];
/// More than is published while a node is away, and a short wait for what gets no answer.
const YAML: &str = "channels: [{pattern: \"**\", history_size: 20000}]\nlimits: {request_timeout: 2s}";

struct Setting {
    audience: Audience,
    nodes: Vec<TestNode>,
    watched: Watched,
}

impl Setting {
    async fn start(channels: &[&str]) -> Self {
        let watched = Watched::start().await;
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let node = TestNode::start(&watched.yaml(YAML)).await;
            node.addrs().ready().await;
            nodes.push(node);
        }
        let addrs: Vec<Addrs> = nodes.iter().map(TestNode::addrs).collect();
        let audience = Audience::at(&addrs, channels, "fail.*").await;
        Self { audience, nodes, watched }
    }

    /// Waits until both nodes say that all is well.
    async fn well(&self) {
        for node in &self.nodes {
            let mut status = node.node().broker_status();
            let ready = status.wait_for(|status| *status == BrokerStatus::Ready);
            let known = tokio::time::timeout(FAILOVER, ready).await.is_ok();
            assert!(known, "{:?}", *node.node().broker_status().borrow());
        }
    }

    /// Publishes while `fault` happens and for some time after it, then judges. The fault says from when on nothing is
    /// lost any more.
    async fn under_load(&mut self, fault: impl AsyncFnOnce(&mut Watched, &Recorder)) -> String {
        let stop = CancellationToken::new();
        let publishing = self.audience.keep_publishing(&stop);
        self.audience.more_acks(200).await;
        fault(&mut self.watched, &self.audience.recorder).await;
        self.well().await;
        self.audience.more_acks(200).await;
        stop.cancel();
        for publisher in publishing {
            publisher.await.expect("publishes");
        }
        self.audience.finish().await;
        self.audience.judge().await
    }
}

/// What was sent up to now may be lost, and told so from `since` on.
fn may_have_lost(recorder: &Recorder, since: Duration) {
    let now = recorder.now();
    recorder.history().lossy_failover(since, now);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_replaced_and_no_client_is_disconnected() {
    let mut setting = Setting::start(&CHANNELS).await;
    let summary = setting
        .under_load(async |watched, recorder| {
            watched.in_sync().await;
            let old = watched.master();
            let since = recorder.now();
            watched.servers[0].kill9();
            may_have_lost(recorder, since);
            watched.replaced(old).await;
        })
        .await;
    println!("master killed: {summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_lost_nothing_goes_unnoticed() {
    let mut setting = Setting::start(&CHANNELS).await;
    for number in 0..40 {
        assert!(setting.audience.publish(number, CHANNELS[number % 4], &format!("before {number}")).await);
    }
    setting.watched.in_sync().await;
    let old = setting.watched.master();
    setting.watched.servers[0].kill9();
    setting.watched.replaced(old).await;
    setting.well().await;
    setting.audience.finish().await;
    let summary = setting.audience.judge().await;
    println!("master killed in silence: {summary}");
    for channel in CHANNELS {
        assert_eq!(setting.audience.gaps(channel), [0; 6], "{channel}: {summary}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_the_last_writes_is_promoted_and_only_those_affected_are_told() {
    let mut setting = Setting::start(&CHANNELS).await;
    let audience = &setting.audience;
    for number in 0..40 {
        assert!(audience.publish(number, CHANNELS[number % 4], &format!("before {number}")).await);
    }
    let watched = &mut setting.watched;
    watched.in_sync().await;
    // Cut off while they stand still, they can neither have what follows nor come back for it.
    watched.servers[1..].iter().for_each(|replica| replica.pause());
    assert_eq!(watched.servers[0].cli(&["CLIENT", "KILL", "TYPE", "replica"]), "2");
    for number in 0..20 {
        assert!(audience.publish(number, CHANNELS[number % 2], &format!("lost {number}")).await);
    }
    for number in 0..20 {
        audience.all_see(CHANNELS[number % 2], &format!("lost {number}")).await;
    }
    let old = watched.master();
    let since = audience.recorder.now();
    watched.servers[0].kill9();
    may_have_lost(&audience.recorder, since);
    watched.servers[1..].iter().for_each(|replica| replica.resume());
    watched.replaced(old).await;
    // Both write as soon as they can, and they come back at different times.
    let stop = CancellationToken::new();
    let publishing = setting.audience.keep_publishing(&stop);
    setting.well().await;
    setting.audience.more_acks(200).await;
    stop.cancel();
    for publisher in publishing {
        publisher.await.expect("publishes");
    }
    setting.audience.finish().await;
    let summary = setting.audience.judge().await;
    println!("replica without the last writes: {summary}");
    for (number, channel) in CHANNELS.iter().enumerate() {
        let told = if number < 2 { [1; 6] } else { [0; 6] };
        assert_eq!(setting.audience.gaps(channel), told, "{channel}: {summary}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_that_lives_is_left() {
    let mut setting = Setting::start(&CHANNELS).await;
    let summary = setting
        .under_load(async |watched, recorder| {
            let (old, since) = (watched.master(), recorder.now());
            assert_eq!(watched.sentinels[0].cli(&["SENTINEL", "FAILOVER", "main"]), "OK");
            let new = watched.replaced(old).await;
            watched.demote(old, new);
            may_have_lost(recorder, since);
        })
        .await;
    println!("master demoted: {summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_stands_still_is_left_before_it_wakes_and_stays_left() {
    let setting = Setting::start(&CHANNELS).await;
    let (audience, watched) = (&setting.audience, &setting.watched);
    let stop = CancellationToken::new();
    let publishing = audience.keep_publishing(&stop);
    audience.more_acks(200).await;
    let (old, since) = (watched.master(), audience.recorder.now());
    watched.servers[0].pause();
    // What is sent from here on cannot be acked by the old master, and what it still does when it wakes is seen by nobody.
    may_have_lost(&audience.recorder, since);
    let new = watched.replaced(old).await;
    setting.well().await;
    audience.more_acks(200).await;
    watched.servers[0].resume();
    watched.becomes_replica(&watched.servers[0]).await;
    audience.more_acks(200).await;
    assert_eq!(watched.master(), new);
    stop.cancel();
    for publisher in publishing {
        publisher.await.expect("publishes");
    }
    audience.finish().await;
    println!("master stood still: {}", audience.judge().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_only_the_sentinels_cannot_reach_is_left() {
    let mut setting = Setting::start(&CHANNELS).await;
    let summary = setting
        .under_load(async |watched, recorder| {
            let (old, since) = (watched.master(), recorder.now());
            watched.hide_from_sentinels(watched.server(old));
            watched.replaced(old).await;
            within("all links leave it", watched.deserted(watched.server(old))).await;
            // Until then nodes wrote to both.
            may_have_lost(recorder, since);
            assert_eq!(watched.server(old).info("replication")["role"], "master", "nobody could tell it");
        })
        .await;
    println!("master out of sight: {summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_sentinel_leads_nobody_to_a_master_of_the_past() {
    let watched = Watched::start().await;
    let old = watched.master();
    let stale = StaleSentinel::naming(old).await;
    assert_eq!(watched.sentinels[0].cli(&["SENTINEL", "FAILOVER", "main"]), "OK");
    let new = watched.replaced(old).await;
    watched.demote(old, new);

    let deceived = TestNode::start(&yaml(&[stale.addr()], "")).await;
    let mut status = deceived.node().broker_status();
    let refused = status.wait_for(
        |status| matches!(status, BrokerStatus::Starting(why) if why.contains("is not a master (role slave)")),
    );
    within("the old master is refused", refused).await.expect("runs");

    let addrs: Vec<SocketAddr> =
        std::iter::once(stale.addr()).chain(watched.sentinels.iter().map(RedisServer::addr)).collect();
    let node = TestNode::start(&yaml(&addrs, "")).await;
    node.addrs().ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_why_sentinels_do_not_help() {
    let master = RedisServer::start_default();
    let sentinel = |name: &str| {
        let line = format!("sentinel monitor {name} 127.0.0.1 {} 1", master.addr().port());
        RedisServer::start(RedisServerOptions::default().sentinel([line]))
    };
    let other = sentinel("other");
    let gone = {
        let server = RedisServer::start_default();
        server.addr()
    };
    let node = TestNode::start(&yaml(&[other.addr(), gone], "")).await;
    let mut status = node.node().broker_status();
    let told = status.wait_for(|status| match status {
        BrokerStatus::Starting(why) => {
            why.contains(&format!("{} does not know a master `main`", other.addr()))
                && why.contains(&format!("{gone} fails: cannot reach Redis"))
        }
        _ => false,
    });
    let told = tokio::time::timeout(DEADLINE, told).await.is_ok();
    assert!(told, "{:?}", *node.node().broker_status().borrow());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_redis_each_have_their_own_password_and_share_tls() {
    let authority = Authority::new();
    let identity = authority.issue("server", &["127.0.0.1"]);
    let options = || RedisServerOptions::default().tls(&authority, &identity, false);
    let master = RedisServer::start(options().password("of-redis"));
    let sentinel = RedisServer::start(options().password("of-sentinel").sentinel([
        "tls-replication yes".to_owned(),
        format!("sentinel monitor main 127.0.0.1 {} 1", master.tls_addr().port()),
        "sentinel auth-pass main of-redis".to_owned(),
    ]));
    let config = |sentinel_password: &str| {
        format!(
            "broker: {{type: redis, redis: {{mode: sentinel, addrs: ['rediss://{}'], password: of-redis, \
             tls: {{ca_file: '{}'}}, sentinel: {{master_name: main, password: {sentinel_password}}}}}}}",
            sentinel.tls_addr(),
            authority.ca_file().display()
        )
    };
    let node = TestNode::start(&config("of-sentinel")).await;
    node.addrs().ready().await;

    let stranger = TestNode::start(&config("s3cret")).await;
    let mut status = stranger.node().broker_status();
    let told = within(
        "the Sentinel refuses",
        status.wait_for(
            |status| matches!(status, BrokerStatus::Starting(why) if why.contains("denies access")),
        ),
    )
    .await;
    let told = format!("{:?}", *told.expect("runs"));
    assert!(!told.contains("s3cret"), "{told}");
}

/// The configuration of a node with these Sentinels.
fn yaml(sentinels: &[SocketAddr], more: &str) -> String {
    let addrs: Vec<String> = sentinels.iter().map(|addr| format!("'{addr}'")).collect();
    let addrs = addrs.join(", ");
    format!(
        "broker: {{type: redis, redis: {{mode: sentinel, addrs: [{addrs}], sentinel: {{master_name: main}}{more}}}}}"
    )
}
