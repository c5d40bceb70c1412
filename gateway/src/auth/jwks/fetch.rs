//! The task that fetches a key set.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{Request, StatusCode, header::ACCEPT};
use metrics::{counter, gauge};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Fetched, Shared, set};
use crate::{
    http_client::{CallLimits, HttpClient},
    telemetry::metrics::{JWKS_FETCHES, JWKS_KEYS},
};

/// Bytes of the largest set that is read.
const MAX_BYTES: usize = 256 * 1024;
/// Pause after the first failed fetch; it doubles with each, up to the usual one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What the task works with.
pub(super) struct Fetcher {
    pub shared: Arc<Shared>,
    pub http: HttpClient,
    pub asked: mpsc::Receiver<()>,
}

impl Fetcher {
    /// Fetches at once, in the configured interval, and when asked; ends with the last [`super::Jwks`].
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            self.shared.begin();
            // Whoever asked up to here gets this one.
            while self.asked.try_recv().is_ok() {}
            let outcome = self.fetch().await;
            failures = self.note(outcome, failures);
            self.shared.end();
            let next = Instant::now() + self.pause(failures);
            tokio::select! {
                asked = self.asked.recv() => if asked.is_none() { return },
                () = sleep_until(next) => {}
            }
        }
    }

    async fn fetch(&self) -> Result<set::KeySet, String> {
        let config = &self.shared.config;
        let request = Request::get(&config.url)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .body(Bytes::new())
            .map_err(|_| "the URL cannot be used".to_owned())?;
        let limits = CallLimits { deadline: config.timeout, max_response_bytes: MAX_BYTES };
        let answer = self.http.call(request, limits).await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the answer is {}", answer.status().as_u16()));
        }
        set::read(answer.body(), &config.algorithms)
    }

    /// Takes over what came, and tells of changes; the number of failures in a row.
    fn note(&self, outcome: Result<set::KeySet, String>, failures: u32) -> u32 {
        let (label, failures) = match outcome {
            Ok(set) => {
                let former = self.shared.current.load();
                if failures > 0 || former.at.is_none() || former.keys.len() != set.keys.len() {
                    tracing::info!(keys = set.keys.len(), "the key set for tokens is here");
                }
                for reason in &set.passed_over {
                    tracing::debug!(reason, "a key of the set is not used");
                }
                if set.keys.is_empty() {
                    tracing::warn!("the key set for tokens has no key that can be used");
                }
                gauge!(JWKS_KEYS).set(set.keys.len() as f64);
                let keys = Arc::new(set.keys);
                self.shared.current.store(Arc::new(Fetched { keys, at: Some(Instant::now()) }));
                ("ok", 0)
            }
            Err(reason) => {
                if failures == 0 {
                    tracing::warn!(
                        reason,
                        "the key set for tokens cannot be fetched, the former keys stay in use"
                    );
                } else {
                    tracing::debug!(reason, "the key set for tokens cannot be fetched");
                }
                ("failed", failures.saturating_add(1))
            }
        };
        counter!(JWKS_FETCHES, "outcome" => label).increment(1);
        failures
    }

    /// Until the next fetch that nobody asks for: not at the same time on all nodes, and sooner after a failure.
    fn pause(&self, failures: u32) -> Duration {
        let refresh = self.shared.config.refresh;
        let usual = match failures {
            0 => refresh,
            _ => FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(refresh),
        };
        usual.mul_f64(1.0 - 0.1 * rand::random::<f64>())
    }
}
