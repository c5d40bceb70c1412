//! From a request on the WebSocket's path to a connection of the shard.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};

use super::{OriginPolicy, Subprotocol, accept, connection, socket::Socket};
use crate::{
    session::{Arrival, Manner},
    shard::Shard,
    transport::cloudevents::Asked,
};

/// Answers an upgrade request; the connection then lives on by itself.
pub(in crate::transport) fn upgrade(
    shard: &Shard,
    arrival: Arrival,
    request: Request<Incoming>,
    origins: &OriginPolicy,
) -> Response<Full<Bytes>> {
    let query = request.uri().query().map(str::to_owned);
    let handshake = match accept(request, origins) {
        Ok(handshake) => handshake,
        Err(refusal) => {
            let address = arrival.address.map(tracing::field::display);
            tracing::debug!(address, %refusal, "a WebSocket handshake is refused");
            return refusal.response();
        }
    };
    let (mut asked, mut arrival) = (None, Arrival { token: handshake.presented, ..arrival });
    if handshake.subprotocol == Some(Subprotocol::CloudEventsJson) {
        // The address is the connect, so it is looked at before there is a connection.
        match Asked::of_query(query.as_deref(), None) {
            Ok(address) => asked = Some(Box::new(address)),
            Err(error) => return unusable(&error.message),
        }
        arrival.manner = Manner::Events;
    }
    let shard = shard.clone();
    let (upgrade, chosen) = (handshake.upgrade, handshake.subprotocol);
    tokio::task::spawn_local(async move {
        match upgrade.stream::<Socket>().await {
            // A task of its own, so that the state of the upgrade is freed.
            Ok((socket, first)) => drop(tokio::task::spawn_local(connection::serve(
                shard, socket, first, chosen, arrival, asked,
            ))),
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
    handshake.response
}

fn unusable(why: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{why}\n")));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
