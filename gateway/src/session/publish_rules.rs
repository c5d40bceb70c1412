//! What every publication must be, whoever publishes it: a client or a backend.

use std::sync::Arc;

use prost::Message as _;
use streamgate_proto::cloudevents::CloudEvent;

use crate::{
    channel::Channel,
    error::{ClientError, ErrorCode},
    policy::{ChannelPolicy, Policies},
};

/// Longest idempotency key, in bytes.
const KEY_BYTES: usize = 255;

/// Longest time to live: what is kept longer than the longest history needs none.
const GREATEST_TTL_MS: u64 = 365 * 86_400_000;

/// Checks that the channel is legal, and the event valid and no larger than the channel's policy allows. Answers the
/// channel and its policy.
///
/// # Errors
/// [`ErrorCode::BadRequest`] or [`ErrorCode::TooLarge`].
pub(crate) fn check_event(
    policies: &Policies,
    channel: &str,
    event: &CloudEvent,
) -> Result<(Channel, Arc<ChannelPolicy>), ClientError> {
    let channel = Channel::parse(channel)?;
    let policy = policies.of(channel.as_str());
    sound(&channel, &policy, event)?;
    Ok((channel, policy))
}

/// Checks an event for a channel with this policy.
///
/// # Errors
/// [`ErrorCode::BadRequest`] or [`ErrorCode::TooLarge`].
pub(crate) fn sound(
    channel: &Channel,
    policy: &ChannelPolicy,
    event: &CloudEvent,
) -> Result<(), ClientError> {
    streamgate_proto::cloudevent::validate(event)
        .map_err(|error| ClientError::bad_request(error.to_string()))?;
    let (size, most) = (event.encoded_len(), policy.max_message_size);
    if size > most {
        let text = format!("the event has {size} bytes, {channel} takes at most {most}");
        return Err(ClientError::new(ErrorCode::TooLarge, text));
    }
    Ok(())
}

/// The time to live of a publish, in milliseconds; 0 is none.
///
/// # Errors
/// [`ErrorCode::BadRequest`] for one beyond [`GREATEST_TTL_MS`].
pub(crate) fn check_ttl(ttl_ms: u64) -> Result<u64, ClientError> {
    if ttl_ms > GREATEST_TTL_MS {
        return Err(ClientError::bad_request(format!(
            "ttl_ms is {ttl_ms}, at most {GREATEST_TTL_MS} (365 days) is allowed"
        )));
    }
    Ok(ttl_ms)
}

/// The idempotency key of a publish; empty is none.
///
/// # Errors
/// [`ErrorCode::BadRequest`] for one that is too long.
pub(crate) fn check_key(key: &str) -> Result<Option<String>, ClientError> {
    let got = key.len();
    if got > KEY_BYTES {
        return Err(ClientError::bad_request(format!(
            "the idempotency key has {got} bytes, at most {KEY_BYTES} are allowed"
        )));
    }
    Ok((got > 0).then(|| key.to_owned()))
}
