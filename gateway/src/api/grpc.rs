//! The gRPC door: `messageloop.server.v1.APIService`.

use http_body_util::BodyExt as _;
use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE};
use streamgate_proto::server::{
    api_service_server::{ApiService, ApiServiceServer},
    *,
};
use tonic::{Code, Status, body::Body, codegen::Service as _};

use super::{
    door::Door,
    operations::{Operation, Operations, each_operation},
};
use crate::error::{ClientError, ErrorCode};

/// What every path of this door starts with.
pub(super) const PREFIX: &str = "/messageloop.server.v1.APIService/";
/// Metadata of an error: `code` of the error that the JSON door would answer.
const CODE: &str = "streamgate-error-code";

/// Answers gRPC requests. Cheap to clone.
#[derive(Clone)]
pub(super) struct GrpcDoor(Door);

impl GrpcDoor {
    pub fn new(door: Door) -> Self {
        Self(door)
    }

    /// The answer to a request whose path starts with [`PREFIX`]. Cancel: what was started is not undone.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let rpc = request.uri().path().strip_prefix(PREFIX).unwrap_or_default();
        let Some(operation) = Operation::of_rpc(rpc) else {
            return Status::unimplemented("no such method").into_http();
        };
        if !says_grpc(request.headers()) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let entered = self.0.access().check(request.uri(), request.headers(), operation.scope());
        let _running = match entered.and_then(|()| self.0.enter()) {
            Ok(running) => running,
            Err(error) => {
                self.0.count("grpc", operation, Some(error.code));
                return status(&error).into_http();
            }
        };
        let service = Service { door: self.0.clone(), operation };
        let mut server = ApiServiceServer::new(service).max_decoding_message_size(self.0.max_request_bytes());
        match server.call(request.map(|body| Body::new(body.map_err(unreadable)))).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Only what a page of another site cannot send without asking first (and the gRPC specification wants it).
fn says_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

fn unreadable(error: hyper::Error) -> Status {
    Status::new(Code::Unknown, format!("the request breaks off: {error}"))
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
    let mut status = Status::new(Code::from_i32(code.grpc_status()), error.message.clone());
    status.metadata_mut().insert(CODE, tonic::metadata::MetadataValue::from_static(code.as_str()));
    status
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
