//! The answer to `GET /sse`.

use std::cell::RefCell;
use std::rc::Rc;

use hyper::{
    HeaderMap, Response,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue},
};
use tokio::sync::oneshot;

use super::{
    body::{EventBody, Presence},
    outlet::{Begin, Queue, SseOutlet},
};
use crate::{
    error::{ClientError, CloseCode},
    session::{Arrival, Manner},
    shard::Shard,
    transport::{
        cloudevents::Asked,
        http::{Patience, Refusal},
    },
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Has nginx pass events on as they come.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Opens a session for the request, and answers when it is connected.
///
/// Cancel: the session ends.
///
/// # Errors
/// Why there is no stream, with its status.
pub(in crate::transport) async fn serve(
    shard: &Shard,
    arrival: Arrival,
    patience: &Rc<Patience>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response<EventBody>, Refusal> {
    let last = headers.get(LAST_EVENT_ID).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let asked = Asked::of_query(query, last.as_deref())?;
    if asked.targets.is_empty() {
        return Err(ClientError::bad_request("say what to listen to: /sse?channel=...").into());
    }
    let limit = shard.settings().limits.load().write_queue_bytes;
    let queue = Rc::new(RefCell::new(Queue::default()));
    let (begin, begun) = oneshot::channel();
    let outlet = SseOutlet::new(queue.clone(), limit, &asked.targets, &asked.cursor, begin)?;
    let id = shard.open(Box::new(outlet), Arrival { manner: Manner::Events, ..arrival });
    let presence = Presence { shard: shard.clone(), id };
    shard.understood(id, Ok(asked.connect("sse")));
    match begun.await {
        Ok(Begin::Stream) => Ok(response(EventBody { queue, limit, presence, patience: patience.clone() })),
        Ok(Begin::Refused(error)) => Err(error.into()),
        Ok(Begin::Closed(code, reason)) => Err(Refusal::of_close(code, &reason)),
        // The shard is ending.
        Err(_) => Err(Refusal::of_close(CloseCode::Draining, CloseCode::Draining.reason())),
    }
}

fn response(body: EventBody) -> Response<EventBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    // Nothing follows a stream: its end is that of the connection.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
