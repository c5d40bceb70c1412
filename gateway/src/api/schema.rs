//! The schema as the JSON door and its description see it: one source for what is decoded and what is documented.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, Kind, MessageDescriptor, ServiceDescriptor};
use serde_json::Value;

use super::operations::Operation;
use crate::error::ClientError;

const SERVICE: &str = "messageloop.server.v1.APIService";

#[expect(clippy::expect_used, reason = "it is made at build time, and every test of this module reads it")]
static SERVICE_DESCRIPTOR: LazyLock<ServiceDescriptor> = LazyLock::new(|| {
    let pool =
        DescriptorPool::decode(streamgate_proto::DOCUMENTED_DESCRIPTOR_SET).expect("the schema is whole");
    pool.get_service_by_name(SERVICE).expect("the schema has the service")
});

/// The service of the schema.
pub(super) fn service() -> &'static ServiceDescriptor {
    &SERVICE_DESCRIPTOR
}

/// Request and response of an operation.
#[expect(clippy::expect_used, reason = "a test compares the table with the service")]
pub(super) fn messages(operation: Operation) -> (MessageDescriptor, MessageDescriptor) {
    let method = service().methods().find(|method| method.name() == operation.rpc());
    let method = method.expect("the service has every operation of the table");
    (method.input(), method.output())
}

/// Refuses a request with a member that no field has: a misspelt option must not be taken for its absence. The codec
/// ignores them, as clients of other versions need.
///
/// # Errors
/// [`ErrorCode::BadRequest`](crate::error::ErrorCode::BadRequest) names the first one by its path.
pub(super) fn refuse_unknown_fields(operation: Operation, body: &[u8]) -> Result<(), ClientError> {
    let value = serde_json::from_slice(body).map_err(|error| ClientError::bad_request(error.to_string()))?;
    match unknown_field(&value, &messages(operation).0, "") {
        None => Ok(()),
        Some((path, message)) => Err(ClientError::bad_request(format!("{path} is not a field of {message}"))),
    }
}

/// Path of the first unknown field, and the message that does not have it.
fn unknown_field(value: &Value, message: &MessageDescriptor, path: &str) -> Option<(String, String)> {
    // What has a JSON form of its own has no fields there.
    if message.package_name() == "google.protobuf" {
        return None;
    }
    let Value::Object(members) = value else { return None };
    members.iter().find_map(|(name, value)| {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let Some(field) = message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name))
        else {
            return Some((shortened(&path), message.full_name().to_owned()));
        };
        let Kind::Message(inner) = field.kind() else { return None };
        match value {
            Value::Object(entries) if field.is_map() => {
                let Kind::Message(inner) = inner.map_entry_value_field().kind() else { return None };
                entries
                    .iter()
                    .find_map(|(key, value)| unknown_field(value, &inner, &format!("{path}[{key:?}]")))
            }
            Value::Array(items) if field.is_list() => {
                let mut items = items.iter().enumerate();
                items.find_map(|(at, value)| unknown_field(value, &inner, &format!("{path}[{at}]")))
            }
            value => unknown_field(value, &inner, &path),
        }
    })
}

/// Names come from outside: an error must not repeat a whole request.
fn shortened(path: &str) -> String {
    const LONGEST: usize = 200;
    if path.chars().count() <= LONGEST {
        path.to_owned()
    } else {
        format!("{}...", path.chars().take(LONGEST).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> Option<String> {
        refuse_unknown_fields(Operation::Publish, body.as_bytes()).err().map(|error| error.message)
    }

    #[test]
    fn an_unknown_field_is_named_by_its_path_wherever_it_stands() {
        for (body, path) in [
            (r#"{"publication":[]}"#, "publication"),
            (r#"{"publications":[{},{"option":{}}]}"#, "publications[1].option"),
            (r#"{"publications":[{"options":{"idempotency":"k"}}]}"#, "publications[0].options.idempotency"),
            (
                r#"{"publications":[{"payload":{"specversion":"1.0"}}]}"#,
                "publications[0].payload.specversion",
            ),
            (
                r#"{"publications":[{"payload":{"attributes":{"a":{"string":""}}}}]}"#,
                r#"publications[0].payload.attributes["a"].string"#,
            ),
        ] {
            let message = refusal(body).unwrap();
            assert!(message.starts_with(&format!("{path} is not a field of ")), "{message}");
        }
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(10_000));
        assert!(refusal(&long).unwrap().len() < 400);
    }

    #[test]
    fn both_spellings_null_and_free_keys_are_no_unknown_fields() {
        for body in [
            "{}",
            r#"{"request_id":"1","requestId":null}"#,
            r#"{"metadata":{"anything":"goes"}}"#,
            r#"{"publications":[{"payload":{"specVersion":"1.0","attributes":{"own":{"ceString":"x"}}}},null]}"#,
        ] {
            assert_eq!(refusal(body), None, "{body}");
        }
    }
}
