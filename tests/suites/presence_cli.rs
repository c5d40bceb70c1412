//! `streamgate presence`: the list, and what `--watch` prints while members come and go and the node is away.

use serde_json::Value;
use streamgate_e2e::{
    cluster,
    events::{extended, live},
    gateway::{Addrs, TestNode},
    process::run,
    raw::{RawClient, Via},
};
use streamgate_proto::v1::Connect;

use crate::cli::{Running, succeeded};

async fn member(addrs: Addrs, name: &str, channel: &str) -> RawClient {
    let connect = Connect { client_id: name.into(), ..extended([live(channel)]) };
    RawClient::connect_as(addrs, Via::WsJson, connect).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_names_everyone_as_a_table_or_as_objects() {
    let node = TestNode::start("").await;
    let server = cluster::url(node.addrs(), Via::WsJson);
    assert_eq!(succeeded(&["presence", "room.a", "--server", &server]), "");
    let (one, two) =
        (member(node.addrs(), "one", "room.a").await, member(node.addrs(), "two", "room.a").await);
    let listed = succeeded(&["presence", "room.a", "--server", &server]);
    let lines: Vec<_> = listed.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("SESSION "), "{listed}");
    for client in [&one, &two] {
        let row = lines.iter().find(|line| line.starts_with(&client.connected.session_id)).unwrap();
        assert!(row.contains(" -  "), "nobody is authenticated: {row}");
    }
    let grpc = cluster::url(node.addrs(), Via::Grpc);
    let listed = succeeded(&["presence", "room.a", "-o", "json", "--server", &grpc]);
    let mut names: Vec<_> = listed
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["member"]["client_id"].as_str().unwrap().to_owned()
        })
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_prints_who_comes_and_goes_also_while_it_was_away() {
    let (first, second) = (TestNode::start("").await, TestNode::start("").await);
    let servers = [&first, &second].map(|node| cluster::url(node.addrs(), Via::WsJson));
    let stays = member(first.addrs(), "stays", "room.a").await;
    let args =
        ["presence", "room.a", "--watch", "-o", "json", "--server", &servers[0], "--server", &servers[1]];
    let watch = Running::start(&args);
    let lines = watch.printed(1).await;
    let list: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(list["member"]["session_id"].as_str(), Some(stays.connected.session_id.as_str()));

    let comes = member(first.addrs(), "comes", "room.a").await;
    watch.printed(2).await;
    comes.close().await;
    watch.printed(3).await;

    // The other node has a memory of its own: there `stays` was never seen, and somebody else is.
    let _other = member(second.addrs(), "other", "room.a").await;
    drop(first);
    let lines = watch.printed(5).await;
    let news: Vec<_> = lines[1..]
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            format!("{} {}", line["action"].as_str().unwrap(), line["member"]["client_id"].as_str().unwrap())
        })
        .collect();
    assert_eq!(news, ["join comes", "leave comes", "leave stays", "join other"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_can_be_watched_and_not_listed() {
    let node = TestNode::start("").await;
    let server = cluster::url(node.addrs(), Via::Grpc);
    let refused = run(&["presence", "room.*", "--server", &server]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let watch = Running::start(&["presence", "room.*", "--watch", "--server", &server]);
    // It says when it watches only to people: come until it is seen.
    let mut watching = watch.lines();
    while watching.borrow().is_empty() {
        member(node.addrs(), "knocks", "room.a").await.close().await;
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), watching.changed()).await;
    }
    let seen = member(node.addrs(), "seen", "room.b").await;
    let id = &seen.connected.session_id;
    let lines = streamgate_e2e::within("the join", async {
        loop {
            if let Some(line) = watching.borrow().iter().find(|line| line.contains("room.b")) {
                return line.clone();
            }
            watching.changed().await.unwrap();
        }
    })
    .await;
    assert!(lines.starts_with(&format!("join room.b {id} - seen ")), "{lines}");
}
