//! Clients with tokens and rights, and what they are answered when they try.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use streamgate::policy::rights::Action;
use streamgate_proto::v1::{
    Connect, InboundMessage, PresenceQuery, Subscribe, inbound_message::Envelope as In,
    outbound_message::Envelope as Out,
};

use crate::{
    events::{extended, frame, history, live, publish, text},
    gateway::TestNode,
    raw::{RawClient, Via},
};

const SECRET: &str = "a secret of at least thirty-two bytes";
/// Keys, and clients without a token as well.
pub const OPEN: &str = "allow_anonymous: true\nauth: {jwt: {leeway: 0s, keys: [{algorithm: HS256, secret: a secret of at \
                    least thirty-two bytes}]}}\n";
/// What can be tried.
pub const ACTIONS: [Action; 5] =
    [Action::Subscribe, Action::Publish, Action::Presence, Action::History, Action::Rpc];

/// A token with these claims.
///
/// # Panics
/// Never: the key is good.
#[must_use]
pub fn signed(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes()))
        .expect("an HMAC key")
}

/// A token of this user.
#[must_use]
pub fn token(user: &str) -> String {
    signed(&json!({"sub": user}))
}

/// The connect with a token; "" is none.
#[must_use]
pub fn showing(connect: Connect, token: &str) -> Connect {
    Connect { token: token.into(), ..connect }
}

/// An extended client with this token.
pub async fn client(node: &TestNode, via: Via, token: &str) -> RawClient {
    RawClient::connect_as(node.addrs(), via, showing(extended([]), token)).await
}

/// [`OPEN`] with these rules, elements of a list in flow style.
#[must_use]
pub fn permissions(rules: &str) -> String {
    format!("{OPEN}permissions: [{rules}]\n")
}

/// What the client is answered when it tries: empty if it may, else the error's code.
///
/// # Panics
/// The error does not name the channel.
pub async fn attempt(client: &mut RawClient, action: Action, channel: &str) -> String {
    let request = match action {
        Action::Subscribe => frame(In::Subscribe(Subscribe { subscriptions: vec![live(channel)] })),
        Action::Publish => publish(channel, text("1", "hello")),
        Action::Presence => frame(In::PresenceQuery(PresenceQuery { channel: channel.into() })),
        Action::History => frame(In::History(history(channel, -1))),
        _ => InboundMessage {
            channel: channel.into(),
            method: "m".into(),
            ..frame(In::RpcRequest(text("1", "")))
        },
    };
    match client.request(request).await.envelope {
        Some(Out::Error(error)) => {
            assert!(error.message.contains(channel), "{error:?}");
            error.code
        }
        Some(_) => String::new(),
        None => panic!("no envelope"),
    }
}
