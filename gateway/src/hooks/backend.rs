//! One backend: how many calls it gets at a time, whether it is left alone, and asking again where that is safe.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::header::{HeaderName, HeaderValue};
use metrics::{counter, gauge, histogram};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use super::{
    BackendOptions, Breaker, Endpoint, Hook, HookError,
    breaker::{Phase, Ticket, Verdict},
    grpc::GrpcBackend,
    http::HttpBackend,
};
use crate::{
    client_headers::ClientHeaders,
    http_client::{HttpClient, Trust},
    telemetry::metrics::{HOOK_BREAKER, HOOK_CALLS, HOOK_SECONDS},
};

/// Pause before a question is asked again, at random up to this.
const PAUSE: Duration = Duration::from_millis(50);
/// What is left of the time must be more than this for another try.
const WORTH_IT: Duration = Duration::from_millis(100);
/// A call that is given up this close to the end of its own time was too slow.
const CLOSE: Duration = Duration::from_millis(20);

/// What a backend is asked, and the headers of the client that go with it.
pub(super) struct Question<'a, H> {
    pub request: &'a H,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A backend of the user.
#[derive(Debug)]
pub(super) struct Backend {
    name: String,
    endpoint: Wire,
    /// Longest that a call may take.
    timeout: Duration,
    /// Free places; with how many there are.
    places: (Arc<Semaphore>, usize),
    breaker: Mutex<Breaker>,
    since: Instant,
    /// Whether it is told of sessions and subscriptions,
    pub lifecycle: bool,
    /// and of channels, too.
    pub occupancy: bool,
    /// Headers of clients that it gets.
    pub forward_headers: Vec<HeaderName>,
}

#[derive(Debug)]
enum Wire {
    Http(Box<HttpBackend>),
    Grpc(GrpcBackend),
}

impl Backend {
    /// A backend that nothing has been asked yet. `client` serves those that trust what the system trusts. Reads files,
    /// blocking.
    ///
    /// # Errors
    /// What cannot be used, with the backend's name.
    pub fn new(options: BackendOptions, client: &HttpClient, longest: Duration) -> Result<Self, String> {
        let wrong = |reason: String| format!("backend `{}`: {reason}", options.name);
        let endpoint = match options.endpoint {
            Endpoint::Http(http) => {
                let client = match &http.trust {
                    Trust::System => client.clone(),
                    trust @ Trust::File(_) => HttpClient::new(trust).map_err(wrong)?,
                };
                Wire::Http(Box::new(HttpBackend::new(client, http)))
            }
            Endpoint::Grpc(grpc) => Wire::Grpc(GrpcBackend::new(&grpc).map_err(wrong)?),
        };
        gauge!(HOOK_BREAKER, "backend" => options.name.clone()).set(0.0);
        Ok(Self {
            endpoint,
            timeout: options.timeout.map_or(longest, |timeout| timeout.min(longest)),
            places: (Arc::new(Semaphore::new(options.max_concurrent)), options.max_concurrent),
            breaker: Mutex::new(Breaker::new(options.breaker)),
            since: Instant::now(),
            lifecycle: options.lifecycle,
            occupancy: options.occupancy,
            forward_headers: options.forward_headers,
            name: options.name,
        })
    }

    /// The name in logs and metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks the backend, for as long as it may take and no longer than `limit`. Of the client's headers it gets those that
    /// it is configured to get.
    ///
    /// Cancel: gives the call up; the backend may have got it.
    ///
    /// # Errors
    /// [`HookError`].
    pub async fn ask<H: Hook>(
        &self,
        request: &H,
        client: &ClientHeaders,
        limit: Duration,
    ) -> Result<H::Answer, HookError> {
        let began = Instant::now();
        let outcome = self.admitted(&self.question(request, client), limit.min(self.timeout)).await;
        let label = outcome.as_ref().map_or_else(HookError::label, |_| "ok");
        counter!(HOOK_CALLS, "hook" => H::NAME, "outcome" => label).increment(1);
        histogram!(HOOK_SECONDS, "hook" => H::NAME).record(began.elapsed().as_secs_f64());
        if let Err(error) = &outcome {
            tracing::debug!(backend = self.name, hook = H::NAME, %error, "a hook has no answer");
        }
        outcome
    }

    fn question<'a, H>(&self, request: &'a H, client: &ClientHeaders) -> Question<'a, H> {
        let values = |name| client.get_all(name).map(move |value| (HeaderName::clone(name), value.clone()));
        Question { request, headers: self.forward_headers.iter().flat_map(values).collect() }
    }

    async fn admitted<H: Hook>(
        &self,
        request: &Question<'_, H>,
        limit: Duration,
    ) -> Result<H::Answer, HookError> {
        let place = self.place()?;
        let ticket = self.admit()?;
        let mut call =
            Call { backend: self, ticket: Some(ticket), began: Instant::now(), limit, _place: place };
        let outcome = self.ask_repeatedly(request, limit).await;
        let verdict = match &outcome {
            Ok(_) => Verdict::Good,
            // Somebody with little time says nothing about the backend.
            Err(HookError::Timeout { .. }) if limit < self.timeout => Verdict::Unknown,
            Err(error) => error.verdict(),
        };
        call.done(verdict);
        outcome
    }

    /// Asks, and once more where nothing can have been done twice.
    async fn ask_repeatedly<H: Hook>(
        &self,
        request: &Question<'_, H>,
        limit: Duration,
    ) -> Result<H::Answer, HookError> {
        let began = Instant::now();
        let first = match self.ask_once(request, limit).await {
            Err(error) if error.may_repeat(H::REPEATABLE) => error,
            outcome => return outcome,
        };
        sleep(PAUSE.mul_f64(rand::random())).await;
        let left = limit.saturating_sub(began.elapsed());
        if left < WORTH_IT {
            return Err(first);
        }
        self.ask_once(request, left).await
    }

    async fn ask_once<H: Hook>(
        &self,
        request: &Question<'_, H>,
        limit: Duration,
    ) -> Result<H::Answer, HookError> {
        match &self.endpoint {
            Wire::Http(backend) => backend.ask(request, limit).await,
            Wire::Grpc(backend) => backend.ask(request, limit).await,
        }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, HookError> {
        let (places, limit) = &self.places;
        places.clone().try_acquire_owned().map_err(|_| HookError::Busy { limit: *limit })
    }

    fn admit(&self) -> Result<Ticket, HookError> {
        let mut breaker = self.breaker();
        let before = breaker.phase();
        let ticket = breaker.admit(self.now_ms());
        self.changed(before, breaker.phase());
        ticket.ok_or(HookError::Open)
    }

    fn record(&self, ticket: Ticket, verdict: Verdict) {
        let mut breaker = self.breaker();
        let before = breaker.phase();
        breaker.record(self.now_ms(), ticket, verdict);
        self.changed(before, breaker.phase());
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // Nothing in there leaves it half changed.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Tells of a change of the breaker.
    fn changed(&self, before: Phase, now: Phase) {
        if before == now {
            return;
        }
        let backend = self.name.as_str();
        let value = match now {
            Phase::Closed => {
                tracing::info!(backend, "the backend answers again");
                0.0
            }
            Phase::Open => {
                tracing::warn!(backend, "the backend fails too often: it is left alone for a while");
                1.0
            }
            Phase::Trial => 0.5,
        };
        gauge!(HOOK_BREAKER, "backend" => self.name.clone()).set(value);
    }
}

/// A call under way. One that is dropped was given up by its caller.
struct Call<'a> {
    backend: &'a Backend,
    ticket: Option<Ticket>,
    began: Instant,
    limit: Duration,
    _place: OwnedSemaphorePermit,
}

impl Call<'_> {
    fn done(&mut self, verdict: Verdict) {
        if let Some(ticket) = self.ticket.take() {
            self.backend.record(ticket, verdict);
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // The caller's own deadline may be the same one and come first.
        let slow = self.limit >= self.backend.timeout && self.began.elapsed() + CLOSE >= self.limit;
        self.done(if slow { Verdict::Bad } else { Verdict::Unknown });
    }
}
