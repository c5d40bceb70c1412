//! Tables are checked when read; requests are filled in; answers are recognised. The adapters that we ship are read,
//! and speak as the servers' own documentation and tests say.

use std::sync::Arc;

use super::*;
use crate::clients::dialect::{Detail, Dialect, Position};

const SMALL: &str = r#"
name: small
path: /ws
connect: 'hello {{client}}'
publish: 'pub {{id}} {{channel}} {{payload}}'
published: 'ok '
id: 'ok '
delivery: 'msg '
connected: '=welcome'
refused: 'no '
"#;

fn stamp(sequence: u64) -> Stamp {
    Stamp { run: 0, stream: 1, sequence, due: 3 }
}

fn stamped(sequence: u64) -> String {
    let mut text = String::new();
    stamp(sequence).write(64, &mut text);
    text
}

fn written(table: &Table, id: u64, request: &Request<'_>) -> String {
    let mut out = Vec::new();
    table.write(id, request, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn told(table: &Table, frame: &str) -> Vec<Event> {
    let mut told = Vec::new();
    table.read(frame.as_bytes(), &mut |event| told.push(event)).unwrap();
    told
}

fn refusal(text: &str) -> String {
    format!("{:#}", Table::parse(text).unwrap_err())
}

#[test]
fn what_a_table_lacks_or_has_too_much_is_named() {
    assert!(refusal(&format!("{SMALL}subscribed_to: x")).contains("subscribed_to"));
    assert!(refusal(&SMALL.replace("name: small", "")).contains("name"));
    assert!(refusal(&SMALL.replace("published: 'ok '", "")).contains("`published`"));
    assert!(refusal(&format!("{SMALL}presence: x\nmembers: y")).contains("`count`"));
    assert!(refusal(&format!("{SMALL}delimiter: ''")).contains("`delimiter`"));
    assert!(refusal(&SMALL.replace("/ws", "ws")).contains("`path`"));
    let misplaced = refusal(&SMALL.replace("hello {{client}}", "hello {{payload}}"));
    assert_eq!(misplaced, "`connect` has no value for `{{payload}}`");
    assert!(refusal(&SMALL.replace("{{payload}}", "{{data}}")).contains("`{{data}}` is none of"));
}

#[test]
fn a_request_without_template_names_the_key() {
    let table = Table::parse(SMALL).unwrap();
    let mut out = Vec::new();
    let error = table.write(1, &Request::Presence { channel: "a" }, &mut out).unwrap_err();
    assert_eq!(error.to_string(), "small: the table has no `presence`");
    assert!(out.is_empty());
}

#[test]
fn what_a_table_cannot_ask_for_is_refused() {
    let table = Table::parse(&format!("{SMALL}subscribe: 's {{{{channel}}}}'\nsubscribed: y")).unwrap();
    let plain = Subscription { channel: "a".to_owned(), ..Subscription::default() };
    let position = Position::default();
    assert_eq!(
        written(&table, 1, &Request::Subscribe { subscriptions: std::slice::from_ref(&plain) }),
        "s a"
    );
    let recovering = [Subscription { cursor: Some(position.clone()), ..plain.clone() }];
    let watching = [Subscription { presence: true, ..plain.clone() }];
    let several = [plain.clone(), plain];
    for request in [
        Request::Subscribe { subscriptions: &several },
        Request::Subscribe { subscriptions: &recovering },
        Request::Subscribe { subscriptions: &watching },
        Request::Connect { client: "c", token: "", subscriptions: &several },
        Request::Unsubscribe { channels: &[] },
        Request::History { channel: "a", since: Some(&position), limit: 1 },
    ] {
        assert!(table.write(1, &request, &mut Vec::new()).is_err(), "{request:?}");
    }
}

#[test]
fn without_delimiter_a_frame_is_one_message() {
    let table = Table::parse(SMALL).unwrap();
    let publish = Request::Publish { channel: "a", stamp: stamp(9), size: 64 };
    assert_eq!(written(&table, 4, &publish), format!("pub 4 a {}", stamped(9)));
    assert_eq!(told(&table, "welcome"), [Event::Connected]);
    assert_eq!(told(&table, "ok 4"), [Event::Acked { id: 4 }]);
    assert_eq!(told(&table, "no 4"), [Event::Refused { id: 0, code: "no 4".to_owned() }]);
    let two = format!("msg {}\nmsg {}", stamped(1), stamped(2));
    assert_eq!(told(&table, &two), [Event::Delivery(stamp(1)), Event::Delivery(stamp(2))]);
    assert_eq!(told(&table, "msg of somebody else"), []);
    assert!(table.read(b"welcome back", &mut |_| ()).is_err());
}

fn centrifugo() -> Table {
    let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters");
    Table::load(&adapters.join("centrifugo.yaml")).unwrap()
}

#[test]
fn every_adapter_can_be_read() {
    let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters");
    for file in std::fs::read_dir(adapters).unwrap() {
        Table::load(&file.unwrap().path()).unwrap();
    }
}

#[test]
fn centrifugo_is_asked_in_its_json_protocol() {
    let table = centrifugo();
    let subscription = [Subscription { channel: "load.1".to_owned(), ..Subscription::default() }];
    let channels = ["load.1".to_owned()];
    let data = stamped(5);
    for (request, frame) in [
        (Request::Connect { client: "c", token: "", subscriptions: &[] }, r#"{"id":3,"connect":{}}"#),
        (Request::Subscribe { subscriptions: &subscription }, r#"{"id":3,"subscribe":{"channel":"load.1"}}"#),
        (Request::Unsubscribe { channels: &channels }, r#"{"id":3,"unsubscribe":{"channel":"load.1"}}"#),
        (
            Request::Publish { channel: "load.1", stamp: stamp(5), size: 64 },
            &format!(r#"{{"id":3,"publish":{{"channel":"load.1","data":{{"text":"{data}"}}}}}}"#),
        ),
        (
            Request::History { channel: "load.1", since: None, limit: 10 },
            r#"{"id":3,"history":{"channel":"load.1","limit":10}}"#,
        ),
        (Request::Presence { channel: "load.1" }, r#"{"id":3,"presence_stats":{"channel":"load.1"}}"#),
        (Request::Pong, "{}"),
    ] {
        let written = written(&table, 3, &request);
        assert_eq!(written, frame);
        serde_json::from_str::<serde_json::Value>(&written).unwrap();
    }
}

#[test]
fn centrifugo_is_understood() {
    let table = centrifugo();
    let pubs = |number| {
        let data = stamped(number);
        format!(r#"{{"push":{{"channel":"load.1","pub":{{"data":{{"text":"{data}"}},"offset":{number}}}}}}}"#)
    };
    let [first, second] = [pubs(1), pubs(2)];
    let batch = format!("{first}\n{{\"id\":7,\"publish\":{{}}}}\n{second}\n{{}}");
    let heard = [Event::Delivery(stamp(1)), Event::Acked { id: 7 }, Event::Delivery(stamp(2)), Event::Ping];
    assert_eq!(told(&table, &batch), heard);
    let page = format!(
        r#"{{"id":9,"history":{{"publications":[{{"data":{{"text":"{}"}},"offset":1}}],"epoch":"x","offset":1}}}}"#,
        stamped(1)
    );
    let refused = r#"{"id":4,"error":{"code":103,"message":"permission denied"}}"#;
    for (frame, event) in [
        (r#"{"id":1,"connect":{"client":"c","version":"6.0.0","ping":25,"pong":true}}"#, Event::Connected),
        (r#"{"id":2,"subscribe":{}}"#, Event::Done { id: 2 }),
        (r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"xyz","offset":5}}"#, Event::Done { id: 2 }),
        (r#"{"id":3,"unsubscribe":{}}"#, Event::Done { id: 3 }),
        (refused, Event::Refused { id: 4, code: refused.to_owned() }),
        (r#"{"id":5,"presence_stats":{"num_clients":3,"num_users":1}}"#, Event::Members { id: 5, count: 3 }),
        (r#"{"id":5,"presence_stats":{}}"#, Event::Members { id: 5, count: 0 }),
        (&page, Event::Page { id: 9, stamps: vec![stamp(1)], truncated: false }),
    ] {
        assert_eq!(told(&table, frame), [event], "{frame}");
    }
    assert_eq!(told(&table, r#"{"push":{"channel":"load.1","join":{"info":{"client":"c"}}}}"#), []);
    for push in [r#""disconnect":{"code":3000}"#, r#""channel":"load.1","unsubscribe":{"code":2500}"#] {
        assert!(table.read(format!("{{\"push\":{{{push}}}}}").as_bytes(), &mut |_| ()).is_err());
    }
}

#[test]
fn the_caller_learns_how_a_table_subscribes() {
    let dialect = Dialect::Table(Arc::new(Table::parse(SMALL).unwrap()));
    assert!(!dialect.subscribes_in_connect() && !dialect.binary());
    assert_eq!((dialect.subscriptions_at_once(), dialect.subprotocol()), (1, None));
    let mut told = Vec::new();
    dialect.read(b"welcome", Detail::Positions, &mut |event| told.push(event)).unwrap();
    assert_eq!(told, [Event::Connected]);
}
