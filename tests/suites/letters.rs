//! Letters between nodes while Redis comes and goes.

use std::time::Duration;

use streamgate_e2e::{
    events::{extended, frame, live, text, text_of},
    gateway::{TestNode, on_redis},
    raw::{RawClient, Via},
    redis_server::RedisServer,
    responder::{OPEN, call, result, serve},
    swallowing_proxy::{Flow, Flows, SwallowingProxy},
    within,
};
use streamgate_proto::v1::{
    InboundMessage, SurveyRequest, SurveyResponse, inbound_message::Envelope as In,
    outbound_message::Envelope as Out, rpc_result::Outcome,
};

/// A Redis, a node that reaches it by a proxy, and one that reaches it directly.
struct Stage {
    proxied: TestNode,
    direct: TestNode,
    proxy: SwallowingProxy,
    _redis: RedisServer,
}

impl Stage {
    async fn set() -> Self {
        let redis = RedisServer::start_default();
        let proxy = SwallowingProxy::start(redis.addr()).await;
        let yaml = on_redis(&redis, OPEN);
        let direct = TestNode::start(&yaml).await;
        let yaml = yaml.replace(&redis.addr().to_string(), &proxy.addr().to_string());
        let proxied = TestNode::start(&yaml).await;
        direct.addrs().ready().await;
        proxied.addrs().ready().await;
        Self { proxied, direct, proxy, _redis: redis }
    }

    /// From now on Redis carries out what the node writes, and the node does not learn of it.
    fn swallow_replies(&self) {
        self.proxy.set_all(Flows { to_client: Flow::Swallow, ..Flows::default() });
    }

    /// Breaks these connections; the next ones are sound.
    fn mend(&self) {
        self.proxy.set_all(Flows::default());
        self.proxy.cut_all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_given_while_redis_is_away_arrives_when_it_is_back() {
    let stage = Stage::set().await;
    let mut responder = RawClient::connect(stage.proxied.addrs(), Via::WsJson).await;
    responder.request(serve(&["m.echo"])).await;
    let mut caller = RawClient::connect(stage.direct.addrs(), Via::WsJson).await;
    caller.send(InboundMessage { timeout_ms: 15_000, ..call("a", "m.echo", text("e", "done")) }).await;
    let asked = responder.frame().await;
    let Some(Out::RpcCall(asked)) = asked.envelope else { panic!("{asked:?} instead of a call") };

    stage.proxy.refuse(true);
    stage.proxy.cut_all();
    let outcome = Outcome::Payload(asked.payload.unwrap_or_default());
    responder.send(result(&asked.request_id, outcome)).await;
    // The node has read the answer when it answers what came after it.
    responder.refused(call("$session.nobody", "m.echo", text("e", ""))).await;
    stage.proxy.refuse(false);

    let reply = caller.frame().await;
    let Some(Out::RpcReply(reply)) = reply.envelope else { panic!("{reply:?} instead of the answer") };
    assert_eq!(text_of(&reply), "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survey_whose_way_breaks_is_answered_if_it_arrived() {
    let stage = Stage::set().await;
    let room = extended([live("room")]);
    let mut subscriber = RawClient::connect_as(stage.direct.addrs(), Via::WsJson, room).await;
    let mut asker = RawClient::connect(stage.proxied.addrs(), Via::WsJson).await;
    stage.swallow_replies();
    let request = SurveyRequest { request_id: "s1".into(), payload: Some(text("q", "who")) };
    let request =
        InboundMessage { channel: "room".into(), timeout_ms: 15_000, ..frame(In::SurveyRequest(request)) };
    asker.send(request).await;
    let asked = subscriber.frame().await;
    let Some(Out::SurveyRequest(asked)) = asked.envelope else { panic!("{asked:?} instead of a question") };
    stage.mend();
    let answer = SurveyResponse { request_id: asked.request_id, payload: Some(text("a", "me")), error: None };
    subscriber.send(frame(In::SurveyResponse(answer))).await;
    let outcome = asker.frame().await;
    let Some(Out::SurveyResult(outcome)) = outcome.envelope else {
        panic!("{outcome:?} instead of a result")
    };
    assert_eq!(outcome.results.len(), 1, "{outcome:?}");
    assert_eq!(text_of(outcome.results[0].payload.as_ref().unwrap()), "me");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_way_breaks_is_answered_if_it_arrived() {
    let stage = Stage::set().await;
    let mut responder = RawClient::connect(stage.direct.addrs(), Via::WsJson).await;
    responder.request(serve(&["m.echo"])).await;
    // Who offers the method is known for a second: on a busy machine it may be looked for in vain.
    for _ in 0..10 {
        let mut caller = RawClient::connect(stage.proxied.addrs(), Via::WsJson).await;
        caller.send(InboundMessage { timeout_ms: 15_000, ..call("a", "m.echo", text("w", "warm")) }).await;
        answer(&mut responder).await;
        let warm = caller.frame().await;
        assert!(matches!(warm.envelope, Some(Out::RpcReply(_))), "{warm:?}");

        stage.swallow_replies();
        caller.send(InboundMessage { timeout_ms: 15_000, ..call("a", "m.echo", text("e", "once")) }).await;
        let arrived = tokio::time::timeout(Duration::from_secs(1), responder.frame()).await;
        stage.mend();
        let Ok(asked) = arrived else { continue };
        let Some(Out::RpcCall(asked)) = asked.envelope else { panic!("{asked:?} instead of a call") };
        let outcome = Outcome::Payload(asked.payload.unwrap_or_default());
        responder.send(result(&asked.request_id, outcome)).await;
        let reply = caller.frame().await;
        let Some(Out::RpcReply(reply)) = reply.envelope else { panic!("{reply:?} instead of the answer") };
        return assert_eq!(text_of(&reply), "once");
    }
    panic!("the call never arrived");
}

/// Answers the next call with its payload.
async fn answer(responder: &mut RawClient) {
    let asked = within("a call", responder.frame()).await;
    let Some(Out::RpcCall(asked)) = asked.envelope else { panic!("{asked:?} instead of a call") };
    responder.send(result(&asked.request_id, Outcome::Payload(asked.payload.unwrap_or_default()))).await;
}
