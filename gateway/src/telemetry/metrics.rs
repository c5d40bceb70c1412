//! The metrics: one table of names, and the recorder that `/metrics` renders.

use std::{sync::OnceLock, time::Duration};

use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// What a metric counts, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// One row of [`METRICS`].
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name, as scraped.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Labels that it carries; their values are from small fixed sets.
    pub labels: &'static [&'static str],
    /// What it says, with its unit.
    pub help: &'static str,
}

/// Seconds, from a local hop to a request that is about to be given up.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Sizes of batches.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Declares the names and the table at once, so that none is without a description.
macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:expr, [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )+

        /// Every metric of a node.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $constant, kind: $kind, labels: &[$($label),*], help: $help },)+
        ];
    };
}

metrics_table! {
    BUILD_INFO = "streamgate_build_info", Kind::Gauge, ["version"], "Always 1; the label is the version.";
    CONNECTIONS = "streamgate_connections", Kind::Gauge, ["transport"], "Open client connections.";
    SUBSCRIPTIONS = "streamgate_subscriptions", Kind::Gauge, [], "Subscriptions of connected clients.";
    MESSAGES_IN = "streamgate_messages_in_total", Kind::Counter, ["transport"], "Frames received from clients.";
    MESSAGES_OUT = "streamgate_messages_out_total", Kind::Counter, [], "Frames queued to clients.";
    PUBLISHES = "streamgate_publishes_total", Kind::Counter, ["outcome"], "Publishes, by what became of them.";
    PUBLISH_DELIVER_SECONDS = "streamgate_publish_deliver_seconds", Kind::Histogram(SECONDS), [],
        "Seconds from a publication's storing to its queueing to local subscribers.";
    PUBLISH_BATCH_SIZE = "streamgate_publish_batch_size", Kind::Histogram(COUNTS), [],
        "Publishes in one script call.";
    WRITE_BATCH_FRAMES = "streamgate_write_batch_frames", Kind::Histogram(COUNTS), [],
        "Frames in one write to a client.";
    REDIS_COMMAND_SECONDS = "streamgate_redis_command_seconds", Kind::Histogram(SECONDS), ["command"],
        "Seconds that a Redis command took; blocking reads are not counted.";
    REDIS_ERRORS = "streamgate_redis_errors_total", Kind::Counter, ["kind"], "Failed Redis commands and connections.";
    REDIS_CONNECTIONS = "streamgate_redis_connections", Kind::Gauge, [], "Open connections to Redis.";
    REDIS_AWAY = "streamgate_redis_away", Kind::Gauge, [], "1 while this node cannot reach Redis or read its inboxes, else 0.";
    INBOX_LAG = "streamgate_inbox_lag_entries", Kind::Gauge, ["partition"], "Inbox entries that this node has yet to read.";
    GAPS = "streamgate_gaps_total", Kind::Counter, ["reason"], "Continuity lost and told to subscribers.";
    BACKFILLS = "streamgate_backfills_total", Kind::Counter, [], "Holes filled from history.";
    RECOVERIES = "streamgate_recoveries_total", Kind::Counter, ["outcome"], "Subscriptions that asked for what they missed.";
    RESYNCS = "streamgate_resyncs_total", Kind::Counter, ["reason"], "Partitions compared with their histories, by cause.";
    HISTORY_READS = "streamgate_history_reads_total", Kind::Counter, [], "Range reads of history in the broker.";
    MEMBERS = "streamgate_presence_members", Kind::Gauge, [], "Members of channels that this node holds.";
    PRESENCE_EVENTS = "streamgate_presence_events_total", Kind::Counter, ["action"],
        "Joins and leaves of this node's members.";
    MEMBERS_REAPED = "streamgate_presence_reaped_members_total", Kind::Counter, [],
        "Members of dead nodes that this node removed.";
    NODES_REAPED = "streamgate_presence_reaped_nodes_total", Kind::Counter, [],
        "Dead nodes that this node cleaned up after, once for each partition.";
    LEASES_LOST = "streamgate_leases_lost_total", Kind::Counter, [],
        "Leases of this node in a partition that were gone: it was taken for dead, or Redis lost its data.";
    QUEUE_DEAD = "streamgate_queue_dead_total", Kind::Counter, [], "Jobs of queues that ran out of attempts.";
    QUEUE_DEAD_DROPPED = "streamgate_queue_dead_dropped_total", Kind::Counter, [],
        "Dead jobs that went because their queue keeps only so many.";
    SLOW_CONSUMERS = "streamgate_slow_consumers_total", Kind::Counter, [], "Clients cut because their write queue was full.";
    SHARD_DROPPED = "streamgate_shard_dropped_total", Kind::Counter, [],
        "Publications without a position that an overloaded shard had no room for.";
    ASKS = "streamgate_peer_asks_total", Kind::Counter, ["ask"], "What other nodes asked of this one.";
    RPC_CALLS = "streamgate_rpc_calls_total", Kind::Counter, ["outcome"],
        "Calls of clients, by the code of their error or ok.";
    RPC_SECONDS = "streamgate_rpc_seconds", Kind::Histogram(SECONDS), [], "Seconds that calls of clients took.";
    LATE_ANSWERS = "streamgate_late_answers_total", Kind::Counter, ["from"],
        "Answers of clients or nodes that nobody waited for any more.";
    DRAINING = "streamgate_draining", Kind::Gauge, [], "1 while the node sends its clients away.";
    DRAIN_LEFT = "streamgate_drain_connections_left", Kind::Gauge, [],
        "Connections of a draining node that are still there.";
    HOOK_CALLS = "streamgate_hook_calls_total", Kind::Counter, ["hook", "outcome"],
        "Questions to backends, by hook and by what became of them.";
    HOOK_SECONDS = "streamgate_hook_seconds", Kind::Histogram(SECONDS), ["hook"],
        "Seconds from a question to a backend to its answer.";
    HOOK_BREAKER = "streamgate_hook_breaker", Kind::Gauge, ["backend"],
        "Circuit breaker of a backend: 0 closed, 1 open, 0.5 on trial.";
    HOOK_EVENTS_DROPPED = "streamgate_hook_events_dropped_total", Kind::Counter, ["reason"],
        "Events of sessions and channels that somebody will not be told of, by cause.";
    CLIENT_EVENTS = "streamgate_client_events_total", Kind::Counter, ["outcome"],
        "Events for the system channel: published, or repeated and there already.";
    JWKS_FETCHES = "streamgate_jwks_fetches_total", Kind::Counter, ["outcome"],
        "Fetches of the key set for tokens, by what became of them.";
    JWKS_KEYS = "streamgate_jwks_keys", Kind::Gauge, [],
        "Keys of the last key set that could be read, once for each algorithm.";
    TLS_HANDSHAKES = "streamgate_tls_handshakes_total", Kind::Counter, ["listener", "outcome"],
        "TLS handshakes of clients, by what became of them.";
    TLS_RELOADS = "streamgate_tls_reloads_total", Kind::Counter, ["listener", "outcome"],
        "TLS files of a listener that had changed, by whether they could be used.";
    TLS_EXPIRES = "streamgate_tls_certificate_expires_seconds", Kind::Gauge, ["listener"],
        "Seconds until the listener's certificate is over; negative once it is.";
    API_REQUESTS = "streamgate_api_requests_total", Kind::Counter, ["door", "operation", "code"],
        "Requests to the server API, by what became of them.";
    CLOSES = "streamgate_closes_total", Kind::Counter, ["code"], "Connections that the server closed, by close code.";
}

/// Why there is no recorder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the metrics of this process cannot be recorded: {0}")]
pub struct InstallError(String);

/// Makes the process record metrics and returns what renders them. Only the first call does the work; several
/// nodes in one process share one recorder, and their numbers add up.
///
/// # Errors
/// The process already records metrics in another way, as an embedding program may.
pub fn install() -> Result<PrometheusHandle, InstallError> {
    static INSTALLED: OnceLock<Result<PrometheusHandle, InstallError>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let recorder = recorder()?;
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).map_err(|error| InstallError(error.to_string()))?;
            describe();
            Ok(handle)
        })
        .clone()
}

/// Keeps the recorder's memory bounded until `shutdown`: without it, observations pile up between scrapes.
/// Cancel: safe.
pub async fn upkeep(handle: PrometheusHandle, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => handle.run_upkeep(),
        }
    }
}

fn recorder() -> Result<PrometheusRecorder, InstallError> {
    // The buckets for all are for histograms that are not in the table: they too must not become summaries.
    let mut builder = PrometheusBuilder::new().set_buckets(SECONDS);
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder.and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
            });
        }
    }
    Ok(builder.map_err(|error| InstallError(error.to_string()))?.build_recorder())
}

/// Tells the current recorder what each metric says.
fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram(_) => describe_histogram!(metric.name, metric.help),
        }
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use metrics::{Label, counter, histogram};

    use super::*;

    /// What `/metrics` shows when every metric has been touched once.
    fn rendered() -> String {
        let recorder = recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            describe();
            for metric in METRICS {
                let labels: Vec<_> = metric.labels.iter().map(|label| Label::new(*label, "x")).collect();
                match metric.kind {
                    Kind::Counter => counter!(metric.name, labels).increment(1),
                    Kind::Gauge => gauge!(metric.name, labels).set(1.0),
                    Kind::Histogram(_) => histogram!(metric.name, labels).record(0.5),
                }
            }
            histogram!("streamgate_of_somebody_else").record(0.5);
        });
        recorder.handle().render()
    }

    #[test]
    fn histograms_have_buckets_and_are_never_summaries() {
        let text = rendered();
        assert!(!text.contains("quantile="), "{text}");
        assert!(text.contains("streamgate_of_somebody_else_bucket"));
        for metric in METRICS {
            if matches!(metric.kind, Kind::Histogram(_)) {
                assert!(text.contains(&format!("{}_bucket{{", metric.name)), "{}", metric.name);
            }
        }
    }

    #[test]
    fn every_metric_is_described_under_its_own_name() {
        let text = rendered();
        for metric in METRICS {
            assert!(text.contains(&format!("# HELP {} ", metric.name)), "{}", metric.name);
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            assert!(text.contains(&format!("# TYPE {} {kind}", metric.name)), "{}", metric.name);
        }
    }

    #[test]
    fn names_follow_the_conventions_and_labels_name_nobody() {
        for metric in METRICS {
            assert!(metric.name.starts_with("streamgate_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            for forbidden in ["channel", "user", "session", "client"] {
                assert!(!metric.labels.contains(&forbidden), "{}", metric.name);
            }
        }
    }

    #[test]
    fn several_nodes_of_a_process_share_a_recorder() {
        install().unwrap();
        let again = install().unwrap();
        counter!(BACKFILLS).increment(1);
        assert!(again.render().contains("streamgate_backfills_total"));
    }

    #[tokio::test(start_paused = true)]
    async fn upkeep_ends_with_its_node() {
        let shutdown = CancellationToken::new();
        let handle = recorder().unwrap().handle();
        let task = tokio::spawn(upkeep(handle, shutdown.clone()));
        tokio::time::advance(Duration::from_secs(60)).await;
        shutdown.cancel();
        task.await.unwrap();
    }
}
