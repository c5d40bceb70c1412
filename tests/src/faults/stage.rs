//! A Redis, nodes as processes, and the relays before and behind each node.

use std::sync::{
    PoisonError,
    atomic::{AtomicBool, Ordering},
};

use streamgate::broker::redis::keys::Keys;
use tokio::sync::{Mutex, MutexGuard};

use super::{
    plan::{Durability, NODES, Plan},
    relay::Relay,
};
use crate::{
    gateway::Addrs,
    history::Recorder,
    process::GatewayProcess,
    redis_server::{RedisServer, RedisServerOptions},
};

/// Few, so that each has several channels.
const PARTITIONS: u16 = 4;
/// What a node logs when its inbox has a hole (`gateway/src/broker/redis/reader.rs`).
const HOLE: &str = "entries are missing from the inbox";

/// See the module. A fault holds what it works on locked, so that two of them do not get into each other's way.
pub struct Stage {
    /// The nodes' places.
    pub slots: Vec<Slot>,
    /// Where everything is written down.
    pub recorder: Recorder,
    /// What Redis keeps.
    pub durability: Durability,
    /// Names of keys.
    pub keys: Keys,
    /// The server. Declared last: it outlives the nodes.
    pub redis: Mutex<RedisServer>,
}

/// The place of a node: clients and Redis know only its relays.
pub struct Slot {
    name: String,
    /// The node that is there now.
    pub node: Mutex<GatewayProcess>,
    /// To Redis.
    pub to_redis: Relay,
    /// From clients.
    pub websocket: Relay,
    /// From clients.
    pub grpc: Relay,
    /// Something was done to the inboxes of the node of now: they may have holes.
    tampered: AtomicBool,
    yaml: String,
    logs: std::sync::Mutex<Vec<String>>,
}

impl Stage {
    /// Starts everything that `plan` needs, ready.
    ///
    /// # Panics
    /// Something does not start.
    pub async fn start(plan: &Plan) -> Self {
        let redis = RedisServer::start(options(plan.durability));
        let mut slots = Vec::with_capacity(NODES);
        for number in 0..NODES {
            slots.push(Slot::start(number, &redis).await);
        }
        for slot in &slots {
            slot.node.lock().await.addrs().ready().await;
        }
        Self {
            slots,
            recorder: Recorder::default(),
            durability: plan.durability,
            keys: Keys::new("streamgate", PARTITIONS).expect("a valid prefix"),
            redis: Mutex::new(redis),
        }
    }

    /// Where clients reach the nodes, beginning with one of them.
    #[must_use]
    pub fn addrs(&self, first: usize) -> Vec<Addrs> {
        let mut addrs: Vec<Addrs> = self.slots.iter().map(Slot::addrs).collect();
        let first = first % addrs.len();
        addrs.rotate_left(first);
        addrs
    }

    /// The key of a channel's history.
    #[must_use]
    pub fn history_key(&self, channel: &str) -> String {
        let key = self.keys.key(self.keys.partition_of(channel), &format!("h:{channel}"));
        String::from_utf8_lossy(&key).into_owned()
    }

    /// Waits until every fault has ended and every node is ready, and hands their logs to the checker.
    ///
    /// # Panics
    /// A node does not become ready.
    pub async fn healed(&self) {
        drop(self.redis.lock().await);
        for slot in &self.slots {
            slot.to_redis.cut_swallowed();
            let addrs = slot.node.lock().await.addrs();
            addrs.ready().await;
        }
    }

    /// Looks for holes in the inboxes that nothing explains. In runs that lose writes every node may have them.
    pub async fn read_logs(&self) {
        for slot in &self.slots {
            let node = slot.node.lock().await;
            slot.note_log(self, &node);
        }
    }

    /// What the nodes logged, for whoever has to find out what went wrong.
    #[must_use]
    pub fn logs(&self) -> Vec<(String, Vec<String>)> {
        let logs = |slot: &Slot| slot.logs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.slots.iter().map(|slot| (slot.name.clone(), logs(slot))).collect()
    }
}

impl Slot {
    async fn start(number: usize, redis: &RedisServer) -> Self {
        let to_redis = Relay::start(redis.addr()).await;
        let yaml = yaml(&to_redis);
        let node = GatewayProcess::start(&yaml).await;
        Self {
            name: format!("node {number}"),
            websocket: Relay::start(node.addrs().websocket).await,
            grpc: Relay::start(node.addrs().grpc).await,
            node: Mutex::new(node),
            to_redis,
            tampered: AtomicBool::new(false),
            yaml,
            logs: std::sync::Mutex::default(),
        }
    }

    fn addrs(&self) -> Addrs {
        // Nobody asks for the admin listener through a relay.
        Addrs { websocket: self.websocket.addr(), grpc: self.grpc.addr(), admin: self.websocket.addr() }
    }

    /// The inboxes of the node of now may have holes from now on.
    pub fn tampered(&self) {
        self.tampered.store(true, Ordering::SeqCst);
    }

    /// Puts another node in the place of the one that was there.
    pub async fn replace(&self, stage: &Stage, node: &mut MutexGuard<'_, GatewayProcess>) {
        self.note_log(stage, node);
        **node = GatewayProcess::start(&self.yaml).await;
        self.tampered.store(false, Ordering::SeqCst);
        self.websocket.lead_to(node.addrs().websocket);
        self.grpc.lead_to(node.addrs().grpc);
        // Whoever was held by the node of before.
        self.websocket.cut();
        self.grpc.cut();
    }

    fn note_log(&self, stage: &Stage, node: &GatewayProcess) {
        let lines = node.log();
        let explained = self.tampered.load(Ordering::SeqCst) || stage.durability != Durability::Always;
        if !explained && let Some(line) = lines.iter().find(|line| line.contains(HOLE)) {
            stage.recorder.history().inbox_hole(&self.name, line);
        }
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.push(format!("--- {} with process id {}", self.name, node.pid()));
        logs.extend(lines);
    }
}

fn options(durability: Durability) -> RedisServerOptions {
    let options = RedisServerOptions::default().args(&["--stream-node-max-bytes", "512"]);
    match durability {
        Durability::Always => options.args(&["--appendonly", "yes", "--appendfsync", "always"]),
        Durability::EverySecond => options.args(&["--appendonly", "yes", "--appendfsync", "everysec"]),
        Durability::None => options,
    }
}

/// Clients of a node that hangs leave it after three silent seconds.
fn yaml(to_redis: &Relay) -> String {
    format!(
        "broker: {{type: redis, redis: {{addr: '{}', partitions: {PARTITIONS}, command_timeout: 1s, connect_timeout: 1s}}}}\n\
         channels: [{{pattern: '**', history_size: 100000}}]\n\
         limits: {{ping_interval: 1s}}\n\
         drain: {{duration: 1s}}\n",
        to_redis.addr()
    )
}
