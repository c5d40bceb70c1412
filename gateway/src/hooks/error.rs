//! Why a backend gave no answer.

use std::time::Duration;

use super::breaker::Verdict;
use crate::{
    error::{ClientError, ErrorCode},
    http_client::HttpError,
};

/// No answer of a backend. The text is fit for clients and logs: it has neither URL nor header nor token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// As many calls as allowed are under way: nothing was sent.
    #[error("the backend has {limit} calls under way, more are not made")]
    Busy {
        /// What is allowed.
        limit: usize,
    },
    /// It failed too often a moment ago: nothing was sent.
    #[error("the backend has failed too often and is left alone for a while")]
    Open,
    /// No answer in time.
    #[error("no answer within {limit:?}")]
    Timeout {
        /// The time that there was.
        limit: Duration,
    },
    /// No connection, a broken one, or an answer that breaks HTTP's or gRPC's rules or ours.
    #[error("the backend cannot be asked: {reason}")]
    Transport {
        /// What was seen.
        reason: String,
        /// Whether it may have got the question.
        sent: bool,
        /// Whether the connection broke before an answer: a question that may be repeated may be asked again.
        broke: bool,
    },
    /// It answered that it could not.
    #[error("the backend answered {status}")]
    Failed {
        /// As in "HTTP status 500" or "gRPC status UNAVAILABLE".
        status: String,
        /// Whether that tells of the backend's health, rather than of the question.
        unwell: bool,
    },
    /// It said that the caller may not: HTTP status 401 or 403, gRPC status UNAUTHENTICATED or PERMISSION_DENIED.
    #[error("the backend refuses: {reason}")]
    Refused {
        /// Its words, or its status.
        reason: String,
    },
    /// The question has no form that the backend could read: nothing was sent.
    #[error("the backend cannot be asked: {reason}")]
    Unsayable {
        /// What the encoder says.
        reason: String,
    },
    /// What it said cannot be understood.
    #[error("the backend's answer cannot be read: {reason}")]
    Garbage {
        /// What the decoder says.
        reason: String,
    },
}

impl HookError {
    /// What it tells of the backend's health.
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Busy { .. } | Self::Open | Self::Unsayable { .. } => Verdict::Unknown,
            Self::Timeout { .. } | Self::Transport { .. } | Self::Garbage { .. } => Verdict::Bad,
            Self::Failed { unwell, .. } if *unwell => Verdict::Bad,
            Self::Failed { .. } | Self::Refused { .. } => Verdict::Good,
        }
    }

    /// Whether the question may be asked once more: always if the backend cannot have got it, else if it is a
    /// `repeatable` one whose connection broke.
    pub(super) fn may_repeat(&self, repeatable: bool) -> bool {
        matches!(self, Self::Transport { sent, broke, .. } if !sent || (*broke && repeatable))
    }

    /// The label in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::Open => "breaker",
            Self::Timeout { .. } => "timeout",
            Self::Transport { .. } => "transport",
            Self::Failed { .. } => "failed",
            Self::Refused { .. } => "refused",
            Self::Garbage { .. } => "garbage",
            Self::Unsayable { .. } => "unsayable",
        }
    }

    /// The error of a client whose request needed the answer.
    #[must_use]
    pub fn to_client(&self) -> ClientError {
        let code = match self {
            Self::Timeout { .. } => ErrorCode::RpcTimeout,
            Self::Unsayable { .. } => ErrorCode::BadRequest,
            _ => ErrorCode::ProxyError,
        };
        ClientError::new(code, self.to_string())
    }
}

impl From<HttpError> for HookError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Timeout { deadline } => Self::Timeout { limit: deadline },
            error => Self::Transport {
                reason: error.to_string(),
                sent: error.was_sent(),
                broke: matches!(error, HttpError::Broken { .. }),
            },
        }
    }
}
