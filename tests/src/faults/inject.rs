//! Carries faults out.

use std::{sync::Arc, time::Duration};

use tokio::{task::block_in_place, time::sleep};

use super::{
    load,
    plan::{Durability, Fault},
    stage::{Slot, Stage},
};
use crate::{process::GatewayProcess, redis_server::RedisServer};

/// From one cut of a connection to the next: long enough to begin to work again.
const BETWEEN_CUTS: Duration = Duration::from_millis(150);
/// What is left of an inbox that overflowed.
const KEPT_OF_AN_INBOX: &str = "3";

/// Does it, and undoes it when its time is over.
pub(super) async fn inject(stage: Arc<Stage>, fault: Fault) {
    match fault {
        Fault::PauseRedis(time) => {
            let redis = stage.redis.lock().await;
            redis.pause();
            sleep(time).await;
            redis.resume();
        }
        Fault::KillConnections(times) => {
            let redis = stage.redis.lock().await;
            for _ in 0..times {
                block_in_place(|| redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]));
                sleep(BETWEEN_CUTS).await;
            }
        }
        Fault::RestartRedis { down, lost } => restart_redis(&stage, down, lost).await,
        Fault::FlushScripts => {
            let redis = stage.redis.lock().await;
            block_in_place(|| redis.cli(&["SCRIPT", "FLUSH"]));
        }
        Fault::TrimHistory { channel, keep } => {
            let (redis, channel) = (stage.redis.lock().await, load::channel(channel));
            stage.recorder.history().trimmed(&channel, stage.recorder.now());
            let key = stage.history_key(&channel);
            block_in_place(|| redis.cli(&["XTRIM", &key, "MAXLEN", &keep.to_string()]));
        }
        Fault::RemoveHistory { channel } => {
            let (redis, channel) = (stage.redis.lock().await, load::channel(channel));
            stage.recorder.history().removed(&channel, stage.recorder.now());
            let key = stage.history_key(&channel);
            block_in_place(|| redis.cli(&["DEL", &key]));
        }
        Fault::KillNode { node, down } => {
            let Some(slot) = stage.slots.get(node) else { return };
            let mut node = slot.node.lock().await;
            block_in_place(|| node.kill9());
            sleep(down).await;
            slot.replace(&stage, &mut node).await;
        }
        Fault::DrainNode { node } => {
            let Some(slot) = stage.slots.get(node) else { return };
            let mut node = slot.node.lock().await;
            node.sigterm();
            node.ended().await;
            slot.replace(&stage, &mut node).await;
        }
        Fault::PauseNode { node, time, overflow } => {
            let Some(slot) = stage.slots.get(node) else { return };
            let node = slot.node.lock().await;
            node.pause();
            sleep(time).await;
            if overflow {
                let redis = stage.redis.lock().await;
                on_inboxes(&stage, &redis, slot, &node, &["XTRIM"], &["MAXLEN", KEPT_OF_AN_INBOX]);
            }
            node.resume();
        }
        Fault::RemoveInboxes { node } => {
            let Some(slot) = stage.slots.get(node) else { return };
            let (node, redis) = (slot.node.lock().await, stage.redis.lock().await);
            on_inboxes(&stage, &redis, slot, &node, &["DEL"], &[]);
        }
        other => disturb_sockets(&stage, other).await,
    }
}

async fn disturb_sockets(stage: &Stage, fault: Fault) {
    match fault {
        Fault::CutClients { node } => {
            let Some(slot) = stage.slots.get(node) else { return };
            slot.websocket.cut();
            slot.grpc.cut();
        }
        Fault::CutRedis { node, times } => {
            let Some(slot) = stage.slots.get(node) else { return };
            for _ in 0..times {
                slot.to_redis.cut();
                sleep(BETWEEN_CUTS).await;
            }
        }
        Fault::SwallowRedis { node, time } => {
            let Some(slot) = stage.slots.get(node) else { return };
            slot.to_redis.swallow();
            sleep(time).await;
            slot.to_redis.cut_swallowed();
        }
        Fault::DelayRedis { node, delay, time } => {
            let Some(slot) = stage.slots.get(node) else { return };
            slot.to_redis.delay(delay);
            sleep(time).await;
            slot.to_redis.delay(Duration::ZERO);
        }
        other => unreachable!("{other:?} is no fault of sockets"),
    }
}

async fn restart_redis(stage: &Stage, down: Duration, lost: u64) {
    let mut redis = stage.redis.lock().await;
    block_in_place(|| redis.kill9());
    if stage.durability != Durability::Always {
        // All that was sent up to here may be lost.
        stage.recorder.history().lossy_restart(stage.recorder.now());
    }
    if stage.durability == Durability::EverySecond {
        redis.lose_end_of_file(lost);
    }
    sleep(down).await;
    block_in_place(|| redis.restart());
}

/// Runs a command on each inbox of a node; there are none before its first registration.
fn on_inboxes(
    stage: &Stage,
    redis: &RedisServer,
    slot: &Slot,
    node: &GatewayProcess,
    before: &[&str],
    after: &[&str],
) {
    let Some(incarnation) = incarnation(node) else { return };
    slot.tampered();
    for partition in 0..stage.keys.partitions() {
        let key = stage.keys.key(partition, &format!("in:{incarnation}"));
        let key = String::from_utf8_lossy(&key);
        let args = [before, &[&*key], after].concat();
        block_in_place(|| redis.cli(&args));
    }
}

/// What the node logged of its incarnation (`gateway/src/broker/redis/supervision.rs`).
fn incarnation(node: &GatewayProcess) -> Option<String> {
    let lines = node.log();
    let line = lines.iter().rev().find(|line| line.contains("this node's incarnation"))?;
    let (_, number) = line.split_once("node=")?;
    Some(number.chars().take_while(char::is_ascii_digit).collect())
}
