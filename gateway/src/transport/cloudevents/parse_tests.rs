//! What is an event, and what is not.

use super::{super::json::write_event, *};
use crate::error::ErrorCode;

const MINIMAL: &str = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;

fn with(more: &str) -> String {
    format!("{{{MINIMAL}{more}}}")
}

fn read(text: &str) -> CloudEvent {
    structured(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}")).event
}

fn refused(text: &str) -> String {
    let error = structured(text.as_bytes()).expect_err(text);
    assert_eq!(error.code, ErrorCode::BadRequest, "{text}");
    error.message
}

fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let required = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
    required.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn what_is_read_is_written_as_it_was() {
    for more in [
        "",
        r#","data":{"z":1.10,"a":123456789012345678901234567890}"#,
        r#","data":"text""#,
        r#","data":null"#,
        r#","datacontenttype":"text/plain","data":"{}""#,
        r#","datacontenttype":"application/vnd.x+json; charset=utf-8","data":[1]"#,
        r#","data_base64":"AP8=""#,
        r#","datacontenttype":"application/json","data_base64":"e30=""#,
        r#","subject":"s","time":"2020-01-02T03:04:05.678Z","dataschema":"http://example.com","aint":5,"abool":false,"astring":"x""#,
    ] {
        let mut written = Vec::new();
        write_event(&read(&with(more)), &[], &mut written).unwrap();
        let sent = with(more);
        let mut expected: BTreeMap<String, &RawValue> = serde_json::from_str(&sent).unwrap();
        let written = String::from_utf8(written).unwrap();
        let mut got: BTreeMap<String, &RawValue> = serde_json::from_str(&written).unwrap();
        if !expected.contains_key("datacontenttype") && expected.contains_key("data") {
            assert_eq!(got.remove("datacontenttype").map(RawValue::get), Some("\"application/json\""));
        }
        let texts = |map: &mut BTreeMap<String, &RawValue>| {
            map.iter().map(|(name, value)| (name.clone(), value.get().to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(texts(&mut got), texts(&mut expected), "{more}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (text, why) in [
        (r#"{"specversion":"1.0","source":"/s","type":"t"}"#.to_owned(), "id"),
        (r#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#.to_owned(), "id"),
        (r#"{"specversion":"1.0","id":"1","source":"","type":"t"}"#.to_owned(), "source"),
        (r#"{"specversion":"1.0","id":"1","source":"/s","type":""}"#.to_owned(), "type"),
        (r#"{"specversion":"0.3","id":"1","source":"/s","type":"t"}"#.to_owned(), "0.3"),
        (r#"{"id":"1","source":"/s","type":"t"}"#.to_owned(), "specversion"),
        (with(r#","Bad":"x""#), "Bad"),
        (with(r#","a_b":"x""#), "a_b"),
        (with(r#","a":1.5"#), "ExtensionValue"),
        (with(r#","a":{"b":1}"#), "ExtensionValue"),
        (with(r#","a":3000000000"#), "32-bit"),
        (with(r#","time":"yesterday""#), "CloudEvent"),
        (with(r#","dataschema":"not a url""#), "CloudEvent"),
        (with(r#","data":1,"data_base64":"AA==""#), "not both"),
        (with(r#","data_base64":"*""#), "base64"),
        (with(r#","data_base64":5"#), "string"),
        (with(r#","datacontenttype":"text/plain","data":{}"#), "string"),
        (with(r#","sgchannel":5"#), "sgchannel"),
        (with(&format!(r#","data":{}1{}"#, "[".repeat(70), "]".repeat(70))), "nested"),
        ("[]".to_owned(), "object"),
        ("nope".to_owned(), "object"),
        ("{".to_owned(), "object"),
        (String::new(), "object"),
    ] {
        let message = refused(&text);
        assert!(message.contains(why), "{text}: {message}");
    }
}

#[test]
fn the_gateways_attributes_are_no_part_of_the_event() {
    let sent = structured(with(r#","sgchannel":"a","sgoffset":"5","x":"y""#).as_bytes()).unwrap();
    assert_eq!(sent.own["sgchannel"], "a");
    assert_eq!(sent.event.attributes.keys().collect::<Vec<_>>(), ["x"]);
}

#[test]
fn the_error_of_a_batch_names_the_event() {
    let good = with("");
    let batch_of = |members: &[&str]| batch(format!("[{}]", members.join(",")).as_bytes());
    assert_eq!(batch_of(&[&good, &good]).unwrap().len(), 2);
    assert!(batch_of(&[]).unwrap().is_empty());
    for bad in [r#"{"id":""}"#, "5", &with(r#","B":"x""#)] {
        let error = batch_of(&[&good, &good, bad, &good]).unwrap_err();
        assert!(error.message.starts_with("events[2]: "), "{error}");
        let metadata = error.to_wire().metadata.unwrap();
        assert_eq!(serde_json::to_string(&metadata).unwrap(), r#"{"index":2}"#);
    }
    assert!(batch(good.as_bytes()).unwrap_err().message.contains("array"));
    let many = vec![good.as_str(); MOST_EVENTS + 1];
    assert!(batch_of(&many).unwrap_err().message.contains("1001"));
}

#[test]
fn the_body_of_a_request_is_text_where_its_type_is_and_bytes_elsewhere() {
    for (kind, text) in [
        ("application/json", true),
        ("application/vnd.x+json; charset=utf-8", true),
        ("text/plain", true),
        ("text/plain; charset=\"UTF-8\"", true),
        ("text/plain; charset=latin1", false),
        ("application/octet-stream", false),
        ("", false),
    ] {
        let more = if kind.is_empty() { vec![] } else { vec![("datacontenttype", kind)] };
        let event = binary(headers(&more), b"{}").unwrap().event;
        assert_eq!(matches!(event.data, Some(Data::TextData(_))), text, "{kind}");
    }
    let event = binary(headers(&[("datacontenttype", "text/plain")]), b"\xff").unwrap().event;
    assert!(matches!(event.data, Some(Data::BinaryData(_))));
    assert_eq!(binary(headers(&[]), b"").unwrap().event.data, None);
    assert!(binary(headers(&[("b_d", "x")]), b"").unwrap_err().message.contains("b_d"));
}
