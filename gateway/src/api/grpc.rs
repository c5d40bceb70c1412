//! The gRPC door: `messageloop.server.v1.APIService`.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Request, Response, StatusCode, header::CONTENT_TYPE};
use streamgate_proto::server::{
    api_service_server::{ApiService, ApiServiceServer},
    *,
};
use tonic::{
    Code, Status,
    body::Body,
    codegen::Service as _,
    metadata::{Ascii, MetadataValue},
};

use super::{
    bodies::NoBody,
    door::Door,
    operations::{Operation, Operations, each_operation},
};
use crate::error::{ClientError, ErrorCode};

/// What every path of this door starts with.
pub(super) const PREFIX: &str = "/messageloop.server.v1.APIService/";
/// Metadata of an error: `code` of the error that the JSON door would answer.
const CODE: &str = "streamgate-error-code";
/// The same for its `type`.
const TYPE: &str = "streamgate-error-type";
/// Bytes before a message: whether it is compressed, and how long it is.
const PREFIX_BYTES: usize = 5;
/// Most bytes of a text of an error: a client's own error may be as long as a frame, but clients of gRPC take short headers.
const MOST_TEXT: usize = 1024;

/// Answers gRPC requests. Cheap to clone.
#[derive(Clone)]
pub(super) struct GrpcDoor(Door);

impl GrpcDoor {
    pub fn new(door: Door) -> Self {
        Self(door)
    }

    /// The answer to a request whose path starts with [`PREFIX`]. Cancel: what was started is not undone.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let rpc = request.uri().path().strip_prefix(PREFIX).unwrap_or_default();
        let Some(operation) = Operation::of_rpc(rpc) else {
            return Status::unimplemented("no such method").into_http();
        };
        if !says_grpc(request.headers()) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        self.carried_out(operation, request).await.unwrap_or_else(|error| {
            self.0.count("grpc", operation, Some(error.code));
            status(&error).into_http()
        })
    }

    async fn carried_out<B>(
        &self,
        operation: Operation,
        request: Request<B>,
    ) -> Result<Response<Body>, ClientError>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.0.access().check(request.uri(), request.headers(), operation.scope())?;
        let (parts, body) = request.into_parts();
        let most = self.0.max_request_bytes();
        let read = self.0.bodies().read(body, most.saturating_add(PREFIX_BYTES), announced).await;
        let body = read.map_err(NoBody::into_error)?;
        let _running = self.0.enter()?;
        let service = Service { door: self.0.clone(), operation };
        let mut server = ApiServiceServer::new(service).max_decoding_message_size(most);
        let request = Request::from_parts(parts, Body::new(Full::new(body.bytes.clone())));
        match server.call(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }
}

/// How long a body is, by the beginning of its one message.
fn announced(start: &[u8]) -> Option<usize> {
    let (prefix, _) = start.split_first_chunk::<PREFIX_BYTES>()?;
    let [_, length @ ..] = *prefix;
    usize::try_from(u32::from_be_bytes(length)).ok()?.checked_add(PREFIX_BYTES)
}

/// Only what a page of another site cannot send without asking first (and the gRPC specification wants it).
fn says_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

/// One request's service.
struct Service {
    door: Door,
    operation: Operation,
}

impl Service {
    fn operations(&self) -> &Operations {
        self.door.operations()
    }

    fn told<T>(&self, outcome: Result<T, ClientError>) -> Result<tonic::Response<T>, Status> {
        self.door.count("grpc", self.operation, outcome.as_ref().err().map(|error| error.code));
        outcome.map(tonic::Response::new).map_err(|error| status(&error))
    }
}

fn status(error: &ClientError) -> Status {
    // Says on streams that they end; there is none here.
    let code = if error.code == ErrorCode::DisconnectError { ErrorCode::Internal } else { error.code };
    let number = match code {
        // As gRPC itself says of a message that is too large.
        ErrorCode::TooLarge => Code::OutOfRange,
        code => Code::from_i32(code.grpc_status()),
    };
    let mut status = Status::new(number, shortened(&error.message));
    // What a client gave as its own error is told as it is, if it fits.
    let given = error.given.as_deref().map(|given| (given.code.as_str(), given.r#type.as_str()));
    let (own, kind) = given.unwrap_or((code.as_str(), code.kind()));
    let metadata = status.metadata_mut();
    metadata.insert(CODE, value(own).unwrap_or_else(|| MetadataValue::from_static(code.as_str())));
    metadata.insert(TYPE, value(kind).unwrap_or_else(|| MetadataValue::from_static(code.kind())));
    status
}

fn value(text: &str) -> Option<MetadataValue<Ascii>> {
    let fits = (1..=MOST_TEXT).contains(&text.len());
    fits.then(|| text.parse().ok()).flatten()
}

/// As much of the text as a header takes.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(MOST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

macro_rules! service {
    ($($variant:ident, $method:ident, $rpc:literal, $request:ident, $response:ident, $scope:ident;)*) => {
        #[tonic::async_trait]
        impl ApiService for Service {
            $(async fn $method(
                &self,
                request: tonic::Request<$request>,
            ) -> Result<tonic::Response<$response>, Status> {
                let outcome = self.operations().$method(request.into_inner()).await;
                self.told(outcome)
            })*
        }
    };
}
each_operation!(service);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use streamgate_proto::shared;

    use super::*;
    use crate::{api::tests::door, config::ApiConfig};

    /// A request of which only the head comes.
    fn head() -> Request<impl hyper::body::Body<Data = Bytes, Error = Infallible> + Unpin> {
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let request = Request::post(format!("http://localhost{PREFIX}Channels"));
        request.header(CONTENT_TYPE, "application/grpc").body(body).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_its_body_takes_no_place_and_ends() {
        let door = door(ApiConfig { tokens: Vec::new(), max_request_bytes: 1024 });
        let grpc = GrpcDoor::new(door.clone());
        let mut answers: Vec<_> = (0..5_000).map(|_| Box::pin(grpc.answer(head()))).collect();
        for answer in &mut answers {
            assert!(answer.now_or_never().is_none());
        }
        assert!(door.enter().is_ok());
        let answer = answers.remove(0).await;
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.metadata().get(CODE).unwrap(), "BAD_REQUEST", "{status:?}");
    }

    #[test]
    fn a_message_says_how_long_it_is() {
        assert_eq!(announced(b"\0\0\0\x01\x02and more"), Some(263));
        assert_eq!(announced(b"\0\0\0\0"), None);
    }

    #[test]
    fn a_clients_own_error_is_told_as_it_is_but_never_too_long_for_a_header() {
        let told = |code: &str, message: String| {
            let given =
                shared::Error { code: code.into(), r#type: "kitchen".into(), message, metadata: None };
            let status = status(&ClientError::from_wire(given));
            let text = |name| status.metadata().get(name).unwrap().to_str().unwrap().to_owned();
            (text(CODE), text(TYPE), status.message().len())
        };
        let (code, kind, length) = told("OUT_OF_TEA", "ä".repeat(5_000));
        assert_eq!((code.as_str(), kind.as_str(), length), ("OUT_OF_TEA", "kitchen", MOST_TEXT));
        assert_eq!(told("A", "€".repeat(5_000)).2, MOST_TEXT - 1, "no half character");
        for odd in ["", "two\nlines", &"x".repeat(2_000)] {
            assert_eq!(told(odd, String::new()).0, "PROXY_ERROR", "{odd:?}");
        }
        let own = status(&ClientError::bad_request("no"));
        assert_eq!(own.metadata().get(TYPE).unwrap(), "request_error");
    }
}
