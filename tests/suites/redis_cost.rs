//! What a publish costs Redis, in CPU time of its main thread, beside plain commands in the same run. Printed, and
//! asserted only to be sane: figures depend on the machine. Run with `--nocapture`.

use std::time::Duration;

use bytes::Bytes;
use streamgate::broker::queue::JobOptions;
use streamgate::broker::redis::{
    Believed, Command, CommandName, Connection, PublishArgs, RedisOptions, Setting, scripts,
};
use streamgate_e2e::redis_server::{RedisServer, RedisServerOptions};

const DEADLINE: Duration = Duration::from_secs(20);
const PUBLISHES: usize = 40_000;
const CHANNELS: usize = 100;
/// Calls sent before the first of them is waited for.
const WINDOW: usize = 16;
const BASE: &str = "t:{x}:";

/// Microseconds of Redis CPU for each publish, by calls that carry `batch` publishes each.
async fn cost(
    server: &RedisServer,
    connection: &Connection,
    batch: usize,
    call: impl Fn(usize) -> Command,
    after: impl Fn() -> Option<Command>,
) -> f64 {
    let before = server.cpu_seconds();
    let mut sent = 0;
    while sent < PUBLISHES {
        let window: Vec<_> = (0..WINDOW)
            .map(|n| connection.call(call(sent + n * batch), DEADLINE))
            .chain(after().map(|command| connection.call(command, DEADLINE)))
            .collect();
        for call in window {
            call.await.unwrap();
        }
        sent += WINDOW * batch;
    }
    (server.cpu_seconds() - before) * 1e6 / sent as f64
}

fn publish(replid: &str, blob: &Bytes, believed: &[Believed], first: usize, batch: usize) -> Command {
    let mut args: Vec<Bytes> = vec![BASE.into(), replid.to_owned().into(), "20000".into(), "1000000".into()];
    args.push(Bytes::from_static(b"0"));
    let (keep, window) = (Duration::from_secs(900), Duration::from_secs(300));
    let setting = Setting {
        history_size: 1_000,
        keep,
        refresh: false,
        idempotency_window: window,
        channel_is_queue: false,
        max_jobs: 1,
    };
    let mut columns = PublishArgs::default();
    for n in first..first + batch {
        let channel = n % CHANNELS;
        columns.push(
            &format!("room.{channel}"),
            blob.clone(),
            believed[channel],
            setting,
            Bytes::new(),
            &JobOptions::default(),
        );
    }
    columns.append_to(&mut args);
    scripts::PUBLISH.call_command(vec![format!("{BASE}meta").into()], args)
}

trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Self;
}

impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Self {
        Self::from_static(text.as_bytes())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cpu_per_publish_is_printed() {
    let server = RedisServer::start(RedisServerOptions::default().args(&["--stream-node-max-bytes", "4096"]));
    let options: RedisOptions = server.addr().to_string().parse().unwrap();
    let connection = Connection::open(&options, &options.server(), 1).await.unwrap();
    connection.load_scripts(&scripts::all(), DEADLINE).await.unwrap();
    let replid = connection.hello().replid.clone();
    let blob = Bytes::from(vec![b'x'; 256]);

    let plain = |n: usize| {
        let key = format!("plain.{}", n % CHANNELS);
        let command = Command::new(CommandName::XAdd).arg(key).arg("MAXLEN").arg("~").arg("1000").arg("*");
        command.arg("t").arg("1767225600000").arg("b").arg(blob.clone())
    };
    let xadd = cost(&server, &connection, 1, plain, || None).await;
    println!("plain XADD: {xadd:.2} us");

    let register = ["7", "1", "0", "600000", BASE, "10000"].map(Bytes::from_static_str).to_vec();
    connection
        .call_script(&scripts::REGISTER_NODE, vec![format!("{BASE}in:7").into()], register, DEADLINE)
        .await
        .unwrap();
    let mut epochs = Vec::new();
    for channel in 0..CHANNELS {
        server.cli(&["HSET", &format!("{BASE}i"), &format!("room.{channel}"), "7"]);
        let unknown = vec![Believed::Unknown; CHANNELS];
        let reply = connection.call(publish(&replid, &blob, &unknown, channel, 1), DEADLINE).await.unwrap();
        let id = reply.as_array().unwrap()[1].as_str().unwrap().to_owned();
        epochs.push(Believed::Epoch(id.split('-').next().unwrap().parse().unwrap()));
    }
    let read = || {
        let command =
            Command::new(CommandName::XReadGroup).arg("GROUP").arg("g1").arg("n").arg("COUNT").arg("500");
        Some(command.arg("NOACK").arg("STREAMS").arg(format!("{BASE}in:7")).arg(">"))
    };
    for batch in [1, 8, 32] {
        let call = |first| publish(&replid, &blob, &epochs, first, batch);
        let us = cost(&server, &connection, batch, call, read).await;
        println!(
            "publish script, {batch:2} a call, one interested node that reads: {us:.2} us, {:.2} x XADD",
            us / xadd
        );
        assert!(us < 1_000.0);
    }
}
