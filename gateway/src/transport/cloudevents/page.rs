//! `GET /channels/{channel}/events`: a page of history as a batch of events.

use hyper::{
    StatusCode,
    header::{HeaderName, HeaderValue, LINK},
};
use streamgate_proto::v1::{
    HistoryRequest, HistoryResponse, InboundMessage, Position, inbound_message::Envelope as In,
    outbound_message::Envelope as Out,
};

use super::{client::client, socket::write_message};
use crate::{
    channel::Channel,
    error::{ClientError, ErrorCode},
    session::Arrival,
    shard::Shard,
    transport::{
        cursor,
        http::{Refusal, Reply, reply},
    },
};

const BATCH: HeaderValue = HeaderValue::from_static("application/cloudevents-batch+json");
/// Where the channel stands.
const POSITION: HeaderName = HeaderName::from_static("sg-position");
/// Whether there is more than the page holds.
const TRUNCATED: HeaderName = HeaderName::from_static("sg-truncated");

/// Events of a page where the request does not say, and at most.
const USUAL_LIMIT: i32 = 100;
const GREATEST_LIMIT: i32 = 10_000;

/// What a page is asked for with.
#[derive(Debug, PartialEq)]
struct Query {
    since: Option<Position>,
    limit: i32,
    reverse: bool,
}

/// Reads a page.
///
/// # Errors
/// Why there is none.
pub(in crate::transport) async fn page(
    shard: &Shard,
    arrival: Arrival,
    channel: &Channel,
    query: Option<&str>,
) -> Result<Reply, Refusal> {
    let Query { since, limit, reverse } = read(query, channel)?;
    let request = HistoryRequest { channel: channel.as_str().to_owned(), since, limit, reverse };
    let client = client(shard, arrival).await?;
    let frame = InboundMessage { envelope: Some(In::History(request)), ..InboundMessage::default() };
    match client.ask(frame).await?.envelope {
        Some(Out::History(page)) => batch(channel, &page, limit, reverse),
        Some(Out::Error(error)) => Err(ClientError::from_wire(error).into()),
        _ => Err(ClientError::new(ErrorCode::Internal, "the page was not answered").into()),
    }
}

fn read(query: Option<&str>, channel: &Channel) -> Result<Query, ClientError> {
    let mut asked = Query { since: None, limit: USUAL_LIMIT, reverse: false };
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "since" => asked.since = cursor::of_channel(&value, channel)?,
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (0..=GREATEST_LIMIT).contains(limit));
                asked.limit = limit.ok_or_else(|| {
                    let text = format!("limit is {value:?}, a number from 0 to {GREATEST_LIMIT} is expected");
                    ClientError::bad_request(text)
                })?;
            }
            "reverse" => {
                asked.reverse = match &*value {
                    "" | "true" | "1" => true,
                    "false" | "0" => false,
                    _ => {
                        let text = format!("reverse is {value:?}, true or false is expected");
                        return Err(ClientError::bad_request(text));
                    }
                };
            }
            _ => {}
        }
    }
    Ok(asked)
}

fn batch(channel: &Channel, page: &HistoryResponse, limit: i32, reverse: bool) -> Result<Reply, Refusal> {
    let mut body = vec![b'['];
    for message in &page.messages {
        if body.len() > 1 {
            body.push(b',');
        }
        write_message(message, &mut body)
            .map_err(|error| ClientError::new(ErrorCode::Internal, error.to_string()))?;
    }
    body.push(b']');
    let mut response = reply(StatusCode::OK, BATCH, body);
    let headers = response.headers_mut();
    let mut tell = |name, text: String| {
        // Places and numbers are ASCII, names are encoded.
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    };
    if let Some(at) = &page.position {
        tell(POSITION, format!("{}:{}", at.epoch, at.offset));
    }
    tell(TRUNCATED, page.truncated.to_string());
    let last = page.messages.last().and_then(|message| message.position.as_ref());
    if let (true, Some(at)) = (page.truncated, last) {
        let (name, back) = (cursor::encoded(channel.as_str()), if reverse { "&reverse=true" } else { "" });
        let next = format!("/channels/{name}/events?since={}:{}&limit={limit}{back}", at.epoch, at.offset);
        tell(LINK, format!("<{next}>; rel=\"next\""));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Query, ClientError> {
        read(Some(query), &Channel::parse("a").unwrap())
    }

    #[test]
    fn what_is_asked_for_is_read_and_what_is_wrong_is_named() {
        let since = Some(Position { epoch: "17".into(), offset: 4 });
        assert_eq!(asked("").unwrap(), Query { since: None, limit: 100, reverse: false });
        let all = asked("since=17:4&limit=0&reverse=true&x=y&access_token=t").unwrap();
        assert_eq!(all, Query { since, limit: 0, reverse: true });
        assert!(asked("reverse=false").is_ok_and(|query| !query.reverse));
        for (bad, why) in [
            ("limit=-1", "limit"),
            ("limit=10001", "limit"),
            ("limit=x", "limit"),
            ("reverse=2", "reverse"),
            ("since=4", "place"),
        ] {
            assert!(asked(bad).unwrap_err().message.contains(why), "{bad}");
        }
    }
}
