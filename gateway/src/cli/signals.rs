//! SIGINT and SIGTERM, for commands that have something to finish.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives both. Until it exists, they end the process.
#[derive(Debug)]
pub(super) struct Signals(Signal, Signal);

impl Signals {
    /// From now on.
    ///
    /// # Errors
    /// The system does not let it.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    /// Waits for one of them. Safe to cancel.
    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
