use std::time::Duration;

use clap::Parser as _;

use super::*;
use crate::measure::{redis::Info, sampler::Sampler};

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(words: &str) -> Args {
    Line::try_parse_from(std::iter::once("loadtest").chain(words.split_whitespace())).unwrap().args
}

async fn refused(words: &str) -> String {
    match Servers::start(&args(words), "").await {
        Ok(_) => panic!("{words}: started"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn named_nodes_are_taken_as_they_are() {
    let line = "--url ws://127.0.0.1:1/ws --url http://127.0.0.1:2 --pid 11 --pid 12 --redis 127.0.0.1:3";
    let servers = Servers::start(&args(line), "").await.unwrap();
    assert_eq!(servers.endpoints[0].websocket().unwrap().port(), 1);
    assert_eq!(servers.endpoints[1].grpc().unwrap().port(), 2);
    assert_eq!(servers.processes, [("gateway 1".to_owned(), 11), ("gateway 2".to_owned(), 12)]);
    let target = servers.target("ws", "json");
    assert_eq!((target.nodes, target.broker.as_str()), (2, "redis"));
    let watched: Vec<String> = servers.watched().into_iter().map(|watched| watched.name).collect();
    assert_eq!(watched, ["gateway 1", "gateway 2", "redis", "loadtest"]);
}

#[tokio::test]
async fn options_that_do_not_fit_are_refused() {
    assert!(refused("--nodes 2").await.contains("--broker redis"));
    assert!(refused("--nodes 0").await.contains("nothing to load"));
    assert!(refused("--url ws://127.0.0.1:1 --url ws://127.0.0.1:2 --pid 1").await.contains("one for each"));
    assert!(refused("--config no-such-file.yaml").await.contains("no-such-file.yaml"));
    for words in ["--pid 1", "--redis a:1", "--url ws://a:1 --history 5", "--url ws://a:1 --broker redis"] {
        Line::try_parse_from(std::iter::once("loadtest").chain(words.split_whitespace())).unwrap_err();
    }
}

#[tokio::test]
async fn a_panic_of_the_harness_is_an_error() {
    let failed = blocking("redis-server", || -> () { panic!("not {}", "installed") }).await;
    assert_eq!(failed.unwrap_err().to_string(), "redis-server: not installed");
}

#[tokio::test]
async fn a_node_on_memory_is_started_and_measured() {
    let file = std::env::temp_dir().join(format!("streamgate-loadtest-{}.yaml", std::process::id()));
    // A key without meaning, for a warning.
    std::fs::write(&file, "transport: {websocket: {path: /other, read_timeout: 5s}}").unwrap();
    let mut args = args("--history 5");
    args.config = Some(file.clone());
    let servers = Servers::start(&args, "channels: [{pattern: 'load.**', presence: false}]").await.unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!(servers.endpoints[0].path, "/other");
    let warnings = servers.warnings();
    assert!(warnings.len() == 1 && warnings[0].starts_with("gateway 1: "), "{warnings:?}");
    assert!(warnings[0].contains("read_timeout"), "{warnings:?}");
    assert_eq!((servers.broker, servers.redis, servers.processes.len()), ("memory", None, 1));
    let sampler = Sampler::start(servers.watched()).await.unwrap();
    for listener in [servers.endpoints[0].websocket().unwrap(), servers.endpoints[0].grpc().unwrap()] {
        tokio::net::TcpStream::connect(listener).await.unwrap();
    }
    let samples = sampler.stop().await.unwrap();
    assert_eq!(samples.costs[0].name, "gateway 1");
    assert!(samples.costs.iter().all(|cost| cost.rss_before > 0), "{samples:?}");
    let listener = servers.endpoints[0].websocket().unwrap();
    drop(servers);
    tokio::net::TcpStream::connect(listener).await.unwrap_err();
}

#[tokio::test]
async fn nodes_on_redis_are_started_and_measured() {
    let servers = Servers::start(&args("--nodes 2 --broker redis"), "").await.unwrap();
    assert_eq!(servers.broker, "redis");
    let names: Vec<&str> = servers.processes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["gateway 1", "gateway 2", "redis"]);
    assert_eq!(servers.warnings(), [""; 0]);
    let addr = servers.redis.unwrap();
    let mut info = Info::connect(addr).await.unwrap();
    let usage = info.usage().await.unwrap();
    assert!(usage.cpu > Duration::ZERO && usage.used_memory > 0 && usage.rss_kib > 0, "{usage:?}");
    let mut watched = servers.watched();
    watched.push(Watched { name: "redis by INFO".into(), source: Source::Redis(addr) });
    let samples = Sampler::start(watched).await.unwrap().stop().await.unwrap();
    assert_eq!(samples.costs.len(), 5);
    assert!(samples.costs.iter().all(|cost| cost.rss_before > 0 && cost.cpu_seconds >= 0.0), "{samples:?}");
}
