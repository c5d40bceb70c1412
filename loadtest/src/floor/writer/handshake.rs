//! The answer to an upgrade request (RFC 6455 section 4.2.2). Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};
use streamgate_proto::Encoding;

/// Appended to the client's key before it is hashed (RFC 6455 section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Subprotocols that are known, and what they speak.
const KNOWN: [(&str, Encoding); 3] = [
    ("messageloop+json", Encoding::Json),
    ("messageloop+proto", Encoding::Protobuf),
    ("messageloop", Encoding::Json),
];

/// What to answer, and what is spoken then.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The whole response.
    pub response: String,
    /// By the first known subprotocol of those offered; JSON if there is none.
    pub encoding: Encoding,
}

/// Answers the head of a request; `None` if it is no upgrade to WebSocket.
pub fn accept(head: &str) -> Option<Accepted> {
    let values = |name: &'static str| {
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(move |(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let upgrade = values("upgrade").any(|value| value.eq_ignore_ascii_case("websocket"));
    let key = values("sec-websocket-key").next().filter(|_| upgrade && head.starts_with("GET "))?;
    let digest = Sha1::new_with_prefix(key).chain_update(GUID).finalize();
    let mut offers = values("sec-websocket-protocol").flat_map(|value| value.split(',')).map(str::trim);
    let chosen = offers.find_map(|offer| KNOWN.into_iter().find(|(name, _)| *name == offer));
    let subprotocol =
        chosen.map(|(name, _)| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n{subprotocol}\r\n",
        STANDARD.encode(digest)
    );
    Some(Accepted { response, encoding: chosen.map_or(Encoding::Json, |(_, encoding)| encoding) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(more: &str) -> String {
        format!(
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
        )
    }

    #[test]
    fn the_key_of_the_rfc_gets_its_answer() {
        let accepted = accept(&request("")).unwrap();
        assert!(accepted.response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(!accepted.response.contains("Protocol:") && accepted.response.ends_with("\r\n\r\n"));
        assert_eq!(accepted.encoding, Encoding::Json);
    }

    #[test]
    fn the_first_known_offer_is_spoken() {
        let accepted =
            accept(&request("Sec-WebSocket-Protocol: mqtt, messageloop+proto, messageloop\r\n")).unwrap();
        assert!(accepted.response.contains("Sec-WebSocket-Protocol: messageloop+proto\r\n"));
        assert_eq!(accepted.encoding, Encoding::Protobuf);
    }

    #[test]
    fn anything_else_is_no_upgrade() {
        assert_eq!(accept("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), None);
        assert_eq!(accept(&request("").replace("GET", "POST")), None);
        assert_eq!(accept(""), None);
    }
}
