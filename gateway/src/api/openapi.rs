//! The OpenAPI 3.1 document of the JSON door, made from the descriptors that requests are checked with: it cannot say
//! anything else than what is decoded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use bytes::Bytes;
use hyper::StatusCode;
use prost_reflect::{FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{http::PREFIX, operations::Operation, reply::status_of, schema};
use crate::error::ErrorCode;

/// RFC 4648 section 4.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$";

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| described().to_string().into());

/// The document, as JSON.
pub(super) fn document() -> Bytes {
    DOCUMENT.clone()
}

fn described() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for operation in Operation::ALL {
        paths.insert(
            format!("{PREFIX}{}", operation.name()),
            json!({ "post": path_item(*operation, &mut schemas) }),
        );
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Streamgate server API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "What backends ask of the gateway. Requests and answers are proto3 JSON of \
                `messageloop.server.v1`, with proto field names; fields with their default are left out of answers; \
                64-bit numbers are strings. A field that a request does not have is an error.",
        },
        "servers": [{ "url": "/", "description": "The admin listener" }],
        "security": [{ "bearer": [] }, {}],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "One of `api.tokens`. None is needed where none is configured: then only requests to \
                    localhost, 127.0.0.1 or [::1] are answered.",
            } },
            "schemas": schemas.finished(),
        },
    })
}

fn path_item(operation: Operation, schemas: &mut Schemas) -> Value {
    let (request, response) = schema::messages(operation);
    let mut responses = Map::new();
    for (status, codes) in refusals() {
        let mut answer = json!({
            "description": refusal_text(status, &codes),
            "content": { "application/json": { "schema": schemas.reference_to("messageloop.shared.v1.Error") } },
        });
        if status == StatusCode::UNAUTHORIZED {
            answer["headers"] = json!({ "WWW-Authenticate": { "schema": { "type": "string" } } });
        }
        responses.insert(status.as_str().to_owned(), answer);
    }
    let done = json!({
        "description": comment(&response.parent_file(), response.path()),
        "content": { "application/json": { "schema": schemas.reference(&response) } },
    });
    responses.insert("200".to_owned(), done);
    let method = schema::service().methods().find(|method| method.name() == operation.rpc());
    let summary = method.map(|method| comment(&method.parent_file(), method.path())).unwrap_or_default();
    json!({
        "operationId": operation.name(),
        "summary": summary,
        "tags": [operation.scope().as_str()],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": schemas.reference(&request) } },
        },
        "responses": responses,
    })
}

/// Every status of a request that is not carried out, with the codes that have it.
fn refusals() -> BTreeMap<StatusCode, BTreeSet<&'static str>> {
    let mut refusals: BTreeMap<StatusCode, BTreeSet<&'static str>> = BTreeMap::new();
    for code in ErrorCode::ALL.into_iter().filter(|code| *code != ErrorCode::DisconnectError) {
        refusals.entry(status_of(code)).or_default().insert(code.as_str());
    }
    for status in
        [StatusCode::METHOD_NOT_ALLOWED, StatusCode::REQUEST_TIMEOUT, StatusCode::UNSUPPORTED_MEDIA_TYPE]
    {
        refusals.entry(status).or_default().insert(ErrorCode::BadRequest.as_str());
    }
    refusals
}

fn refusal_text(status: StatusCode, codes: &BTreeSet<&'static str>) -> String {
    let codes: Vec<_> = codes.iter().copied().collect();
    format!("{}: {}", status.canonical_reason().unwrap_or("Error"), codes.join(" or "))
}

/// The schemas that were referred to.
#[derive(Default)]
struct Schemas {
    done: Map<String, Value>,
    to_do: Vec<MessageDescriptor>,
}

impl Schemas {
    fn reference(&mut self, message: &MessageDescriptor) -> Value {
        self.to_do.push(message.clone());
        json!({ "$ref": format!("#/components/schemas/{}", message.full_name()) })
    }

    fn reference_to(&mut self, name: &str) -> Value {
        let message = schema::service().parent_pool().get_message_by_name(name);
        message.map_or(Value::Bool(true), |message| self.reference(&message))
    }

    fn finished(mut self) -> Map<String, Value> {
        while let Some(message) = self.to_do.pop() {
            if !self.done.contains_key(message.full_name()) {
                self.done.insert(message.full_name().to_owned(), Value::Null);
                let schema = self.message(&message);
                self.done.insert(message.full_name().to_owned(), schema);
            }
        }
        self.done
    }

    fn message(&mut self, message: &MessageDescriptor) -> Value {
        match message.full_name() {
            "google.protobuf.Timestamp" => return json!({ "type": "string", "format": "date-time" }),
            "google.protobuf.Struct" => return json!({ "type": "object" }),
            _ => {}
        }
        let mut properties = Map::new();
        // It has no JSON form without its schema: see the codec.
        for field in message.fields().filter(|field| field.name() != "proto_data") {
            let mut schema = self.field(&field);
            let text = comment(&field.parent_message().parent_file(), field.path());
            if !text.is_empty() {
                schema["description"] = text.into();
            }
            properties.insert(field.name().to_owned(), schema);
        }
        json!({
            "type": "object",
            "description": comment(&message.parent_file(), message.path()),
            "properties": properties,
            "additionalProperties": false,
        })
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            let values = self.kind(&entry.map_entry_value_field().kind());
            return json!({ "type": "object", "additionalProperties": values });
        }
        let schema = self.kind(&field.kind());
        if field.is_list() { json!({ "type": "array", "items": schema }) } else { schema }
    }

    /// Protobuf.dev, "ProtoJSON Format".
    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Message(message) => self.reference(message),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Int32 => {
                json!({ "type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX })
            }
            Kind::Uint32 => {
                json!({ "type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX })
            }
            Kind::Uint64 => json!({
                "type": ["string", "integer"], "format": "uint64", "pattern": "^(0|[1-9][0-9]{0,19})$", "minimum": 0,
                "maximum": u64::MAX,
            }),
            Kind::Bytes => {
                json!({ "type": "string", "contentEncoding": "base64", "pattern": BASE64 })
            }
            Kind::Double => json!({ "type": "number" }),
            _ => json!({ "type": "string" }),
        }
    }
}

/// What the schema says of the thing at `path` of a file, in one line.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let locations =
        file.file_descriptor_proto().source_code_info.as_ref().map(|info| info.location.as_slice());
    let location = locations.unwrap_or_default().iter().find(|location| location.path == path);
    let text = location.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_described_with_every_status() {
        let document: Value = serde_json::from_slice(&document()).unwrap();
        for operation in Operation::ALL {
            let item = &document["paths"][format!("/api/v1/{}", operation.name())]["post"];
            assert_eq!(item["operationId"], operation.name());
            assert!(item["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{item}");
            let statuses: Vec<_> =
                item["responses"].as_object().unwrap().keys().map(String::as_str).collect();
            for code in ErrorCode::ALL {
                assert!(statuses.contains(&status_of(code).as_str()), "{code:?}");
            }
            for status in ["200", "405", "408", "415"] {
                assert!(statuses.contains(&status), "{status}");
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_field_is_explained() {
        let document: Value = serde_json::from_slice(&document()).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        for (name, schema) in schemas.iter().filter(|(name, _)| name.starts_with("messageloop.")) {
            for (field, property) in schema["properties"].as_object().unwrap() {
                assert!(
                    property["description"].as_str().is_some_and(|text| !text.is_empty()),
                    "{name}.{field}"
                );
            }
        }
    }
}
