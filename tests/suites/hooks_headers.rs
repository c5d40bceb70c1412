//! Headers of clients that go with what backends are asked: those that the configuration names, and no others.

use serde_json::json;
use streamgate_e2e::{
    backend::{GrpcBackend, HttpBackend, Notes, Question, Reply},
    events::{extended, frame, live, publish, text},
    gateway::{Addrs, TestNode},
    process::run,
    raw::{RawClient, Via, WsOptions},
    rights::showing,
};
use streamgate_proto::v1::{
    InboundMessage, Subscribe, inbound_message::Envelope as In, outbound_message::Envelope as Out,
};

/// What a client sends besides its token.
const CAME: [(&str, &str); 5] = [
    ("x-tenant", "blue"),
    ("cookie", "session=s3cret"),
    ("x-own", "from the client"),
    ("x-other", "for nobody"),
    ("x-file", "from the client"),
];
const ASKED: [&str; 4] = ["Authenticate", "SubscribeAcl", "PublishAcl", "RPC"];

fn agrees(question: &Question) -> Reply {
    Reply::Json(
        200,
        match question.hook.as_str() {
            "Authenticate" => json!({"user_info": {"id": "ann"}}),
            "RPC" => json!({"payload": question.body["payload"]}),
            _ => json!({}),
        },
    )
}

async fn open(addrs: Addrs, via: Via) -> RawClient {
    match via {
        Via::Grpc => RawClient::open_grpc(addrs, "t", &CAME).await,
        _ => {
            let options = if via == Via::WsJson { WsOptions::json() } else { WsOptions::proto() };
            let options =
                CAME.iter().fold(options.bearer("t"), |options, (name, value)| options.header(name, value));
            RawClient::open_ws(addrs, options).await
        }
    }
}

/// Has every hook asked that a client can cause.
async fn all_hooks(addrs: Addrs, via: Via) {
    let mut client = open(addrs, via).await;
    client.say_connect(showing(extended([]), "")).await;
    let subscribe = Subscribe { subscriptions: vec![live("room.1")] };
    let answer = client.request(frame(In::Subscribe(subscribe))).await;
    assert!(matches!(answer.envelope, Some(Out::SubscribeAck(_))), "{answer:?}");
    client.publish_frame(publish("room.1", text("1", "x"))).await;
    let call = InboundMessage {
        channel: "shop".into(),
        method: "m".into(),
        ..frame(In::RpcRequest(text("2", "y")))
    };
    let answer = client.request(call).await;
    assert!(matches!(answer.envelope, Some(Out::RpcReply(_))), "{answer:?}");
    client.close().await;
}

fn proxy(name: &str, endpoint: &str, more: &str, asked: bool) -> String {
    let routes = if asked {
        "[{channel: '', method: $authenticate}, {channel: 'room.*', method: subscribe}, {channel: 'room.*', method: publish}, \
         {channel: shop, method: m}]"
    } else {
        "[]"
    };
    format!("  - {{name: {name}, endpoint: '{endpoint}', lifecycle: true, {more}, routes: {routes}}}\n")
}

async fn sees(notes: &Notes, via: Via, expected: &[(&str, Option<&str>)]) {
    for hook in ASKED {
        let question = notes.until(hook, 1).await.pop().unwrap();
        for (name, value) in expected {
            assert_eq!(question.headers.get(*name).map(String::as_str), *value, "{via:?} {hook} {name}");
        }
    }
    let told = notes.until("OnConnected", 1).await.pop().unwrap();
    assert_eq!((told.headers.get("x-tenant"), told.headers.get("cookie")), (None, None), "{via:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_gets_the_headers_that_it_is_configured_to_get_with_every_question() {
    let file = std::env::temp_dir().join(format!("streamgate-own-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, "from a file\n").unwrap();
    let names = "forward_headers: [X-Tenant, cookie, x-own, x-file, authorization]";
    for via in Via::ALL {
        for over_grpc in [false, true] {
            let (http, grpc) = (HttpBackend::start(agrees).await, GrpcBackend::start(agrees).await);
            let other = HttpBackend::start(agrees).await;
            let (endpoint, section, own, files) = match over_grpc {
                true => (grpc.endpoint(), "grpc", "metadata", "metadata_files"),
                false => (http.url(), "http", "headers", "header_files"),
            };
            let more = format!(
                "{names}, {section}: {{{own}: {{x-own: ours}}, {files}: {{x-file: '{}'}}}}",
                file.display()
            );
            let yaml = format!(
                "proxy:\n{}{}",
                proxy("asked", &endpoint, &more, true),
                proxy("other", &other.url(), "forward_headers: [x-nothing]", false)
            );
            let node = TestNode::start(&yaml).await;
            all_hooks(node.addrs(), via).await;
            let notes = if over_grpc { &grpc.notes } else { &http.notes };
            let expected = [
                ("x-tenant", Some("blue")),
                ("cookie", Some("session=s3cret")),
                ("authorization", Some("Bearer t")),
                ("x-own", Some("ours")),
                ("x-file", Some("from a file")),
                ("x-other", None),
                ("sec-websocket-key", None),
            ];
            sees(notes, via, &expected).await;
            let told = other.notes.until("OnConnected", 1).await.pop().unwrap();
            assert_eq!(told.headers.get("x-tenant"), None, "{via:?}");
        }
    }
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_passed_on_by_default() {
    for via in Via::ALL {
        let backend = HttpBackend::start(agrees).await;
        let yaml = format!("proxy:\n{}", proxy("asked", &backend.url(), "max_concurrent: 10", true));
        let node = TestNode::start(&yaml).await;
        all_hooks(node.addrs(), via).await;
        let expected: Vec<_> =
            CAME.iter().map(|(name, _)| (*name, None)).chain([("authorization", None)]).collect();
        sees(&backend.notes, via, &expected).await;
    }
}

#[test]
fn names_that_cannot_be_passed_on_are_refused_at_the_start() {
    for name in ["Host", "connection", "Sec-WebSocket-Key", "streamgate-hook", "grpc-timeout", "content-type"]
    {
        let file = std::env::temp_dir().join(format!("streamgate-{}.yaml", uuid::Uuid::new_v4()));
        std::fs::write(&file, format!("proxy: [{{endpoint: 'http://a', forward_headers: [{name}]}}]\n"))
            .unwrap();
        let output = run(&["serve", "--config", file.to_str().unwrap()]);
        std::fs::remove_file(&file).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{name}");
        assert!(said.contains("proxy[0].forward_headers") && said.contains(name), "{said}");
        assert!(said.contains("cannot be forwarded"), "{said}");
    }
}
