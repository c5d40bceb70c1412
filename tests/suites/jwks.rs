//! Keys by URL: they rotate, their server goes away, and nobody can make a node hammer it.

use std::time::Duration;

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use streamgate_e2e::{
    events::{extended, frame},
    gateway::{Addrs, TestNode},
    key_server::{Answer, KeyServer, SigningKey},
    process::GatewayProcess,
    raw::{RawClient, Via},
    scrape, within,
};
use streamgate_proto::v1::{Connect, inbound_message::Envelope as In};

fn ann() -> Value {
    json!({"sub": "ann"})
}

/// With these further settings of the set.
fn yaml(server: &KeyServer, more: &str) -> String {
    format!("auth: {{jwt: {{jwks: {{url: '{}'{more}}}}}}}", server.url())
}

/// Connects with a token: the user, or why not and the close code.
async fn connect(addrs: Addrs, via: Via, token: String) -> Result<String, (String, u16)> {
    let mut client = RawClient::open(addrs, via).await;
    let answer = client.request(frame(In::Connect(Connect { token, ..extended([]) }))).await;
    match answer.envelope {
        Some(streamgate_proto::v1::outbound_message::Envelope::Connected(connected)) => Ok(connected.user_id),
        Some(streamgate_proto::v1::outbound_message::Envelope::Error(error)) => {
            Err((error.message, client.close_code().await))
        }
        other => panic!("{other:?}"),
    }
}

async fn refused(addrs: Addrs, token: String) -> String {
    let (reason, code) = connect(addrs, Via::WsJson, token).await.unwrap_err();
    assert_eq!(code, 3500, "{reason}");
    reason
}

/// Waits until tokens are answered so: when a set is read again is no event that a client sees.
async fn until(addrs: Addrs, what: &str, token: &str, good: bool) {
    within(what, async {
        while connect(addrs, Via::WsProto, token.to_owned()).await.is_ok() != good {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn tokens_of_keys_in_the_set_are_good_on_every_transport_and_others_are_not() {
    let (key, other) = (SigningKey::new("a"), SigningKey::new("a"));
    let server = KeyServer::start(&[&key]).await;
    let node = TestNode::start(&yaml(&server, "")).await;
    for via in Via::ALL {
        // The first comes before the set may have been read: it waits.
        assert_eq!(connect(node.addrs(), via, key.sign(&ann())).await, Ok("ann".to_owned()));
    }
    assert!(refused(node.addrs(), other.sign(&ann())).await.contains("signature is wrong"));
    assert!(refused(node.addrs(), key.sign_as("b", &ann())).await.contains("no key is configured"));
    // The public key, which everybody can fetch, is no secret.
    let public = key.public().to_string();
    let header = Header { kid: Some("a".into()), ..Header::new(Algorithm::HS256) };
    let forged = encode(&header, &ann(), &EncodingKey::from_secret(public.as_bytes())).unwrap();
    assert!(refused(node.addrs(), forged).await.contains("no key"));
    assert_eq!(*server.asked().borrow(), 1);
}

#[tokio::test]
async fn a_symmetric_key_in_a_set_opens_nothing() {
    let secret = [7; 32];
    let key = SigningKey::new("a");
    let server = KeyServer::start(&[&key]).await;
    let k = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, secret);
    let oct = json!({"kty": "oct", "kid": "s", "alg": "HS256", "k": k});
    server.answer(Answer::Keys(vec![oct, key.public()]));
    let node = TestNode::start(&yaml(&server, "")).await;
    assert!(connect(node.addrs(), Via::Grpc, key.sign(&ann())).await.is_ok());
    let header = Header { kid: Some("s".into()), ..Header::new(Algorithm::HS256) };
    let token = encode(&header, &ann(), &EncodingKey::from_secret(&secret)).unwrap();
    assert!(refused(node.addrs(), token).await.contains("no key"));
}

#[tokio::test]
async fn a_new_key_is_good_at_once_and_one_that_is_gone_after_the_next_fetch() {
    let (first, second) = (SigningKey::new("2024"), SigningKey::new("2025"));
    let server = KeyServer::start(&[&first]).await;
    let node = TestNode::start(&yaml(&server, ", refetch_after: 1s")).await;
    assert!(connect(node.addrs(), Via::WsJson, first.sign(&ann())).await.is_ok());
    server.keys(&[&first, &second]);
    // As soon as there may be another fetch.
    until(node.addrs(), "the new key", &second.sign(&ann()), true).await;
    assert!(connect(node.addrs(), Via::WsJson, first.sign(&ann())).await.is_ok());
    server.keys(&[&second]);
    // The key that was taken away causes no fetch, as it is known; one that is unknown does.
    let unknown = SigningKey::new("2026");
    let gone = first.sign(&ann());
    within("the old key is gone", async {
        while connect(node.addrs(), Via::WsProto, gone.clone()).await.is_ok() {
            let _ = connect(node.addrs(), Via::WsProto, unknown.sign(&ann())).await;
        }
    })
    .await;
    assert!(connect(node.addrs(), Via::WsJson, second.sign(&ann())).await.is_ok());
}

#[tokio::test]
async fn the_set_is_read_again_by_itself() {
    let (first, second) = (SigningKey::new("2024"), SigningKey::new("2025"));
    let server = KeyServer::start(&[&first]).await;
    let node = TestNode::start(&yaml(&server, ", refresh: 1s")).await;
    assert!(connect(node.addrs(), Via::WsJson, first.sign(&ann())).await.is_ok());
    server.keys(&[&second]);
    until(node.addrs(), "the old key is gone", &first.sign(&ann()), false).await;
    assert!(connect(node.addrs(), Via::WsJson, second.sign(&ann())).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_keys_is_no_load_for_the_server_and_holds_up_nobody() {
    let key = SigningKey::new("a");
    let server = KeyServer::start(&[&key]).await;
    let node = TestNode::start(&yaml(&server, ", refetch_after: 1s, timeout: 2s")).await;
    assert!(connect(node.addrs(), Via::WsJson, key.sign(&ann())).await.is_ok());
    // From now on the server is as slow as it can be.
    server.answer(Answer::Silence);
    let begun = tokio::time::Instant::now();
    let addrs = node.addrs();
    for round in 0..4 {
        let flood =
            (0..100).map(|at| connect(addrs, Via::WsProto, key.sign_as(&format!("{round}-{at}"), &ann())));
        let (flood, good) = tokio::join!(join_all(flood), async {
            let begun = tokio::time::Instant::now();
            connect(addrs, Via::WsJson, key.sign(&ann())).await.unwrap();
            begun.elapsed()
        });
        assert!(flood.iter().all(|outcome| matches!(outcome, Err((_, 3500)))));
        assert!(good < Duration::from_secs(2), "a token of a known key waits for nothing: {good:?}");
    }
    // One fetch a second after the end of the last one, however many ask.
    let most = begun.elapsed().as_secs() as usize + 2;
    let asked = *server.asked().borrow();
    assert!(asked <= most, "{asked} of {most}");
}

#[tokio::test]
async fn former_keys_stay_while_the_server_is_away_and_the_log_holds_no_secret() {
    let key = SigningKey::new("a");
    let server = KeyServer::start(&[&key]).await;
    let log = "log: {level: trace}\n";
    let more = ", refresh: 1s, refetch_after: 1s, timeout: 500ms, max_age: 5s";
    let gateway = GatewayProcess::start(&format!("{log}{}", yaml(&server, more))).await;
    assert!(connect(gateway.addrs(), Via::WsJson, key.sign(&ann())).await.is_ok());
    let moved = SigningKey::new("b");
    let elsewhere = KeyServer::start(&[&moved]).await;
    let redirect =
        format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url());
    let bodies = "x".repeat(300 * 1024);
    for (answer, words) in [
        (redirect, "redirect"),
        ("HTTP/1.1 500 No\r\nContent-Length: 6\r\nConnection: close\r\n\r\ns3cret".to_owned(), "500"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\ns3cret".to_owned(),
            "not a key set",
        ),
        (format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{bodies}"), "larger"),
        (String::new(), "no answer within"),
    ] {
        server.answer(Answer::Raw(answer));
        gateway.logged(words, |line| line.contains("cannot be fetched") && line.contains(words)).await;
        let outcome = connect(gateway.addrs(), Via::WsProto, key.sign(&ann())).await;
        assert!(outcome.is_ok(), "{words}: {outcome:?}\n{}", gateway.log_text());
        // Good again, so that the age of the keys begins anew and the next failure is told.
        server.keys(&[&key]);
        let now = *server.asked().borrow();
        within("a good fetch", server.asked().wait_for(|asked| *asked > now + 1)).await.unwrap();
    }
    assert_eq!(*elsewhere.asked().borrow(), 0, "a redirect is not followed");
    assert_eq!(connect(gateway.addrs(), Via::WsJson, moved.sign(&ann())).await.unwrap_err().1, 3500);
    // Away for too long.
    drop(server);
    until(gateway.addrs(), "the keys are too old", &key.sign(&ann()), false).await;
    let reason = refused(gateway.addrs(), key.sign(&ann())).await;
    assert!(reason.contains("key set cannot be fetched"), "{reason}");
    assert!(!gateway.log_text().contains("s3cret"), "neither the URL nor a body");
    scrape::metrics_until(gateway.addrs().admin, "failures are counted", |scrape| {
        scrape.labelled("streamgate_jwks_fetches_total", "outcome=\"failed\"") > 4.0
    })
    .await;
}

#[tokio::test]
async fn a_node_without_its_key_server_starts_and_goes_on_when_it_comes() {
    let key = SigningKey::new("a");
    let server = KeyServer::start(&[&key]).await;
    server
        .answer(Answer::Raw("HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()));
    let node = TestNode::start(&yaml(&server, "")).await;
    let reason = refused(node.addrs(), key.sign(&ann())).await;
    assert!(reason.contains("key set cannot be fetched"), "{reason}");
    server.keys(&[&key]);
    until(node.addrs(), "the set", &key.sign(&ann()), true).await;
}

#[tokio::test]
async fn a_reload_keeps_the_keys_though_the_server_is_away() {
    let key = SigningKey::new("a");
    let server = KeyServer::start(&[&key]).await;
    let mut node = TestNode::start(&yaml(&server, "")).await;
    assert!(connect(node.addrs(), Via::WsJson, key.sign(&ann())).await.is_ok());
    server.answer(Answer::Silence);
    let text = yaml(&server, "");
    node.reload(&text);
    assert!(connect(node.addrs(), Via::WsJson, key.sign(&ann())).await.is_ok());
    node.reload(&text.replace("jwt: {", "jwt: {leeway: 7s, "));
    assert!(connect(node.addrs(), Via::WsJson, key.sign(&ann())).await.is_ok());
    assert_eq!(*server.asked().borrow(), 1);
}
