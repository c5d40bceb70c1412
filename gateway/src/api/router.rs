//! Which part of the admin listener a request is for.

use hyper::{Request, Response, body::Incoming};
use tonic::body::Body;

use super::{
    door::Door,
    grpc::{self, GrpcDoor},
    http::{self, JsonDoor},
    observability::Observability,
};

/// Everything that the admin listener serves. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    observability: Observability,
    json: JsonDoor,
    grpc: GrpcDoor,
}

impl Router {
    /// Health and metrics for everybody, the API for whoever its door lets in.
    #[must_use]
    pub fn new(observability: Observability, door: Door) -> Self {
        Self { observability, json: JsonDoor::new(door.clone()), grpc: GrpcDoor::new(door) }
    }

    /// The answer to one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if path.starts_with(grpc::PREFIX) {
            return self.grpc.answer(request).await;
        }
        let reply = if path.starts_with(http::PREFIX) {
            self.json.answer(request).await
        } else {
            self.observability
                .answer(request.method(), path, request.uri().query())
                .unwrap_or_else(http::not_found)
        };
        reply.map(Body::new)
    }
}
