//! The hooks: what each asks and what it gets for an answer.

use std::fmt::Debug;

use prost::Message;
use serde::{Serialize, de::DeserializeOwned};
use streamgate_proto::proxy::{
    AuthenticateRequest, AuthenticateResponse, OnChannelOccupiedRequest, OnChannelOccupiedResponse,
    OnChannelVacatedRequest, OnChannelVacatedResponse, OnConnectedRequest, OnConnectedResponse,
    OnDisconnectedRequest, OnDisconnectedResponse, OnSubscribedRequest, OnSubscribedResponse,
    OnUnsubscribedRequest, OnUnsubscribedResponse, PublishAclRequest, PublishAclResponse, RpcRequest,
    RpcResponse, SubscribeAclRequest, SubscribeAclResponse,
};

/// A hook by its request.
pub trait Hook: Message + Serialize + Clone + Default + Debug + 'static {
    /// The answer.
    type Answer: Message + DeserializeOwned + Default + Debug + 'static;

    /// Its name: the method of `ProxyService`, the header of the HTTP form, the label of its metrics.
    const NAME: &'static str;

    /// Whether asking twice is the same as asking once, so that a question may be repeated whose answer was lost.
    const REPEATABLE: bool = false;

    /// Whether its answer says nothing: then any success is one, whatever is in it.
    const SILENT: bool = false;
}

macro_rules! hooks {
    ($($request:ident -> $answer:ident = $name:literal $(, $property:ident)?;)+) => {
        $(impl Hook for $request {
            type Answer = $answer;
            const NAME: &'static str = $name;
            $(const $property: bool = true;)?
        })+

        /// The name of every hook.
        pub const NAMES: &[&str] = &[$($name),+];
    };
}

hooks! {
    RpcRequest -> RpcResponse = "RPC";
    AuthenticateRequest -> AuthenticateResponse = "Authenticate", REPEATABLE;
    SubscribeAclRequest -> SubscribeAclResponse = "SubscribeAcl", REPEATABLE;
    PublishAclRequest -> PublishAclResponse = "PublishAcl", REPEATABLE;
    OnConnectedRequest -> OnConnectedResponse = "OnConnected", SILENT;
    OnSubscribedRequest -> OnSubscribedResponse = "OnSubscribed", SILENT;
    OnUnsubscribedRequest -> OnUnsubscribedResponse = "OnUnsubscribed", SILENT;
    OnDisconnectedRequest -> OnDisconnectedResponse = "OnDisconnected", SILENT;
    OnChannelOccupiedRequest -> OnChannelOccupiedResponse = "OnChannelOccupied", SILENT;
    OnChannelVacatedRequest -> OnChannelVacatedResponse = "OnChannelVacated", SILENT;
}
