//! A real node, in this process and on the memory broker, answers every request with the event that it stands for.

use bytes::Bytes;
use prost::Message as _;
use streamgate_e2e::{
    gateway::TestNode,
    raw::{RawGrpc, RawWs, Received, Via, WsOptions},
    within,
};
use streamgate_proto::v1::OutboundMessage;

use super::*;
use crate::{
    clients::dialect::{Dialect, Position, Subscription},
    load::stamp::Stamp,
};

const CHANNEL: &str = "load.room";
const SIZE: usize = 128;
const STAMPS: [Stamp; 2] =
    [Stamp { run: 0, stream: 1, sequence: 0, due: 11 }, Stamp { run: 0, stream: 1, sequence: 1, due: 22 }];

enum Link {
    Ws(RawWs, Encoding),
    Grpc(RawGrpc),
}

struct Client {
    link: Link,
    detail: Detail,
    told: std::collections::VecDeque<Event>,
}

impl Client {
    async fn open(node: &TestNode, via: Via, detail: Detail) -> Self {
        let link = match via {
            Via::WsJson => Link::Ws(RawWs::open(node.addrs(), WsOptions::json()).await, Encoding::Json),
            Via::WsProto => Link::Ws(RawWs::open(node.addrs(), WsOptions::proto()).await, Encoding::Protobuf),
            Via::Grpc => Link::Grpc(RawGrpc::open(node.addrs()).await),
        };
        Self { link, detail, told: Default::default() }
    }

    async fn ask(&mut self, id: u64, asked: Request<'_>) {
        match &mut self.link {
            Link::Ws(ws, encoding) => {
                let mut frame = Vec::new();
                Dialect::Streamgate(*encoding).write(id, &asked, &mut frame).unwrap();
                match encoding {
                    Encoding::Json => ws.send_text(frame).await,
                    Encoding::Protobuf => ws.send_binary(frame).await,
                }
            }
            Link::Grpc(grpc) => grpc.send(Bytes::from(request(id, &asked).encode_to_vec())).await,
        }
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.told.pop_front() {
                return event;
            }
            let received = match &mut self.link {
                Link::Ws(ws, _) => within("a frame", ws.next()).await,
                Link::Grpc(grpc) => within("a frame", grpc.next()).await,
            };
            let Received::Payload(payload) = received else { panic!("{received:?}") };
            let mut tell = |event| self.told.push_back(event);
            match &self.link {
                Link::Ws(_, encoding) => read(*encoding, &payload, self.detail, &mut tell).unwrap(),
                Link::Grpc(_) => events(&OutboundMessage::decode(payload).unwrap(), self.detail, &mut tell),
            }
        }
    }

    /// The next two events, in the order of their kinds: an ack and a delivery may come either way round.
    async fn next_two(&mut self) -> [Event; 2] {
        let (first, second) = (self.next().await, self.next().await);
        if matches!(second, Event::Acked { .. }) { [second, first] } else { [first, second] }
    }
}

async fn converse(via: Via) {
    let node = TestNode::start("channels: [{pattern: '**', history_size: 100}]").await;
    let subscription =
        |presence, cursor| Subscription { channel: CHANNEL.to_owned(), cursor, presence, ephemeral: false };
    let mut watcher = Client::open(&node, via, Detail::Positions).await;
    watcher
        .ask(1, Request::Connect { client: "watcher", token: "", subscriptions: &[subscription(true, None)] })
        .await;
    assert_eq!(watcher.next().await, Event::Connected);

    let mut other = Client::open(&node, via, Detail::Stamps).await;
    other.ask(1, Request::Connect { client: "other", token: "", subscriptions: &[] }).await;
    assert_eq!(other.next().await, Event::Connected);
    other.ask(2, Request::Subscribe { subscriptions: &[subscription(false, None)] }).await;
    assert_eq!(other.next().await, Event::Done { id: 2 });
    let joined = |joined| Event::Presence { channel: CHANNEL.to_owned(), joined, client: "other".to_owned() };
    assert_eq!(watcher.next().await, joined(true));

    let mut places = Vec::new();
    for (id, stamp) in (3..).zip(STAMPS) {
        other.ask(id, Request::Publish { channel: CHANNEL, stamp, size: SIZE }).await;
        assert_eq!(other.next_two().await, [Event::Acked { id }, Event::Delivery(stamp)]);
        let placed = watcher.next().await;
        let Event::Placed { stamp: seen, channel, position: Some(position) } = placed else {
            panic!("{placed:?}")
        };
        assert_eq!((seen, channel.as_str()), (stamp, CHANNEL));
        places.push(position);
    }
    assert_eq!(places.iter().map(|place| place.offset).collect::<Vec<_>>(), [1, 2]);

    other.ask(5, Request::History { channel: CHANNEL, since: None, limit: 1 }).await;
    assert_eq!(other.next().await, Event::Page { id: 5, stamps: vec![STAMPS[0]], truncated: true });
    other.ask(6, Request::History { channel: CHANNEL, since: Some(&places[0]), limit: -1 }).await;
    assert_eq!(other.next().await, Event::Page { id: 6, stamps: vec![STAMPS[1]], truncated: false });
    other.ask(7, Request::Presence { channel: CHANNEL }).await;
    assert_eq!(other.next().await, Event::Members { id: 7, count: 2 });
    other.ask(8, Request::Unsubscribe { channels: &[CHANNEL.to_owned()] }).await;
    assert_eq!(other.next().await, Event::Done { id: 8 });
    assert_eq!(watcher.next().await, joined(false));
    // A pong has no answer; what follows it has.
    other.ask(9, Request::Pong).await;

    recover(&mut other, subscription(false, Some(places.swap_remove(0)))).await;
    other.ask(11, Request::Publish { channel: "load.*", stamp: STAMPS[0], size: SIZE }).await;
    let refused = other.next().await;
    assert!(matches!(&refused, Event::Refused { id: 11, code } if !code.is_empty()), "{refused:?}");
}

async fn recover(client: &mut Client, subscription: Subscription) {
    client.ask(10, Request::Subscribe { subscriptions: &[subscription] }).await;
    assert_eq!(client.next().await, Event::Done { id: 10 });
    assert_eq!(client.next().await, Event::Delivery(STAMPS[1]));
    let complete = client.next().await;
    let Event::Recovered { channel, position: Some(Position { offset: 2, .. }), gap: None } = &complete
    else {
        panic!("{complete:?}")
    };
    assert_eq!(channel, CHANNEL);
}

#[tokio::test]
async fn a_node_understands_json() {
    converse(Via::WsJson).await;
}

#[tokio::test]
async fn a_node_understands_protobuf() {
    converse(Via::WsProto).await;
}

#[tokio::test]
async fn a_node_understands_grpc() {
    converse(Via::Grpc).await;
}
