//! A client that takes nothing of its replay is closed in the end, whatever else goes on.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use streamgate_proto::{
    Encoding,
    cloudevents::{CloudEvent, cloud_event::Data},
    encode_inbound,
    v1::{self, InboundMessage, StartFrom, inbound_message::Envelope as In, start_from::Point},
};
use tokio::{task::LocalSet, time};

use super::{ConnId, Shard, ShardConfig, mailbox};
use crate::{
    broker::{Broker as _, Publish, Stored, memory::MemoryBroker},
    channel::Channel,
    error::CloseCode,
    policy::{ChannelPolicy, Limits, Policies},
    rpc::Router,
    session::{Arrival, Settings},
    transport::{Outlet, Overflow, Wire},
};

const LIMIT: usize = 64 * 1024;

#[derive(Default)]
struct Wall {
    frames: VecDeque<usize>,
    queued: usize,
    taken: u64,
    closed: Option<CloseCode>,
}

/// A client that takes only what a test takes.
#[derive(Clone, Default)]
struct Client(Rc<RefCell<Wall>>);

impl Client {
    fn take(&self) {
        let wall = &mut *self.0.borrow_mut();
        let size = wall.frames.pop_front().unwrap();
        wall.queued -= size;
        wall.taken += size as u64;
    }

    fn closed(&self) -> Option<CloseCode> {
        self.0.borrow().closed
    }
}

impl Outlet for Client {
    fn wire(&self) -> Wire {
        Wire::WsProto
    }

    fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        let wall = &mut *self.0.borrow_mut();
        if wall.queued + frame.len() > LIMIT {
            return Err(Overflow);
        }
        wall.queued += frame.len();
        wall.frames.push_back(frame.len());
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        self.0.borrow().queued
    }

    fn taken_bytes(&self) -> u64 {
        self.0.borrow().taken
    }

    fn limit(&self) -> usize {
        LIMIT
    }

    fn flush(&mut self) {}

    fn ping(&mut self) {}

    fn close(&mut self, code: CloseCode, _: &str) {
        self.0.borrow_mut().closed = Some(code);
    }

    fn pause_reading(&mut self, _: bool) {}
}

fn say(shard: &Shard, id: ConnId, envelope: In) {
    let frame = InboundMessage { id: "1".into(), envelope: Some(envelope), ..InboundMessage::default() };
    shard.receive(id, &encode_inbound(Encoding::Protobuf, &frame).unwrap());
}

/// A client whose replay, of `count` messages of 4 KiB, has begun.
async fn replaying(count: usize) -> (Shard, ConnId, Client) {
    replaying_with(count, 0).await
}

/// The same, with a time to live for every second message.
async fn replaying_with(count: usize, ttl_ms: u64) -> (Shard, ConnId, Client) {
    let broker = Arc::new(MemoryBroker::new(Policies::default(), Default::default()));
    let (mailbox, _) = mailbox::mailbox();
    let sink = broker.attach(Arc::new(mailbox));
    let data = Some(Data::TextData("x".repeat(4 * 1024)));
    let event = CloudEvent { id: "e".into(), data, ..CloudEvent::default() }.encode_to_vec().into();
    let stored = Stored { id: vec![1; 16].into(), event, ..Stored::default() };
    for n in 0..count {
        let channel = Channel::parse("busy").unwrap();
        let stored = Stored { ttl_ms: if n % 2 == 1 { ttl_ms } else { 0 }, ..stored.clone() };
        let user_id = String::new();
        let publish = Publish {
            channel,
            stored,
            user_id,
            idempotency_key: None,
            transient: false,
            job: crate::broker::queue::JobOptions::default(),
        };
        broker.publish(publish).await.unwrap();
    }
    let policies = Policies::new(Vec::new(), ChannelPolicy::default());
    let config = ShardConfig {
        neighbours: Default::default(),
        broker: broker.clone(),
        settings: Settings::new(policies, Limits { write_queue_bytes: LIMIT, ..Limits::default() }),
        rpc: Router::new(broker, Default::default()),
        lifecycle: None,
        rpc_timeout: Duration::from_secs(1),
        serve: Arc::new(|_, _| {}),
        failed: Default::default(),
    };
    let (shard, client) = (Shard::new(0, config, sink), Client::default());
    let id = shard.open(Box::new(client.clone()), Arrival::default());
    let from = Some(StartFrom { point: Some(Point::Start(true)) });
    let subscriptions = vec![v1::Subscription { channel: "busy".into(), from, ..Default::default() }];
    let caps = vec!["streamgate.v1".to_owned()];
    say(&shard, id, In::Connect(v1::Connect { caps, subscriptions, ..Default::default() }));
    time::sleep(Duration::from_millis(1)).await;
    assert!(client.0.borrow().queued >= LIMIT / 2, "the replay waits");
    (shard, id, client)
}

/// As the shard's loop does, with a client that is there: it says something, and is answered.
async fn pass(shard: &Shard, id: ConnId, seconds: u64) {
    time::advance(Duration::from_secs(seconds)).await;
    shard.tick();
    say(shard, id, In::Ping(v1::Ping {}));
    shard.flush(&mut shard.0.state.borrow_mut());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_its_replay_is_closed_although_it_is_sent_other_things() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (shard, id, client) = replaying(100).await;
            for _ in 0..12 {
                pass(&shard, id, 5).await;
                assert_eq!(client.closed(), None);
            }
            // Deadlines are looked at with the session's own, which are further apart.
            for _ in 0..6 {
                pass(&shard, id, 5).await;
            }
            assert_eq!(client.closed(), Some(CloseCode::SlowConsumer));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_a_little_now_and_then_is_not_closed() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (shard, id, client) = replaying(100).await;
            for round in 0..60 {
                pass(&shard, id, 10).await;
                if round % 3 == 0 {
                    client.take();
                }
                assert_eq!(client.closed(), None, "{round}");
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn pages_wait_for_room_and_a_client_that_takes_none_of_them_is_closed() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (shard, id, client) = replaying(100).await;
            let page = v1::HistoryRequest { channel: "busy".into(), limit: -1, ..Default::default() };
            for _ in 0..8 {
                say(&shard, id, In::History(page.clone()));
            }
            time::sleep(Duration::from_millis(1)).await;
            assert_eq!(client.closed(), None);
            let pages = || shard.0.state.borrow().connections[id.key as usize].pages.len();
            assert_eq!(pages(), 8);
            while client.0.borrow().queued >= LIMIT / 2 {
                client.take();
            }
            shard.drained(id);
            assert_eq!(pages(), 7, "one has its place");
            for _ in 0..18 {
                pass(&shard, id, 5).await;
            }
            assert_eq!((client.closed(), pages()), (Some(CloseCode::SlowConsumer), 0));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_expires_while_a_client_is_behind_is_not_sent_to_it() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (shard, id, client) = replaying_with(40, 5_000).await;
            let sent = client.0.borrow().frames.iter().filter(|size| **size > 4 * 1024).count();
            assert!((2..20).contains(&sent), "{sent} before the time is over");
            time::advance(Duration::from_secs(5)).await;
            let mut all = 0;
            loop {
                let taken = client.0.borrow().frames.front().copied();
                let Some(size) = taken else { break };
                all += usize::from(size > 4 * 1024);
                client.take();
                shard.drained(id);
            }
            assert_eq!((all, client.closed()), (sent + (40 - sent) / 2, None));
        })
        .await;
}
