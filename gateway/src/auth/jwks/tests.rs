//! Which keys of a set are used, and when the set is fetched.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::auth::{JwtConfig, JwtVerifier};

/// The public part of a new key.
fn jwk(kind: &'static rcgen::SignatureAlgorithm, id: &str) -> Value {
    let pair = KeyPair::generate_for(kind).unwrap();
    let raw = pair.public_key_raw();
    if kind == &PKCS_ED25519 {
        return json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": URL_SAFE_NO_PAD.encode(raw)});
    }
    let (x, y) = raw[1..].split_at(raw.len() / 2);
    let curve = if x.len() == 32 { "P-256" } else { "P-384" };
    json!({"kty": "EC", "crv": curve, "kid": id, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
}

fn es256(id: &str) -> Value {
    jwk(&PKCS_ECDSA_P256_SHA256, id)
}

fn rsa(id: &str) -> Value {
    json!({"kty": "RSA", "kid": id, "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([0xc5; 256])})
}

fn with(mut key: Value, name: &str, value: Value) -> Value {
    key[name] = value;
    key
}

/// Ids and algorithms of the keys that are used.
fn used(keys: Vec<Value>, allowed: &[Algorithm]) -> Vec<(String, Algorithm)> {
    let set = set::read(json!({ "keys": keys }).to_string().as_bytes(), allowed).unwrap();
    set.keys.into_iter().map(|key| (key.id.unwrap_or_default(), key.algorithm)).collect()
}

#[test]
fn a_key_is_used_with_what_it_says_or_what_its_type_leaves() {
    use Algorithm::{ES256, ES384, EdDSA, PS256, RS256, RS512};
    let all = vec![es256("a"), jwk(&PKCS_ECDSA_P384_SHA384, "b"), jwk(&PKCS_ED25519, "c"), rsa("d")];
    let of = |id: &str, algorithm| (id.to_owned(), algorithm);
    assert_eq!(used(all.clone(), &[]), [of("a", ES256), of("b", ES384), of("c", EdDSA), of("d", RS256)]);
    assert_eq!(used(all.clone(), &[RS512, PS256, EdDSA]), [of("c", EdDSA), of("d", RS512), of("d", PS256)]);
    let named = vec![with(rsa("d"), "alg", json!("RS512")), with(es256("a"), "alg", json!("ES256"))];
    assert_eq!(used(named.clone(), &[]), [of("d", RS512), of("a", ES256)]);
    assert_eq!(used(named, &[RS256]), []);
}

#[test]
fn keys_that_are_not_for_signatures_or_no_public_keys_are_passed_over_and_spoil_nothing() {
    let good = es256("good");
    let secret = URL_SAFE_NO_PAD.encode([7; 64]);
    for bad in [
        with(rsa("x"), "use", json!("enc")),
        with(rsa("x"), "key_ops", json!(["encrypt"])),
        with(es256("x"), "alg", json!("HS256")),
        with(es256("x"), "alg", json!("ES384")),
        with(es256("x"), "alg", json!("RS256")),
        with(rsa("x"), "alg", json!("RSA-OAEP")),
        with(rsa("x"), "alg", json!("none")),
        with(es256("x"), "crv", json!("P-521")),
        with(es256("x"), "x", json!("!")),
        json!({"kty": "oct", "kid": "x", "k": secret}),
        json!({"kty": "oct", "kid": "x", "alg": "HS256", "k": secret}),
        json!({"kty": "unheard of"}),
        json!({}),
        json!("x"),
        Value::Null,
    ] {
        let found = used(vec![bad.clone(), good.clone()], &[]);
        assert_eq!(found, [("good".to_owned(), Algorithm::ES256)], "{bad}");
        let found = used(vec![bad.clone(), good.clone()], &[Algorithm::HS256, Algorithm::ES256]);
        assert_eq!(found, [("good".to_owned(), Algorithm::ES256)], "{bad}");
    }
    let with_use = vec![with(with(good, "use", json!("sig")), "key_ops", json!(["verify"]))];
    assert_eq!(used(with_use, &[]).len(), 1);
}

#[test]
fn what_is_no_set_is_an_error_that_repeats_nothing() {
    let many = json!({"keys": vec![json!({}); 101]}).to_string();
    for body in ["", "s3cret", "[]", "{}", r#"{"keys": "s3cret"}"#, "<html>s3cret</html>", &many] {
        let error = set::read(body.as_bytes(), &[]).unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
    assert!(set::read(br#"{"keys": []}"#, &[]).unwrap().keys.is_empty());
}

/// Serves one body after the other, the last for ever; tells how often it was asked. An empty one is an error 500.
async fn server(bodies: Vec<String>) -> (String, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await.unwrap();
            }
            let at = *count.borrow();
            let body = &bodies[at.min(bodies.len() - 1)];
            let status = if body.is_empty() { "500 No" } else { "200 OK" };
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            count.send_modify(|count| *count += 1);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, counted)
}

fn set_of(ids: &[&str]) -> String {
    json!({"keys": ids.iter().map(|id| es256(id)).collect::<Vec<_>>()}).to_string()
}

fn config(url: String) -> JwksConfig {
    JwksConfig {
        url,
        ca_file: None,
        algorithms: Vec::new(),
        refresh: Duration::from_secs(3_600),
        refetch_after: Duration::from_secs(3_600),
        timeout: Duration::from_secs(10),
        max_age: Duration::from_secs(3_600),
    }
}

fn started(config: JwksConfig) -> Jwks {
    let jwks = Jwks::new(config).unwrap();
    jwks.start(&Handle::current());
    jwks
}

fn ids(jwks: &Jwks) -> Vec<String> {
    jwks.keys().iter().filter_map(|key| key.id.clone()).collect()
}

#[tokio::test]
async fn whoever_comes_first_waits_for_the_first_fetch() {
    let (url, count) = server(vec![set_of(&["a"])]).await;
    let jwks = started(config(url));
    assert!(!jwks.is_there());
    futures_util::future::join_all((0..100).map(|_| jwks.look_again())).await;
    assert_eq!((ids(&jwks), *count.borrow()), (vec!["a".to_owned()], 1));
}

#[tokio::test]
async fn unknown_keys_cause_one_fetch_at_a_time_and_none_too_soon() {
    let (url, count) = server(vec![set_of(&["a"]), set_of(&["b"])]).await;
    let mut config = config(url);
    config.refetch_after = Duration::from_secs(1);
    let jwks = started(config);
    jwks.look_again().await;
    // The last fetch was just now: nobody waits, and nothing is fetched.
    futures_util::future::join_all((0..1_000).map(|_| jwks.look_again())).await;
    assert_eq!((ids(&jwks), *count.borrow()), (vec!["a".to_owned()], 1));
    // The pause is over at some time; then one fetch serves all.
    while *count.borrow() == 1 {
        futures_util::future::join_all((0..100).map(|_| jwks.look_again())).await;
        tokio::task::yield_now().await;
    }
    assert_eq!((ids(&jwks), *count.borrow()), (vec!["b".to_owned()], 2), "the former key is gone");
}

#[tokio::test]
async fn former_keys_stay_while_the_server_is_away_until_they_are_too_old() {
    let (url, mut count) = server(vec![set_of(&["a"]), String::new()]).await;
    let mut config = config(url);
    (config.refresh, config.max_age) = (Duration::from_millis(50), Duration::from_secs(2));
    let jwks = started(config);
    jwks.look_again().await;
    count.wait_for(|count| *count >= 3).await.unwrap();
    assert_eq!(ids(&jwks), ["a"], "two fetches have failed");
    while jwks.is_there() {
        count.changed().await.unwrap();
    }
    assert!(ids(&jwks).is_empty());
}

#[tokio::test]
async fn a_set_is_taken_over_by_what_is_configured_so_and_fetched_until_nobody_has_it() {
    let (url, mut count) = server(vec![set_of(&["a"])]).await;
    let mut config = config(url);
    config.refresh = Duration::from_millis(50);
    let verifier = |leeway| JwtVerifier::new(JwtConfig { leeway, ..JwtConfig::default() }).unwrap();
    let jwks = Jwks::new(config.clone()).unwrap();
    let shared = Arc::downgrade(&jwks.shared);
    let first = verifier(Duration::ZERO).with_jwks(jwks);
    first.start(None, &Handle::current());
    count.wait_for(|count| *count >= 1).await.unwrap();
    let second = verifier(Duration::from_secs(1)).with_jwks(Jwks::new(config).unwrap());
    assert_ne!(first, second);
    second.start(Some(&first), &Handle::current());
    drop(first);
    let now = *count.borrow();
    count.wait_for(|count| *count > now + 2).await.unwrap();
    drop(second);
    // The fetcher ends when the fetch that may be under way has.
    while shared.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}
