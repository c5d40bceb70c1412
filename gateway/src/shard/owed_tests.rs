//! Answers that clients owe, when their shard ends or drains.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

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

use super::{CallOutcome, ConnId, Errand, Shard, ShardConfig, mailbox};
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
pub(super) struct Client {
    pub frames: Rc<RefCell<Vec<Bytes>>>,
    pub closed: Rc<RefCell<Option<CloseCode>>>,
    /// Bytes that may wait for it; 0: any number.
    pub limit: Rc<Cell<usize>>,
    /// Bytes that it has taken.
    pub taken: Rc<Cell<usize>>,
    /// From now on it speaks JSON.
    pub json: Rc<Cell<bool>>,
}

impl Client {
    /// What it got.
    pub fn got(&self) -> Vec<Out> {
        let frames = self.frames.borrow();
        let decoded = frames.iter().map(|frame| decode_outbound(Encoding::Protobuf, frame).unwrap());
        decoded.filter_map(|frame| frame.envelope).collect()
    }

    /// The calls that it was given.
    pub fn calls(&self) -> Vec<String> {
        let calls = self.got().into_iter().filter_map(|envelope| match envelope {
            Out::RpcCall(call) => Some(call.request_id),
            _ => None,
        });
        calls.collect()
    }

    /// The frames that ask it something that a survey asks.
    pub fn surveys(&self) -> Vec<(String, Bytes)> {
        let frames = self.frames.borrow();
        let decoded =
            frames.iter().map(|frame| (decode_outbound(Encoding::Protobuf, frame).unwrap(), frame.clone()));
        let surveys = decoded.filter_map(|(message, frame)| match message.envelope {
            Some(Out::SurveyRequest(request)) => Some((request.request_id, frame)),
            _ => None,
        });
        surveys.collect()
    }

    /// Takes all that waits.
    pub fn take_all(&self) {
        self.taken.set(self.frames.borrow().iter().map(Bytes::len).sum());
    }
}

impl Outlet for Client {
    fn wire(&self) -> Wire {
        if self.json.get() { Wire::WsJson } else { Wire::Grpc }
    }

    fn push(&mut self, frame: Bytes) -> Result<(), Overflow> {
        if self.queued_bytes() + frame.len() > self.limit() {
            return Err(Overflow);
        }
        self.frames.borrow_mut().push(frame);
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        self.frames.borrow().iter().map(Bytes::len).sum::<usize>() - self.taken.get()
    }

    fn taken_bytes(&self) -> u64 {
        self.taken.get() as u64
    }

    fn limit(&self) -> usize {
        Some(self.limit.get()).filter(|limit| *limit > 0).unwrap_or(usize::MAX)
    }

    fn flush(&mut self) {}

    fn ping(&mut self) {}

    fn close(&mut self, code: CloseCode, _: &str) {
        *self.closed.borrow_mut() = Some(code);
    }

    fn pause_reading(&mut self, _: bool) {}
}

pub(super) fn say(shard: &Shard, id: ConnId, envelope: In) {
    let frame = InboundMessage { id: "1".into(), envelope: Some(envelope), ..InboundMessage::default() };
    shard.receive(id, &encode_inbound(Encoding::Protobuf, &frame).unwrap());
}

/// A shard without anybody.
pub(super) fn empty(limits: Limits) -> Shard {
    let broker = Arc::new(MemoryBroker::new(Policies::default(), Default::default()));
    let (mailbox, _) = mailbox::mailbox();
    let sink = broker.attach(Arc::new(mailbox));
    let policies = Policies::new(Vec::new(), ChannelPolicy::default());
    let config = ShardConfig {
        neighbours: Default::default(),
        broker: broker.clone(),
        settings: Settings::new(policies, limits),
        rpc: Router::new(broker, Default::default()),
        lifecycle: None,
        rpc_timeout: Duration::from_secs(60),
        serve: Arc::new(|_, _| {}),
        failed: Default::default(),
    };
    Shard::new(0, config, sink)
}

/// A client of the shard, subscribed to these channels once whatever can be done is done.
pub(super) fn connect(shard: &Shard, channels: &[&str]) -> (ConnId, Client) {
    let client = Client::default();
    let id = shard.open(Box::new(client.clone()), Arrival::default());
    let caps = vec!["streamgate.v1".to_owned()];
    let subscription =
        |channel: &&str| v1::Subscription { channel: (*channel).to_owned(), ..Default::default() };
    let subscriptions = channels.iter().map(subscription).collect();
    say(shard, id, In::Connect(v1::Connect { caps, subscriptions, ..Default::default() }));
    (id, client)
}

/// A client that was given a call, which somebody waits for.
async fn called() -> (Shard, ConnId, Client, oneshot::Receiver<CallOutcome>) {
    let shard = empty(Limits::default());
    let (id, client) = connect(&shard, &[]);
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

/// Why there is no answer.
fn reason(outcome: CallOutcome) -> ErrorCode {
    match outcome {
        CallOutcome::Ended(Err(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_shard_ends_is_answered_and_never_counts_as_not_given() {
    let local = LocalSet::new();
    let (shard, _, _, answer) = local.run_until(called()).await;
    // As a shard's thread does at its end: first its tasks go, then what they share.
    drop(local);
    drop(shard);
    let outcome = answer.await.expect("an answer, for a dropped one says that nobody was given the call");
    assert_eq!(reason(outcome), ErrorCode::ProxyError);
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
            assert!(matches!(answer.await.unwrap(), CallOutcome::Ended(Ok(_))));
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
            assert_eq!(reason(answer.await.unwrap()), ErrorCode::ProxyError);
        })
        .await;
}
