//! `streamgate serve`: a node until a signal ends it.

use std::{io, process::ExitCode};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    broker::BrokerStatus,
    config::{BrokerConfig, Sources, load},
    node::Node,
    telemetry::logging::{self, LogHandle},
};

/// Runs a node with what `sources` say: SIGTERM and SIGINT drain and end it, a second one
/// ends it at once, SIGHUP reads the configuration again.
#[must_use]
pub fn serve(sources: &Sources) -> ExitCode {
    match run(sources) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(sources: &Sources) -> Result<(), Box<dyn std::error::Error>> {
    let loaded = load(sources)?;
    let log = logging::install(&loaded.config.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // Connections live on the shards' own threads; here are gRPC's sockets, the admin listener and the broker.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hangup = signal(SignalKind::hangup())?;
        let mut node = Node::builder(loaded.config).start().await?;
        greet(&node);
        let mut status = node.broker_status();
        let failed = node.failed();
        tokio::pin!(failed);
        let end = loop {
            tokio::select! {
                // Its clients are gone; the others are sent away, and whoever runs this starts it anew.
                () = &mut failed => break Err("a shard ended by a panic".into()),
                () = either(&mut terminate, &mut interrupt) => break Ok(()),
                _ = hangup.recv() => reload(&mut node, sources, &log),
                changed = status.changed() => {
                    if changed.is_err() {
                        return Err("the broker ended".into());
                    }
                    let status = status.borrow_and_update().clone();
                    report(&status);
                    if let BrokerStatus::Refused(reason) = status {
                        break Err(reason.into());
                    }
                }
            }
        };
        tracing::info!("stopping");
        tokio::select! {
            () = node.shutdown() => tracing::info!("stopped"),
            () = either(&mut terminate, &mut interrupt) => {
                return Err("told twice: ended before all clients were sent away".into());
            }
        }
        end
    });
    // Names may still be looked up on threads that nobody can stop: they must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// Waits for one of two signals. Cancel: safe.
async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// A configuration that cannot be read changes nothing.
fn reload(node: &mut Node, sources: &Sources, log: &LogHandle) {
    let loaded = match load(sources) {
        Ok(loaded) => loaded,
        Err(error) => return tracing::error!(%error, "the configuration is not reloaded"),
    };
    let outcome = node.reload(&loaded.config);
    if let Err(error) = log.set_level(&node.config().log.level) {
        tracing::error!(%error, "the log level is not changed");
    }
    tracing::info!(applied = ?outcome.applied, needs_restart = ?outcome.needs_restart, "configuration reloaded");
}

fn report(status: &BrokerStatus) {
    match status {
        BrokerStatus::Ready => tracing::info!("the broker is ready"),
        // Usual for a moment; a failure to connect is a warning of its own.
        BrokerStatus::Starting(reason) => tracing::info!(reason, "waiting for the broker"),
        BrokerStatus::Away(reason) => tracing::warn!(reason, "waiting for the broker"),
        BrokerStatus::Refused(reason) => tracing::error!(reason, "the broker refuses to start"),
        BrokerStatus::Stopped => tracing::info!("the broker is stopped"),
    }
}

/// Addresses, and what to try next: for whoever starts it by hand.
fn greet(node: &Node) {
    let broker = match &node.config().broker {
        BrokerConfig::Memory(_) => "memory (one node, nothing kept across a restart)".to_owned(),
        BrokerConfig::Redis(redis) => format!("redis at {}", redis.addrs.join(",")),
    };
    let path = &node.config().websocket.path;
    let of = |tls: bool, plain: &'static str, secure: &'static str| if tls { secure } else { plain };
    let scheme = of(node.config().websocket.tls.is_some(), "ws", "wss");
    let url = format!("{scheme}://{}{path}", node.websocket_addr());
    let grpc = of(node.config().grpc_tls.is_some(), "", "grpcs://");
    let needs_token = node.config().jwt.is_some() && !node.config().allow_anonymous;
    let text = format!(
        "Streamgate {version}\n\
         \n  broker     {broker}\
         \n  WebSocket  {url}\
         \n  gRPC       {grpc}{grpc_addr}\
         \n  admin      {http}://{admin}/metrics  {http}://{admin}/health/ready\n\
         \nTry, each in a terminal of its own{token}:\n\
         \n  {program} sub 'room.**'{server}\
         \n  {program} pub room.blue '{{\"hello\":\"world\"}}'{server}\
         \n  {program} history room.blue{server}\
         \n  curl -N '{http_url}/sse?channel=room.blue'{bearer}\n",
        http_url = url_of_http(scheme, node),
        bearer = if needs_token { " -H \"Authorization: Bearer $STREAMGATE_TOKEN\"" } else { "" },
        version = env!("CARGO_PKG_VERSION"),
        grpc_addr = node.grpc_addr(),
        http = of(node.config().admin_tls.is_some(), "http", "https"),
        admin = node.admin_addr(),
        program = program(),
        token = if needs_token { ", with a token in STREAMGATE_TOKEN or --token" } else { "" },
        server = if scheme == "ws" && node.websocket_addr().port() == 9080 {
            String::new()
        } else {
            format!(" --server {url}")
        },
    );
    // A closed standard output is no reason not to serve.
    let _ = io::Write::write_all(&mut io::stdout().lock(), text.as_bytes());
}

/// The client listener, for clients that speak plain HTTP.
fn url_of_http(scheme: &str, node: &Node) -> String {
    let http = if scheme == "ws" { "http" } else { "https" };
    format!("{http}://{}", node.websocket_addr())
}

/// How the program was called, so that the commands can be pasted.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "streamgate".to_owned())
}
