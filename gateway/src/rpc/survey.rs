//! Asking every subscriber of a channel, on all nodes.

use std::time::Duration;

use prost::Message as _;
use streamgate_proto::cloudevents::CloudEvent;

use crate::{
    channel::Channel,
    error::{ClientError, ErrorCode},
    peers::{Answer, Ask, Peers, SurveyAnswers, SurveyAsk},
};

/// Answers of one survey, and subscribers that a node asks; more are cut, and the result says so.
pub const MOST_ANSWERS: usize = 10_000;
/// Nodes answer when their clients' time is over: so much later they are not waited for any more.
const GRACE: Duration = Duration::from_millis(500);

/// Asks everybody who is subscribed to `channel`, by its name or by a pattern, the asker included. Ends when all have
/// answered, or after `timeout` with what there is then. Subscribers that vanish are not waited for. The answers have no more
/// than `bytes` in protobuf.
///
/// # Errors
/// `NOT_FOUND` if nobody is subscribed; `NOT_AVAILABLE` if the other nodes cannot be asked.
///
/// Cancel: nobody is waited for any more.
pub async fn survey(
    peers: &Peers,
    channel: &Channel,
    event: CloudEvent,
    timeout: Duration,
    bytes: usize,
) -> Result<SurveyAnswers, ClientError> {
    let ask = SurveyAsk {
        channel: channel.as_str().to_owned(),
        event: Some(event),
        most: MOST_ANSWERS as u64,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        bytes: bytes as u64,
    };
    let mut all = SurveyAnswers::default();
    let mut failed = None;
    for (node, answer) in peers.ask_every(Ask::Survey(ask), timeout + GRACE).await? {
        match answer {
            Ok(Answer::Surveyed(part)) => {
                all.asked += part.asked;
                all.truncated |= part.truncated;
                all.outcomes.extend(part.outcomes);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%node, %error, "a node did not answer a survey");
                failed = Some(error);
            }
        }
    }
    let fitting = fitting(&all, bytes);
    all.truncated |= fitting < all.outcomes.len();
    all.outcomes.truncate(fitting);
    match failed {
        // What is missing may be all there is.
        Some(error) if all.asked == 0 => Err(error),
        None if all.asked == 0 => {
            Err(ClientError::new(ErrorCode::NotFound, format!("nobody is subscribed to {channel}")))
        }
        _ => {
            all.truncated |= failed.is_some();
            Ok(all)
        }
    }
}

/// How many of the answers may be told.
fn fitting(all: &SurveyAnswers, bytes: usize) -> usize {
    let mut room = bytes;
    let fit = all.outcomes.iter().take(MOST_ANSWERS).take_while(|outcome| {
        let left = room.checked_sub(outcome.encoded_len());
        room = left.unwrap_or(room);
        left.is_some()
    });
    fit.count()
}
