//! Which events are let in, and what the refusal says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use streamgate_proto::cloudevent::{EventError, binary_form, validate};
use streamgate_proto::cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data};
use streamgate_proto::wkt::{Any, Timestamp};

fn event() -> CloudEvent {
    CloudEvent {
        id: "e1".to_owned(),
        source: "/phone/7".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: "note.added".to_owned(),
        ..Default::default()
    }
}

fn with(name: &str, attr: Option<Attr>) -> Result<(), EventError> {
    let mut event = event();
    event.attributes.insert(name.to_owned(), CloudEventAttributeValue { attr });
    validate(&event)
}

fn text() -> Option<Attr> {
    Some(Attr::CeString("x".to_owned()))
}

#[test]
fn a_complete_event_is_let_in_with_and_without_data() {
    validate(&event()).unwrap();
    for data in [Data::TextData(String::new()), Data::BinaryData(Default::default())] {
        validate(&CloudEvent { data: Some(data), ..event() }).unwrap();
    }
}

#[test]
fn each_required_attribute_is_named_when_empty() {
    for name in ["id", "source", "spec_version", "type"] {
        let mut event = event();
        match name {
            "id" => event.id.clear(),
            "source" => event.source.clear(),
            "spec_version" => event.spec_version.clear(),
            _ => event.r#type.clear(),
        }
        let error = validate(&event).unwrap_err();
        assert_eq!(error, EventError::Missing { name });
        assert!(error.to_string().contains(&format!("`{name}`")));
    }
}

#[test]
fn only_version_1_0_is_let_in() {
    for version in ["0.3", "1", "1.0.1", "2.0"] {
        let error = validate(&CloudEvent { spec_version: version.to_owned(), ..event() }).unwrap_err();
        assert_eq!(error, EventError::SpecVersion { got: version.to_owned() });
    }
}

#[test]
fn attribute_names_are_lower_case_letters_and_digits() {
    for name in ["subject", "time", "datacontenttype", "dataschema", "traceparent", "a", "0", "x1"] {
        with(name, text()).unwrap_or_else(|error| panic!("{error}"));
    }
    for name in ["", "Subject", "data_base64", "spec_version", "a-b", "a b", "ключ", "a\0"] {
        assert_eq!(with(name, text()), Err(EventError::Name { name: name.to_owned() }));
    }
    let error = with(&"Ж".repeat(10_000), text()).unwrap_err();
    assert!(error.to_string().len() < 400);
}

#[test]
fn names_of_the_events_own_fields_are_reserved() {
    for name in ["id", "source", "specversion", "type", "data"] {
        assert_eq!(with(name, text()), Err(EventError::Reserved { name: name.to_owned() }));
    }
}

#[test]
fn attribute_values_are_set_and_sound() {
    let name = || "a".to_owned();
    assert_eq!(with("a", None), Err(EventError::NoValue { name: name() }));
    assert_eq!(with("a", Some(Attr::CeUri(String::new()))), Err(EventError::EmptyUri { name: name() }));
    assert_eq!(with("a", Some(Attr::CeUriRef(String::new()))), Err(EventError::EmptyUri { name: name() }));
    for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (253_402_300_800, 0), (0, -1), (0, 1_000_000_000)]
    {
        let time = Some(Attr::CeTimestamp(Timestamp { seconds, nanos }));
        assert_eq!(with("a", time), Err(EventError::Time { name: name() }));
    }
    with("a", Some(Attr::CeTimestamp(Timestamp { seconds: 0, nanos: 0 }))).unwrap();
    with("a", Some(Attr::CeBoolean(false))).unwrap();
}

#[test]
fn proto_data_reaches_json_with_its_type_if_it_names_one() {
    let data =
        |type_url: &str| Some(Data::ProtoData(Any { type_url: type_url.to_owned(), value: vec![1].into() }));
    for (type_url, schema) in [("type.example/a.B", true), ("", false)] {
        let event = CloudEvent { data: data(type_url), ..event() };
        validate(&event).unwrap();
        assert_eq!(binary_form(&event).attributes.contains_key("dataschema"), schema);
    }
}

#[test]
fn an_event_that_needs_no_other_form_is_not_copied() {
    let event = CloudEvent { data: Some(Data::TextData("x".to_owned())), ..event() };
    assert!(matches!(binary_form(&event), std::borrow::Cow::Borrowed(_)));
}
