//! A client that knows only MessageLoop v1 never gets anything else, whatever others on the node use (acceptance 7
//! and PROTOCOL part A: "Frames sent to a v1 client must contain no field outside this schema").

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use streamgate_proto::{
    V1_DESCRIPTOR_SET,
    cloudevents::{CloudEvent, Data},
    v1::{
        Connect, InboundMessage, Position, PublishOptions, SubRefresh, Subscribe, Subscription,
        SurveyResponse, Unsubscribe, inbound_message::Envelope as In, outbound_message::Envelope as Out,
    },
};

use crate::{
    v1_gateway::{start, websocket_url},
    v1_wire::{Client, Event, Wire, check_v1},
};

const CALM: Duration = Duration::from_secs(60);

fn note() -> CloudEvent {
    CloudEvent {
        id: "e1".into(),
        source: "/test".into(),
        spec_version: "1.0".into(),
        r#type: "note.added".into(),
        data: Some(Data::TextData("hello".into())),
        ..CloudEvent::default()
    }
}

/// Subscriptions that ask for more than v1 has words for.
fn wanted(channels: &[&str]) -> Vec<Subscription> {
    let one = |channel: &&str| Subscription {
        channel: (*channel).to_owned(),
        recover: true,
        cursor: Some(Position { epoch: "1".into(), offset: 1 }),
        presence: true,
        ..Subscription::default()
    };
    channels.iter().map(one).collect()
}

async fn connect(client: &mut Client, caps: &[&str], channels: &[&str]) -> Out {
    let connect = Connect {
        client_id: "a-client".into(),
        client_type: "sdk".into(),
        version: "1.0.0".into(),
        subscriptions: if caps.is_empty() { wanted(channels) } else { Vec::new() },
        caps: caps.iter().map(|&cap| cap.to_owned()).collect(),
        ..Connect::default()
    };
    client.ask(In::Connect(connect)).await
}

async fn publish(client: &mut Client, channel: &str, options: PublishOptions) -> Out {
    let frame = InboundMessage {
        channel: channel.to_owned(),
        envelope: Some(In::Publish(note())),
        publish_options: Some(options),
        ..InboundMessage::default()
    };
    client.ask_frame(frame).await
}

/// Publishes with every option that there is; returns how many publications reach subscribers.
async fn publish_with_everything(publisher: &mut Client, channel: &str) -> usize {
    let keyed = PublishOptions { idempotency_key: "once".into(), exclude_self: true, ..Default::default() };
    for duplicate in [false, true] {
        let Out::PublishAck(ack) = publish(publisher, channel, keyed.clone()).await else { panic!("no ack") };
        assert_eq!(ack.duplicate, duplicate);
        assert!(ack.position.is_some());
    }
    let transient = PublishOptions { transient: true, ..Default::default() };
    assert!(matches!(publish(publisher, channel, transient).await, Out::PublishAck(_)));
    assert!(matches!(publish(publisher, channel, PublishOptions::default()).await, Out::PublishAck(_)));
    3
}

/// Says everything that a v1 client can say, and some things that only others can.
async fn say_everything(client: &mut Client, channel: &str) {
    let more: &[&str] = &["v1.more", "v1.all.**"];
    let subscribe = |channels: &[&str]| In::Subscribe(Subscribe { subscriptions: wanted(channels) });
    assert!(matches!(client.ask(subscribe(more)).await, Out::SubscribeAck(_)));
    assert!(matches!(client.ask(subscribe(&["a..b"])).await, Out::Error(_)));
    let unsubscribe = In::Unsubscribe(Unsubscribe { subscriptions: wanted(more) });
    assert!(matches!(client.ask(unsubscribe).await, Out::UnsubscribeAck(_)));
    let refresh = In::SubRefresh(SubRefresh { channels: vec![channel.to_owned()] });
    assert!(matches!(client.ask(refresh).await, Out::SubRefreshAck(_)));
    assert!(matches!(client.ask(In::Ping(Default::default())).await, Out::Pong(_)));
    let keyed = PublishOptions { idempotency_key: "v1".into(), ..Default::default() };
    let Out::PublishAck(ack) = publish(client, channel, keyed).await else { panic!("no ack") };
    assert!(ack.offset > 0 && ack.position.is_none());
    assert!(matches!(publish(client, "a.*", Default::default()).await, Out::Error(_)));
    for (channel, answered) in [("echo.here", true), ("elsewhere", false)] {
        let frame = InboundMessage {
            channel: channel.to_owned(),
            method: "say".into(),
            envelope: Some(In::RpcRequest(note())),
            timeout_ms: 1_000,
            ..InboundMessage::default()
        };
        assert_eq!(matches!(client.ask_frame(frame).await, Out::RpcReply(_)), answered);
    }
    let unasked = In::SurveyResponse(SurveyResponse { request_id: "none".into(), ..Default::default() });
    client.send(&InboundMessage { envelope: Some(unasked), ..Default::default() }).await;
    // None of these is in v1: each is an error, said in the words of v1.
    for request in [
        In::History(Default::default()),
        In::PresenceQuery(Default::default()),
        In::RpcServe(Default::default()),
        In::Ack(Default::default()),
        In::Refresh(Default::default()),
        In::SurveyRequest(Default::default()),
    ] {
        assert!(matches!(client.ask(request).await, Out::Error(_)));
    }
    client.send_bytes(bytes::Bytes::from_static(b"{")).await;
    client.find(|frame| matches!(frame.envelope, Some(Out::Error(_)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_of_a_v1_session_is_in_the_v1_schema() {
    let node = start(CALM).await;
    for (wire, channel) in Wire::ALL.into_iter().zip(["v1.json", "v1.proto", "v1.grpc"]) {
        let mut publisher = Client::extended(&node, Wire::Proto).await;
        let Out::Connected(connected) = connect(&mut publisher, &["streamgate.v1"], &[]).await else {
            panic!("not connected")
        };
        assert!(!connected.resume_token.is_empty(), "the publisher is not an extended client");
        // History to recover, which a v1 client cannot mean to ask for.
        publish_with_everything(&mut publisher, &format!("{channel}.before")).await;

        let mut client = Client::v1(&node, wire).await;
        let subscriptions: &[&str] = &[channel, &format!("{channel}.before"), &format!("{channel}.*")];
        let Out::Connected(connected) = connect(&mut client, &[], subscriptions).await else {
            panic!("not connected")
        };
        assert_eq!(connected.subscriptions.len(), subscriptions.len());
        assert_eq!(client.unread(), 0, "a v1 client was sent history");

        for _ in 0..publish_with_everything(&mut publisher, channel).await {
            let frame = client.find(|frame| matches!(frame.envelope, Some(Out::Publication(_)))).await;
            let Some(Out::Publication(publication)) = frame.envelope else { unreachable!() };
            assert_eq!(publication.messages.len(), 1);
            assert_eq!(publication.messages[0].payload, Some(note()));
        }
        say_everything(&mut client, channel).await;
        client.find(|frame| matches!(frame.envelope, Some(Out::Publication(_)))).await;
        client
            .send(&InboundMessage { envelope: Some(In::Connect(Default::default())), ..Default::default() })
            .await;
        assert_eq!(client.close_code().await, 3501);

        let kinds: Vec<_> = client.kinds.iter().map(String::as_str).collect();
        let expected = [
            "connected",
            "error",
            "pong",
            "publication",
            "publish_ack",
            "rpc_reply",
            "sub_refresh_ack",
            "subscribe_ack",
            "unsubscribe_ack",
        ];
        assert_eq!(kinds, expected, "{wire:?}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_v1_client_is_pinged_below_the_protocol_only() {
    let node = start(Duration::from_millis(100)).await;
    for wire in Wire::ALL {
        let mut witness = Client::extended(&node, wire).await;
        let mut client = Client::v1(&node, wire).await;
        connect(&mut client, &[], &["v1.pinged"]).await;
        connect(&mut witness, &["streamgate.v1"], &[]).await;
        // The extended client is pinged in the protocol; when it was a second time, so was the v1 client in its way.
        for _ in 0..2 {
            witness.find(|frame| matches!(frame.envelope, Some(Out::Ping(_)))).await;
            witness
                .send(&InboundMessage { envelope: Some(In::Pong(Default::default())), ..Default::default() })
                .await;
        }
        if wire != Wire::Grpc {
            assert!(matches!(client.event().await, Event::Ping), "{wire:?}");
        }
        assert!(matches!(client.ask(In::Ping(Default::default())).await, Out::Pong(_)));
        assert_eq!(client.unread(), 0, "{wire:?}: more than the pong");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_tells_a_v1_client_nothing_but_the_close() {
    let node = start(CALM).await;
    let mut clients = Vec::new();
    for wire in Wire::ALL {
        let mut client = Client::v1(&node, wire).await;
        connect(&mut client, &[], &["v1.drained"]).await;
        clients.push(client);
    }
    let shutdown = tokio::spawn(node.shutdown());
    for mut client in clients {
        assert_eq!(client.close_code().await, 1012);
    }
    shutdown.await.unwrap();
}

#[test]
#[should_panic(expected = "not a v1 frame")]
fn the_check_refuses_extended_json() {
    check_v1(Wire::Json, br#"{"id":"1","publish_ack":{"offset":"1","position":{"epoch":"1","offset":"1"}}}"#);
}

#[test]
#[should_panic(expected = "outside v1")]
fn the_check_refuses_extended_protobuf() {
    use prost::Message as _;
    use streamgate_proto::v1::{OutboundMessage, PublishAck};
    let ack = PublishAck { offset: 1, position: None, duplicate: true };
    let frame = OutboundMessage { envelope: Some(Out::PublishAck(ack)), ..Default::default() };
    check_v1(Wire::Grpc, &frame.encode_to_vec());
}

/// Runs `tests/go-v1/run`, which says itself what it skips; see there.
#[tokio::test(flavor = "multi_thread")]
async fn v1_clients_in_go_connect_publish_and_receive() {
    let node = start(CALM).await;
    let descriptors = Path::new(env!("CARGO_TARGET_TMPDIR")).join("v1_descriptors.bin");
    std::fs::write(&descriptors, V1_DESCRIPTOR_SET).unwrap();
    let mut run = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("go-v1/run"));
    run.args(["--ws", &websocket_url(&node), "--grpc", &node.grpc_addr().to_string()]);
    run.arg("--descriptors").arg(&descriptors).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || run.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let notice: Vec<_> = said.lines().filter(|line| line.starts_with('*')).collect();
    if !notice.is_empty() {
        say_loudly(&notice.join("\n"));
    }
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
    node.shutdown().await;
}

/// Past the test harness, which hides what a passing test prints.
fn say_loudly(notice: &str) {
    use std::io::Write as _;
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "\n{notice}");
}
