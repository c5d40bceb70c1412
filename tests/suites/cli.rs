//! The command line against two real nodes: what `sub` prints survives the death of a node.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use futures_util::future::join_all;
use streamgate_client::PublishOptions;
use streamgate_e2e::{
    cluster, events,
    process::{GatewayProcess, binary, run},
    raw::Via,
    within,
};
use tokio::sync::watch;

/// A client command that runs; killed when dropped.
pub(crate) struct Running {
    child: Mutex<Child>,
    lines: watch::Receiver<Vec<String>>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = Command::new(binary());
        for name in ["STREAMGATE_URL", "STREAMGATE_TOKEN", "STREAMGATE_CLIENT_ID"] {
            command.env_remove(name);
        }
        let mut child = command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = watch::channel(Vec::new());
        let pipe = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            pipe.lines().map_while(Result::ok).for_each(|line| sender.send_modify(|lines| lines.push(line)));
        });
        Self { child: Mutex::new(child), lines }
    }

    /// What it printed so far, and later.
    pub(crate) fn lines(&self) -> watch::Receiver<Vec<String>> {
        self.lines.clone()
    }

    /// Waits for so many lines; answers all there are.
    pub(crate) async fn printed(&self, count: usize) -> Vec<String> {
        let mut lines = self.lines.clone();
        within("the lines", lines.wait_for(|lines| lines.len() >= count)).await.unwrap();
        self.lines.borrow().clone()
    }
}

impl Running {
    /// Waits for its end; its exit code.
    pub(crate) async fn ended(&self) -> Option<i32> {
        within("the end of the command", async {
            loop {
                let status = self.child.lock().unwrap().try_wait().unwrap();
                match status {
                    Some(status) => return status.code(),
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn server(node: &GatewayProcess) -> String {
    cluster::url(node.addrs(), Via::WsJson)
}

pub(crate) fn succeeded(args: &[&str]) -> String {
    let output = run(args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "streamgate {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sub_prints_every_event_once_while_its_node_is_killed() {
    const COUNT: usize = 1_000;
    let redis = cluster::redis();
    let (mut dying, staying) = (cluster::process(&redis, "").await, cluster::process(&redis, "").await);
    let (first, second) = (server(&dying), server(&staying));
    let sub =
        Running::start(&["sub", "room.cli", "--from", "start", "--server", &first, "--server", &second]);
    let publisher = cluster::connect(&[staying.addrs()], Via::WsProto).await;
    let publish = |range: std::ops::Range<usize>| {
        join_all(range.map(|n| {
            let event = events::text(&n.to_string(), &format!("event {n}"));
            let ack = publisher.publish("room.cli", event, PublishOptions::default());
            async move { ack.await.unwrap().position.unwrap() }
        }))
    };
    // Printed, and so subscribed; then the node dies between two publishes, and the rest follows at once.
    let mut positions = publish(0..100).await;
    sub.printed(100).await;
    let half = publish(100..600);
    dying.kill9();
    positions.extend(half.await);
    positions.extend(publish(600..COUNT).await);

    let printed = sub.printed(COUNT).await;
    let expected: Vec<String> =
        positions.iter().enumerate().map(|(n, at)| format!("room.cli {at} event {n}")).collect();
    assert_eq!(printed, expected);

    // One that begins at a position goes on after it.
    let from = positions[COUNT - 4].to_string();
    let rest = succeeded(&["sub", "room.cli", "--from", &from, "--count", "3", "--server", &second]);
    assert_eq!(rest.lines().collect::<Vec<_>>(), expected[COUNT - 3..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pub_sub_and_history_agree_over_two_nodes() {
    let redis = cluster::redis();
    let (one, other) = (cluster::process(&redis, "").await, cluster::process(&redis, "").await);
    let (first, second) = (server(&one), cluster::url(other.addrs(), Via::Grpc));
    succeeded(&["pub", "room.a", "{\"n\":1}", "--server", &first]);
    succeeded(&["pub", "room.a", "{\"n\":2}", "--server", &second]);
    let history = succeeded(&["history", "room.a", "--server", &second]);
    let sub = succeeded(&["sub", "room.a", "--from", "start", "--count", "2", "--server", &first]);
    assert_eq!(sub, history);
    let ends: Vec<&str> = history.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(ends, ["{\"n\":1}", "{\"n\":2}"]);

    let last =
        succeeded(&["sub", "room.*", "--from", "1", "--count", "1", "-o", "json", "--server", &second]);
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!((&last["channel"], &last["event"]["data"]["n"]), (&"room.a".into(), &2.into()));
}

#[test]
fn without_a_gateway_it_says_what_to_do() {
    // Nothing can listen on port 1 here but root's own daemons.
    let output = run(&["pub", "room.a", "x", "--server", "127.0.0.1:1"]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("no gateway at 127.0.0.1:1: is `streamgate serve` running?"), "{text}");
}
