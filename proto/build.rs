//! Compiles the .proto files, without protoc, into
//! - prost types (every map a `BTreeMap`: equal messages have equal bytes; every
//!   bytes field a `Bytes`),
//! - proto3-JSON serde implementations (pbjson), except for the types that
//!   `src/*_json.rs` do by hand,
//! - tonic stubs, only with the `grpc-server` and `grpc-client` features,
//! - three descriptor sets: the whole schema, the same with the comments of our own files, and MessageLoop v1 without
//!   the extension.

use std::{collections::BTreeSet, env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use protox::prost_reflect::prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

const ROOTS: [&str; 4] = [
    "messageloop/v1/messaging.proto",
    "messageloop/server/v1/api.proto",
    "messageloop/proxy/v1/proxy.proto",
    "io/cloudevents/v1/cloudevents.proto",
];

/// Files that hold nothing but the extension's own message types.
const EXTENSION_FILES: [&str; 2] = ["messageloop/v1/position.proto", "messageloop/v1/streamgate.proto"];

/// Packages whose messages the extension adds fields to, and the first number of those.
const EXTENDED_PACKAGES: [&str; 2] = ["messageloop.v1", "messageloop.server.v1"];
const FIRST_EXTENSION_FIELD: i32 = 40;

/// MessageLoop's methods of the server API; all others are the extension's.
const SERVER_PACKAGE: &str = "messageloop.server.v1";
const SERVER_METHODS: [&str; 5] = ["Publish", "Disconnect", "Subscribe", "Unsubscribe", "Survey"];

/// Types whose JSON is written by hand: see `src/*_json.rs`. A name covers what is nested in it.
const HAND_WRITTEN_JSON: [&str; 6] = [
    ".io.cloudevents.v1.CloudEvent",
    ".google.protobuf.Any",
    ".google.protobuf.Timestamp",
    ".google.protobuf.Struct",
    ".google.protobuf.Value",
    ".google.protobuf.ListValue",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let set = protox::compile(ROOTS, ["proto"])?;
    let descriptors = without_source_info(set.clone()).encode_to_vec();
    fs::write(out.join("descriptors.bin"), &descriptors)?;
    fs::write(out.join("descriptors_documented.bin"), with_own_comments(set.clone()).encode_to_vec())?;
    fs::write(out.join("descriptors_v1.bin"), v1_only(without_source_info(set.clone())).encode_to_vec())?;

    let mut config = prost_build::Config::new();
    config
        .enable_type_names()
        .btree_map(["."])
        .bytes(["."])
        .compile_well_known_types()
        .disable_comments([".google"]);
    let server = env::var_os("CARGO_FEATURE_GRPC_SERVER").is_some();
    let client = env::var_os("CARGO_FEATURE_GRPC_CLIENT").is_some();
    if server || client {
        let stubs = tonic_prost_build::configure().build_server(server).build_client(client);
        config.service_generator(stubs.service_generator());
    }
    config.compile_fds(set)?;

    pbjson_build::Builder::new()
        .register_descriptors(&descriptors)?
        .preserve_proto_field_names()
        .ignore_unknown_fields()
        .btree_map(["."])
        .exclude(HAND_WRITTEN_JSON)
        .build(&[".messageloop", ".io.cloudevents"])?;
    Ok(())
}

fn without_source_info(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

/// Only leading comments are kept, and not those of Google's files.
fn with_own_comments(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut set.file {
        if file.package().starts_with("google.") {
            file.source_code_info = None;
        }
        if let Some(info) = &mut file.source_code_info {
            info.location.retain(|location| location.leading_comments.is_some());
            info.location.iter_mut().for_each(|location| location.span.clear());
        }
    }
    set
}

/// MessageLoop v1 alone: without the extension's fields, map entries and files.
fn v1_only(mut set: FileDescriptorSet) -> FileDescriptorSet {
    let is_extension = |name: &str| EXTENSION_FILES.contains(&name);
    set.file.retain(|file| !is_extension(file.name()));
    for file in &mut set.file {
        file.dependency.retain(|name| !is_extension(name));
        if EXTENDED_PACKAGES.contains(&file.package()) {
            file.message_type.iter_mut().for_each(strip_extension);
        }
        if file.package() == SERVER_PACKAGE {
            strip_methods(file);
        }
    }
    set
}

/// Drops the extension's methods, and the messages that nothing else leads to.
fn strip_methods(file: &mut FileDescriptorProto) {
    let mut wanted = Vec::new();
    for service in &mut file.service {
        service.method.retain(|method| SERVER_METHODS.contains(&method.name()));
        let names = service.method.iter().flat_map(|method| [method.input_type(), method.output_type()]);
        wanted.extend(names.map(str::to_owned));
    }
    let mut kept = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        let own =
            file.message_type.iter().find(|message| name == format!(".{SERVER_PACKAGE}.{}", message.name()));
        if let Some(message) = own.filter(|message| kept.insert(message.name().to_owned())) {
            wanted.extend(message.field.iter().map(|field| field.type_name().to_owned()));
        }
    }
    file.message_type.retain(|message| kept.contains(message.name()));
}

fn strip_extension(message: &mut DescriptorProto) {
    message.field.retain(|field| field.number() < FIRST_EXTENSION_FIELD);
    // Map entries are nested types of their message: drop those without a field.
    let used: Vec<String> = message.field.iter().map(|field| field.type_name().to_owned()).collect();
    message.nested_type.retain(|nested| {
        let suffix = format!(".{}", nested.name());
        used.iter().any(|name| name.ends_with(&suffix))
    });
}
