//! Answering the gateway's hooks (`messageloop.proxy.v1.ProxyService`) over gRPC.

use std::{future::Future, sync::Arc};

use streamgate_proto::{
    cloudevents::CloudEvent,
    proxy::{self as wire, proxy_service_server::ProxyService},
    shared,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

pub use streamgate_proto::proxy::{
    AuthenticateRequest, OnChannelOccupiedRequest, OnChannelVacatedRequest, OnConnectedRequest,
    OnDisconnectedRequest, OnSubscribedRequest, OnUnsubscribedRequest, PublishAclRequest, RpcRequest,
    SubscribeAclRequest, UserInfo,
};

use crate::error::Error;

/// Largest question that is taken, in bytes.
const MAX_QUESTION: usize = 64 * 1024 * 1024;

/// A hook's no.
///
/// The client gets `code` and `message` of a call's error as they are. For the verdicts (`authenticate`, `subscribe_acl`,
/// `publish_acl`) it gets the gateway's own code. Of the events of sessions, any error has the event told again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct HookError {
    /// Stable upper-case code, as `OUT_OF_STOCK`.
    pub code: String,
    /// Family of the error, as `order_error`; may be empty.
    pub kind: String,
    /// For people.
    pub message: String,
}

impl HookError {
    /// An error with this code and message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), kind: String::new(), message: message.into() }
    }

    /// A client may not do that: `ACL_ERROR`.
    pub fn denied(message: impl Into<String>) -> Self {
        Self { kind: "acl_error".to_owned(), ..Self::new("ACL_ERROR", message) }
    }

    fn into_wire(self) -> shared::Error {
        shared::Error { code: self.code, r#type: self.kind, message: self.message, metadata: None }
    }
}

/// What a backend answers when the gateway asks. Every method has a default, so that a backend says only what it is for:
/// calls are answered `NO_PROXY`, credentials and rights are refused, events of sessions are noted.
///
/// The gateway waits for its configured timeout (`proxy[].timeout`) and then drops the request, and with it the method's
/// future.
///
/// ```no_run
/// use streamgate_client::{CloudEvent, CloudEventBuilder};
/// use streamgate_client::server::{HookError, HookHandler, RpcRequest, SubscribeAclRequest, serve};
///
/// struct Shop;
///
/// impl HookHandler for Shop {
///     async fn rpc(&self, request: RpcRequest) -> Result<CloudEvent, HookError> {
///         match request.method.as_str() {
///             "time" => Ok(CloudEventBuilder::new("time").source("/shop").text("12:00").build()),
///             _ => Err(HookError::new("NO_SUCH_METHOD", "the shop has no such method")),
///         }
///     }
///
///     async fn subscribe_acl(&self, request: SubscribeAclRequest) -> Result<(), HookError> {
///         // Who it is, as the gateway knows it; `client_id` proves nothing.
///         if request.user_id.is_empty() { Err(HookError::denied("log in first")) } else { Ok(()) }
///     }
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:9000").await?;
/// serve(listener, Shop).await?;
/// # Ok(())
/// # }
/// ```
pub trait HookHandler: Send + Sync + 'static {
    /// Answers a client's call.
    fn rpc(&self, request: RpcRequest) -> impl Future<Output = Result<CloudEvent, HookError>> + Send {
        let error = HookError::new("NO_PROXY", format!("this backend does not answer {}", request.method));
        async { Err(HookError { kind: "proxy_error".to_owned(), ..error }) }
    }

    /// Says who the bearer of a credential is: [`AuthenticateRequest::password`], which must not be logged.
    fn authenticate(
        &self,
        request: AuthenticateRequest,
    ) -> impl Future<Output = Result<UserInfo, HookError>> + Send {
        drop(request);
        let error = HookError::new("AUTH_ERROR", "this backend knows no credentials");
        async { Err(HookError { kind: "auth_error".to_owned(), ..error }) }
    }

    /// Decides on a subscription, or on another action of a channel ([`SubscribeAclRequest::action`]).
    fn subscribe_acl(
        &self,
        request: SubscribeAclRequest,
    ) -> impl Future<Output = Result<(), HookError>> + Send {
        drop(request);
        async { Err(HookError::denied("this backend allows no subscriptions")) }
    }

    /// Decides on a publish: `None` lets the event pass as it is, `Some` publishes that one instead.
    fn publish_acl(
        &self,
        request: PublishAclRequest,
    ) -> impl Future<Output = Result<Option<CloudEvent>, HookError>> + Send {
        drop(request);
        async { Err(HookError::denied("this backend allows no publishes")) }
    }

    /// A session began. At least once, as those below: `event_id` is the same however often it is told. An error has
    /// it told again, and what follows of the session wait.
    fn on_connected(
        &self,
        request: OnConnectedRequest,
    ) -> impl Future<Output = Result<(), HookError>> + Send {
        drop(request);
        async { Ok(()) }
    }

    /// A session subscribed.
    fn on_subscribed(
        &self,
        request: OnSubscribedRequest,
    ) -> impl Future<Output = Result<(), HookError>> + Send {
        drop(request);
        async { Ok(()) }
    }

    /// A session unsubscribed, and goes on.
    fn on_unsubscribed(
        &self,
        request: OnUnsubscribedRequest,
    ) -> impl Future<Output = Result<(), HookError>> + Send {
        drop(request);
        async { Ok(()) }
    }

    /// A session ended, and its subscriptions with it.
    fn on_disconnected(
        &self,
        request: OnDisconnectedRequest,
    ) -> impl Future<Output = Result<(), HookError>> + Send {
        drop(request);
        async { Ok(()) }
    }

    /// A channel got its first subscriber by its name, of all nodes. Told where the backend's entry says `occupancy: true`.
    fn on_channel_occupied(
        &self,
        request: OnChannelOccupiedRequest,
    ) -> impl Future<Output = Result<(), HookError>> + Send {
        drop(request);
        async { Ok(()) }
    }

    /// A channel lost its last subscriber by its name, of all nodes.
    fn on_channel_vacated(
        &self,
        request: OnChannelVacatedRequest,
    ) -> impl Future<Output = Result<(), HookError>> + Send {
        drop(request);
        async { Ok(()) }
    }
}

/// The gRPC service of a handler; see [`service`].
pub type HookService<H> = wire::proxy_service_server::ProxyServiceServer<Answers<H>>;

/// The gRPC service of a handler, for a tonic server of one's own: with TLS, other services, or a check of the metadata that
/// the gateway is configured to send.
#[must_use]
pub fn service<H: HookHandler>(handler: H) -> HookService<H> {
    HookService::new(Answers(Arc::new(handler))).max_decoding_message_size(MAX_QUESTION)
}

/// Answers what comes to `listener`, without TLS: for a gateway on the same machine or network. Runs until the listener fails;
/// cancelled, it drops what it is answering, which the gateway tells or asks again where that is safe.
///
/// # Errors
/// [`Error::Unreachable`]: the listener failed.
pub async fn serve<H: HookHandler>(listener: TcpListener, handler: H) -> Result<(), Error> {
    let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let incoming = TcpListenerStream::new(listener);
    let server = Server::builder().tcp_nodelay(true).add_service(service(handler));
    let served = server.serve_with_incoming(incoming).await;
    served.map_err(|error| Error::Unreachable { address, reason: error.to_string() })
}

/// A handler as generated code wants it.
#[derive(Debug)]
pub struct Answers<H>(Arc<H>);

/// Any error: the event comes again.
fn noted<T>(outcome: Result<(), HookError>, answer: T) -> Result<Response<T>, Status> {
    match outcome {
        Ok(()) => Ok(Response::new(answer)),
        Err(error) => Err(Status::unavailable(error.to_string())),
    }
}

#[tonic::async_trait]
impl<H: HookHandler> ProxyService for Answers<H> {
    async fn rpc(&self, request: Request<RpcRequest>) -> Result<Response<wire::RpcResponse>, Status> {
        let request = request.into_inner();
        let id = request.id.clone();
        Ok(Response::new(match self.0.rpc(request).await {
            Ok(payload) => wire::RpcResponse { id, error: None, payload: Some(payload) },
            Err(error) => wire::RpcResponse { id, error: Some(error.into_wire()), payload: None },
        }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<wire::AuthenticateResponse>, Status> {
        Ok(Response::new(match self.0.authenticate(request.into_inner()).await {
            Ok(user) => wire::AuthenticateResponse { error: None, user_info: Some(user) },
            Err(error) => wire::AuthenticateResponse { error: Some(error.into_wire()), user_info: None },
        }))
    }

    async fn subscribe_acl(
        &self,
        request: Request<SubscribeAclRequest>,
    ) -> Result<Response<wire::SubscribeAclResponse>, Status> {
        let verdict = self.0.subscribe_acl(request.into_inner()).await;
        Ok(Response::new(wire::SubscribeAclResponse { error: verdict.err().map(HookError::into_wire) }))
    }

    async fn publish_acl(
        &self,
        request: Request<PublishAclRequest>,
    ) -> Result<Response<wire::PublishAclResponse>, Status> {
        Ok(Response::new(match self.0.publish_acl(request.into_inner()).await {
            Ok(payload) => wire::PublishAclResponse { error: None, payload },
            Err(error) => wire::PublishAclResponse { error: Some(error.into_wire()), payload: None },
        }))
    }

    async fn on_connected(
        &self,
        request: Request<OnConnectedRequest>,
    ) -> Result<Response<wire::OnConnectedResponse>, Status> {
        noted(self.0.on_connected(request.into_inner()).await, wire::OnConnectedResponse {})
    }

    async fn on_subscribed(
        &self,
        request: Request<OnSubscribedRequest>,
    ) -> Result<Response<wire::OnSubscribedResponse>, Status> {
        noted(self.0.on_subscribed(request.into_inner()).await, wire::OnSubscribedResponse {})
    }

    async fn on_unsubscribed(
        &self,
        request: Request<OnUnsubscribedRequest>,
    ) -> Result<Response<wire::OnUnsubscribedResponse>, Status> {
        noted(self.0.on_unsubscribed(request.into_inner()).await, wire::OnUnsubscribedResponse {})
    }

    async fn on_disconnected(
        &self,
        request: Request<OnDisconnectedRequest>,
    ) -> Result<Response<wire::OnDisconnectedResponse>, Status> {
        noted(self.0.on_disconnected(request.into_inner()).await, wire::OnDisconnectedResponse {})
    }

    async fn on_channel_occupied(
        &self,
        request: Request<OnChannelOccupiedRequest>,
    ) -> Result<Response<wire::OnChannelOccupiedResponse>, Status> {
        noted(self.0.on_channel_occupied(request.into_inner()).await, wire::OnChannelOccupiedResponse {})
    }

    async fn on_channel_vacated(
        &self,
        request: Request<OnChannelVacatedRequest>,
    ) -> Result<Response<wire::OnChannelVacatedResponse>, Status> {
        noted(self.0.on_channel_vacated(request.into_inner()).await, wire::OnChannelVacatedResponse {})
    }
}
