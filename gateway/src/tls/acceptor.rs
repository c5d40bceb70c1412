//! Handshakes of one listener, with the files as they are now.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{MissedTickBehavior, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    Speaks, TlsFiles,
    files::{Contents, Usable},
};
use crate::telemetry::metrics::{TLS_EXPIRES, TLS_HANDSHAKES, TLS_RELOADS};

/// Time for a handshake, from the accept on.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes of a listener that may be under way; more wait to be accepted.
const MAX_HANDSHAKES: usize = 1024;
/// How often the files are read to see whether they have changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time for a client that speaks plain text to read the answer.
const LINGER: Duration = Duration::from_secs(1);

/// What a client gets that speaks HTTP/1 in plain text.
const PLAIN_TEXT: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 45\r\nConnection: close\r\n\r\nthis port speaks TLS: use https:// or wss://\n";

/// The server side of TLS of one listener. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor(Arc<Inner>);

struct Inner {
    /// Its name in metrics and logs.
    listener: &'static str,
    files: TlsFiles,
    speaks: Speaks,
    current: ArcSwap<Current>,
    /// What was in the files when they were read last, usable or not; `None`: they could not be read.
    seen: Mutex<Option<[u8; 32]>>,
    room: Arc<Semaphore>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// Seconds since the Unix epoch.
    not_after: i64,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("listener", &self.0.listener).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Reads the files. Blocks. `listener` is its name in metrics and logs.
    ///
    /// # Errors
    /// A text that names the file; it never repeats what is in it.
    pub fn new(listener: &'static str, files: TlsFiles, speaks: Speaks) -> Result<Self, String> {
        let contents = files.read()?;
        let Usable { config, not_after } = files.usable(&contents, speaks)?;
        let acceptor = Self(Arc::new(Inner {
            listener,
            files,
            speaks,
            current: ArcSwap::from_pointee(Current { config, not_after }),
            seen: Mutex::new(Some(contents.digest())),
            room: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
        }));
        acceptor.show_expiry();
        Ok(acceptor)
    }

    /// Waits until one handshake more may begin; to be held as long as it lasts. Cancel: safe.
    ///
    /// # Errors
    /// Never: the semaphore is not closed.
    pub async fn room(&self) -> io::Result<OwnedSemaphorePermit> {
        self.0.room.clone().acquire_owned().await.map_err(io::Error::other)
    }

    /// Shakes hands with a client. `None`: it did not come about, which is counted and logged at debug; a client that
    /// spoke HTTP in plain text was told. Takes 10 s at most, and a moment for the client to read why not.
    ///
    /// Cancel: ends the connection.
    pub async fn handshake(&self, tcp: TcpStream, peer: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let listener = self.0.listener;
        let config = self.0.current.load().config.clone();
        let (outcome, stream) = match timeout(HANDSHAKE_TIMEOUT, shake_hands(tcp, config)).await {
            Ok(Ok(stream)) => ("ok", Some(stream)),
            Ok(Err(failure)) => {
                tracing::debug!(listener, %peer, error = %failure.error, "a TLS handshake failed");
                // A socket that is dropped with unread bytes is reset, and the client might not read why.
                let _ = timeout(LINGER, end(failure.tcp)).await;
                (failure.outcome, None)
            }
            Err(_) => {
                tracing::debug!(listener, %peer, after = ?HANDSHAKE_TIMEOUT, "a TLS handshake took too long");
                ("timeout", None)
            }
        };
        counter!(TLS_HANDSHAKES, "listener" => listener, "outcome" => outcome).increment(1);
        stream
    }

    /// Reads the files and uses them from the next handshake on, if they have changed. Files that cannot be used are
    /// logged once and change nothing. Blocks.
    pub fn reload(&self) {
        let Inner { listener, files, speaks, seen, .. } = &*self.0;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = files.read();
        let digest = contents.as_ref().ok().map(Contents::digest);
        if digest == *seen {
            return;
        }
        *seen = digest;
        let outcome = match contents.and_then(|contents| files.usable(&contents, *speaks)) {
            Ok(Usable { config, not_after }) => {
                self.0.current.store(Arc::new(Current { config, not_after }));
                tracing::info!(listener, "the TLS files have changed and are in use");
                "ok"
            }
            Err(error) => {
                tracing::error!(listener, %error, "the new TLS files cannot be used, the old ones stay in use");
                "failed"
            }
        };
        counter!(TLS_RELOADS, "listener" => *listener, "outcome" => outcome).increment(1);
        self.show_expiry();
    }

    /// Looks after the files until `stop`: they are read every 5 s, as whoever renews them may swap links or write in
    /// place, and mount them where no change is told. Cancel: safe.
    pub async fn watch(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let acceptor = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                acceptor.reload();
                acceptor.show_expiry();
            });
            if let Err(error) = looked.await {
                tracing::error!(%error, listener = self.0.listener, "the TLS files cannot be looked after");
            }
        }
    }

    fn show_expiry(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = self.0.current.load().not_after.saturating_sub_unsigned(now);
        gauge!(TLS_EXPIRES, "listener" => self.0.listener).set(left as f64);
    }
}

/// A handshake that did not come about.
struct Failure {
    outcome: &'static str,
    error: io::Error,
    tcp: TcpStream,
}

async fn shake_hands(mut tcp: TcpStream, config: Arc<ServerConfig>) -> Result<TlsStream<TcpStream>, Failure> {
    let failed = |outcome, error, tcp| Err(Failure { outcome, error, tcp });
    // A handshake begins with 22 (RFC 8446 section 5.1), a request with a method in capitals.
    let mut first = [0];
    match tcp.peek(&mut first).await {
        Ok(_) if first[0].is_ascii_uppercase() => {
            let error = tcp.write_all(PLAIN_TEXT).await.err();
            let error = error.unwrap_or_else(|| io::Error::other("the client speaks plain text"));
            return failed("plain_text", error, tcp);
        }
        Ok(_) => {}
        Err(error) => return failed("failed", error, tcp),
    }
    match TlsAcceptor::from(config).accept(tcp).into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, tcp)) => failed("failed", error, tcp),
    }
}

/// Ends our side and reads until the client ends its own.
async fn end(mut tcp: TcpStream) -> io::Result<()> {
    tcp.shutdown().await?;
    let mut ignored = [0; 1024];
    while tcp.read(&mut ignored).await? > 0 {}
    Ok(())
}
