//! Streamgate's own protocol, with the extension `streamgate.v1`, in either encoding and over gRPC.
//!
//! A request becomes an `InboundMessage` ([`request()`]) and an `OutboundMessage` becomes events ([`events()`]): that is
//! all of gRPC, and WebSocket adds the encoding. What arrives by the thousand, publications and the acks of publishes,
//! is not decoded there but looked at by [`glance`], with the same result.

mod events;
mod glance;
mod request;

use streamgate_proto::{Encoding, decode_outbound, encode_inbound};

pub use self::{
    events::{events, stamp_of},
    request::request,
};

use self::glance::Glance;
use super::{Detail, Event, Request, Unreadable};

/// Appends the frame of a request.
///
/// # Errors
/// None is known: both encodings carry every request.
pub fn write(encoding: Encoding, id: u64, request: &Request<'_>, out: &mut Vec<u8>) -> anyhow::Result<()> {
    out.extend_from_slice(&encode_inbound(encoding, &self::request(id, request))?);
    Ok(())
}

/// Tells the events of a frame.
///
/// # Errors
/// [`Unreadable`], if the frame is no `OutboundMessage`. What is not looked at may be malformed without an error.
pub fn read(
    encoding: Encoding,
    frame: &[u8],
    detail: Detail,
    tell: &mut dyn FnMut(Event),
) -> Result<(), Unreadable> {
    let glance = match encoding {
        Encoding::Json => glance::json(frame),
        Encoding::Protobuf => glance::protobuf(frame),
    };
    match (glance, detail) {
        (Some(Glance::Ack { id }), _) => tell(Event::Acked { id }),
        (Some(Glance::JsonPublication(text)), Detail::Stamps) => {
            glance::json_stamps(text, |stamp| tell(Event::Delivery(stamp)));
        }
        (Some(Glance::ProtobufPublication(body)), Detail::Stamps) => {
            glance::protobuf_stamps(body, |stamp| tell(Event::Delivery(stamp)))
                .ok_or_else(|| Unreadable::new("a malformed publication", frame))?;
        }
        (None | Some(_), _) => {
            let message = decode_outbound(encoding, frame).map_err(|error| Unreadable::new(error, frame))?;
            events(&message, detail, tell);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod node_tests;
