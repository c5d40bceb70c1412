//! Clients prove who they are with a JWT: where they may show it, what becomes of a bad one, and of one that ends.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use streamgate_e2e::{
    events::{extended, frame, live, text, v1},
    gateway::TestNode,
    process::{GatewayProcess, run},
    raw::{RawClient, Via, WsOptions},
};
use streamgate_proto::v1::{
    Connect, PresenceQuery, Refresh, inbound_message::Envelope as In, outbound_message::Envelope as Out,
};

const SECRET: &str = "a secret of at least thirty-two bytes";
const OTHER: &str = "another secret of thirty-two bytes and more";
const YAML: &str = "auth: {jwt: {issuer: us, audience: gateway, leeway: 0s, \
                    keys: [{id: k1, algorithm: HS256, secret: a secret of at least thirty-two bytes}]}}";

fn claims(user: &str) -> Value {
    json!({"sub": user, "iss": "us", "aud": "gateway"})
}

fn signed(claims: &Value, secret: &str) -> String {
    let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
    encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn token(user: &str) -> String {
    signed(&claims(user), SECRET)
}

/// A token that ends in so many seconds.
fn ending(user: &str, seconds: i64) -> String {
    let mut claims = claims(user);
    claims["exp"] = json!(get_current_timestamp().cast_signed() + seconds);
    signed(&claims, SECRET)
}

fn showing(connect: Connect, token: String) -> Connect {
    Connect { token, ..connect }
}

/// Connects with what the client was opened with, and is not let in: the error's code, its message and the close code.
async fn turned_away(mut client: RawClient, connect: Connect) -> (String, String, u16) {
    let error = client.refused(frame(In::Connect(connect))).await;
    (error.code, error.message, client.close_code().await)
}

#[tokio::test]
async fn a_token_is_taken_from_the_frame_the_header_the_metadata_and_the_query() {
    let node = TestNode::start(YAML).await;
    for via in Via::ALL {
        let client = RawClient::connect_as(node.addrs(), via, showing(extended([]), token("ann"))).await;
        assert_eq!(client.connected.user_id, "ann", "{via:?} frame");
        let mut client = RawClient::open_with(node.addrs(), via, &token("bob")).await;
        client.say_connect(extended([])).await;
        assert_eq!(client.connected.user_id, "bob", "{via:?} header");
        // The frame goes before what came with the connection.
        let mut client = RawClient::open_with(node.addrs(), via, &token("bob")).await;
        client.say_connect(showing(extended([]), token("ann"))).await;
        assert_eq!(client.connected.user_id, "ann", "{via:?} both");
        // A v1 client gets in by the same words, and no field that it does not know.
        RawClient::connect_as(node.addrs(), via, showing(v1([]), token("ann"))).await;
    }
    let query = format!("x=1&access_token={}", token("cyd"));
    let mut client = RawClient::open_ws(node.addrs(), WsOptions::json().query(query)).await;
    client.say_connect(extended([])).await;
    assert_eq!(client.connected.user_id, "cyd");
}

#[tokio::test]
async fn a_bad_token_gets_auth_error_and_3500_on_every_transport_wherever_it_stands() {
    let node = TestNode::start(YAML).await;
    let bad = [
        (signed(&claims("ann"), OTHER), "signature"),
        (ending("ann", -10), "expired"),
        (signed(&json!({"sub": "ann", "iss": "them", "aud": "gateway"}), SECRET), "issuer"),
        (signed(&json!({"sub": "ann", "iss": "us", "aud": "x"}), SECRET), "audience"),
        (signed(&json!({"iss": "us", "aud": "gateway"}), SECRET), "`sub`"),
        ("not a token".to_owned(), "not a JWT"),
        ("a".repeat(32 * 1024), "too long"),
    ];
    for via in Via::ALL {
        for connect in [extended([]), v1([])] {
            for (token, why) in &bad {
                let client = RawClient::open(node.addrs(), via).await;
                let (code, message, close) =
                    turned_away(client, showing(connect.clone(), token.clone())).await;
                assert_eq!((code.as_str(), close), ("AUTH_ERROR", 3500), "{via:?} {why}");
                assert!(message.contains(why), "{via:?} {why}: {message}");
            }
            let (code, message, close) =
                turned_away(RawClient::open(node.addrs(), via).await, connect.clone()).await;
            assert_eq!((code.as_str(), close), ("AUTH_ERROR", 3500), "{via:?} none");
            assert!(message.contains("needed"), "{message}");
        }
        let client = RawClient::open_with(node.addrs(), via, &bad[0].0).await;
        assert_eq!(turned_away(client, extended([])).await.2, 3500, "{via:?} in the header");
    }
}

#[tokio::test]
async fn who_shows_nothing_is_anonymous_only_where_that_is_allowed_and_a_bad_token_never_is() {
    let node = TestNode::start(&format!("{{allow_anonymous: true, {YAML}}}")).await;
    let client = RawClient::connect(node.addrs(), Via::WsJson).await;
    assert_eq!(client.connected.user_id, "");
    let client = RawClient::open(node.addrs(), Via::WsJson).await;
    let bad = signed(&claims("ann"), OTHER);
    assert_eq!(turned_away(client, showing(extended([]), bad)).await.2, 3500);
}

#[tokio::test]
async fn the_token_names_the_user_and_subscribes_to_its_channels() {
    let node = TestNode::start(YAML).await;
    let mut of_token = claims("ann");
    of_token["channels"] = json!(["news", "team.*"]);
    let connect = showing(extended([live("own")]), signed(&of_token, SECRET));
    let mut client = RawClient::connect_as(node.addrs(), Via::WsJson, connect).await;
    let mut names: Vec<_> = client.connected.subscriptions.iter().map(|s| s.channel.clone()).collect();
    names.sort_unstable();
    assert_eq!(names, ["news", "own", "team.*"]);
    let mut bob =
        RawClient::connect_as(node.addrs(), Via::WsProto, showing(extended([]), token("bob"))).await;
    bob.publish("news", text("1", "hello")).await;
    assert_eq!(client.message().await.channel, "news");
    let query = PresenceQuery { channel: "news".into() };
    match bob.request(frame(In::PresenceQuery(query))).await.envelope {
        Some(Out::Presence(presence)) => assert_eq!(presence.members[0].user_id, "ann"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_ends_with_its_token_unless_another_one_comes_in_time() {
    let node = TestNode::start(YAML).await;
    for via in Via::ALL {
        let mut left = RawClient::connect_as(node.addrs(), via, showing(v1([]), ending("ann", 2))).await;
        let mut stays =
            RawClient::connect_as(node.addrs(), via, showing(extended([]), ending("ann", 2))).await;
        let begun = Instant::now();
        let expires = stays.connected.expires_at;
        assert!(expires / 1_000 >= get_current_timestamp(), "{expires}");
        // One that is no good, or another user's, changes nothing.
        for bad in [signed(&claims("ann"), OTHER), token("bob"), String::new()] {
            let error = stays.refused(frame(In::Refresh(Refresh { token: bad }))).await;
            assert_eq!(error.code, "AUTH_ERROR");
        }
        let answer = stays.request(frame(In::Refresh(Refresh { token: token("ann") }))).await;
        assert!(matches!(answer.envelope, Some(Out::Ok(_))), "{answer:?}");
        let (code, reason) = left.closed().await;
        assert_eq!(code, 3500, "{via:?}");
        assert!(reason.contains("expired"), "{reason}");
        assert!(begun.elapsed() < Duration::from_secs(7), "within 5 s: {:?}", begun.elapsed());
        stays.publish("a", text("1", "still here")).await;
    }
}

#[tokio::test]
async fn a_resume_token_is_of_no_use_to_another_user() {
    let node = TestNode::start(YAML).await;
    let connect = showing(extended([live("own")]), token("ann"));
    let first = RawClient::connect_as(node.addrs(), Via::WsJson, connect).await;
    let (session, resume_token) = (first.connected.session_id.clone(), first.connected.resume_token.clone());
    first.close().await;
    let again = |user| {
        let connect = Connect { resume_token: resume_token.clone(), ..extended([]) };
        RawClient::connect_as(node.addrs(), Via::WsJson, showing(connect, token(user)))
    };
    let other = again("bob").await;
    assert!(!other.connected.resumed && other.connected.session_id != session);
    assert!(other.connected.subscriptions.is_empty());
    assert!(again("ann").await.connected.resumed);
}

#[tokio::test]
async fn the_command_line_shows_a_token_and_says_when_one_is_needed() {
    let gateway = GatewayProcess::start(YAML).await;
    let url = format!("ws://{}/ws", gateway.addrs().websocket);
    let publish = |token: &[&str]| {
        let args = [&["pub", "room", "hello", "--server", &url][..], token].concat();
        run(&args)
    };
    let refused = publish(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("a token is needed (see --token)"), "{said}");
    assert!(publish(&["--token", &token("ann")]).status.success());
}

#[tokio::test]
async fn keys_change_without_a_restart_and_no_log_shows_a_token_or_a_secret() {
    let gateway = GatewayProcess::start(&format!("{{log: {{level: trace}}, {YAML}}}")).await;
    let (good, bad) = (token("ann"), signed(&claims("ann"), OTHER));
    for via in Via::ALL {
        RawClient::open_with(gateway.addrs(), via, &good).await.say_connect(extended([])).await;
        let client = RawClient::open(gateway.addrs(), via).await;
        assert_eq!(turned_away(client, showing(extended([]), bad.clone())).await.2, 3500);
    }
    let options = WsOptions::json().query(format!("access_token={good}"));
    RawClient::open_ws(gateway.addrs(), options).await.say_connect(extended([])).await;
    gateway.rewrite_config(&format!("{{log: {{level: trace}}, {}}}", YAML.replace(SECRET, OTHER)));
    gateway.sighup();
    let line = gateway.logged("the reload", |line| line.contains("configuration reloaded")).await;
    assert!(line.contains("auth"), "{line}");
    RawClient::connect_as(gateway.addrs(), Via::WsJson, showing(extended([]), bad.clone())).await;
    let client = RawClient::open(gateway.addrs(), Via::WsJson).await;
    assert_eq!(turned_away(client, showing(extended([]), good.clone())).await.2, 3500);
    // Without any keys it would be open to all: that needs a restart.
    gateway.rewrite_config("{log: {level: trace}}");
    gateway.sighup();
    gateway.logged("the refusal", |line| line.contains("needs_restart=[\"auth\"")).await;
    let client = RawClient::open(gateway.addrs(), Via::WsJson).await;
    assert_eq!(turned_away(client, extended([])).await.2, 3500);
    let log = gateway.log_text();
    assert!(log.contains("is not let in"), "refusals are logged");
    for secret in [good.split('.').nth(2).unwrap(), bad.split('.').nth(2).unwrap(), SECRET, OTHER] {
        assert!(!log.contains(secret), "{secret}");
    }
}
