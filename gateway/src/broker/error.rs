//! Why a broker refused or failed.

/// An operation of the broker did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The storage cannot be reached or did not answer in time. If `sent`, a write may have been executed
    /// all the same: it is safe to retry only with an idempotency key.
    #[error("the broker is not available: {reason}")]
    NotAvailable {
        /// For logs and operators; no addresses with credentials.
        reason: String,
        /// Whether the command left this node.
        sent: bool,
    },
    /// The memory broker's byte budget cannot take the publication even with all evictable history gone.
    #[error("the publication needs {need} bytes, the memory broker holds at most {limit} (in use: {used})")]
    MemoryLimit {
        /// Bytes needed.
        need: usize,
        /// Bytes configured.
        limit: usize,
        /// Bytes in use that cannot be evicted.
        used: usize,
    },
    /// A queue holds as many jobs as its policy allows: nothing was published. It may be taken later.
    #[error("the queue of the group {group} holds {limit} jobs: that is as many as it may")]
    QueueFull {
        /// Which group of the channel.
        group: String,
        /// Jobs that its policy allows.
        limit: u64,
    },
    /// The storage refused (a key of another type, a right that is missing, a script error): not retryable as it is.
    #[error("the broker refused: {0}")]
    Refused(String),
    /// The stored bytes could not be understood.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// The broker was shut down.
    #[error("the broker is stopped")]
    Stopped,
}

impl BrokerError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::NotAvailable { .. } | Self::QueueFull { .. } | Self::Stopped)
    }
}
