//! Backends answer calls, tell who clients are and decide on channels, over HTTP and gRPC.

use serde_json::json;
use streamgate::{
    config::assemble,
    hooks::Hooks,
    policy::rights::{Action, Arbiter as _, Asked},
};
use streamgate_e2e::{
    backend::{GrpcBackend, HttpBackend, Question, Reply},
    events::{extended, frame, text, text_of, v1},
    gateway::TestNode,
    process::GatewayProcess,
    raw::{RawClient, Via},
};
use streamgate_proto::{
    cloudevents::CloudEvent,
    v1::{Connect, InboundMessage, inbound_message::Envelope as In, outbound_message::Envelope as Out},
};

fn call(channel: &str, method: &str, event: CloudEvent) -> InboundMessage {
    InboundMessage { channel: channel.into(), method: method.into(), ..frame(In::RpcRequest(event)) }
}

/// Answers every call with what was sent, and its method.
fn mirror(question: &Question) -> Reply {
    let mut payload = question.body["payload"].clone();
    payload["type"] = question.body["method"].clone();
    Reply::Json(200, json!({"id": question.body["id"], "payload": payload}))
}

/// Knows the token `good` of ann, and one that lasts for a moment only.
fn doorkeeper(question: &Question) -> Reply {
    let in_a_moment = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        (since.as_millis() + 1_500).to_string()
    };
    match question.body["password"].as_str() {
        Some("good") => Reply::Json(200, json!({"user_info": {"id": "ann", "channels": ["news"]}})),
        Some("brief") => Reply::Json(200, json!({"user_info": {"id": "ann", "expires_at": in_a_moment()}})),
        Some("odd") => Reply::Json(200, json!({})),
        Some("forbidden") => Reply::Json(403, json!("no")),
        _ => Reply::Json(200, json!({"error": {"code": "WHO", "message": "never heard of"}})),
    }
}

#[tokio::test]
async fn calls_are_answered_by_the_first_backend_whose_route_matches() {
    let (http, grpc) = (HttpBackend::start(mirror).await, GrpcBackend::start(mirror).await);
    let node = TestNode::start(&format!(
        "proxy:
  - {{name: a, endpoint: '{}/hooks/{{hook}}', http: {{headers: {{X-Api-Key: k1}}}}, routes: [{{channel: 'chat.*', method: '*'}}]}}
  - {{name: b, endpoint: '{}', grpc: {{insecure: true, metadata: {{x-api-key: k2}}}}, routes: [{{channel: '**', method: get}}]}}
",
        http.url(),
        grpc.endpoint()
    ))
    .await;
    for (number, via) in Via::ALL.into_iter().enumerate() {
        for connect in [v1([]), extended([])] {
            let mut client = RawClient::connect_as(node.addrs(), via, connect).await;
            for (channel, method) in [("chat.1", "send"), ("other.place", "get")] {
                let answer = client.request(call(channel, method, text("e1", "hello"))).await;
                let Some(Out::RpcReply(reply)) = answer.envelope else { panic!("{via:?}: {answer:?}") };
                assert_eq!((reply.r#type.as_str(), text_of(&reply)), (method, "hello"), "{via:?}");
            }
            let error = client.refused(call("chat.1.2", "send", text("e1", ""))).await;
            assert_eq!(error.code, "NO_PROXY");
        }
        let (of_http, of_grpc) =
            (http.notes.until("RPC", 2 * number + 2).await, grpc.notes.until("RPC", 2 * number + 2).await);
        let (first, second) = (of_http.last().unwrap(), of_grpc.last().unwrap());
        assert_eq!(first.path, "/hooks/RPC");
        assert_eq!((first.headers["x-api-key"].as_str(), second.headers["x-api-key"].as_str()), ("k1", "k2"));
        assert_eq!(first.headers["content-type"], "application/json");
        for question in [first, second] {
            assert!(!question.body["session_id"].as_str().unwrap().is_empty(), "{question:?}");
            assert_eq!(question.body["client_id"], "raw");
            assert_eq!(question.body.get("user_id"), None, "nobody in particular");
        }
    }
}

#[tokio::test]
async fn a_backends_own_error_reaches_the_client_as_it_is() {
    let error =
        json!({"code": "OUT_OF_STOCK", "type": "shop", "message": "none left", "metadata": {"left": 0.0}});
    let refuse = move |_: &Question| Reply::Json(200, json!({"error": error}));
    let (http, grpc) = (HttpBackend::start(refuse.clone()).await, GrpcBackend::start(refuse).await);
    let node = TestNode::start(&format!(
        "proxy:
  - {{endpoint: '{}', routes: [{{channel: http, method: '*'}}]}}
  - {{endpoint: '{}', routes: [{{channel: grpc, method: '*'}}]}}
",
        http.url(),
        grpc.endpoint()
    ))
    .await;
    let mut client = RawClient::connect_v1(node.addrs(), Via::WsJson).await;
    for channel in ["http", "grpc"] {
        let error = client.refused(call(channel, "buy", text("1", ""))).await;
        assert_eq!((error.code.as_str(), error.r#type.as_str()), ("OUT_OF_STOCK", "shop"), "{channel}");
        assert_eq!((error.message.as_str(), error.metadata.is_some()), ("none left", true), "{channel}");
    }
    client.quiet().await;
}

#[tokio::test]
async fn a_backend_says_who_clients_are() {
    let (http, grpc) = (HttpBackend::start(doorkeeper).await, GrpcBackend::start(doorkeeper).await);
    for endpoint in [http.url(), grpc.endpoint()] {
        let yaml =
            format!("proxy: [{{endpoint: '{endpoint}', routes: [{{channel: '', method: $authenticate}}]}}]");
        let node = TestNode::start(&yaml).await;
        let showing = |connect: Connect, token: &str| Connect { token: token.into(), ..connect };
        for via in Via::ALL {
            let client = RawClient::connect_as(node.addrs(), via, showing(extended([]), "good")).await;
            assert_eq!(client.connected.user_id, "ann", "{via:?}");
            assert_eq!(client.connected.subscriptions[0].channel, "news", "{via:?}");
            let mut brief = RawClient::connect_as(node.addrs(), via, showing(v1([]), "brief")).await;
            for (token, said) in [
                ("bad", "does not accept"),
                ("forbidden", "does not accept"),
                ("odd", "cannot be checked"),
                ("", "needed"),
            ] {
                let mut client = RawClient::open(node.addrs(), via).await;
                let error = client.refused(frame(In::Connect(showing(v1([]), token)))).await;
                assert_eq!(error.code, "AUTH_ERROR", "{via:?} {token}");
                assert!(error.message.contains(said), "{token}: {}", error.message);
                assert_eq!(client.close_code().await, 3500, "{via:?} {token}");
            }
            let (code, reason) = brief.closed().await;
            assert!(code == 3500 && reason.contains("expired"), "{code} {reason}");
        }
    }
    let asked = &http.notes.until("Authenticate", 1).await[0].body;
    assert_eq!((asked["username"].as_str(), asked["password"].as_str()), (Some("raw"), Some("good")));
    assert_eq!((asked["client_id"].as_str(), asked["username"].as_str()), (Some("raw"), Some("raw")));
    assert!(http.notes.asked().iter().all(|question| question.body["password"] != ""));
}

#[tokio::test]
async fn nobody_is_let_in_while_the_backend_is_away_and_no_log_shows_a_token() {
    let backend = HttpBackend::start(|_| Reply::Json(500, json!("s3cret words"))).await;
    let gateway = GatewayProcess::start(&format!(
        "log: {{level: 'trace,streamgate=trace'}}
proxy: [{{name: door, endpoint: '{}', timeout: 1s, http: {{headers: {{Authorization: Bearer h3ader}}}}, routes: [{{channel: '', method: $authenticate}}]}}]
",
        backend.url()
    ))
    .await;
    let turned_away = async |token: &str| {
        let mut client = RawClient::open(gateway.addrs(), Via::WsJson).await;
        let connect = Connect { token: token.into(), ..extended([]) };
        let error = client.refused(frame(In::Connect(connect))).await;
        assert_eq!((error.code.as_str(), client.close_code().await), ("AUTH_ERROR", 3500));
        assert!(error.message.contains("cannot be checked"), "{}", error.message);
    };
    turned_away("s3cret-token").await;
    backend.notes.answer(|_| Reply::Stall);
    turned_away("s3cret-token").await;
    drop(backend);
    turned_away("s3cret-token").await;
    gateway.logged("the warning", |line| line.contains("door") && line.contains("cannot be checked")).await;
    let log = gateway.log_text();
    for secret in ["s3cret", "h3ader"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

/// The hooks of a node with this `proxy` section.
fn hooks(yaml: &str) -> Hooks {
    let (config, _) = assemble("test", yaml, &[]).unwrap();
    Hooks::new(&config.backends, config.rpc_timeout).unwrap()
}

/// Lets through what is for ann, marks what she publishes, and has an error for bob.
fn gatekeeper(question: &Question) -> Reply {
    let body = &question.body;
    match (question.hook.as_str(), body["user_id"].as_str()) {
        ("PublishAcl", Some("ann")) => {
            let mut payload = body["payload"].clone();
            payload["text_data"] = json!("marked");
            Reply::Json(200, json!({"payload": payload}))
        }
        (_, Some("ann")) => Reply::Json(200, json!({})),
        (_, Some("bob")) => Reply::Json(200, json!({"error": {"code": "NOT_YOU", "message": "bob"}})),
        _ => Reply::Json(403, json!("nobody")),
    }
}

#[tokio::test]
async fn backends_decide_on_subscriptions_and_publishes() {
    let (http, grpc) = (HttpBackend::start(gatekeeper).await, GrpcBackend::start(gatekeeper).await);
    for endpoint in [http.url(), grpc.endpoint()] {
        let hooks = hooks(&format!(
            "proxy: [{{endpoint: '{endpoint}', routes: [{{channel: 'room.*', method: subscribe}}, {{channel: 'room.*', method: publish}}]}}]"
        ));
        let asked = |user: &str| Asked {
            action: Action::Subscribe,
            channel: "room.1".into(),
            token: "t".into(),
            session_id: "s".into(),
            user_id: user.into(),
            client_id: "c".into(),
            headers: Default::default(),
        };
        let event = text("1", "plain");
        for action in [Action::Subscribe, Action::Publish] {
            assert!(hooks.decides(action, "room.1") && hooks.decides(action, "**"));
            assert!(!hooks.decides(action, "room.1.2"));
        }
        assert_eq!(hooks.subscribe(asked("ann")).await, Ok(()), "{endpoint}");
        let published = hooks.publish(asked("ann"), event.clone()).await.unwrap();
        assert_eq!((text_of(&published), published.id.as_str()), ("marked", "1"));
        let error = hooks.subscribe(asked("bob")).await.unwrap_err().to_wire();
        // Its own code is no verdict of the gateway.
        assert_eq!((error.code.as_str(), error.message.as_str()), ("ACL_ERROR", "bob"));
        for error in [
            hooks.subscribe(asked("")).await.unwrap_err(),
            hooks.publish(asked(""), event.clone()).await.unwrap_err(),
            hooks.subscribe(Asked { channel: "elsewhere".into(), ..asked("ann") }).await.unwrap_err(),
        ] {
            assert_eq!(error.code.as_str(), "ACL_ERROR", "{error}");
        }
    }
    let question = &http.notes.until("SubscribeAcl", 1).await[0];
    let expected = json!({"channel": "room.1", "token": "t", "session_id": "s", "user_id": "ann", "client_id": "c", "action": "subscribe"});
    assert_eq!(question.body, expected);
}
