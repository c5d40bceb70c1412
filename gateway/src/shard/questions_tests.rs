//! Nobody is closed for what others ask of it, and what a survey costs is bounded.

use std::{sync::Arc, time::Duration};

use streamgate_proto::{
    cloudevents::{Attr, CloudEvent, CloudEventAttributeValue, Data},
    v1::{
        self, RpcResult, SurveyResponse, inbound_message::Envelope as In, outbound_message::Envelope as Out,
        rpc_result::Outcome,
    },
    wkt::Timestamp,
};
use tokio::{sync::oneshot, task::LocalSet, time};

use super::{
    CallOutcome, ConnId, Errand, Shard, SurveyBudget,
    connection::IN_FLIGHT,
    owed_tests::{Client, connect, empty, say},
};
use crate::{
    channel::Channel,
    error::{CloseCode, ErrorCode},
    peers::{CallAsk, SurveyAnswers},
    policy::Limits,
    session::ReplyTo,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn event(bytes: usize) -> CloudEvent {
    let data = Some(Data::TextData("x".repeat(bytes)));
    CloudEvent { id: "e".into(), data, ..CloudEvent::default() }
}

/// An event with a time after the year 9999, with which those of JSON end.
fn beyond_json() -> CloudEvent {
    let late = Attr::CeTimestamp(Timestamp { seconds: i64::MAX, nanos: 0 });
    let attributes = [("at".to_owned(), CloudEventAttributeValue { attr: Some(late) })].into();
    CloudEvent { attributes, ..event(1) }
}

/// Lets everything happen that can.
async fn settle() {
    time::sleep(Duration::from_millis(1)).await;
}

fn call(shard: &Shard, conn: ConnId, bytes: usize) -> oneshot::Receiver<CallOutcome> {
    let call =
        CallAsk { method: "m".into(), event: Some(event(bytes)), by_server: true, ..CallAsk::default() };
    let (reply, answer) = oneshot::channel();
    shard.run_errand(Errand::Call { conn, call: Box::new(call), timeout: PATIENCE, reply });
    answer
}

/// Whether a call found no room; one that was given has no outcome yet.
fn refused(answer: &mut oneshot::Receiver<CallOutcome>) -> bool {
    match answer.try_recv() {
        Ok(CallOutcome::NoRoom) => true,
        Ok(other) => panic!("{other:?}"),
        Err(_) => false,
    }
}

fn survey(shard: &Shard, bytes: usize, budget: &Arc<SurveyBudget>) -> oneshot::Receiver<SurveyAnswers> {
    let (reply, answers) = oneshot::channel();
    let channel = Channel::parse("room").unwrap();
    let (event, budget) = (Arc::new(event(bytes)), budget.clone());
    shard.run_errand(Errand::Survey { channel, event, timeout: PATIENCE, budget, reply });
    answers
}

fn answer(shard: &Shard, (conn, client): &(ConnId, Client), bytes: usize) {
    for (request_id, _) in client.surveys() {
        let answer = SurveyResponse { request_id, payload: Some(event(bytes)), error: None };
        say(shard, *conn, In::SurveyResponse(answer));
    }
}

async fn subscribers(shard: &Shard, count: usize) -> Vec<(ConnId, Client)> {
    let clients = (0..count).map(|_| connect(shard, &["room"])).collect();
    settle().await;
    clients
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_no_more_calls_than_half_of_its_queue_and_not_closed() {
    let local = LocalSet::new();
    let test = async {
        let shard = empty(Limits::default());
        let (id, client) = connect(&shard, &[]);
        settle().await;
        client.take_all();
        client.limit.set(64 * 1024);
        let mut calls: Vec<_> = (0..20).map(|_| call(&shard, id, 7 * 1024)).collect();
        let given = calls.iter_mut().filter_map(|call| (!refused(call)).then_some(())).count();
        assert_eq!((given, client.calls().len()), (4, 4));
        say(&shard, id, In::Ping(v1::Ping {}));
        assert!(matches!(client.got().last(), Some(Out::Pong(_))), "what is live has the rest");
        assert_eq!(*client.closed.borrow(), None);
        client.take_all();
        assert!(!refused(&mut call(&shard, id, 7 * 1024)), "there is room again");
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_nothing_is_given_a_bounded_number_of_calls() {
    let local = LocalSet::new();
    let test = async {
        let shard = empty(Limits::default());
        let (id, client) = connect(&shard, &[]);
        let mut calls: Vec<_> = (0..5_000).map(|_| call(&shard, id, 1)).collect();
        assert_eq!(calls.iter_mut().filter_map(|call| refused(call).then_some(())).count(), 5_000 - 4_096);
        let request_id = client.calls().remove(0);
        say(
            &shard,
            id,
            In::RpcResult(RpcResult { request_id, outcome: Some(Outcome::Payload(Default::default())) }),
        );
        assert!(!refused(&mut call(&shard, id, 1)), "one is answered");
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_encoding_cannot_carry_is_the_callers_error() {
    let local = LocalSet::new();
    let test = async {
        let shard = empty(Limits::default());
        let (id, client) = connect(&shard, &[]);
        settle().await;
        client.json.set(true);
        let event = Some(beyond_json());
        let call = CallAsk { method: "m".into(), event, by_server: true, ..CallAsk::default() };
        let (reply, answer) = oneshot::channel();
        shard.run_errand(Errand::Call { conn: id, call: Box::new(call), timeout: PATIENCE, reply });
        let CallOutcome::Ended(Err(error)) = answer.await.unwrap() else { panic!("it was given") };
        assert_eq!((error.code, *client.closed.borrow()), (ErrorCode::BadRequest, None));
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_its_encoding_cannot_carry_is_told_a_caller_as_an_error() {
    let local = LocalSet::new();
    let test = async {
        let shard = empty(Limits::default());
        let (id, client) = connect(&shard, &[]);
        settle().await;
        client.json.set(true);
        let state = &mut *shard.0.state.borrow_mut();
        shard.let_session(state, id.key, |session, now, fx| {
            session.rpc_done(now, ReplyTo::fresh(), Ok(beyond_json()), fx);
        });
        let last = client.frames.borrow().last().cloned().unwrap();
        assert!(last.windows(11).any(|word| word == b"PROXY_ERROR"), "{last:?}");
        assert_eq!(*client.closed.borrow(), None);
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_question_is_encoded_once_for_all_subscribers() {
    let local = LocalSet::new();
    let test = async {
        let shard = empty(Limits::default());
        let clients = subscribers(&shard, 3).await;
        let answers = survey(&shard, 1_000, &Arc::new(SurveyBudget::new(10, 10_000)));
        let frames: Vec<_> = clients.iter().map(|(_, client)| client.surveys().remove(0).1).collect();
        assert!(frames.iter().all(|frame| frame.as_ptr() == frames[0].as_ptr()));
        clients.iter().for_each(|client| answer(&shard, client, 1));
        let all = answers.await.unwrap();
        assert_eq!((all.asked, all.outcomes.len(), all.truncated), (3, 3, false));
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_are_asked_and_told_than_a_survey_may_cost_all_shards_together() {
    let local = LocalSet::new();
    let test = async {
        let shards = [empty(Limits::default()), empty(Limits::default())];
        let (one, other) = (subscribers(&shards[0], 3).await, subscribers(&shards[1], 3).await);
        let budget = Arc::new(SurveyBudget::new(5, 2_500));
        let answers = shards.each_ref().map(|shard| survey(shard, 1, &budget));
        let asked = |clients: &[(ConnId, Client)]| {
            clients.iter().filter(|(_, client)| !client.surveys().is_empty()).count()
        };
        assert_eq!((asked(&one), asked(&other)), (3, 2));
        one.iter().for_each(|client| answer(&shards[0], client, 1_000));
        other.iter().for_each(|client| answer(&shards[1], client, 1_000));
        let [first, second] = answers;
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!((first.asked, second.asked, second.truncated), (3, 2, true));
        assert_eq!(first.outcomes.len() + second.outcomes.len(), 2, "no more bytes than that");
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_without_room_has_answered_with_that_and_is_not_closed() {
    let local = LocalSet::new();
    let test = async {
        let shard = empty(Limits::default());
        let clients = subscribers(&shard, 2).await;
        let slow = &clients[0].1;
        slow.take_all();
        slow.limit.set(64 * 1024);
        let budget = || Arc::new(SurveyBudget::new(10, 100_000));
        let mut surveys: Vec<_> = (0..3).map(|_| survey(&shard, 15 * 1024, &budget())).collect();
        assert_eq!((slow.surveys().len(), *slow.closed.borrow()), (2, None));
        assert_eq!(clients[1].1.surveys().len(), 3);
        answer(&shard, &clients[1], 1);
        let last = surveys.pop().unwrap().await.unwrap();
        assert_eq!((last.asked, last.outcomes.len()), (2, 2), "nobody is waited for in vain");
        let errors = last.outcomes.iter().filter_map(|outcome| outcome.error.as_ref());
        assert_eq!(errors.map(|error| error.code.as_str()).collect::<Vec<_>>(), ["NOT_AVAILABLE"]);
    };
    local.run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_read_from_is_not_closed_for_its_silence() {
    let local = LocalSet::new();
    let test = async {
        let shard = empty(Limits::default());
        let (id, client) = connect(&shard, &[]);
        settle().await;
        for _ in 0..IN_FLIGHT {
            shard.begin(&mut shard.0.state.borrow_mut(), id.key);
        }
        let pass = async |seconds: u64| {
            for _ in 0..seconds / 5 {
                time::advance(Duration::from_secs(5)).await;
                shard.tick();
            }
        };
        pass(200).await;
        assert_eq!(*client.closed.borrow(), None);
        shard.end(id);
        pass(200).await;
        assert_eq!(*client.closed.borrow(), Some(CloseCode::IdleTimeout));
    };
    local.run_until(test).await;
}
