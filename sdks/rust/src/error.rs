//! What can go wrong, and whether it is worth trying again.

use streamgate_proto::{shared, wkt};

/// Close codes after which a client must not come back by itself (PROTOCOL part A, "Close codes"). 3500 is among them:
/// this client has one token.
const FINAL_CLOSE_CODES: [u16; 7] = [3500, 3501, 3503, 3505, 3506, 3507, 3514];

/// Errors of this crate. All are cheap to clone: one lost connection answers many requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL of a gateway cannot be used.
    #[error("{url:?} is not the URL of a gateway: {reason}")]
    InvalidUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing listens there, or the network failed.
    #[error("no gateway at {address}: {reason}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// What the operating system says.
        reason: String,
    },
    /// Something listens there, but does not speak the protocol.
    #[error("{address} is not a gateway: {reason}")]
    NotAGateway {
        /// `host:port`.
        address: String,
        /// What it answered instead.
        reason: String,
    },
    /// The server refused a request.
    #[error("{code}: {message}")]
    Server {
        /// Stable code, as `ACL_ERROR`.
        code: String,
        /// Family of the error, as `auth_error`.
        kind: String,
        /// For people.
        message: String,
    },
    /// The server closed the connection.
    #[error("the server closed the connection: {code} {reason}")]
    Closed {
        /// WebSocket close code, or its gRPC equivalent.
        code: u16,
        /// What the server said.
        reason: String,
    },
    /// The connection broke without a word.
    #[error("the connection was lost: {0}")]
    ConnectionLost(String),
    /// The connection broke under a request that must not be sent twice (a call, a survey, a publish without a key): it may
    /// have been carried out or not.
    #[error("the outcome of {what} is unknown: no answer came before {cause}")]
    OutcomeUnknown {
        /// Which request.
        what: &'static str,
        /// What became of the connection.
        cause: Box<Error>,
    },
    /// No answer in time. The outcome of a publish is unknown; retrying with its key is safe.
    #[error("{what} got no answer in time")]
    Timeout {
        /// Which request.
        what: &'static str,
    },
    /// The client was closed, or its runtime is gone.
    #[error("the client is closed")]
    ClientClosed,
    /// This client subscribes that channel or pattern already; clone its messages instead.
    #[error("{0} is subscribed already by this client")]
    AlreadySubscribed(String),
    /// The request makes no sense; nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// The server answered with something that does not belong there.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

impl Error {
    /// From the wire. `DISCONNECT_ERROR`, the close code of transports that have none, becomes [`Error::Closed`].
    pub(crate) fn from_wire(error: shared::Error) -> Self {
        if error.code != "DISCONNECT_ERROR" {
            return Self::server(error);
        }
        let fields = error.metadata.map(|metadata| metadata.fields).unwrap_or_default();
        let reason = fields.get("reason").and_then(text).filter(|reason| !reason.is_empty());
        Self::Closed {
            code: fields.get("code").and_then(number).unwrap_or(3000),
            reason: reason.unwrap_or(error.message),
        }
    }

    /// From the wire, about a request.
    pub(crate) fn server(error: shared::Error) -> Self {
        Self::Server { code: error.code, kind: error.r#type, message: error.message }
    }

    /// Whether time was up: no answer came, or the server says that none came in time. The request may have been carried
    /// out.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Server { code, .. } => code == "RPC_TIMEOUT",
            _ => false,
        }
    }

    /// Whether the client gives up for good over this.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Closed { code, .. } => FINAL_CLOSE_CODES.contains(code),
            Self::Server { code, .. } => code == "AUTH_ERROR",
            _ => false,
        }
    }

    /// Whether the server asks to try the same again later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Server { code, .. } => code == "NOT_AVAILABLE",
            Self::Unreachable { .. } | Self::ConnectionLost(_) | Self::Timeout { .. } => true,
            Self::Closed { .. } => !self.is_final(),
            _ => false,
        }
    }
}

fn text(value: &wkt::Value) -> Option<String> {
    match value.kind.as_ref()? {
        wkt::value::Kind::StringValue(text) => Some(text.clone()),
        wkt::value::Kind::NumberValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn number(value: &wkt::Value) -> Option<u16> {
    text(value)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_close_code_of_grpc_is_found_in_the_metadata() {
        let value = |kind| wkt::Value { kind: Some(kind) };
        let code = |kind| {
            let fields = [
                ("code".to_owned(), value(kind)),
                ("reason".to_owned(), value(wkt::value::Kind::StringValue("slow consumer".into()))),
            ];
            Error::from_wire(shared::Error {
                code: "DISCONNECT_ERROR".into(),
                metadata: Some(wkt::Struct { fields: fields.into() }),
                ..shared::Error::default()
            })
        };
        let expected = Error::Closed { code: 3512, reason: "slow consumer".into() };
        assert_eq!(code(wkt::value::Kind::NumberValue(3512.0)), expected);
        assert_eq!(code(wkt::value::Kind::StringValue("3512".into())), expected);
        let Error::Closed { code, .. } = code(wkt::value::Kind::NumberValue(-1.5)) else { panic!() };
        assert_eq!(code, 3000);
    }

    #[test]
    fn the_final_close_codes_are_those_of_the_protocol() {
        let is_final = |code| Error::Closed { code, reason: String::new() }.is_final();
        assert!([3500, 3501, 3503, 3505, 3506, 3507, 3514].into_iter().all(is_final));
        assert!(![1000, 1006, 1012, 3000, 3502, 3504, 3509, 3511, 3512, 3513].into_iter().any(is_final));
    }
}
