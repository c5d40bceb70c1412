//! Why a call of another server gave no answer.

use std::{error::Error, io, time::Duration};

/// No answer. The text is fit for clients and logs: it has neither the URL, nor a header, nor anything of a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No connection could be made: nothing was sent.
    #[error("cannot connect: {reason}")]
    Connect {
        /// What the system or TLS says.
        reason: String,
    },
    /// The request makes no sense: nothing was sent.
    #[error("the request cannot be sent: {reason}")]
    Request {
        /// Why.
        reason: String,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("the answer is broken: {reason}")]
    Broken {
        /// What was seen.
        reason: String,
    },
    /// The server wants the request to go elsewhere, which is never done.
    #[error("the answer is a redirect ({status})")]
    Redirect {
        /// The status, 300 to 399.
        status: u16,
    },
    /// The answer's body is larger than allowed.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// What is allowed.
        limit: usize,
    },
    /// No whole answer in time.
    #[error("no answer within {deadline:?}")]
    Timeout {
        /// The time that the call had.
        deadline: Duration,
    },
}

impl HttpError {
    /// Whether anything of the request may have reached the server.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        !matches!(self, Self::Connect { .. } | Self::Request { .. })
    }

    pub(super) fn of_client(error: &hyper_util::client::legacy::Error) -> Self {
        let reason = root(error);
        if error.is_connect() {
            return Self::Connect { reason };
        }
        let hyper = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
        match hyper {
            Some(hyper) if hyper.is_user() => Self::Request { reason },
            Some(_) => Self::Broken { reason },
            // The client itself refuses a URL that it cannot use.
            None => Self::Request { reason: error.to_string() },
        }
    }

    pub(super) fn of_body(error: &hyper::Error) -> Self {
        Self::Broken { reason: root(error) }
    }
}

/// The innermost cause: what the system, TLS or the parser said.
pub(super) fn root(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<io::Error>() {
        // Without "(os error 111)".
        Some(io) if io.raw_os_error().is_some() => io.kind().to_string(),
        _ => cause.to_string(),
    }
}
