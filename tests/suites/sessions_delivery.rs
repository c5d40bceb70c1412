//! What reaches subscribers: once, intact, and with the same meaning in every encoding.

use streamgate_e2e::{
    events::{extended, live, publish_with, text, with_attribute},
    gateway::TestNode,
    raw::{RawClient, Via},
};
use streamgate_proto::{
    cloudevent::binary_form,
    cloudevents::{Attr, CloudEvent, Data},
    v1::{Connect, PublishOptions},
    wkt::{Any, Timestamp},
};

#[tokio::test]
async fn overlapping_subscriptions_deliver_once() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let mut client = RawClient::connect_v1(node.addrs(), via).await;
        client
            .subscribe([live("over.lap"), live("over.*"), live("*.lap"), live("over.**"), live("**")])
            .await;
        for n in 1..=3 {
            client.publish("over.lap", text(&n.to_string(), &n.to_string())).await;
        }
        client.publish("other", text("m", "marker")).await;
        assert_eq!(client.texts(4).await, ["1", "2", "3", "marker"], "{via:?}");
        client.unsubscribe("over.lap").await;
        client.unsubscribe("**").await;
        client.publish("over.lap", text("4", "4")).await;
        client.publish("over.deep.er", text("m", "marker")).await;
        assert_eq!(client.texts(2).await, ["4", "marker"], "{via:?}");
    }
}

#[tokio::test]
async fn a_star_is_one_segment_and_a_last_double_star_any_number() {
    let node = TestNode::start("").await;
    let mut publisher = RawClient::connect(node.addrs(), Via::WsJson).await;
    let cases: [(&str, &[&str]); 4] =
        [("s.*", &["s.b"]), ("s.**", &["s", "s.b", "s.b.c"]), ("*.b", &["s.b"]), ("*.*.c", &["s.b.c"])];
    for (pattern, expected) in cases {
        let mut client = RawClient::connect(node.addrs(), Via::WsProto).await;
        client.subscribe([live(pattern), live("marker")]).await;
        for channel in ["s", "s.b", "s.b.c", "S.b.x", "marker"] {
            publisher.publish(channel, text("1", channel)).await;
        }
        let mut all: Vec<&str> = expected.to_vec();
        all.push("marker");
        assert_eq!(client.texts(all.len()).await, all, "{pattern}");
    }
}

#[tokio::test]
async fn a_transient_publication_reaches_who_listens_and_is_not_kept() {
    let node = TestNode::start("channels: [{pattern: 'gone.**', transient: true}]").await;
    for via in Via::ALL {
        let (kept, gone) = (format!("kept.{via:?}"), format!("gone.{via:?}"));
        let mut client = RawClient::connect(node.addrs(), via).await;
        client.subscribe([live(&kept), live(&gone)]).await;
        let options = PublishOptions { transient: true, ..PublishOptions::default() };
        let asked = client.publish_frame(publish_with(&kept, text("1", "asked"), options)).await;
        let by_policy = client.publish(&gone, text("2", "by policy")).await;
        for ack in [asked, by_policy] {
            assert!(ack.position.is_none() && ack.offset == 0, "{via:?} {ack:?}");
        }
        for expected in ["asked", "by policy"] {
            let message = client.message().await;
            assert!(message.position.is_none() && message.offset == 0, "{via:?} {message:?}");
            assert_eq!(streamgate_e2e::events::text_of(&message.payload.unwrap()), expected, "{via:?}");
        }
        for channel in [&kept, &gone] {
            assert!(client.history(streamgate_e2e::events::history(channel, -1)).await.messages.is_empty());
        }
    }
}

#[tokio::test]
async fn a_repeated_idempotency_key_gets_the_first_position_and_delivers_nothing() {
    let node = TestNode::start("").await;
    for via in Via::ALL {
        let channel = format!("idem.{via:?}");
        let mut client = RawClient::connect(node.addrs(), via).await;
        client.subscribe_to(&channel).await;
        let options = PublishOptions { idempotency_key: "k1".into(), ..PublishOptions::default() };
        let first = client.publish_frame(publish_with(&channel, text("1", "first"), options.clone())).await;
        let again = client.publish_frame(publish_with(&channel, text("2", "again"), options.clone())).await;
        assert!(!first.duplicate && again.duplicate, "{via:?}");
        assert_eq!(first.position, again.position, "{via:?}");
        // The key belongs to the channel: elsewhere it is new.
        let other = client.publish_frame(publish_with(
            "idem.other",
            text("3", ""),
            PublishOptions { idempotency_key: format!("{via:?}"), ..options },
        ));
        assert!(!other.await.duplicate, "{via:?}");
        client.publish(&channel, text("4", "marker")).await;
        assert_eq!(client.texts(2).await, ["first", "marker"], "{via:?}");
    }
}

#[tokio::test]
async fn subscribers_learn_the_publisher_only_if_the_policy_says_so() {
    let node = TestNode::start("channels: [{pattern: 'known', publisher_identity: true}]").await;
    let connect = Connect { client_id: "carol".into(), ..extended([live("known"), live("unknown")]) };
    let mut client = RawClient::connect_as(node.addrs(), Via::WsJson, connect).await;
    client.publish("known", text("1", "")).await;
    client.publish("unknown", text("2", "")).await;
    assert_eq!(client.message().await.publisher.expect("the publisher").client_id, "carol");
    assert_eq!(client.message().await.publisher, None);
}

/// An event with an attribute of every type.
fn rich(data: Option<Data>) -> CloudEvent {
    let time = Timestamp { seconds: 1_767_225_600, nanos: 123_456_789 };
    let attributes = [
        ("flag", Attr::CeBoolean(true)),
        ("off", Attr::CeBoolean(false)),
        ("count", Attr::CeInteger(-2_147_483_648)),
        ("zero", Attr::CeInteger(0)),
        ("subject", Attr::CeString("snow \u{2603}\u{1f600} \"quoted\" \\ \u{0007}".into())),
        ("empty", Attr::CeString(String::new())),
        ("blob", Attr::CeBytes(vec![0, 1, 254, 255].into())),
        ("dataschema", Attr::CeUri("https://example.com/schema?x=1&y=<2>".into())),
        ("ref", Attr::CeUriRef("../up#fragment".into())),
        ("time", Attr::CeTimestamp(time)),
        ("datacontenttype", Attr::CeString("application/x-test".into())),
    ];
    let plain = CloudEvent { data, ..text("rich", "") };
    attributes.into_iter().fold(plain, |event, (name, value)| with_attribute(event, name, value))
}

#[tokio::test]
async fn an_event_arrives_as_it_was_sent_whatever_encodings_the_two_sides_use() {
    let any =
        Any { type_url: "type.googleapis.com/google.protobuf.Duration".into(), value: vec![8, 42].into() };
    let datas = [
        None,
        Some(Data::TextData(String::new())),
        Some(Data::TextData("line\nbreak \u{0} \u{2028} {\"n\":1}".into())),
        Some(Data::BinaryData(Vec::new().into())),
        Some(Data::BinaryData((0..=255).collect::<Vec<u8>>().into())),
        Some(Data::ProtoData(any)),
        // Clients of v1 send these.
        Some(Data::ProtoData(Any { type_url: String::new(), value: vec![1].into() })),
    ];
    let node = TestNode::start("").await;
    let mut readers = Vec::new();
    for via in Via::ALL {
        let mut reader = RawClient::connect_v1(node.addrs(), via).await;
        reader.subscribe_to("fidelity").await;
        readers.push(reader);
    }
    for from in Via::ALL {
        let mut publisher = RawClient::connect(node.addrs(), from).await;
        for data in &datas {
            let event = rich(data.clone());
            let is_proto = matches!(data, Some(Data::ProtoData(_)));
            publisher.publish("fidelity", event.clone()).await;
            for reader in &mut readers {
                let got = reader.message().await.payload.expect("a payload");
                // JSON has no form of proto_data: sent or received over it, it is its binary form.
                let json = from == Via::WsJson || reader.via() == Via::WsJson;
                let expected =
                    if is_proto && json { binary_form(&event).into_owned() } else { event.clone() };
                assert_eq!(got, expected, "{from:?} -> {:?}", reader.via());
            }
        }
    }
}
