//! Tokens of every kind of key, and of every way to be wrong.

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    signature::KeyPair as _,
};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn hs256(id: Option<&str>) -> JwtKey {
    JwtKey {
        id: id.map(str::to_owned),
        algorithm: Algorithm::HS256,
        material: KeyMaterial::Secret(SECRET.to_vec()),
    }
}

fn verifier(keys: Vec<JwtKey>) -> JwtVerifier {
    JwtVerifier::new(JwtConfig { keys, ..JwtConfig::default() }).unwrap()
}

fn signed(header: &Header, claims: &Value, secret: &[u8]) -> Token {
    Token::new(&encode(header, claims, &EncodingKey::from_secret(secret)).unwrap()).unwrap()
}

fn token(claims: &Value) -> Token {
    signed(&Header::new(Algorithm::HS256), claims, SECRET)
}

#[test]
fn claims_say_who_and_until_when() {
    let verifier = JwtVerifier::new(JwtConfig {
        keys: vec![hs256(None)],
        leeway: Duration::from_secs(5),
        ..JwtConfig::default()
    })
    .unwrap();
    let exp = get_current_timestamp() + 60;
    let identity = verifier.verify(&token(&json!({"sub": "ann", "exp": exp, "channels": ["news", "a.*"]})));
    let expected = Identity {
        user_id: "ann".into(),
        expires_unix_ms: Some((exp + 5) * 1_000),
        channels: vec!["news".into(), "a.*".into()],
        grants: Grants::default(),
        stamp: Stamp::default(),
    };
    assert_eq!(identity, Ok(expected));
    let for_ever = verifier.verify(&token(&json!({"sub": "ann"}))).unwrap();
    assert_eq!(for_ever, Identity { user_id: "ann".into(), ..Identity::default() });
    // Within the leeway.
    let now = get_current_timestamp();
    assert!(verifier.verify(&token(&json!({"sub": "ann", "exp": now - 3}))).is_ok());
    assert_eq!(verifier.verify(&token(&json!({"sub": "ann", "exp": now - 9}))), Err(Refusal::Expired));
}

#[test]
fn tokens_of_other_kinds_of_keys_are_checked_with_their_own_key_only() {
    for (algorithm, kind) in [(Algorithm::ES256, &PKCS_ECDSA_P256_SHA256), (Algorithm::EdDSA, &PKCS_ED25519)]
    {
        let (own, other) = (KeyPair::generate_for(kind).unwrap(), KeyPair::generate_for(kind).unwrap());
        let key = |pair: &KeyPair| JwtKey {
            id: None,
            algorithm,
            material: KeyMaterial::PublicPem(pair.public_key_pem().into_bytes()),
        };
        let pem = own.serialize_pem();
        let signing = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        let text = encode(&Header::new(algorithm), &json!({"sub": "ann"}), &signing.unwrap()).unwrap();
        let token = Token::new(&text).unwrap();
        let refused = |keys| verifier(keys).verify(&token).unwrap_err();
        assert!(verifier(vec![key(&other), key(&own)]).verify(&token).is_ok(), "{algorithm:?}");
        assert_eq!(refused(vec![key(&other)]), Refusal::Signature);
        assert_eq!(refused(vec![hs256(None)]), Refusal::NoKey);
    }
}

#[test]
fn tokens_of_rsa_keys_are_checked_in_either_padding() {
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, public.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n");
    // What `from_rsa_der` takes is the key inside of the wrapping (RFC 5208), which is 26 bytes here.
    let signing = EncodingKey::from_rsa_der(&private.as_ref()[26..]);
    for algorithm in [Algorithm::RS256, Algorithm::RS512, Algorithm::PS256, Algorithm::PS512] {
        let key = |algorithm| JwtKey {
            id: None,
            algorithm,
            material: KeyMaterial::PublicPem(pem.clone().into_bytes()),
        };
        let text = encode(&Header::new(algorithm), &json!({"sub": "ann"}), &signing).unwrap();
        let token = Token::new(&text).unwrap();
        assert!(verifier(vec![key(algorithm)]).verify(&token).is_ok(), "{algorithm:?}");
        assert_eq!(verifier(vec![key(Algorithm::RS384)]).verify(&token), Err(Refusal::NoKey), "pinned");
    }
}

/// RFC 7515 appendix A.1: made by others.
#[test]
fn the_example_of_the_standard_is_read_as_it_says() {
    let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let key = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, key).unwrap();
    let text = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let token = Token::new(text).unwrap();
    let of = |secret: &[u8]| {
        verifier(vec![JwtKey { material: KeyMaterial::Secret(secret.to_vec()), ..hs256(None) }])
    };
    assert_eq!(of(&key).verify(&token), Err(Refusal::Expired), "its signature is good");
    assert_eq!(of(SECRET).verify(&token), Err(Refusal::Signature));
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let pem = pair.public_key_pem();
    let key = JwtKey {
        id: None,
        algorithm: Algorithm::ES256,
        material: KeyMaterial::PublicPem(pem.clone().into_bytes()),
    };
    let forged = signed(&Header::new(Algorithm::HS256), &json!({"sub": "ann"}), pem.as_bytes());
    assert_eq!(verifier(vec![key.clone()]).verify(&forged), Err(Refusal::NoKey));
    let as_secret = JwtKey { algorithm: Algorithm::HS256, ..key };
    let (at, why) =
        JwtVerifier::new(JwtConfig { keys: vec![hs256(None), as_secret], ..Default::default() }).unwrap_err();
    assert_eq!(at, 1);
    assert!(why.contains("needs a secret"), "{why}");
}

#[test]
fn the_key_id_chooses_and_does_not_open() {
    let named = |kid: Option<&str>| Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::HS256) };
    let other = b"another secret of thirty-two byte";
    let keys = vec![
        hs256(Some("a")),
        JwtKey { id: Some("b".into()), material: KeyMaterial::Secret(other.to_vec()), ..hs256(None) },
    ];
    let verify = |kid, secret: &[u8]| {
        verifier(keys.clone()).verify(&signed(&named(kid), &json!({"sub": "ann"}), secret)).map(drop)
    };
    assert_eq!(verify(Some("a"), SECRET), Ok(()));
    assert_eq!(verify(Some("b"), other), Ok(()));
    assert_eq!(verify(None, other), Ok(()), "tried one after the other");
    assert_eq!(verify(Some("a"), other), Err(Refusal::Signature));
    assert_eq!(verify(Some("c"), SECRET), Err(Refusal::NoKey));
    assert_eq!(verify(None, b"a third secret, which nobody knows of"), Err(Refusal::Signature));
}

#[test]
fn what_is_wrong_with_a_token_is_said_without_the_token() {
    let config = JwtConfig {
        keys: vec![hs256(None)],
        issuer: Some("us".into()),
        audience: Some("gateway".into()),
        leeway: Duration::ZERO,
    };
    let verifier = JwtVerifier::new(config).unwrap();
    let now = get_current_timestamp();
    let good = json!({"sub": "ann", "iss": "us", "aud": ["x", "gateway"], "exp": now + 60, "nbf": now - 60});
    assert!(verifier.verify(&token(&good)).is_ok());
    let cases = [
        ("exp", json!(now - 60), Refusal::Expired),
        ("exp", json!("soon"), Refusal::Claim("exp")),
        ("nbf", json!(now + 60), Refusal::NotYetValid),
        ("nbf", json!("soon"), Refusal::Claim("nbf")),
        ("iss", json!("them"), Refusal::Issuer),
        ("iss", json!(7), Refusal::Issuer),
        ("iss", Value::Null, Refusal::Issuer),
        ("aud", json!("other"), Refusal::Audience),
        ("aud", json!([]), Refusal::Audience),
        ("aud", Value::Null, Refusal::Audience),
        ("sub", Value::Null, Refusal::Claim("sub")),
        ("sub", json!(""), Refusal::Claim("sub")),
        ("sub", json!(7), Refusal::Claim("sub")),
        ("sub", json!("a\nb"), Refusal::Claim("sub")),
        ("sub", json!("x".repeat(256)), Refusal::Claim("sub")),
        ("channels", json!("news"), Refusal::Claim("channels")),
        ("channels", json!(vec!["a"; 129]), Refusal::Claim("channels")),
    ];
    for (claim, value, expected) in cases {
        let mut claims = good.clone();
        claims[claim] = value.clone();
        assert_eq!(verifier.verify(&token(&claims)), Err(expected), "{claim} {value}");
    }
    let mut absent = good.clone();
    absent.as_object_mut().unwrap().remove("iss");
    assert_eq!(verifier.verify(&token(&absent)), Err(Refusal::Issuer));
}

#[test]
fn what_is_no_token_is_refused() {
    let verifier = verifier(vec![hs256(None)]);
    let part = |json: &str| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, json);
    let claims = part(r#"{"sub":"ann"}"#);
    let none = format!("{}.{claims}.", part(r#"{"alg":"none","typ":"JWT"}"#));
    let unknown = format!("{}.{claims}.AAAA", part(r#"{"alg":"XS256"}"#));
    let nested = "[".repeat(10_000);
    for text in ["x", "a.b", "a.b.c", "....", &none, &unknown, &format!("{}.{claims}.x", part(&nested))] {
        assert_eq!(verifier.verify(&Token::new(text).unwrap()), Err(Refusal::Malformed), "{text:.60}");
    }
    let critical = Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::HS256) };
    let critical = signed(&critical, &json!({"sub": "ann"}), SECRET);
    assert_eq!(verifier.verify(&critical), Err(Refusal::Malformed));
    let mut changed = token(&json!({"sub": "ann"})).reveal().to_owned();
    let (at, other) =
        (changed.len() - 20, if changed.as_bytes()[changed.len() - 20] == b'A' { "B" } else { "A" });
    changed.replace_range(at..=at, other);
    assert_eq!(verifier.verify(&Token::new(&changed).unwrap()), Err(Refusal::Signature));
    let long = token(&json!({"sub": "ann", "x": "y".repeat(32 * 1024)}));
    assert_eq!(verifier.verify(&long), Err(Refusal::TooLong));
}

#[test]
fn short_secrets_are_refused() {
    for (algorithm, least) in [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)] {
        let key = |bytes| JwtKey { id: None, algorithm, material: KeyMaterial::Secret(vec![7; bytes]) };
        let of = |bytes| JwtVerifier::new(JwtConfig { keys: vec![key(bytes)], ..JwtConfig::default() });
        assert!(of(least).is_ok());
        assert_eq!(of(least - 1).unwrap_err().0, 0);
    }
    let shown = format!("{:?}", verifier(vec![hs256(None)]));
    assert!(!shown.contains("0123") && !shown.contains("48, 49"), "{shown}");
}

#[test]
fn claims_bring_rights_and_what_rules_look_at() {
    let verifier = verifier(vec![hs256(None)]);
    let claims = json!({"sub": "ann", "iss": "us", "jti": "7", "iat": 1, "subscribe": ["a.**"], "publish": ["b"],
                        "role": "editor", "groups": ["x", "y"], "deep": {"a": 1}});
    let Grants { subscribe, publish, claims } = verifier.verify(&token(&claims)).unwrap().grants;
    assert_eq!((subscribe, publish), (vec!["a.**".to_owned()], vec!["b".to_owned()]));
    assert!(claims.has("role", "editor") && claims.has("groups", "y"));
    assert!(!claims.has("iss", "us") && !claims.has("sub", "ann") && !claims.has("subscribe", "a.**"));
    for name in ["subscribe", "publish"] {
        for bad in [json!("a"), json!(["a..b"]), json!([1]), json!(vec!["a"; 129])] {
            let refused = verifier.verify(&token(&json!({"sub": "ann", (name): bad})));
            assert_eq!(refused, Err(Refusal::Claim(name)));
        }
    }
}

#[test]
fn a_token_is_for_a_connection_or_for_a_subscription() {
    let verifier = verifier(vec![hs256(None)]);
    let exp = get_current_timestamp() + 60;
    let subscription = token(&json!({"sub": "ann", "channel": "a.*", "exp": exp}));
    let expected = SubscriptionToken {
        user_id: "ann".into(),
        channel: "a.*".into(),
        expires_unix_ms: Some(exp * 1_000),
        stamp: Stamp::default(),
    };
    assert_eq!(verifier.verify_subscription(&subscription), Ok(expected.clone()));
    assert_eq!(verifier.verify(&subscription), Err(Refusal::ForSubscription));
    assert_eq!(verifier.verify_subscription(&token(&json!({"sub": "ann"}))), Err(Refusal::ForConnection));
    assert_eq!(verifier.verify(&token(&json!({"sub": "ann", "channel": null}))).map(drop), Ok(()));
    for channel in [json!(1), json!(["a"]), json!(""), json!("a..b")] {
        let bad = token(&json!({"sub": "ann", "channel": channel}));
        assert_eq!(verifier.verify_subscription(&bad), Err(Refusal::Claim("channel")), "{channel}");
        assert_eq!(verifier.verify(&bad), Err(Refusal::ForSubscription), "{channel}");
    }
    let nobody = verifier.verify_subscription(&token(&json!({"channel": "a"}))).unwrap();
    assert_eq!((nobody.user_id.as_str(), nobody.expires_unix_ms), ("", None));
    let old = token(&json!({"sub": "ann", "channel": "a", "exp": exp - 120}));
    assert_eq!(verifier.verify_subscription(&old), Err(Refusal::Expired));
    let forged = signed(&Header::new(Algorithm::HS256), &json!({"channel": "a"}), &[9; 32]);
    assert_eq!(verifier.verify_subscription(&forged), Err(Refusal::Signature));
    assert_eq!(expected.is_for("ann", "a.*"), Ok(()));
    assert_eq!(expected.is_for("bob", "a.*"), Err(Refusal::OtherUser));
    for channel in ["a.b", "a", "**"] {
        assert_eq!(expected.is_for("ann", channel), Err(Refusal::OtherChannel));
    }
}

#[test]
fn a_token_says_by_what_it_can_be_revoked() {
    let verifier = verifier(vec![hs256(None)]);
    let stamp = |claims: serde_json::Value| verifier.verify(&token(&claims)).map(|identity| identity.stamp);
    let full = stamp(json!({"sub": "ann", "jti": "t-7", "iat": 1_700_000_000.5}));
    assert_eq!(full, Ok(Stamp { token_id: Some("t-7".into()), issued_unix_ms: Some(1_700_000_000_500) }));
    assert_eq!(stamp(json!({"sub": "ann"})), Ok(Stamp::default()));
    assert_eq!(stamp(json!({"sub": "ann", "jti": 7})), Err(Refusal::Claim("jti")));
}
