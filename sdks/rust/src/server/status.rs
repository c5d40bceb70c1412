//! What a gRPC status of the server API says, as an error of this crate.

use std::error::Error as _;

use tonic::{Code, Status};

use crate::error::Error;

/// Metadata with the gateway's own code.
const CODE: &str = "streamgate-error-code";
/// Metadata with the family of the error.
const TYPE: &str = "streamgate-error-type";

/// The error of a request about `what`.
pub(super) fn error_of(status: &Status, what: &'static str, address: &str) -> Error {
    if let Some(code) = text(status, CODE) {
        return server(code, status);
    }
    if let Some(cause) = cause(status) {
        return cause;
    }
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => Error::Timeout { what },
        Code::Unimplemented => Error::NotAGateway {
            address: address.to_owned(),
            reason: "it has no messageloop.server.v1.APIService with this method".to_owned(),
        },
        // Of what stands before the gateway, or of its limit of a message's size.
        Code::OutOfRange => server("TOO_LARGE", status),
        Code::InvalidArgument => server("BAD_REQUEST", status),
        Code::Unauthenticated => server("AUTH_ERROR", status),
        Code::PermissionDenied => server("ACL_ERROR", status),
        Code::NotFound => server("NOT_FOUND", status),
        Code::ResourceExhausted => server("RATE_LIMITED", status),
        code => Error::ConnectionLost(format!("{code:?}: {}", status.message())),
    }
}

fn server(code: &str, status: &Status) -> Error {
    let kind = text(status, TYPE).unwrap_or_default().to_owned();
    Error::Server { code: code.to_owned(), kind, message: status.message().to_owned() }
}

fn text<'a>(status: &'a Status, name: &str) -> Option<&'a str> {
    status.metadata().get(name).and_then(|value| value.to_str().ok())
}

/// What the connector said, if there is no connection.
fn cause(status: &Status) -> Option<Error> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(own) = error.downcast_ref::<Error>() {
            return Some(own.clone());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_code_counts_before_that_of_grpc() {
        let mut status = Status::unavailable("the broker is away");
        status.metadata_mut().insert(CODE, "NOT_AVAILABLE".parse().unwrap());
        let error = error_of(&status, "history", "a:1");
        assert!(
            matches!(&error, Error::Server { code, message, .. } if code == "NOT_AVAILABLE" && message == "the broker is away")
        );
        assert!(error.is_retryable());
        let lost = error_of(&Status::unavailable("broken pipe"), "history", "a:1");
        assert_eq!(lost, Error::ConnectionLost("Unavailable: broken pipe".into()));
        let late = error_of(&Status::deadline_exceeded(""), "history", "a:1");
        assert_eq!(late, Error::Timeout { what: "history" });
    }
}
