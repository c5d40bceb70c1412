//! For backends, with the feature `server`: the gateway's server API, hooks, and minting tokens.
//!
//! - [`ApiClient`] publishes, looks at what is there, changes it, and asks clients.
//! - [`HookHandler`] is what the gateway asks of a backend; [`serve`] answers it over gRPC.
//! - [`TokenMinter`] signs the tokens that clients show.
//!
//! Owns: the typed form of `messageloop.server.v1` and `messageloop.proxy.v1`, and which claims tokens have. Never does:
//! anything a client of the gateway needs.
//!
//! Invariants: nothing is sent twice but publishes with an idempotency key; what is wrong with one item of a request is
//! in its result, what is wrong with the request is the error; no token, secret or key is shown by `Debug`.
//!
//! ```no_run
//! use std::time::Duration;
//! use streamgate_client::{CloudEventBuilder, server::{ApiClient, Publication, Who}};
//!
//! # async fn example() -> Result<(), streamgate_client::Error> {
//! let api = ApiClient::builder("http://127.0.0.1:8080").token("from /run/secrets").build()?;
//!
//! let paid = CloudEventBuilder::new("order.paid").source("/shop").text("17").build();
//! let publication = Publication::new(paid).channel("orders.17").idempotency_key("order-17-paid");
//! for result in api.publish([publication]).await? {
//!     println!("{:?}: {:?}", result.to, result.outcome);
//! }
//!
//! let question = CloudEventBuilder::new("confirm").source("/shop").build();
//! let answer = api.call(Who::user("ann"), "order.confirm", question, Some(Duration::from_secs(5))).await?;
//! println!("{:?}", answer.data);
//! # Ok(())
//! # }
//! ```

mod api;
mod ask;
mod channels;
mod connection;
mod hooks;
mod pages;
mod publish;
mod sessions;
mod status;
mod tokens;

pub use api::{ApiBuilder, ApiClient};
pub use ask::SurveyResult;
pub use channels::ChannelsQuery;
pub use hooks::{
    AuthenticateRequest, HookError, HookHandler, HookService, OnChannelOccupiedRequest,
    OnChannelVacatedRequest, OnConnectedRequest, OnDisconnectedRequest, OnSubscribedRequest,
    OnUnsubscribedRequest, PublishAclRequest, RpcRequest, SubscribeAclRequest, UserInfo, serve, service,
};
pub use pages::Page;
pub use publish::{Delivered, Destination, Publication, PublishResult};
pub use sessions::{ChannelResult, Close, DisconnectResult, Revocation, SessionsQuery, Who};
pub use streamgate_proto::{
    server::{NodeInfo, PresenceResponse, SessionInfo},
    v1::Member,
};
pub use tokens::{Algorithm, ConnectionToken, SubscriptionToken, TokenMinter};
