//! Wire types of Streamgate and their two codecs.
//!
//! Owns the `.proto` files (MessageLoop v1 with the `streamgate.v1` extension, CloudEvents), the
//! types generated from them, protobuf and proto3-JSON encoding of those types, the check of
//! CloudEvents at the edge, and the downgrade of frames for clients that know only v1.
//!
//! Must never do I/O, be async, or know of sessions, brokers or transports.
//!
//! Invariants:
//! - one set of types for both encodings; whatever one encoding can say, the other can, except
//!   `proto_data` (see [`cloudevent::binary_form`]);
//! - decoding never panics and never recurses deeper than [`json::MAX_DEPTH`] (JSON) or prost's
//!   limit of 100 (protobuf), whatever the input;
//! - equal messages have equal bytes: maps are ordered;
//! - in `messageloop.v1`, a field numbered below 40 is MessageLoop v1, any other is the extension.
//!   Nothing that passed [`downgrade_to_v1`] has a field of the extension.

mod attribute_json;
pub mod cloudevent;
mod codec;
mod depth;
mod downgrade;
mod event_json;
mod generated;
pub mod json;
mod wkt_json;

pub use codec::{
    DecodeError, EncodeError, Encoding, decode_inbound, decode_outbound, encode_inbound, encode_inbound_into,
    encode_outbound, encode_outbound_into,
};
pub use downgrade::{NotInV1, downgrade_to_v1};

/// The client protocol: package `messageloop.v1`.
pub mod v1 {
    pub use crate::generated::messageloop::v1::*;
}

/// The error shared by all services: package `messageloop.shared.v1`.
pub mod shared {
    pub use crate::generated::messageloop::shared::v1::*;
}

/// The API for backends: package `messageloop.server.v1`.
pub mod server {
    pub use crate::generated::messageloop::server::v1::*;
}

/// The hooks that backends implement: package `messageloop.proxy.v1`.
pub mod proxy {
    pub use crate::generated::messageloop::proxy::v1::*;
}

/// CloudEvents in the CNCF's protobuf format: package `io.cloudevents.v1`.
pub mod cloudevents {
    pub use crate::generated::io::cloudevents::v1::*;
    pub use cloud_event::{
        CloudEventAttributeValue, Data,
        cloud_event_attribute_value::{self, Attr},
    };
}

/// Well-known types that the schema uses: package `google.protobuf`.
pub mod wkt {
    pub use crate::generated::google::protobuf::*;
}

/// The whole schema: an encoded `google.protobuf.FileDescriptorSet` with imports.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// [`DESCRIPTOR_SET`] with the comments of our own messages and fields, for documents made from it.
pub const DOCUMENTED_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptors_documented.bin"));

/// The schema without the extension, as a client of MessageLoop v1 knows it: an encoded
/// `google.protobuf.FileDescriptorSet` with imports. Frames for v1 clients parse strictly with it.
pub const V1_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors_v1.bin"));
