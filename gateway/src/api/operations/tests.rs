//! What operations do, on the memory broker and a double of [`Control`].

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, pending, ready};
use streamgate_proto::{cloudevents::CloudEvent, server::*, v1::SurveyAnswer};

use super::Operations;
use crate::{
    api::{
        control::{
            ByChannel, Control, NodeInfo, Revoke, SessionInfo, SessionPage, SessionQuery, SurveyOutcome, Who,
        },
        tests::operations,
    },
    channel::Channel,
    error::{ClientError, ErrorCode},
    policy::{ChannelPolicy, Policies},
};

/// Knows the session `s1` and the user `ann` with two sessions; writes down what it is asked.
#[derive(Default)]
struct Double(Mutex<Vec<String>>);

impl Double {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    fn sessions_of(who: &Who) -> u32 {
        match who {
            Who::Session(id) if id == "s1" => 1,
            Who::User(id) if id == "ann" => 2,
            _ => 0,
        }
    }

    fn known(who: &Who) -> Result<(), ClientError> {
        if Self::sessions_of(who) > 0 { Ok(()) } else { Err(ClientError::new(ErrorCode::NotFound, "nobody")) }
    }
}

impl Control for Double {
    fn disconnect(
        &self,
        who: Vec<Who>,
        code: u16,
        reason: String,
    ) -> BoxFuture<'static, Vec<Result<u32, ClientError>>> {
        self.note(format!("disconnect {who:?} {code} {reason}"));
        ready(who.iter().map(|who| Ok(Self::sessions_of(who))).collect()).boxed()
    }

    fn subscribe(
        &self,
        who: Who,
        channels: Vec<String>,
    ) -> BoxFuture<'static, Result<ByChannel, ClientError>> {
        self.note(format!("subscribe {who:?} {channels:?}"));
        let outcome = |channel: String| {
            let outcome = Channel::parse(&channel).map(drop).map_err(ClientError::from);
            (channel, outcome)
        };
        ready(Self::known(&who).map(|()| channels.into_iter().map(outcome).collect())).boxed()
    }

    fn unsubscribe(
        &self,
        who: Who,
        channels: Vec<String>,
    ) -> BoxFuture<'static, Result<ByChannel, ClientError>> {
        self.note(format!("unsubscribe {who:?} {channels:?}"));
        ready(Self::known(&who).map(|()| channels.into_iter().map(|channel| (channel, Ok(()))).collect()))
            .boxed()
    }

    fn send(
        &self,
        who: Who,
        channel: String,
        event: CloudEvent,
    ) -> BoxFuture<'static, Result<u32, ClientError>> {
        self.note(format!("send {who:?} {channel} {}", event.id));
        ready(Ok(Self::sessions_of(&who))).boxed()
    }

    fn sessions(&self, query: SessionQuery) -> BoxFuture<'static, Result<SessionPage, ClientError>> {
        self.note(format!("sessions {query:?}"));
        let session =
            SessionInfo { session_id: "s1".into(), user_id: "ann".into(), ..SessionInfo::default() };
        ready(Ok(SessionPage { sessions: vec![session], next: Some("more".into()) })).boxed()
    }

    fn call(
        &self,
        who: Who,
        method: String,
        event: CloudEvent,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        self.note(format!("call {who:?} {method} {timeout:?}"));
        match method.as_str() {
            "hang" => pending().boxed(),
            _ => ready(Self::known(&who).map(|()| event)).boxed(),
        }
    }

    fn survey(
        &self,
        channel: Channel,
        event: CloudEvent,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<SurveyOutcome, ClientError>> {
        self.note(format!("survey {channel} {timeout:?}"));
        let answer = SurveyAnswer { session_id: "s1".into(), payload: Some(event), error: None };
        ready(Ok(SurveyOutcome { answers: vec![answer], asked: 2, truncated: false })).boxed()
    }

    fn nodes(&self) -> BoxFuture<'static, Result<Vec<NodeInfo>, ClientError>> {
        ready(Ok(vec![NodeInfo { id: "n1".into(), local: true, ..NodeInfo::default() }])).boxed()
    }

    fn revoke(&self, what: Revoke, until_unix_ms: u64) -> BoxFuture<'static, Result<(), ClientError>> {
        self.note(format!("revoke {what:?} {until_unix_ms}"));
        ready(Ok(())).boxed()
    }
}

fn with_double() -> (Operations, Arc<Double>) {
    let double = Arc::new(Double::default());
    (operations(Policies::default(), Some(double.clone())), double)
}

fn alone() -> Operations {
    operations(Policies::default(), None)
}

fn event(id: &str) -> CloudEvent {
    CloudEvent {
        id: id.into(),
        source: "source".into(),
        spec_version: "1.0".into(),
        r#type: "t".into(),
        ..CloudEvent::default()
    }
}

fn to(channels: &[&str], sessions: &[&str], users: &[&str]) -> Option<Destination> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Some(Destination { channels: owned(channels), sessions: owned(sessions), users: owned(users) })
}

fn publication(id: &str, destination: Option<Destination>) -> Publication {
    Publication { id: id.into(), destination, payload: Some(event(id)), ..Publication::default() }
}

async fn publish(
    operations: &Operations,
    publications: Vec<Publication>,
) -> Result<Vec<PublishResult>, ClientError> {
    let request = PublishRequest { publications, ..PublishRequest::default() };
    operations.publish(request).await.map(|response| response.results)
}

fn codes(results: &[PublishResult]) -> Vec<&str> {
    results.iter().map(|result| result.error.as_ref().map_or("", |error| error.code.as_str())).collect()
}

async fn ids_of(operations: &Operations, channel: &str) -> Vec<String> {
    let page =
        operations.history(HistoryRequest { channel: channel.into(), ..HistoryRequest::default() }).await;
    page.unwrap().messages.into_iter().map(|message| message.payload.unwrap().id).collect()
}

#[tokio::test]
async fn a_batch_is_stored_in_its_order_and_answered_item_by_item() {
    let operations = alone();
    let too_large = Publication {
        payload: Some(CloudEvent { r#type: "x".repeat(65 * 1024), ..event("big") }),
        ..publication("big", to(&["a"], &[], &[]))
    };
    let results = publish(
        &operations,
        vec![
            publication("1", to(&["a", "b"], &[], &[])),
            publication("2", to(&["a..b"], &[], &[])),
            too_large,
            Publication { payload: None, ..publication("none", to(&["a"], &[], &[])) },
            publication("3", to(&["a"], &["s1"], &[])),
        ],
    )
    .await
    .unwrap();
    assert_eq!(codes(&results), ["", "", "BAD_REQUEST", "TOO_LARGE", "BAD_REQUEST", "", "NOT_SUPPORTED"]);
    let named: Vec<_> = results.iter().map(|result| (result.id.as_str(), result.channel.as_str())).collect();
    assert_eq!(named[..3], [("1", "a"), ("1", "b"), ("2", "a..b")]);
    assert_eq!((results[6].session_id.as_str(), &results[6].position), ("s1", &None));
    assert_eq!(results[5].position.as_ref().unwrap().offset, 2);
    assert_eq!(ids_of(&operations, "a").await, ["1", "3"]);
}

#[tokio::test]
async fn a_retry_with_the_same_key_gets_the_first_position_and_is_not_a_clients() {
    let operations = alone();
    let keyed = |id| Publication {
        options: Some(PublicationOptions { idempotency_key: "k".into(), ..PublicationOptions::default() }),
        ..publication(id, to(&["a"], &[], &[]))
    };
    let first = publish(&operations, vec![keyed("1")]).await.unwrap().remove(0);
    let again = publish(&operations, vec![keyed("2")]).await.unwrap().remove(0);
    assert!(again.duplicate && !first.duplicate && again.position == first.position);
    // An anonymous client's key of the same text is another one.
    let of_client = crate::broker::Publish {
        channel: Channel::parse("a").unwrap(),
        stored: crate::broker::Stored::default(),
        user_id: String::new(),
        idempotency_key: Some("k".into()),
        transient: false,
        job: crate::broker::queue::JobOptions::default(),
    };
    assert!(!operations.broker.publish(of_client).await.unwrap().duplicate);
    let long = Publication {
        options: Some(PublicationOptions {
            idempotency_key: "k".repeat(256),
            ..PublicationOptions::default()
        }),
        ..keyed("3")
    };
    assert_eq!(codes(&publish(&operations, vec![long]).await.unwrap()), ["BAD_REQUEST"]);
}

#[tokio::test]
async fn transient_publications_have_no_position() {
    let operations = alone();
    let options =
        Some(PublicationOptions { transient: true, add_history: true, ..PublicationOptions::default() });
    let results =
        publish(&operations, vec![Publication { options, ..publication("1", to(&["a"], &[], &[])) }]).await;
    assert_eq!(results.unwrap()[0].position, None);
    assert!(ids_of(&operations, "a").await.is_empty());
}

#[tokio::test]
async fn requests_that_go_nowhere_or_are_too_many_do_nothing() {
    let operations = alone();
    let good = || publication("1", to(&["a"], &[], &[]));
    for bad in [
        vec![],
        vec![good(), publication("2", None)],
        vec![good(), publication("2", to(&[], &[], &[]))],
        vec![good(); 1_001],
        vec![good(), publication("2", to(&["b"; 1_000], &[], &[]))],
    ] {
        assert_eq!(publish(&operations, bad).await.unwrap_err().code, ErrorCode::BadRequest);
    }
    assert!(ids_of(&operations, "a").await.is_empty());
    assert!(operations.broadcast(BroadcastRequest::default()).await.is_err());
}

#[tokio::test]
async fn sessions_and_users_get_events_under_a_channel_and_unknown_ones_are_told() {
    let (operations, double) = with_double();
    let labelled =
        Publication { channel: "inbox".into(), ..publication("1", to(&[], &["s1", "s2"], &["ann", ""])) };
    let keyed = Publication {
        options: Some(PublicationOptions { idempotency_key: "k".into(), ..PublicationOptions::default() }),
        ..publication("3", to(&[], &["s1"], &[]))
    };
    let results =
        publish(&operations, vec![labelled, publication("2", to(&[], &["s1"], &[])), keyed]).await.unwrap();
    assert_eq!(codes(&results), ["", "NOT_FOUND", "", "BAD_REQUEST", "", "NOT_SUPPORTED"]);
    assert_eq!((results[0].delivered, results[2].delivered, results[2].user_id.as_str()), (1, 2, "ann"));
    let asked = double.0.lock().unwrap().join("\n");
    assert!(
        asked.contains(r#"send Session("s1") inbox 1"#) && asked.contains(r#"send Session("s1") source 2"#),
        "{asked}"
    );
}

#[tokio::test]
async fn history_is_read_in_pages_and_removed() {
    let operations = alone();
    let all = (1..=150).map(|n| publication(&n.to_string(), to(&["a"], &[], &[]))).collect();
    publish(&operations, all).await.unwrap();
    let ask = |limit, since, reverse| {
        operations.history(HistoryRequest { channel: "a".into(), limit, since, reverse })
    };
    let first = ask(0, None, false).await.unwrap();
    assert_eq!(
        (first.messages.len(), first.truncated, first.position.clone().unwrap().offset),
        (100, true, 150)
    );
    let rest = ask(0, first.messages[99].position.clone(), false).await.unwrap();
    assert_eq!((rest.messages.len(), rest.truncated), (50, false));
    assert_eq!(ask(1, None, true).await.unwrap().messages[0].payload.as_ref().unwrap().id, "150");
    assert_eq!(ask(1_001, None, false).await.unwrap_err().code, ErrorCode::BadRequest);
    operations.remove_history(RemoveHistoryRequest { channel: "a".into() }).await.unwrap();
    assert_eq!(ask(0, None, false).await.unwrap().position, None);
    assert!(operations.remove_history(RemoveHistoryRequest { channel: "a.*".into() }).await.is_err());
}

#[tokio::test]
async fn an_answer_of_large_events_is_cut_and_says_so() {
    let large = ChannelPolicy { max_message_size: 2 << 20, ..ChannelPolicy::default() };
    let operations = operations(Policies::new(Vec::new(), large), None);
    let big = |id: &str| Publication {
        payload: Some(CloudEvent { r#type: "x".repeat(1 << 20), ..event(id) }),
        ..publication(id, to(&["a"], &[], &[]))
    };
    publish(&operations, vec![big("1"), big("2"), big("3")]).await.unwrap();
    let page = operations
        .history(HistoryRequest { channel: "a".into(), ..HistoryRequest::default() })
        .await
        .unwrap();
    assert_eq!((page.messages.len(), page.truncated), (2, true));
}

#[tokio::test]
async fn channels_are_listed_page_by_page() {
    let operations = alone();
    publish(&operations, vec![publication("1", to(&["a.1", "a.2", "a.3", "b.1"], &[], &[]))]).await.unwrap();
    let ask = |pattern: &str, limit, page_token: &str| {
        operations.channels(ChannelsRequest { pattern: pattern.into(), limit, page_token: page_token.into() })
    };
    let names =
        |page: &ChannelsResponse| page.channels.iter().map(|info| info.channel.clone()).collect::<Vec<_>>();
    let first = ask("a.*", 2, "").await.unwrap();
    assert_eq!(names(&first), ["a.1", "a.2"]);
    let second = ask("a.*", 2, &first.next_page_token).await.unwrap();
    assert_eq!((names(&second), second.next_page_token.as_str()), (vec!["a.3".into()], ""));
    assert_eq!(names(&ask("", 0, "").await.unwrap()).len(), 4);
    for (pattern, limit, token) in [("a*", 0, ""), ("", 10_001, ""), ("", 0, "a..b")] {
        assert_eq!(ask(pattern, limit, token).await.unwrap_err().code, ErrorCode::BadRequest);
    }
}

#[tokio::test]
async fn presence_is_not_offered_where_the_policy_has_none() {
    let off = ChannelPolicy { presence: false, ..ChannelPolicy::default() };
    let ask = |operations: Operations| async move {
        operations.presence(PresenceRequest { channel: "a".into(), limit: 0 }).await
    };
    assert_eq!(ask(alone()).await.unwrap().count, 0);
    let refused = ask(operations(Policies::new(Vec::new(), off), None)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotSupported);
}

#[tokio::test]
async fn subscriptions_are_told_channel_by_channel_for_v1_too() {
    let (operations, _) = with_double();
    let channels = vec!["a".to_owned(), "b..".to_owned()];
    let ask = |session_id: &str, user_id: &str| {
        let (session_id, user_id) = (session_id.to_owned(), user_id.to_owned());
        operations.subscribe(SubscribeRequest { session_id, user_id, channels: channels.clone() })
    };
    let response = ask("s1", "").await.unwrap();
    assert_eq!((response.results["a"], response.results["b.."]), (true, false));
    assert_eq!(response.items[1].error.as_ref().unwrap().code, "BAD_REQUEST");
    let unknown = ask("s2", "").await.unwrap();
    assert_eq!(unknown.results.values().collect::<Vec<_>>(), [&false, &false]);
    assert!(unknown.items.iter().all(|item| item.error.as_ref().unwrap().code == "NOT_FOUND"));
    for (session_id, user_id) in [("", ""), ("s1", "ann")] {
        assert_eq!(ask(session_id, user_id).await.unwrap_err().code, ErrorCode::BadRequest);
    }
    let request = UnsubscribeRequest { user_id: "ann".into(), channels, ..UnsubscribeRequest::default() };
    assert_eq!(operations.unsubscribe(request).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn disconnects_say_how_many_there_were_and_close_with_what_was_asked() {
    let (operations, double) = with_double();
    let request = |code, reason: &str| DisconnectRequest {
        sessions: vec!["s1".into(), "s2".into()],
        users: vec!["ann".into()],
        code,
        reason: reason.into(),
    };
    let response = operations.disconnect(request(0, "")).await.unwrap();
    assert_eq!((response.results["s1"], response.results["s2"], response.results.len()), (true, false, 2));
    assert_eq!(response.items.iter().map(|item| item.closed).collect::<Vec<_>>(), [1, 0, 2]);
    assert_eq!(response.items[1].error.as_ref().unwrap().code, "NOT_FOUND");
    assert_eq!((response.items[2].user_id.as_str(), &response.items[2].error), ("ann", &None));
    operations.disconnect(request(4_321, "bye")).await.unwrap();
    let asked = double.0.lock().unwrap().join("\n");
    assert!(asked.contains("3503 force disconnect") && asked.contains("4321 bye"), "{asked}");
    for (code, reason) in [(1_000, ""), (5_000, ""), (70_000, ""), (0, "x".repeat(124).as_str())] {
        assert_eq!(
            operations.disconnect(request(code, reason)).await.unwrap_err().code,
            ErrorCode::BadRequest
        );
    }
    assert!(operations.disconnect(DisconnectRequest::default()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn calls_end_with_their_timeout_which_has_a_limit() {
    let (operations, double) = with_double();
    let ask = |session_id: &str, method: &str, timeout_ms| {
        operations.call(CallRequest {
            session_id: session_id.into(),
            method: method.into(),
            payload: Some(event("1")),
            timeout_ms,
            ..CallRequest::default()
        })
    };
    assert_eq!(ask("s1", "echo", 50).await.unwrap().payload.unwrap().id, "1");
    assert_eq!(ask("s2", "echo", 0).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(ask("s1", "hang", 99_999).await.unwrap_err().code, ErrorCode::RpcTimeout);
    assert_eq!(ask("s1", "", 0).await.unwrap_err().code, ErrorCode::BadRequest);
    let asked = double.0.lock().unwrap().join("\n");
    assert!(asked.contains("echo 50ms") && asked.contains("hang 200ms"), "{asked}");
    let survey = |timeout_ms| {
        operations.survey(SurveyRequest {
            request_id: "r".into(),
            channel: "a".into(),
            payload: Some(event("1")),
            timeout_ms,
        })
    };
    let outcome = survey(0).await.unwrap();
    assert_eq!((outcome.request_id.as_str(), outcome.results.len(), outcome.asked), ("r", 1, 2));
    assert_eq!(survey(-1).await.unwrap_err().code, ErrorCode::BadRequest);
}

#[tokio::test]
async fn sessions_nodes_and_revocations_reach_control() {
    let (operations, double) = with_double();
    let page = operations.sessions(SessionsRequest {
        user_id: "ann".into(),
        limit: 7,
        ..SessionsRequest::default()
    });
    assert_eq!(page.await.unwrap().next_page_token, "more");
    assert!(operations.nodes(NodesRequest {}).await.unwrap().nodes[0].local);
    let revoke = |user_id: &str, token_id: &str, until| {
        operations.revoke(RevokeRequest { user_id: user_id.into(), token_id: token_id.into(), until })
    };
    let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 + 60_000;
    revoke("", "t1", soon).await.unwrap();
    for (user_id, token_id, until) in [
        ("", "", soon),
        ("ann", "t1", soon),
        ("ann", "", 0),
        ("ann", "", soon - 120_000),
        ("ann", "", u64::MAX),
    ] {
        assert_eq!(revoke(user_id, token_id, until).await.unwrap_err().code, ErrorCode::BadRequest);
    }
    let asked = double.0.lock().unwrap().join("\n");
    assert!(asked.contains(r#"user_id: Some("ann")"#) && asked.contains("limit: 7"), "{asked}");
    assert!(asked.contains(&format!(r#"revoke Token("t1") {soon}"#)), "{asked}");
}

#[tokio::test]
async fn without_control_what_needs_sessions_is_not_offered() {
    let operations = alone();
    assert_eq!(operations.nodes(NodesRequest {}).await.unwrap_err().code, ErrorCode::NotSupported);
    let request = CallRequest {
        user_id: "ann".into(),
        method: "m".into(),
        payload: Some(event("1")),
        ..CallRequest::default()
    };
    assert_eq!(operations.call(request).await.unwrap_err().code, ErrorCode::NotSupported);
}
