//! Key sets by URL (JWKS, RFC 7517): fetched in the background, kept while the server is away, fetched again for a key
//! that is not known.
//!
//! Owns: the keys of one URL, and when they are asked for. Never does: check a token, or hold one up for longer than a
//! fetch may take.
//!
//! Invariants:
//! - At most one fetch is under way. Unknown keys cause at most one in [`JwksConfig::refetch_after`], however many tokens
//!   name them; those that find no fetch to wait for are answered at once.
//! - Keys are replaced by a whole set that could be read, or are too old, and never otherwise.
//! - A symmetric key of a set is never used: it would be a secret that everybody can fetch.

mod fetch;
mod set;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

use super::jwt::Key;
use crate::http_client::{HttpClient, Trust};
use fetch::Fetcher;

/// Tokens that may wait for a fetch at one time; others are answered at once.
const MOST_WAITING: usize = 10_000;

/// Where the keys are, and how often they are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksConfig {
    /// `https://...`, or `http://...`.
    pub url: String,
    /// Authorities that may have signed the server's certificate; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Algorithms that keys of the set may be used with; empty: those that each key says, or that its type leaves.
    pub algorithms: Vec<Algorithm>,
    /// How often the set is fetched.
    pub refresh: Duration,
    /// How long after a fetch an unknown key may cause another one.
    pub refetch_after: Duration,
    /// Longest that a fetch may take.
    pub timeout: Duration,
    /// How long the keys of the last good fetch are used while the server is away.
    pub max_age: Duration,
}

/// A key set. Clones are the same one; it is no longer fetched when the last is dropped.
#[derive(Clone)]
pub struct Jwks {
    shared: Arc<Shared>,
    /// Wakes the fetcher, and by its end ends it.
    ask: mpsc::Sender<()>,
    /// The fetcher until it is started.
    fetcher: Arc<Mutex<Option<Fetcher>>>,
}

struct Shared {
    config: JwksConfig,
    current: ArcSwap<Fetched>,
    /// When an unknown key may cause a fetch; `None`: one is under way or asked for.
    idle_until: Mutex<Option<Instant>>,
    /// Fetches that have ended, well or badly.
    ended: watch::Sender<u64>,
    waiting: Semaphore,
}

/// What the last good fetch yielded, or nothing yet.
#[derive(Default)]
struct Fetched {
    keys: Arc<Vec<Key>>,
    at: Option<Instant>,
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Jwks").field(&self.shared.config).finish()
    }
}

/// Equal if they are configured so.
impl PartialEq for Jwks {
    fn eq(&self, other: &Self) -> bool {
        self.shared.config == other.shared.config
    }
}

impl Jwks {
    /// A set that is fetched once it is started. Reads `ca_file`, blocking.
    ///
    /// # Errors
    /// A text that names the file that cannot be used.
    pub fn new(config: JwksConfig) -> Result<Self, String> {
        let http = HttpClient::new(&config.ca_file.clone().map_or(Trust::System, Trust::File))?;
        let (ask, asked) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            config,
            current: ArcSwap::default(),
            // The first fetch comes at once.
            idle_until: Mutex::new(None),
            ended: watch::Sender::new(0),
            waiting: Semaphore::new(MOST_WAITING),
        });
        let fetcher = Fetcher { shared: shared.clone(), http, asked };
        Ok(Self { shared, ask, fetcher: Arc::new(Mutex::new(Some(fetcher))) })
    }

    /// Begins to fetch, unless it has begun.
    pub fn start(&self, runtime: &Handle) {
        let fetcher = self.fetcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(fetcher) = fetcher {
            runtime.spawn(fetcher.run());
        }
    }

    /// The keys that may be used now; none if the last good fetch is too long ago.
    #[must_use]
    pub(super) fn keys(&self) -> Arc<Vec<Key>> {
        let current = self.shared.current.load();
        if self.shared.is_good(&current) { current.keys.clone() } else { Arc::default() }
    }

    /// Whether there are keys that may be used.
    #[must_use]
    pub(super) fn is_there(&self) -> bool {
        self.shared.is_good(&self.shared.current.load())
    }

    /// Looks for a key that is not there: waits for the fetch that is under way, or for a new one, if there may be one
    /// now. The keys may be others afterwards in any case.
    ///
    /// Cancel: safe; a fetch that has begun goes on.
    pub(super) async fn look_again(&self) {
        let Ok(_waiting) = self.shared.waiting.try_acquire() else { return };
        // Before asking: the end of the fetch must not be missed.
        let mut ended = self.shared.ended.subscribe();
        match self.shared.ask() {
            Asked::InVain => return,
            // If it is full the fetcher has been asked already.
            Asked::New => drop(self.ask.try_send(())),
            Asked::UnderWay => {}
        }
        // A fetch has a time limit, so this has; an error means that the runtime ends.
        let _ = ended.changed().await;
    }
}

/// What became of the wish for a fetch.
enum Asked {
    /// One is under way.
    UnderWay,
    /// One is to begin.
    New,
    /// The last one was just now.
    InVain,
}

impl Shared {
    fn is_good(&self, fetched: &Fetched) -> bool {
        fetched.at.is_some_and(|at| at.elapsed() <= self.config.max_age)
    }

    fn ask(&self) -> Asked {
        let mut idle_until = self.idle_until.lock().unwrap_or_else(PoisonError::into_inner);
        match *idle_until {
            None => Asked::UnderWay,
            Some(until) if Instant::now() < until => Asked::InVain,
            Some(_) => {
                *idle_until = None;
                Asked::New
            }
        }
    }

    /// Notes that a fetch begins.
    fn begin(&self) {
        *self.idle_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes that a fetch has ended, and wakes who waited for it.
    fn end(&self) {
        let until = Instant::now() + self.config.refetch_after;
        *self.idle_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.ended.send_modify(|ended| *ended += 1);
    }
}
