//! What is special about gRPC: many streams on a connection, generated stubs, and the end of a stream.

use streamgate_e2e::{
    events::{extended, frame, live, publish, text, text_of},
    gateway::TestNode,
    raw::{RawClient, RawGrpc, Received, Via},
    within,
};
use streamgate_proto::{
    Encoding, decode_outbound, encode_inbound,
    v1::{
        InboundMessage, inbound_message::Envelope as In, messaging_service_client::MessagingServiceClient,
        outbound_message::Envelope as Out,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

async fn connection(node: &TestNode) -> Channel {
    Endpoint::from_shared(format!("http://{}", node.addrs().grpc)).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn generated_stubs_speak_to_it() {
    let node = TestNode::start("").await;
    let (out, requests) = mpsc::channel(8);
    let mut client = MessagingServiceClient::new(connection(&node).await);
    let connect = InboundMessage { id: "1".into(), ..frame(In::Connect(extended([live("stub")]))) };
    out.send(connect).await.unwrap();
    let mut answers = client.message_loop(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let connected = within("connected", answers.message()).await.unwrap().unwrap();
    assert!(matches!(connected.envelope, Some(Out::Connected(_))) && connected.id == "1");
    out.send(InboundMessage { id: "2".into(), ..publish("stub", text("e", "hello")) }).await.unwrap();
    let (mut acked, mut delivered) = (0, 0);
    for _ in 0..2 {
        match within("a frame", answers.message()).await.unwrap().unwrap().envelope {
            Some(Out::PublishAck(ack)) => acked = ack.offset,
            Some(Out::Publication(publication)) => {
                let message = &publication.messages[0];
                assert_eq!(text_of(message.payload.as_ref().unwrap()), "hello");
                delivered = message.offset;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(acked == delivered && acked > 0);
    drop(out);
    assert!(within("the end", answers.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn many_streams_of_one_connection_are_sessions_of_their_own() {
    let node = TestNode::start("").await;
    let channel = connection(&node).await;
    let mut streams = Vec::new();
    for n in 0..50 {
        let mut stream = RawGrpc::open_on(channel.clone()).await;
        let connect = frame(In::Connect(extended([live(&format!("stream.{n}")), live("stream.all")])));
        stream.send(encode_inbound(Encoding::Protobuf, &connect).unwrap()).await;
        assert!(matches!(next(&mut stream).await, Some(Out::Connected(_))));
        streams.push(stream);
    }
    let mut publisher = RawClient::connect(node.addrs(), Via::WsJson).await;
    for n in 0..50 {
        publisher.publish(&format!("stream.{n}"), text("1", &n.to_string())).await;
    }
    publisher.publish("stream.all", text("2", "all")).await;
    for (n, stream) in streams.iter_mut().enumerate() {
        for expected in [n.to_string(), "all".to_owned()] {
            let Some(Out::Publication(publication)) = next(stream).await else { panic!("no publication") };
            assert_eq!(text_of(publication.messages[0].payload.as_ref().unwrap()), expected);
        }
    }
    // A stream that ends takes no other with it.
    streams.remove(0).close().await;
    publisher.publish("stream.all", text("3", "after")).await;
    for stream in &mut streams {
        assert!(matches!(next(stream).await, Some(Out::Publication(_))));
    }
}

async fn next(stream: &mut RawGrpc) -> Option<Out> {
    match within("a frame", stream.next()).await {
        Received::Payload(payload) => decode_outbound(Encoding::Protobuf, &payload).unwrap().envelope,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn requests_that_fill_every_window_are_all_answered() {
    let node = TestNode::start("limits: {publishes_per_second: 100000}").await;
    let mut client = RawClient::connect(node.addrs(), Via::Grpc).await;
    // Far more than flow control and the shard's waiting room take at once.
    let data = "x".repeat(1024);
    for n in 0..2_000 {
        client.send(InboundMessage { id: format!("p{n}"), ..publish("window", text("e", &data)) }).await;
    }
    for n in 0..2_000 {
        let ack = client.answer_to(&format!("p{n}")).await;
        let Some(Out::PublishAck(ack)) = ack.envelope else { panic!("{ack:?}") };
        assert_eq!(ack.offset, n + 1, "one client's publishes keep their order");
    }
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let node = TestNode::start("").await;
    let refused =
        RawGrpc::open_method(connection(&node).await, "/messageloop.v1.MessagingService/Nothing").await;
    assert_eq!(refused.err().map(|status| status.code()), Some(tonic::Code::Unimplemented));
}
