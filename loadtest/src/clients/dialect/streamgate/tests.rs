//! The quick paths say what the whole decoding says, and a server reads what is written.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use streamgate_proto::{
    cloudevent,
    cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data},
    decode_inbound, encode_outbound,
    shared::Error,
    v1::{self, Message, OutboundMessage, Publication, outbound_message::Envelope},
};

use super::*;
use crate::{
    clients::dialect::{Dialect, Position, Subscription},
    load::stamp::Stamp,
};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];
const DETAILS: [Detail; 2] = [Detail::Stamps, Detail::Positions];

/// Texts that look like something else.
const TRICKY: [&str; 9] = [
    "room.blue",
    "",
    r#"{"id":"7","publication":{"messages":[{"payload":{"text_data":"sg!"#,
    r#"","publish_ack":{"#,
    "sg!",
    "sg!00000001.000000000002.0000000000000003.",
    r#""text_data":"sg!00000001.000000000002.0000000000000003."#,
    "tab\t, break\n, \\, 🚪",
    "}}",
];

fn stamp(number: u64) -> Stamp {
    Stamp { run: 0, stream: 7, sequence: number, due: 1_000 + number }
}

fn stamped(number: u64, size: usize) -> String {
    let mut text = String::new();
    stamp(number).write(size, &mut text);
    text
}

fn message(data: Option<Data>, tricky: &str) -> Message {
    let attribute = CloudEventAttributeValue { attr: Some(Attr::CeString(tricky.to_owned())) };
    Message {
        id: tricky.to_owned(),
        channel: tricky.to_owned(),
        offset: 9,
        payload: Some(CloudEvent {
            id: tricky.to_owned(),
            source: tricky.to_owned(),
            attributes: [("subject".to_owned(), attribute)].into(),
            data,
            ..CloudEvent::default()
        }),
        position: Some(v1::Position { epoch: tricky.to_owned(), offset: 9 }),
        replay: true,
        ..Message::default()
    }
}

fn error(code: &str) -> Error {
    Error { code: code.to_owned(), ..Error::default() }
}

/// Every kind of envelope with the event that it must tell in full detail, if any; `id` is 5.
fn envelopes() -> Vec<(Envelope, Option<Event>)> {
    let text = |number| message(Some(Data::TextData(stamped(number, 60))), "a.b");
    let payload =
        |number| CloudEvent { data: Some(Data::TextData(stamped(number, 60))), ..CloudEvent::default() };
    let call = |payload| {
        Envelope::RpcCall(v1::RpcCall { request_id: "c7".to_owned(), payload, ..v1::RpcCall::default() })
    };
    let place = || Position { epoch: "e".to_owned(), offset: 3 };
    let wire_place = || Some(v1::Position { epoch: "e".to_owned(), offset: 3 });
    let channel = || "a.b".to_owned();
    let complete = |gap, truncated, error| {
        let (channel, gap_reason) = (channel(), if gap { "EXPIRED".to_owned() } else { String::new() });
        Envelope::RecoverComplete(v1::RecoverComplete {
            channel,
            position: wire_place(),
            truncated,
            gap,
            gap_reason,
            error,
        })
    };
    let recovered = |gap: Option<&str>| {
        Some(Event::Recovered { channel: channel(), position: Some(place()), gap: gap.map(str::to_owned) })
    };
    let presence = |action: &str| {
        let member = v1::Member { client_id: "c1".to_owned(), ..v1::Member::default() };
        Envelope::PresenceEvent(v1::PresenceEvent {
            channel: channel(),
            action: action.to_owned(),
            member: Some(member),
        })
    };
    let came = |joined| Some(Event::Presence { channel: channel(), joined, client: "c1".to_owned() });
    let page =
        v1::HistoryResponse { messages: vec![text(1), text(2)], position: wire_place(), truncated: true };
    vec![
        (
            Envelope::Publication(Publication { messages: vec![text(1)] }),
            Some(Event::Placed {
                stamp: stamp(1),
                channel: channel(),
                position: Some(Position { epoch: "a.b".to_owned(), offset: 9 }),
            }),
        ),
        (
            Envelope::PublishAck(v1::PublishAck { offset: 3, position: wire_place(), duplicate: true }),
            Some(Event::Acked { id: 5 }),
        ),
        (Envelope::PublishAck(v1::PublishAck::default()), Some(Event::Acked { id: 5 })),
        (Envelope::Error(error("ACL_ERROR")), Some(Event::Refused { id: 5, code: "ACL_ERROR".to_owned() })),
        (Envelope::Connected(v1::Connected::default()), Some(Event::Connected)),
        (Envelope::SubscribeAck(v1::SubscribeAck::default()), Some(Event::Done { id: 5 })),
        (Envelope::UnsubscribeAck(v1::UnsubscribeAck::default()), Some(Event::Done { id: 5 })),
        (Envelope::Ok(v1::Ok {}), Some(Event::Done { id: 5 })),
        (Envelope::Ping(v1::Ping {}), Some(Event::Ping)),
        (complete(false, false, None), recovered(None)),
        (complete(true, true, None), recovered(Some("EXPIRED"))),
        (complete(false, true, None), recovered(Some("TRUNCATED"))),
        (complete(false, false, Some(error("ACL_ERROR"))), recovered(Some("ACL_ERROR"))),
        (
            Envelope::Gap(v1::Gap { channel: channel(), ..v1::Gap::default() }),
            Some(Event::Gap { channel: channel() }),
        ),
        (
            Envelope::History(page),
            Some(Event::Page { id: 5, stamps: vec![stamp(1), stamp(2)], truncated: true }),
        ),
        (
            Envelope::Presence(v1::Presence { count: 12, ..v1::Presence::default() }),
            Some(Event::Members { id: 5, count: 12 }),
        ),
        (presence("join"), came(true)),
        (presence("leave"), came(false)),
        (Envelope::Reconnect(v1::Reconnect { after_ms: 1 }), Some(Event::Leave)),
        (Envelope::Pong(v1::Pong {}), None),
        (Envelope::RpcReply(payload(1)), Some(Event::Replied { id: 5, stamp: Some(stamp(1)) })),
        (Envelope::RpcReply(CloudEvent::default()), Some(Event::Replied { id: 5, stamp: None })),
        (call(Some(payload(2))), Some(Event::Called { call: "c7".to_owned(), stamp: stamp(2) })),
        (call(None), None),
        (Envelope::SubRefreshAck(v1::SubRefreshAck {}), None),
        (Envelope::SurveyRequest(v1::SurveyRequest::default()), None),
        (Envelope::SurveyResponse(v1::SurveyResponse::default()), None),
        (Envelope::SurveyResult(v1::SurveyResult::default()), None),
    ]
}

fn read_all(encoding: Encoding, frame: &[u8], detail: Detail) -> Vec<Event> {
    let mut told = Vec::new();
    read(encoding, frame, detail, &mut |event| told.push(event)).unwrap();
    told
}

/// Reads `message` from a frame of either encoding with either detail, and wants what [`events`] tells of it.
fn assert_frames_agree(message: &OutboundMessage) {
    for encoding in ENCODINGS {
        let frame = encode_outbound(encoding, message).unwrap();
        for detail in DETAILS {
            let mut whole = Vec::new();
            events(message, detail, &mut |event| whole.push(event));
            let seen = String::from_utf8_lossy(&frame);
            assert_eq!(read_all(encoding, &frame, detail), whole, "{detail:?}: {seen}");
        }
    }
}

#[test]
fn every_envelope_tells_its_event() {
    for (envelope, event) in envelopes() {
        let message =
            OutboundMessage { id: "5".to_owned(), time: 1, envelope: Some(envelope), ..Default::default() };
        let mut told = Vec::new();
        events(&message, Detail::Positions, &mut |event| told.push(event));
        assert_eq!(told, Vec::from_iter(event), "{message:?}");
        assert_frames_agree(&message);
    }
    assert_frames_agree(&OutboundMessage::default());
}

#[test]
fn an_id_that_is_no_number_is_0() {
    for id in ["", "5b0c9a4e-0000-4000-8000-000000000000", "-1", "99999999999999999999"] {
        for envelope in
            [Envelope::Error(error("BAD_REQUEST")), Envelope::PublishAck(v1::PublishAck::default())]
        {
            let message =
                OutboundMessage { id: id.to_owned(), envelope: Some(envelope), ..Default::default() };
            assert_frames_agree(&message);
            let mut told = Vec::new();
            events(&message, Detail::Stamps, &mut |event| told.push(event));
            assert!(matches!(told[..], [Event::Acked { id: 0 } | Event::Refused { id: 0, .. }]));
        }
    }
}

#[test]
fn quick_paths_agree_with_the_whole_decoding() {
    let mut random = StdRng::seed_from_u64(4);
    let others = envelopes();
    let pick = |random: &mut StdRng| (*TRICKY.choose(random).unwrap()).to_owned();
    for round in 0..3_000 {
        let envelope = if random.random_bool(0.6) {
            let messages = (0..random.random_range(0..5)).map(|at| {
                let text = stamped(at, random.random_range(0..200));
                let data = match random.random_range(0..6) {
                    0 => None,
                    1 => Some(Data::BinaryData(text.into())),
                    2 => Some(Data::TextData(pick(&mut random))),
                    _ => Some(Data::TextData(text)),
                };
                message(data, &pick(&mut random))
            });
            Envelope::Publication(Publication { messages: messages.collect() })
        } else {
            others.choose(&mut random).unwrap().0.clone()
        };
        let mut message = OutboundMessage { envelope: Some(envelope), ..Default::default() };
        message.id = if random.random_bool(0.5) { round.to_string() } else { pick(&mut random) };
        message.time = random.random_range(0..3);
        if random.random_bool(0.3) {
            message.metadata = [(pick(&mut random), pick(&mut random))].into();
        }
        assert_frames_agree(&message);
    }
}

#[test]
fn what_servers_write_takes_the_quick_path() {
    let text = |number| message(Some(Data::TextData(stamped(number, 128))), TRICKY[2]);
    let frame = |encoding, envelope| {
        let message =
            OutboundMessage { id: "12".to_owned(), time: 9, envelope: Some(envelope), ..Default::default() };
        encode_outbound(encoding, &message).unwrap()
    };
    let publication = Envelope::Publication(Publication { messages: vec![text(1), text(2)] });
    let ack = Envelope::PublishAck(v1::PublishAck { offset: 1, ..Default::default() });
    let json = frame(Encoding::Json, publication.clone());
    assert!(matches!(glance::json(&json), Some(Glance::JsonPublication(_))));
    let protobuf = frame(Encoding::Protobuf, publication);
    assert!(matches!(glance::protobuf(&protobuf), Some(Glance::ProtobufPublication(_))));
    assert_eq!(glance::json(&frame(Encoding::Json, ack.clone())), Some(Glance::Ack { id: 12 }));
    assert_eq!(glance::protobuf(&frame(Encoding::Protobuf, ack)), Some(Glance::Ack { id: 12 }));
    for encoding in ENCODINGS {
        let page = v1::HistoryResponse { messages: vec![text(1)], ..Default::default() };
        let page = frame(encoding, Envelope::History(page));
        assert_eq!((glance::json(&page), glance::protobuf(&page)), (None, None));
    }
}

#[test]
fn a_cut_or_foreign_frame_is_an_error_or_tells_nothing_false() {
    let messages = vec![message(Some(Data::TextData(stamped(1, 60))), "a")];
    let publication = OutboundMessage {
        id: "1".to_owned(),
        envelope: Some(Envelope::Publication(Publication { messages })),
        ..Default::default()
    };
    for encoding in ENCODINGS {
        let frame = encode_outbound(encoding, &publication).unwrap();
        for end in 0..frame.len() {
            let mut told = Vec::new();
            let _ = read(encoding, &frame[..end], Detail::Stamps, &mut |event| told.push(event));
            assert!(told.iter().all(|event| *event == Event::Delivery(stamp(1))), "{told:?}");
        }
        assert!(read(encoding, &frame[..frame.len() - 1], Detail::Stamps, &mut |_| ()).is_err());
        assert!(read(encoding, b"GET / HTTP/1.1", Detail::Stamps, &mut |_| ()).is_err());
    }
}

#[test]
fn other_spelling_of_json_is_decoded_whole() {
    let ack = br#"{ "publish_ack" : {} , "id" : "4" }"#;
    assert_eq!(read_all(Encoding::Json, ack, Detail::Stamps), [Event::Acked { id: 4 }]);
    let late = br#"{"publish_ack":{},"id":"4","metadata":{"a":"b"}}"#;
    assert_eq!(read_all(Encoding::Json, late, Detail::Stamps), [Event::Acked { id: 4 }]);
}

#[test]
fn servers_read_what_is_written() {
    let position = Position { epoch: "17".to_owned(), offset: 4 };
    let subscriptions = [
        Subscription {
            channel: "a.b".to_owned(),
            cursor: Some(position.clone()),
            presence: true,
            ephemeral: true,
        },
        Subscription { channel: "a.*".to_owned(), ..Subscription::default() },
    ];
    let (channels, methods) = (["a.b".to_owned()], ["m.*".to_owned()]);
    let requests = [
        Request::Connect { client: "c1", token: "t.o.k", subscriptions: &subscriptions },
        Request::Subscribe { subscriptions: &subscriptions },
        Request::Unsubscribe { channels: &channels },
        Request::Publish { channel: "a.b", stamp: stamp(3), size: 128 },
        Request::History { channel: "a.b", since: Some(&position), limit: 10 },
        Request::Presence { channel: "a.b" },
        Request::Pong,
        Request::Serve { methods: &methods },
        Request::Call { channel: "a.b", method: "m.x", stamp: stamp(4), size: 128 },
        Request::Reply { call: "c7", stamp: stamp(4), size: 128 },
    ];
    let json: Vec<serde_json::Value> = requests
        .iter()
        .map(|asked| {
            let mut frames = ENCODINGS.map(|encoding| {
                let mut frame = b"kept".to_vec();
                Dialect::Streamgate(encoding).write(6, asked, &mut frame).unwrap();
                assert_eq!(decode_inbound(encoding, &frame[4..]).unwrap(), request(6, asked));
                frame.split_off(4)
            });
            serde_json::from_slice(&std::mem::take(&mut frames[0])).unwrap()
        })
        .collect();
    let both = serde_json::json!([
        { "channel": "a.b", "ephemeral": true, "recover": true, "cursor": { "epoch": "17", "offset": "4" }, "presence": true },
        { "channel": "a.*" },
    ]);
    let connect = serde_json::json!({ "client_id": "c1", "token": "t.o.k", "caps": ["streamgate.v1"], "subscriptions": both });
    assert_eq!(json[0], serde_json::json!({ "id": "6", "connect": connect }));
    assert_eq!(json[1], serde_json::json!({ "id": "6", "subscribe": { "subscriptions": both } }));
    let one = serde_json::json!({ "subscriptions": [{ "channel": "a.b" }] });
    assert_eq!(json[2], serde_json::json!({ "id": "6", "unsubscribe": one }));
    assert_eq!(json[3]["publish"]["text_data"], stamped(3, 128));
    let history =
        serde_json::json!({ "channel": "a.b", "since": { "epoch": "17", "offset": "4" }, "limit": 10 });
    assert_eq!(json[4], serde_json::json!({ "id": "6", "history": history }));
    assert_eq!(json[5], serde_json::json!({ "id": "6", "presence_query": { "channel": "a.b" } }));
    assert_eq!(json[6], serde_json::json!({ "id": "6", "pong": {} }));
    assert_eq!(json[7], serde_json::json!({ "id": "6", "rpc_serve": { "methods": ["m.*"] } }));
    assert_eq!((&json[8]["channel"], &json[8]["method"]), (&"a.b".into(), &"m.x".into()));
    assert_eq!(json[8]["rpc_request"]["text_data"], stamped(4, 128));
    assert_eq!(json[9]["rpc_result"]["request_id"], "c7");
    assert_eq!(json[9]["rpc_result"]["payload"]["text_data"], stamped(4, 128));
}

#[test]
fn a_publication_is_a_valid_event_with_one_stamp() {
    let asked = Request::Publish { channel: "a.b", stamp: stamp(3), size: 10 };
    let envelope = request(1, &asked).envelope.unwrap();
    let v1::inbound_message::Envelope::Publish(event) = envelope else { panic!("no publish") };
    cloudevent::validate(&event).unwrap();
    assert_eq!(event.data, Some(Data::TextData(stamped(3, 0))));
    let mut frame = Vec::new();
    write(Encoding::Protobuf, 1, &asked, &mut frame).unwrap();
    let mut found = Vec::new();
    Stamp::find(&frame, |stamp| found.push(stamp));
    assert_eq!(found, [stamp(3)]);
}
