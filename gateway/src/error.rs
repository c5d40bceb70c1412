//! The one table of error codes: protocol code and type, HTTP status, gRPC status, and close code where the
//! error ends a connection (STYLE, rule 4).

use streamgate_proto::{
    shared,
    wkt::{self, Struct},
};

use crate::{broker::BrokerError, channel::NameError};

/// Codes of `messageloop.shared.v1.Error` (PROTOCOL part A, "Behaviour", and part B).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Undecodable frame, malformed channel, invalid event, missing field.
    BadRequest,
    /// The token is not valid.
    AuthError,
    /// The client may not do this on that channel.
    AclError,
    /// Nobody and nothing of that name is there: a session, a user, an operation of the API.
    NotFound,
    /// No route for the RPC.
    NoProxy,
    /// The RPC was not answered in time.
    RpcTimeout,
    /// The backend failed.
    ProxyError,
    /// In the schema, not offered by this server.
    NotSupported,
    /// The broker is away or did not answer in time; retry (a publish only with its idempotency key).
    NotAvailable,
    /// More publishes or new channels than the limits allow.
    RateLimited,
    /// The event is larger than the channel's policy allows.
    TooLarge,
    /// The memory broker is full.
    MemoryLimit,
    /// A queue holds as many jobs as its policy allows.
    QueueFull,
    /// A bug or damaged data on our side.
    Internal,
    /// Carries a close code on transports without close codes.
    DisconnectError,
}

/// One row of the table.
struct Row {
    code: &'static str,
    kind: &'static str,
    http: u16,
    grpc: i32,
    close: Option<CloseCode>,
}

impl ErrorCode {
    /// Every code, for tests and documentation.
    pub const ALL: [Self; 15] = [
        Self::BadRequest,
        Self::AuthError,
        Self::AclError,
        Self::NotFound,
        Self::NoProxy,
        Self::RpcTimeout,
        Self::ProxyError,
        Self::NotSupported,
        Self::NotAvailable,
        Self::RateLimited,
        Self::TooLarge,
        Self::MemoryLimit,
        Self::QueueFull,
        Self::Internal,
        Self::DisconnectError,
    ];

    const fn row(self) -> Row {
        const fn row(
            code: &'static str,
            kind: &'static str,
            http: u16,
            grpc: i32,
            close: Option<CloseCode>,
        ) -> Row {
            Row { code, kind, http, grpc, close }
        }
        // gRPC numbers: google.rpc.Code.
        match self {
            Self::BadRequest => row("BAD_REQUEST", "request_error", 400, 3, None),
            Self::AuthError => row("AUTH_ERROR", "auth_error", 401, 16, Some(CloseCode::InvalidToken)),
            Self::AclError => row("ACL_ERROR", "acl_error", 403, 7, None),
            Self::NotFound => row("NOT_FOUND", "request_error", 404, 5, None),
            Self::NoProxy => row("NO_PROXY", "proxy_error", 404, 5, None),
            Self::RpcTimeout => row("RPC_TIMEOUT", "timeout", 504, 4, None),
            Self::ProxyError => row("PROXY_ERROR", "proxy_error", 502, 14, None),
            Self::NotSupported => row("NOT_SUPPORTED", "request_error", 501, 12, None),
            Self::NotAvailable => row("NOT_AVAILABLE", "unavailable", 503, 14, None),
            Self::RateLimited => row("RATE_LIMITED", "limit_error", 429, 8, None),
            Self::TooLarge => row("TOO_LARGE", "limit_error", 413, 3, None),
            Self::QueueFull => row("QUEUE_FULL", "limit_error", 429, 8, None),
            Self::MemoryLimit => row("MEMORY_LIMIT", "limit_error", 507, 8, None),
            Self::Internal => row("INTERNAL", "internal_error", 500, 13, Some(CloseCode::Internal)),
            Self::DisconnectError => row("DISCONNECT_ERROR", "transport_error", 499, 14, None),
        }
    }

    /// `code` of the wire error.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().code
    }

    /// `type` of the wire error.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        self.row().kind
    }

    /// HTTP status of the doors that answer over HTTP.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        self.row().http
    }

    /// Number of the `google.rpc.Code`.
    #[must_use]
    pub const fn grpc_status(self) -> i32 {
        self.row().grpc
    }

    /// The close code that follows, if the error ends the connection.
    #[must_use]
    pub const fn close_code(self) -> Option<CloseCode> {
        self.row().close
    }
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $reason:literal, $reconnect:literal, $status:literal;)*) => {
        /// Close codes of WebSocket connections, and of `DISCONNECT_ERROR` on gRPC (PROTOCOL part A, "Close codes").
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $($(#[$doc])* $name,)*
            /// One that a backend chose, 4000 to 4999: the application knows what it means (RFC 6455 section 7.4.2).
            Application(u16),
        }

        impl CloseCode {
            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Application(code) => code,
                }
            }

            /// The code with this number, if a backend may close a connection with it: one of MessageLoop's, 3000 to 3999,
            /// or one of the application's.
            #[must_use]
            pub const fn for_backends(code: u16) -> Option<Self> {
                match code {
                    4000..=4999 => Some(Self::Application(code)),
                    $($code if $code >= 3000 => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// HTTP status of a request whose session ended with this before it was answered.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Application(_) => 403,
                }
            }

            /// The reason text on the wire.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self {
                    $(Self::$name => $reason,)*
                    Self::Application(_) => "closed by the application",
                }
            }

            /// Whether a client should come back by itself.
            #[must_use]
            pub const fn reconnect(self) -> bool {
                match self {
                    $(Self::$name => $reconnect,)*
                    Self::Application(_) => false,
                }
            }
        }
    };
}

close_codes! {
    /// The client said goodbye.
    Normal = 1000, "", true, 503;
    /// A draining node: come back elsewhere.
    Draining = 1012, "service restart", true, 503;
    /// WebSocket: a frame breaks RFC 6455.
    Protocol = 1002, "protocol error", true, 400;
    /// WebSocket: text on a binary subprotocol or the reverse.
    UnsupportedData = 1003, "unsupported data", true, 415;
    /// WebSocket: text that is not UTF-8.
    InvalidUtf8 = 1007, "invalid utf-8", true, 400;
    /// WebSocket: larger than the message limit.
    TooBig = 1009, "message too big", true, 413;
    /// Without a better reason.
    ConnectionClosed = 3000, "connection closed", true, 503;
    /// The token is not valid: no reconnect unless the client can get a new one.
    InvalidToken = 3500, "invalid token", false, 401;
    /// The client broke the protocol, as with a second connect.
    BadRequest = 3501, "bad request", false, 400;
    /// No connect in time, or something else before it.
    Stale = 3502, "stale", true, 503;
    /// An operator or backend closed it.
    ForceDisconnect = 3503, "force disconnect", false, 403;
    /// Too many connections of the user.
    ConnectionLimit = 3504, "connection limit", true, 429;
    /// Too many subscriptions.
    ChannelLimit = 3505, "channel limit", false, 400;
    /// A message that the client's encoding cannot carry.
    InappropriateProtocol = 3506, "inappropriate protocol", false, 400;
    /// A right was lost while connected.
    PermissionDenied = 3507, "permission denied", false, 403;
    /// A feature is being shut down.
    NotAvailable = 3508, "not available", true, 503;
    /// Too many undecodable frames in a row.
    TooManyErrors = 3509, "too many errors", true, 400;
    /// Nothing heard for the idle timeout.
    IdleTimeout = 3511, "idle timeout", true, 503;
    /// The client reads more slowly than its channels publish.
    SlowConsumer = 3512, "slow consumer", true, 503;
    /// A bug on our side.
    Internal = 3513, "internal error", true, 500;
    /// The client's protocol version is not served.
    UnsupportedVersion = 3514, "unsupported version", false, 501;
}

/// An error on its way to a client: a code and a text that names what was wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct ClientError {
    /// Row of the table.
    pub code: ErrorCode,
    /// Fit for the client: names the field, the limit and what was sent; no secrets.
    pub message: String,
    /// The error as a backend or another client gave it: it reaches the client as it is.
    pub given: Option<Box<shared::Error>>,
}

impl ClientError {
    /// An error with `code` and `message`.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), given: None }
    }

    /// An error that came over the wire. One with a code of the table is that; every other one is passed on as it is, but
    /// for what would harm who gets it: a code that ends connections, and numbers that JSON cannot carry.
    #[must_use]
    pub fn from_wire(mut error: shared::Error) -> Self {
        if error.code == ErrorCode::DisconnectError.as_str() {
            ErrorCode::ProxyError.as_str().clone_into(&mut error.code);
            ErrorCode::ProxyError.kind().clone_into(&mut error.r#type);
        }
        error.metadata = error.metadata.filter(Struct::is_finite);
        let known = ErrorCode::ALL.into_iter().find(|code| code.as_str() == error.code);
        let code = known.unwrap_or(ErrorCode::ProxyError);
        Self { code, message: error.message.clone(), given: Some(Box::new(error)) }
    }

    /// The error as it goes over the wire.
    #[must_use]
    pub fn to_wire(&self) -> shared::Error {
        match &self.given {
            Some(given) => given.as_ref().clone(),
            None => shared::Error {
                code: self.code.as_str().to_owned(),
                r#type: self.code.kind().to_owned(),
                message: self.message.clone(),
                metadata: None,
            },
        }
    }

    /// The same error, of the event of that number in a batch, counted from 0.
    #[must_use]
    pub fn at(self, index: u64) -> Self {
        let mut wire = self.to_wire();
        wire.message = format!("events[{index}]: {}", wire.message);
        let number = wkt::Value { kind: Some(wkt::value::Kind::NumberValue(index as f64)) };
        wire.metadata.get_or_insert_default().fields.insert("index".to_owned(), number);
        Self { code: self.code, message: wire.message.clone(), given: Some(Box::new(wire)) }
    }

    /// [`ErrorCode::BadRequest`] with `message`.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }
}

impl From<NameError> for ClientError {
    fn from(error: NameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<&BrokerError> for ClientError {
    fn from(error: &BrokerError) -> Self {
        let code = match error {
            BrokerError::NotAvailable { .. } | BrokerError::Stopped => ErrorCode::NotAvailable,
            BrokerError::MemoryLimit { .. } => ErrorCode::MemoryLimit,
            BrokerError::QueueFull { .. } => ErrorCode::QueueFull,
            BrokerError::Refused(_) => ErrorCode::NotAvailable,
            BrokerError::Damaged(_) => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_statuses_are_in_range() {
        let mut codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert!(
                (400..600).contains(&code.http_status()) && (1..=16).contains(&code.grpc_status()),
                "{code:?}"
            );
        }
    }

    #[test]
    fn what_others_give_ends_no_connection_and_can_be_written_in_json() {
        let number = |value| wkt::Value { kind: Some(wkt::value::Kind::NumberValue(value)) };
        let list = |value| {
            let list = wkt::ListValue { values: vec![number(1.0), number(value)] };
            wkt::Value { kind: Some(wkt::value::Kind::ListValue(list)) }
        };
        let given = |code: &str, value| shared::Error {
            code: code.into(),
            r#type: "theirs".into(),
            message: "m".into(),
            metadata: Some(Struct { fields: [("code".to_owned(), value)].into() }),
        };
        let error = ClientError::from_wire(given("DISCONNECT_ERROR", number(3503.0)));
        let wire = error.to_wire();
        assert_eq!(
            (error.code, wire.code.as_str(), wire.message.as_str()),
            (ErrorCode::ProxyError, "PROXY_ERROR", "m")
        );
        let sound = ClientError::from_wire(given("THEIRS", list(7.0))).to_wire();
        assert_eq!((sound.code.as_str(), sound.metadata.is_some()), ("THEIRS", true));
        for value in [number(f64::NAN), list(f64::INFINITY)] {
            let wire = ClientError::from_wire(given("THEIRS", value)).to_wire();
            assert_eq!((wire.r#type.as_str(), wire.metadata), ("theirs", None));
        }
    }

    #[test]
    fn the_final_close_codes_are_those_of_the_protocol() {
        use CloseCode as C;
        for code in [
            C::BadRequest,
            C::ForceDisconnect,
            C::ChannelLimit,
            C::InappropriateProtocol,
            C::PermissionDenied,
        ] {
            assert!(!code.reconnect(), "{code:?}");
        }
        for code in [C::Stale, C::IdleTimeout, C::SlowConsumer, C::Draining, C::TooManyErrors] {
            assert!(code.reconnect(), "{code:?}");
        }
    }
}
