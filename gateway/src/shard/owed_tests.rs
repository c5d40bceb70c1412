//! Answers that clients owe, when their shard ends or drains.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use streamgate_proto::{
    Encoding, decode_outbound, encode_inbound,
    v1::{
        self, InboundMessage, RpcResult, inbound_message::Envelope as In, outbound_message::Envelope as Out,
        rpc_result::Outcome,
    },
};
use tokio::{
    sync::{oneshot, watch},
    task::LocalSet,
    time,
};

use super::{ConnId, Errand, Shard, ShardConfig, mailbox};
use crate::{
    broker::{Broker as _, memory::MemoryBroker},
    error::{CloseCode, ErrorCode},
    peers::{CallAsk, Place},
    policy::{ChannelPolicy, Limits, Policies},
    rpc::Router,
    session::{Arrival, Settings},
    transport::{Outlet, Overflow, Wire},
};

/// What a client got.
#[derive(Clone, Default)]
struct Client {
    frames: Rc<RefCell<Vec<Bytes>>>,
    closed: Rc<RefCell<Option<CloseCode>>>,
}

impl Client {
    /// The calls that it was given.
    fn calls(&self) -> Vec<String> {
        let frames = self.frames.borrow();
        let decoded = frames.iter().map(|frame| decode_outbound(Encoding::Protobuf, frame).unwrap());
        let calls = decoded.filter_map(|frame| match frame.envelope {
            Some(Out::RpcCall(call)) => Some(call.request_id),
            _ => None,
        });
        calls.collect()
    }
}

impl Outlet for Client {
    fn wire(&self) -> Wire {
        Wire::Grpc
    }

    fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        self.frames.borrow_mut().push(frame);
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn taken_bytes(&self) -> u64 {
        0
    }

    fn limit(&self) -> usize {
        usize::MAX
    }

    fn flush(&mut self) {}

    fn ping(&mut self) {}

    fn close(&mut self, code: CloseCode, _: &str) {
        *self.closed.borrow_mut() = Some(code);
    }

    fn pause_reading(&mut self, _: bool) {}
}

fn say(shard: &Shard, id: ConnId, envelope: In) {
    let frame = InboundMessage { id: "1".into(), envelope: Some(envelope), ..InboundMessage::default() };
    shard.receive(id, &encode_inbound(Encoding::Protobuf, &frame).unwrap());
}

/// A client that was given a call, which somebody waits for.
async fn called() -> (Shard, ConnId, Client, oneshot::Receiver<Answer>) {
    let broker = Arc::new(MemoryBroker::new(Policies::default(), Default::default()));
    let (mailbox, _) = mailbox::mailbox();
    let sink = broker.attach(Arc::new(mailbox));
    let policies = Policies::new(Vec::new(), ChannelPolicy::default());
    let config = ShardConfig {
        neighbours: Default::default(),
        broker: broker.clone(),
        settings: Settings::new(policies, Limits::default()),
        rpc: Router::new(broker, Default::default()),
        lifecycle: None,
        rpc_timeout: Duration::from_secs(60),
        serve: Arc::new(|_, _| {}),
        failed: Default::default(),
    };
    let (shard, client) = (Shard::new(0, config, sink), Client::default());
    let id = shard.open(Box::new(client.clone()), Arrival::default());
    let caps = vec!["streamgate.v1".to_owned()];
    say(&shard, id, In::Connect(v1::Connect { caps, ..Default::default() }));
    shard.0.rpc.responders.offer(Place { shard: 0, conn: id }, vec!["m.*".into()]);
    let call = CallAsk {
        method: "m.x".into(),
        event: Some(Default::default()),
        by_server: true,
        ..CallAsk::default()
    };
    let (reply, answer) = oneshot::channel();
    let timeout = Duration::from_secs(60);
    shard.run_errand(Errand::Call { conn: id, call: Box::new(call), timeout, reply });
    time::sleep(Duration::from_millis(1)).await;
    assert_eq!(client.calls().len(), 1);
    (shard, id, client, answer)
}

type Answer = Result<streamgate_proto::cloudevents::CloudEvent, crate::error::ClientError>;

#[tokio::test(start_paused = true)]
async fn a_call_whose_shard_ends_is_answered_and_never_counts_as_not_given() {
    let local = LocalSet::new();
    let (shard, _, _, answer) = local.run_until(called()).await;
    // As a shard's thread does at its end: first its tasks go, then what they share.
    drop(local);
    drop(shard);
    let outcome = answer.await.expect("an answer, for a dropped one says that nobody was given the call");
    assert_eq!(outcome.unwrap_err().code, ErrorCode::ProxyError);
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_offers_back_at_once_and_waits_for_answers_that_are_owed() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (shard, id, client, answer) = called().await;
            assert_eq!(shard.0.rpc.responders.weight("m.x"), 1);
            let (progress, _watched) = watch::channel(None);
            shard.begin_drain(Duration::ZERO, progress);
            assert_eq!(shard.0.rpc.responders.weight("m.x"), 0, "nobody gives it another call");
            time::advance(Duration::from_millis(1_500)).await;
            shard.tick();
            assert_eq!(*client.closed.borrow(), None, "it owes an answer");
            let request_id = client.calls().remove(0);
            let payload = Outcome::Payload(Default::default());
            say(&shard, id, In::RpcResult(RpcResult { request_id, outcome: Some(payload) }));
            assert!(answer.await.unwrap().is_ok());
            shard.tick();
            assert_eq!(*client.closed.borrow(), Some(CloseCode::Draining));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_ever_for_an_answer() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (shard, _, client, answer) = called().await;
            let (progress, _watched) = watch::channel(None);
            shard.begin_drain(Duration::ZERO, progress);
            time::advance(Duration::from_millis(2_100)).await;
            shard.tick();
            assert_eq!(*client.closed.borrow(), Some(CloseCode::Draining));
            assert_eq!(answer.await.unwrap().unwrap_err().code, ErrorCode::ProxyError);
        })
        .await;
}
