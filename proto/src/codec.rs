//! Frames of the client protocol: bytes to envelopes and back, in either encoding.

use bytes::Bytes;

use serde::{Serialize, de::DeserializeOwned};

use crate::json;
use crate::v1::{InboundMessage, OutboundMessage};

/// How a connection encodes its envelopes, fixed when it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Proto3 JSON; text frames, subprotocol `messageloop+json`.
    Json,
    /// Protobuf; binary frames, subprotocol `messageloop+proto`, and gRPC.
    Protobuf,
}

/// A frame that is not an envelope. The sender's fault; sending it again cannot help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not valid JSON, or not JSON of this message.
    #[error("not a valid JSON message: {reason}")]
    Json {
        /// What the parser said, with line and column; at most a few hundred bytes.
        reason: String,
    },
    /// JSON nested too deeply.
    #[error("JSON nested deeper than {limit} levels")]
    TooDeep {
        /// The deepest nesting allowed.
        limit: usize,
    },
    /// Not a protobuf encoding of this message.
    #[error("not a valid protobuf message: {0}")]
    Protobuf(#[from] prost::DecodeError),
}

/// A message that the encoding cannot carry (close code 3506).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// JSON cannot carry a value of this message.
    #[error("JSON cannot carry this message: {reason}")]
    Json {
        /// Which value, and why.
        reason: String,
    },
}

/// Decodes a frame from a client. The result owns its bytes: nothing of `frame` stays borrowed.
///
/// # Errors
/// [`DecodeError`], if `frame` is not one whole envelope in this encoding.
pub fn decode_inbound(encoding: Encoding, frame: &[u8]) -> Result<InboundMessage, DecodeError> {
    decode(encoding, frame)
}

/// Decodes a frame from a server: the mirror of [`encode_outbound`], for clients.
///
/// # Errors
/// [`DecodeError`], if `frame` is not one whole envelope in this encoding.
pub fn decode_outbound(encoding: Encoding, frame: &[u8]) -> Result<OutboundMessage, DecodeError> {
    decode(encoding, frame)
}

/// Encodes a frame for a client.
///
/// # Errors
/// [`EncodeError`], if this encoding cannot carry the message.
pub fn encode_outbound(encoding: Encoding, message: &OutboundMessage) -> Result<Bytes, EncodeError> {
    encode(encoding, message)
}

/// Appends a frame for a client to `buffer`; on error `buffer` is as it was.
///
/// # Errors
/// [`EncodeError`], if this encoding cannot carry the message.
pub fn encode_outbound_into(
    encoding: Encoding,
    message: &OutboundMessage,
    buffer: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    encode_into(encoding, message, buffer)
}

/// Encodes a frame for a server: the mirror of [`decode_inbound`], for clients.
///
/// # Errors
/// [`EncodeError`], if this encoding cannot carry the message.
pub fn encode_inbound(encoding: Encoding, message: &InboundMessage) -> Result<Bytes, EncodeError> {
    encode(encoding, message)
}

/// Appends a frame for a server to `buffer`; on error `buffer` is as it was.
///
/// # Errors
/// [`EncodeError`], if this encoding cannot carry the message.
pub fn encode_inbound_into(
    encoding: Encoding,
    message: &InboundMessage,
    buffer: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    encode_into(encoding, message, buffer)
}

fn decode<M>(encoding: Encoding, frame: &[u8]) -> Result<M, DecodeError>
where
    M: prost::Message + Default + DeserializeOwned,
{
    match encoding {
        Encoding::Json => json::decode(frame),
        Encoding::Protobuf => Ok(M::decode(frame)?),
    }
}

fn encode<M: prost::Message + Serialize>(encoding: Encoding, message: &M) -> Result<Bytes, EncodeError> {
    match encoding {
        Encoding::Json => json::encode(message),
        Encoding::Protobuf => Ok(message.encode_to_vec().into()),
    }
}

fn encode_into<M>(encoding: Encoding, message: &M, buffer: &mut Vec<u8>) -> Result<(), EncodeError>
where
    M: prost::Message + Serialize,
{
    match encoding {
        Encoding::Json => json::encode_into(message, buffer),
        Encoding::Protobuf => {
            buffer.reserve(message.encoded_len());
            message.encode_raw(buffer);
            Ok(())
        }
    }
}
