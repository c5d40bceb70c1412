//! Tests of the opening handshake.

use hyper::header::{HOST, ORIGIN, SEC_WEBSOCKET_EXTENSIONS};

use super::*;

/// The request of RFC 6455 section 1.3.
fn sample() -> Request<()> {
    Request::get("/ws")
        .header(HOST, "server.example.com")
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "keep-alive, Upgrade")
        .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .header(ORIGIN, "http://server.example.com")
        .header(SEC_WEBSOCKET_PROTOCOL, "chat, messageloop+proto, messageloop")
        .header(SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate; client_max_window_bits")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .body(())
        .unwrap()
}

fn refusal(change: impl FnOnce(&mut Request<()>)) -> Refusal {
    let mut request = sample();
    change(&mut request);
    accept(request, &OriginPolicy::default()).unwrap_err()
}

#[test]
fn sample_handshake_is_accepted_and_extensions_declined() {
    let handshake = accept(sample(), &OriginPolicy::default()).unwrap();
    let headers = handshake.response.headers();
    assert_eq!(handshake.response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "messageloop+proto");
    assert_eq!(handshake.subprotocol, Some(Subprotocol::MessageLoopProto));
    assert!(!headers.contains_key(SEC_WEBSOCKET_EXTENSIONS));
}

#[test]
fn no_subprotocol_is_named_when_none_is_known() {
    for offer in [None, Some("chat")] {
        let mut request = sample();
        request.headers_mut().remove(SEC_WEBSOCKET_PROTOCOL);
        if let Some(offer) = offer {
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
        }
        let handshake = accept(request, &OriginPolicy::default()).unwrap();
        assert_eq!(handshake.subprotocol, None);
        assert!(!handshake.response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }
}

#[test]
fn other_methods_are_405() {
    let refusal = refusal(|request| *request.method_mut() = Method::POST);
    assert_eq!((refusal, refusal.status().as_u16()), (Refusal::Method, 405));
    assert_eq!(refusal.response().headers()[ALLOW], "GET");
}

#[test]
fn requests_that_do_not_upgrade_are_426() {
    for header in [UPGRADE, CONNECTION] {
        let refusal = refusal(|request| {
            request.headers_mut().remove(header);
        });
        assert_eq!((refusal, refusal.status().as_u16()), (Refusal::NotAnUpgrade, 426));
        assert_eq!(refusal.response().headers()[UPGRADE], "websocket");
    }
}

#[test]
fn other_http_versions_are_400() {
    let refusal = refusal(|request| *request.version_mut() = Version::HTTP_10);
    assert_eq!((refusal, refusal.status().as_u16()), (Refusal::HttpVersion, 400));
}

#[test]
fn other_websocket_versions_are_426_naming_13() {
    for version in [None, Some("8"), Some("14"), Some("13, 8")] {
        let refusal = refusal(|request| {
            request.headers_mut().remove(SEC_WEBSOCKET_VERSION);
            if let Some(version) = version {
                request.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(version));
            }
        });
        assert_eq!((refusal, refusal.status().as_u16()), (Refusal::WebSocketVersion, 426));
        assert_eq!(refusal.response().headers()[SEC_WEBSOCKET_VERSION], "13");
    }
}

#[test]
fn missing_malformed_and_repeated_keys_are_400() {
    let mut refusals = vec![refusal(|request| {
        request.headers_mut().remove(SEC_WEBSOCKET_KEY);
    })];
    for value in ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE="] {
        refusals.push(refusal(|request| {
            request.headers_mut().insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static(value));
        }));
    }
    refusals.push(refusal(|request| {
        let second = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        request.headers_mut().append(SEC_WEBSOCKET_KEY, second);
    }));
    for refusal in refusals {
        assert_eq!((refusal, refusal.status().as_u16()), (Refusal::Key, 400));
    }
}

#[test]
fn foreign_origins_are_403() {
    let foreign = |request: &mut Request<()>| {
        request.headers_mut().insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
    };
    let refusal = refusal(foreign);
    assert_eq!((refusal, refusal.status().as_u16()), (Refusal::Origin, 403));
    let mut request = sample();
    foreign(&mut request);
    assert!(accept(request, &OriginPolicy::new(["https://evil.example"])).is_ok());
}
