//! Numbers and names are assigned once: `golden/schema.txt` lists every field and method. Lines may
//! be added to it; a changed or missing line breaks clients.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod schema;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind};
use schema::{own_messages, pool};

fn type_of(field: &FieldDescriptor) -> String {
    let name = |kind: Kind| match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        kind => format!("{kind:?}"),
    };
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!("a map's entries are messages") };
        let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        return format!("map<{}, {}>", name(key), name(value));
    }
    format!("{}{}", if field.is_list() { "repeated " } else { "" }, name(field.kind()))
}

fn lines(pool: &DescriptorPool) -> Vec<String> {
    let mut lines = Vec::new();
    for message in own_messages(pool) {
        lines.push(message.full_name().to_owned());
        for field in message.fields() {
            let oneof =
                field.containing_oneof().map(|oneof| format!(" in {}", oneof.name())).unwrap_or_default();
            lines.push(format!(
                "{} = {} {} json {}{oneof}",
                field.full_name(),
                field.number(),
                type_of(&field),
                field.json_name()
            ));
        }
    }
    for service in pool.services() {
        for method in service.methods() {
            let stream = |streaming| if streaming { "stream " } else { "" };
            lines.push(format!(
                "/{}/{} ({}{}) -> ({}{})",
                service.full_name(),
                method.name(),
                stream(method.is_client_streaming()),
                method.input().full_name(),
                stream(method.is_server_streaming()),
                method.output().full_name()
            ));
        }
    }
    lines.sort();
    lines
}

#[test]
fn every_assigned_number_and_name_is_still_there() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schema.txt");
    let fixed = std::fs::read_to_string(path).unwrap();
    let fixed: Vec<&str> = fixed.lines().collect();
    let now = lines(&pool());
    let missing: Vec<_> = fixed.iter().filter(|line| !now.iter().any(|have| have == *line)).collect();
    let new: Vec<_> = now.iter().filter(|line| !fixed.contains(&line.as_str())).collect();
    assert!(missing.is_empty(), "changed or removed: {missing:#?}");
    assert!(
        new.is_empty(),
        "not yet in schema.txt, add: {}",
        new.iter().map(|l| format!("\n{l}")).collect::<String>()
    );
}
