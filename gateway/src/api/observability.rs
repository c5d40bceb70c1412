//! `/metrics`, `/health/live`, `/health/ready`: for machines that watch the node, without a token.

use std::{fmt, sync::Arc};

use hyper::{
    Method, StatusCode,
    header::{ALLOW, HeaderValue},
};
use metrics_exporter_prometheus::PrometheusHandle;

use super::reply::{JSON, Reply, TEXT, reply};

/// Prometheus text exposition format.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Whether the node should be sent clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// What `/health/ready` answers: 200 or 503.
    pub ready: bool,
    /// Why not; empty while ready.
    pub reason: String,
    /// The broker's status in a few words.
    pub broker: String,
    /// Whether the node is sending its clients away.
    pub draining: bool,
}

/// What is shown. Cheap to clone.
#[derive(Clone)]
pub struct Observability {
    metrics: PrometheusHandle,
    readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
}

impl fmt::Debug for Observability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observability").finish_non_exhaustive()
    }
}

impl Observability {
    /// `readiness` is asked at each request and must answer at once.
    pub fn new(metrics: PrometheusHandle, readiness: impl Fn() -> Readiness + Send + Sync + 'static) -> Self {
        Self { metrics, readiness: Arc::new(readiness) }
    }

    /// The answer to one request; `None` if the path is another's.
    pub(super) fn answer(&self, method: &Method, path: &str, query: Option<&str>) -> Option<Reply> {
        if !matches!(path, "/metrics" | "/health/live" | "/health/ready") {
            return None;
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(response);
        }
        Some(match path {
            "/metrics" => reply(StatusCode::OK, EXPOSITION, self.metrics.render()),
            // That it answers is the whole answer: a node must not be restarted because Redis is away.
            "/health/live" => reply(StatusCode::OK, TEXT, "live\n"),
            _ => self.ready(query.is_some_and(is_verbose)),
        })
    }

    fn ready(&self, verbose: bool) -> Reply {
        let state = (self.readiness)();
        let status = if state.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if verbose {
            let detail = serde_json::json!({
                "ready": state.ready,
                "reason": state.reason,
                "broker": state.broker,
                "draining": state.draining,
            });
            return reply(status, JSON, format!("{detail}\n"));
        }
        let text = if state.ready { "ready\n".to_owned() } else { format!("not ready: {}\n", state.reason) };
        reply(status, TEXT, text)
    }
}

fn is_verbose(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "verbose" | "verbose=" | "verbose=1" | "verbose=true"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http_body_util::BodyExt as _;

    use super::*;

    async fn get(state: &Observability, path: &str, query: Option<&str>) -> (StatusCode, String) {
        let response = state.answer(&Method::GET, path, query).unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn observability(readiness: Arc<Mutex<Readiness>>) -> Observability {
        Observability::new(crate::telemetry::metrics::install().unwrap(), move || {
            readiness.lock().unwrap().clone()
        })
    }

    fn ready() -> Arc<Mutex<Readiness>> {
        Arc::new(Mutex::new(Readiness {
            ready: true,
            reason: String::new(),
            broker: "ready".into(),
            draining: false,
        }))
    }

    #[tokio::test]
    async fn readiness_follows_the_node_and_liveness_does_not() {
        let readiness = ready();
        let state = observability(readiness.clone());
        assert_eq!(get(&state, "/health/ready", None).await, (StatusCode::OK, "ready\n".into()));
        *readiness.lock().unwrap() = Readiness {
            ready: false,
            reason: "waiting for Redis".into(),
            broker: "starting: connection refused".into(),
            draining: false,
        };
        let (status, text) = get(&state, "/health/ready", None).await;
        assert_eq!((status, &*text), (StatusCode::SERVICE_UNAVAILABLE, "not ready: waiting for Redis\n"));
        let (status, text) = get(&state, "/health/ready", Some("verbose")).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let detail: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(detail["broker"], "starting: connection refused");
        assert_eq!(get(&state, "/health/live", None).await, (StatusCode::OK, "live\n".into()));
    }

    #[tokio::test]
    async fn metrics_are_served_to_readers_only() {
        let state = observability(ready());
        let (status, text) = get(&state, "/metrics", None).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("streamgate_build_info{version="), "{text}");
        assert!(state.answer(&Method::GET, "/", None).is_none());
        let refused = state.answer(&Method::POST, "/metrics", None).unwrap();
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    }
}
