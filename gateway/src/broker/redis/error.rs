//! Why a connection could not be opened and why a call brought nothing.

use super::reply::RedisError;
use crate::broker::BrokerError;

/// A call did not bring a usable reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There was no connection: the command did not leave this node and may be tried again.
    #[error("not sent to Redis: {0}")]
    NeverSent(String),
    /// The command was handed over and the answer did not come: it may have been executed or not. Never repeat it
    /// unless it is idempotent.
    #[error("no answer from Redis, the command may have been executed: {0}")]
    MaybeExecuted(String),
    /// Redis answered with an error.
    #[error("Redis refused: {0}")]
    Server(RedisError),
}

impl CallError {
    /// Whether it is certain that the command was not executed, for a reason that may pass.
    #[must_use]
    pub fn nothing_executed(&self) -> bool {
        match self {
            Self::NeverSent(_) => true,
            Self::MaybeExecuted(_) => false,
            Self::Server(error) => error.nothing_executed(),
        }
    }

    /// The metric label of this kind of error.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NeverSent(_) => "never_sent",
            Self::MaybeExecuted(_) => "maybe_executed",
            Self::Server(_) => "server",
        }
    }
}

impl From<CallError> for BrokerError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NeverSent(reason) => Self::NotAvailable { reason, sent: false },
            CallError::MaybeExecuted(reason) => Self::NotAvailable { reason, sent: true },
            CallError::Server(error) if error.is_transient() => {
                // Unless it is known that it did not, a script may have written before it met the error.
                let sent = !error.nothing_executed();
                Self::NotAvailable { reason: error.to_string(), sent }
            }
            CallError::Server(error) => Self::Refused(error.to_string()),
        }
    }
}

/// A connection could not be opened. The texts hold no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection, or no answer on it in time.
    #[error("cannot reach Redis at {address}: {reason}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// Why.
        reason: String,
    },
    /// User, password or rights.
    #[error("Redis at {address} denies access: {reason}")]
    Denied {
        /// `host:port`.
        address: String,
        /// Why.
        reason: String,
    },
    /// TLS: a file of ours, the certificate of the server, or ours in its eyes.
    #[error("no trusted connection to Redis at {address}: {reason}")]
    Untrusted {
        /// `host:port`.
        address: String,
        /// Why.
        reason: String,
    },
    /// No Sentinel tells where the master is.
    #[error("no Sentinel knows where the master `{name}` is: {reason}")]
    NoMaster {
        /// The name of the master.
        name: String,
        /// What became of each Sentinel.
        reason: String,
    },
    /// The server is a replica.
    #[error("Redis at {address} is not a master (role {role})")]
    NotMaster {
        /// `host:port`.
        address: String,
        /// What it said.
        role: String,
    },
    /// The server does not own the slot (Redis Cluster).
    #[error("Redis at {address} does not serve this slot: {reason}")]
    NotOwner {
        /// `host:port`.
        address: String,
        /// What it said.
        reason: String,
    },
    /// The server will not do: too old, or it did not understand the greeting.
    #[error("Redis at {address} cannot be used: {reason}")]
    Unusable {
        /// `host:port`.
        address: String,
        /// Why.
        reason: String,
    },
}
