//! A backend over gRPC: the service as its proto file says.

use std::net::SocketAddr;

use serde::{Serialize, de::DeserializeOwned};
use streamgate_proto::{
    json,
    proxy::{proxy_service_server::*, *},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, metadata::KeyAndValueRef, transport::Server};

use super::{Notes, Question, Reply};

/// See the module. Dropping it ends it.
pub struct GrpcBackend {
    addr: SocketAddr,
    /// What it was asked, and how it answers.
    pub notes: Notes,
    serving: JoinHandle<()>,
}

impl GrpcBackend {
    /// A backend that answers like this.
    pub async fn start(answer: impl Fn(&Question) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let (addr, notes) = (listener.local_addr().expect("bound"), Notes::new(answer));
        let service = ProxyServiceServer::new(Service(notes.clone()));
        let serving = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            Server::builder().add_service(service).serve_with_incoming(incoming).await.expect("serve");
        });
        Self { addr, notes, serving }
    }

    /// Where it listens, as an endpoint is written.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.addr.to_string()
    }
}

impl Drop for GrpcBackend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Service(Notes);

impl Service {
    async fn answer<Q: Serialize, A: DeserializeOwned>(
        &self,
        hook: &str,
        request: Request<Q>,
    ) -> Result<Response<A>, Status> {
        let headers = request
            .metadata()
            .iter()
            .filter_map(|pair| match pair {
                KeyAndValueRef::Ascii(key, value) => {
                    Some((key.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned()))
                }
                KeyAndValueRef::Binary(..) => None,
            })
            .collect();
        let body = json::encode(request.get_ref()).expect("a message has JSON");
        let body = serde_json::from_slice(&body).expect("it is JSON");
        let question = Question { hook: hook.to_owned(), path: hook.to_owned(), headers, body };
        match self.0.take(question) {
            Reply::Json(200, body) => {
                Ok(Response::new(json::decode(body.to_string().as_bytes()).expect("the test's answer fits")))
            }
            Reply::Json(403, body) => Err(Status::permission_denied(body.as_str().unwrap_or_default())),
            Reply::Json(404, _) => Err(Status::unimplemented("")),
            Reply::Stall => std::future::pending().await,
            _ => Err(Status::unavailable("told to")),
        }
    }
}

#[tonic::async_trait]
impl ProxyService for Service {
    async fn rpc(&self, request: Request<RpcRequest>) -> Result<Response<RpcResponse>, Status> {
        self.answer("RPC", request).await
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        self.answer("Authenticate", request).await
    }

    async fn subscribe_acl(
        &self,
        request: Request<SubscribeAclRequest>,
    ) -> Result<Response<SubscribeAclResponse>, Status> {
        self.answer("SubscribeAcl", request).await
    }

    async fn publish_acl(
        &self,
        request: Request<PublishAclRequest>,
    ) -> Result<Response<PublishAclResponse>, Status> {
        self.answer("PublishAcl", request).await
    }

    async fn on_connected(
        &self,
        request: Request<OnConnectedRequest>,
    ) -> Result<Response<OnConnectedResponse>, Status> {
        self.answer("OnConnected", request).await
    }

    async fn on_subscribed(
        &self,
        request: Request<OnSubscribedRequest>,
    ) -> Result<Response<OnSubscribedResponse>, Status> {
        self.answer("OnSubscribed", request).await
    }

    async fn on_unsubscribed(
        &self,
        request: Request<OnUnsubscribedRequest>,
    ) -> Result<Response<OnUnsubscribedResponse>, Status> {
        self.answer("OnUnsubscribed", request).await
    }

    async fn on_disconnected(
        &self,
        request: Request<OnDisconnectedRequest>,
    ) -> Result<Response<OnDisconnectedResponse>, Status> {
        self.answer("OnDisconnected", request).await
    }

    async fn on_channel_occupied(
        &self,
        request: Request<OnChannelOccupiedRequest>,
    ) -> Result<Response<OnChannelOccupiedResponse>, Status> {
        self.answer("OnChannelOccupied", request).await
    }

    async fn on_channel_vacated(
        &self,
        request: Request<OnChannelVacatedRequest>,
    ) -> Result<Response<OnChannelVacatedResponse>, Status> {
        self.answer("OnChannelVacated", request).await
    }
}
