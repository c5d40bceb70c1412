//! Who may do what: every action, by everyone that a rule can name, allowed and denied, on every transport; patterns, own
//! channels, and what is left to a backend.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use serde_json::json;
use streamgate::{
    error::{ClientError, ErrorCode},
    node::NodeBuilder,
    policy::rights::{Action, Arbiter, Asked},
    session::RpcRequest,
};
use streamgate_e2e::{
    events::{extended, frame, live, publish, recover, text, text_of, v1},
    gateway::TestNode,
    raw::{RawClient, Via},
    rights::{ACTIONS, OPEN, attempt, client, permissions, showing, signed, token},
};
use streamgate_proto::{
    cloudevents::{CloudEvent, Data},
    v1::{
        InboundMessage, Position, RpcServe, SubRefresh, Subscribe, Subscription, SurveyRequest,
        inbound_message::Envelope as In, outbound_message::Envelope as Out,
    },
};
use tokio::sync::oneshot;

fn serving(builder: NodeBuilder) -> NodeBuilder {
    builder.handler("**", "**", |request: RpcRequest| async move { Ok(request.event) })
}

/// Allows what its user may, and notes the questions. Publishes come back with other data.
#[derive(Default)]
struct Backend {
    asked: Mutex<Vec<Asked>>,
    /// Publishes of this text wait for it.
    hold: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Backend {
    fn verdict(&self, asked: Asked) -> Result<(), ClientError> {
        let yes = asked.user_id == "ann" || asked.token == "opaque";
        let text = format!("the backend says no to {}", asked.channel);
        self.asked.lock().unwrap().push(asked);
        if yes { Ok(()) } else { Err(ClientError::new(ErrorCode::AclError, text)) }
    }
}

impl Arbiter for Backend {
    fn subscribe(&self, asked: Asked) -> BoxFuture<'static, Result<(), ClientError>> {
        let verdict = self.verdict(asked);
        Box::pin(async move { verdict })
    }

    fn publish(
        &self,
        asked: Asked,
        event: CloudEvent,
    ) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        let verdict = self.verdict(asked);
        let hold = if text_of(&event) == "slow" { self.hold.lock().unwrap().take() } else { None };
        Box::pin(async move {
            if let Some(hold) = hold {
                hold.await.ok();
            }
            let seen = format!("seen: {}", text_of(&event));
            verdict.map(|()| CloudEvent { data: Some(Data::TextData(seen)), ..event })
        })
    }
}

#[tokio::test]
async fn every_line_of_the_table_on_every_transport() {
    let editor = signed(&json!({"sub": "ann", "role": "editor"}));
    let clients = [("ann", editor), ("bob", token("bob")), ("nobody", String::new())];
    // Whom a rule is for, of those.
    let rows = [
        ("any", [true, true, true]),
        ("authenticated", [true, true, false]),
        ("{users: [ann, cyd]}", [true, false, false]),
        ("{claims: {role: [admin, editor]}}", [true, false, false]),
        ("hook", [true, false, false]),
    ];
    let all = "[subscribe, publish, presence, history, survey, rpc, serve]";
    for (who, meant) in rows {
        for effect in ["allow", "deny"] {
            let rule = format!("{{channels: [room.**], actions: {all}, who: {who}, effect: {effect}}}");
            let rules = match effect {
                "deny" if who == "hook" => continue,
                "deny" => format!("{rule}, {{channels: ['**'], actions: {all}, who: any}}"),
                _ => rule,
            };
            let node = TestNode::start_with(&permissions(&rules), |builder| {
                serving(builder.arbiter(Arc::new(Backend::default())))
            })
            .await;
            for via in Via::ALL {
                for ((name, token), meant) in clients.iter().zip(meant) {
                    let mut client = client(&node, via, token).await;
                    let (inside, outside) = match (effect, meant) {
                        ("allow", true) => ("", "ACL_ERROR"),
                        ("allow", false) => ("ACL_ERROR", "ACL_ERROR"),
                        (_, true) => ("ACL_ERROR", ""),
                        (_, false) => ("", ""),
                    };
                    for action in ACTIONS {
                        let line = format!("{via:?} {effect} {who} {name} {action:?}");
                        assert_eq!(attempt(&mut client, action, "room.a").await, inside, "{line}");
                        assert_eq!(attempt(&mut client, action, "hall").await, outside, "{line}");
                    }
                    // A refusal closes nobody but a client of v1 that subscribes.
                    let answer = client.request(frame(In::Ping(Default::default()))).await;
                    assert!(matches!(answer.envelope, Some(Out::Pong(_))), "{answer:?}");
                    let connect = showing(v1([]), token);
                    let mut old = RawClient::connect_as(node.addrs(), via, connect).await;
                    let line = format!("{via:?} {effect} {who} {name} v1");
                    assert_eq!(attempt(&mut old, Action::Publish, "room.a").await, inside, "{line}");
                    assert_eq!(attempt(&mut old, Action::Rpc, "room.a").await, inside, "{line}");
                    assert_eq!(attempt(&mut old, Action::Subscribe, "room.a").await, inside, "{line}");
                    if !inside.is_empty() {
                        assert_eq!(old.close_code().await, 3500, "{line}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn without_rules_everything_but_survey_and_serve_is_open() {
    let node = TestNode::start_with(OPEN, serving).await;
    for via in Via::ALL {
        let mut client = client(&node, via, "").await;
        for action in ACTIONS {
            assert_eq!(attempt(&mut client, action, "a.b").await, "", "{via:?} {action:?}");
        }
        let serve = In::RpcServe(RpcServe { methods: vec!["m".into()] });
        let survey = SurveyRequest { payload: Some(text("q", "?")), ..SurveyRequest::default() };
        let survey = InboundMessage { channel: "a.b".into(), ..frame(In::SurveyRequest(survey)) };
        for request in [frame(serve), survey] {
            assert_eq!(client.refused(request).await.code, "ACL_ERROR");
        }
    }
}

#[tokio::test]
async fn two_stars_do_not_open_what_is_denied() {
    let node = TestNode::start(&permissions(
        "{channels: ['**'], actions: [subscribe, presence], who: any}, \
         {channels: [admin.**], actions: [subscribe], who: any, effect: deny}, \
         {channels: [hidden.*], actions: [presence], who: any, effect: deny}",
    ))
    .await;
    for via in Via::ALL {
        let mut client = client(&node, via, "").await;
        for pattern in ["**", "*", "*.x", "admin.**", "admin.a", "*.**", "admin"] {
            assert_eq!(
                attempt(&mut client, Action::Subscribe, pattern).await,
                "ACL_ERROR",
                "{via:?} {pattern}"
            );
        }
        for pattern in ["public.**", "a.*.admin", "adminx"] {
            assert_eq!(attempt(&mut client, Action::Subscribe, pattern).await, "", "{via:?} {pattern}");
        }
        // Watching who comes and goes is a right of its own.
        let watching = |name: &str| Subscription { presence: true, ..live(name) };
        for name in ["hidden.a", "hidden.*", "hidden.**"] {
            let subscribe = In::Subscribe(Subscribe { subscriptions: vec![live("free"), watching(name)] });
            assert_eq!(client.refused(frame(subscribe)).await.code, "ACL_ERROR", "{via:?} {name}");
        }
        client.subscribe([watching("hidden")]).await;
    }
    // None of a refused batch is subscribed.
    let mut one = client(&node, Via::WsJson, "").await;
    let subscribe = In::Subscribe(Subscribe { subscriptions: vec![live("free"), live("admin.a")] });
    let error = one.refused(frame(subscribe)).await;
    assert!(error.message.contains("admin.a"), "{error:?}");
    one.publish("free", text("1", "x")).await;
    one.quiet().await;
}

#[tokio::test]
async fn a_user_has_channels_of_its_own_if_its_id_is_one_segment() {
    let node = TestNode::start(&permissions(
        "{channels: ['user.{user_id}.**'], actions: [subscribe, publish, history], who: any}",
    ))
    .await;
    for via in Via::ALL {
        let mut ann = client(&node, via, &token("ann")).await;
        for name in ["user.ann.inbox", "user.ann.**", "user.ann"] {
            assert_eq!(attempt(&mut ann, Action::Subscribe, name).await, "", "{via:?} {name}");
        }
        for name in ["user.bob.inbox", "user.*.inbox", "user.**", "user.{user_id}.inbox", "**"] {
            assert_eq!(attempt(&mut ann, Action::Subscribe, name).await, "ACL_ERROR", "{via:?} {name}");
        }
        assert_eq!(attempt(&mut ann, Action::Publish, "user.bob.inbox").await, "ACL_ERROR");
        for user in ["a.b", "*", "**", "a b"] {
            let mut other = client(&node, via, &token(user)).await;
            for name in ["user.a.b", "user.a.x", "user.*.x", "user.**", "user.x.y"] {
                assert_eq!(attempt(&mut other, Action::Subscribe, name).await, "ACL_ERROR", "{user} {name}");
            }
        }
    }
}

#[tokio::test]
async fn who_may_not_read_the_past_gets_no_recovery() {
    let node =
        TestNode::start(&permissions("{channels: [keep.**], actions: [history], who: {users: [ann]}}")).await;
    let mut bob = client(&node, Via::WsJson, &token("bob")).await;
    bob.publish("keep.a", text("1", "past")).await;
    let cursor = || Position { epoch: "0".into(), offset: 0 };
    bob.subscribe([recover("keep.a", cursor())]).await;
    let (replays, complete) = bob.recovered().await;
    assert_eq!((replays.len(), complete.error.unwrap().code), (0, "ACL_ERROR".to_owned()));
    bob.publish("keep.a", text("2", "live")).await;
    assert_eq!(bob.texts(1).await, ["live"], "the subscription itself is live");
    let mut ann = client(&node, Via::WsProto, &token("ann")).await;
    ann.subscribe([recover("keep.a", cursor())]).await;
    assert_eq!(ann.recovered().await.0.len(), 2);
}

#[tokio::test]
async fn what_is_left_to_a_backend_is_asked_and_publishes_keep_their_order() {
    let backend = Arc::new(Backend::default());
    let rules = "{channels: ['**'], actions: [subscribe, publish], who: hook}, \
                 {channels: [open.**], actions: [subscribe, publish], who: any}";
    let node = TestNode::start_with(&permissions(rules), |builder| builder.arbiter(backend.clone())).await;
    for via in Via::ALL {
        backend.asked.lock().unwrap().clear();
        let connect = showing(extended([live("open.b"), live("in.a.*")]), &token("ann"));
        let mut ann = RawClient::connect_as(node.addrs(), via, connect).await;
        {
            let asked = backend.asked.lock().unwrap();
            let [one] = &asked[..] else { panic!("one question: {asked:?}") };
            assert_eq!(
                (one.action, one.channel.as_str()),
                (Action::Subscribe, "in.a.*"),
                "the pattern itself"
            );
            assert_eq!((one.user_id.as_str(), one.client_id.as_str()), ("ann", "raw"));
            assert_eq!(one.session_id, ann.connected.session_id);
        }
        let (release, hold) = oneshot::channel();
        *backend.hold.lock().unwrap() = Some(hold);
        for (channel, data) in
            [("in.a.1", "slow"), ("in.a.1", "next"), ("open.b", "open"), ("in.a.1", "last")]
        {
            ann.send(InboundMessage { id: data.into(), ..publish(channel, text("1", data)) }).await;
        }
        // Its other requests go on meanwhile.
        ann.subscribe_to("open.c").await;
        release.send(()).unwrap();
        for id in ["slow", "next", "open", "last"] {
            assert!(matches!(ann.answer_to(id).await.envelope, Some(Out::PublishAck(_))), "{via:?} {id}");
        }
        let mut texts = ann.texts(4).await;
        // Two channels: each of them in order.
        texts.retain(|text| text != "open");
        assert_eq!(texts, ["seen: slow", "seen: next", "seen: last"], "{via:?}");
        // Another user is told no, whatever it asks for; the token is the backend's to look at.
        let mut bob = client(&node, via, &token("bob")).await;
        assert_eq!(attempt(&mut bob, Action::Subscribe, "in.a.1").await, "ACL_ERROR");
        assert_eq!(attempt(&mut bob, Action::Publish, "in.a.1").await, "ACL_ERROR");
        bob.subscribe([Subscription { token: "opaque".into(), ..live("in.a.1") }]).await;
        // Asked again without the token, it says no: the right is lost.
        let refresh = |name: &str| frame(In::SubRefresh(SubRefresh { channels: vec![name.into()] }));
        let answer = ann.request(refresh("in.a.*")).await;
        assert!(matches!(answer.envelope, Some(Out::SubRefreshAck(_))), "{answer:?}");
        bob.send(refresh("in.a.1")).await;
        assert_eq!(bob.close_code().await, 3507, "{via:?}");
    }
}

#[tokio::test]
async fn what_is_left_to_a_backend_is_denied_where_there_is_none() {
    let node = TestNode::start(&permissions(
        "{channels: ['**'], actions: [subscribe, publish, presence, history, rpc], who: hook}",
    ))
    .await;
    for via in Via::ALL {
        let mut client = client(&node, via, &token("ann")).await;
        for action in ACTIONS {
            assert_eq!(attempt(&mut client, action, "a").await, "ACL_ERROR", "{via:?} {action:?}");
        }
    }
}

/// Says nothing for ever, or panics.
struct Broken;

impl Arbiter for Broken {
    fn subscribe(&self, asked: Asked) -> BoxFuture<'static, Result<(), ClientError>> {
        assert!(asked.channel != "panic", "as the test wants");
        Box::pin(std::future::pending())
    }

    fn publish(&self, _: Asked, _: CloudEvent) -> BoxFuture<'static, Result<CloudEvent, ClientError>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_backend_that_never_answers_costs_the_request_its_time_and_nobody_else_any() {
    let yaml = format!(
        "server: {{rpc_timeout: 300ms}}\n{}",
        permissions(
            "{channels: [asked, panic], actions: [subscribe, publish], who: hook}, \
             {channels: [open], actions: [subscribe, publish], who: any}"
        )
    );
    let node = TestNode::start_with(&yaml, |builder| builder.arbiter(Arc::new(Broken))).await;
    let mut client = client(&node, Via::WsJson, "").await;
    let subscribe = |name: &str| frame(In::Subscribe(Subscribe { subscriptions: vec![live(name)] }));
    assert_eq!(client.refused(subscribe("asked")).await.code, "RPC_TIMEOUT");
    assert_eq!(client.refused(subscribe("panic")).await.code, "INTERNAL");
    assert_eq!(client.refused(publish("asked", text("1", ""))).await.code, "RPC_TIMEOUT");
    client.subscribe_to("open").await;
    client.publish("open", text("1", "on")).await;
    assert_eq!(client.texts(1).await, ["on"]);
}
