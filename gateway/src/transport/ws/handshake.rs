//! The opening handshake (RFC 6455 section 4.2): checks the request, makes the response, hands over the
//! socket.
//!
//! `Sec-WebSocket-Extensions` is never answered, which declines whatever was offered (permessage-deflate).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, AUTHORIZATION, CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::header::{SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::origin::OriginPolicy;
use super::subprotocol::Subprotocol;
use crate::auth::Token;

/// A request that was accepted.
#[derive(Debug)]
pub struct Handshake {
    /// The 101 response; must be returned to hyper for the upgrade to happen.
    pub response: Response<Full<Bytes>>,
    /// The chosen subprotocol; `None`: the client offered none that is known, speak JSON.
    pub subprotocol: Option<Subprotocol>,
    /// The token in the `Authorization` header, else in the query.
    pub presented: Option<Token>,
    /// Resolves to the socket once the response is sent.
    pub upgrade: Upgrade,
}

/// Why a request was refused; [`Refusal::response`] is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a GET: 405.
    #[error("a WebSocket handshake is a GET request")]
    Method,
    /// HTTP/1.0 or HTTP/2, or a connection that hyper cannot upgrade: 400.
    #[error("a WebSocket handshake needs HTTP/1.1")]
    HttpVersion,
    /// `Connection: Upgrade` or `Upgrade: websocket` missing: 426.
    #[error("this address speaks WebSocket: send an upgrade request")]
    NotAnUpgrade,
    /// `Sec-WebSocket-Version` is not 13: 426, naming the version.
    #[error("only WebSocket version 13 is spoken here")]
    WebSocketVersion,
    /// `Sec-WebSocket-Key` missing, repeated, or not 16 bytes in base64: 400.
    #[error("Sec-WebSocket-Key is missing or malformed")]
    Key,
    /// A page of this origin may not connect: 403.
    #[error("this origin may not connect: see the list of allowed origins")]
    Origin,
}

impl Refusal {
    /// Status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::HttpVersion | Self::Key => StatusCode::BAD_REQUEST,
            Self::NotAnUpgrade | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }

    /// The answer, its reason as plain text.
    #[must_use]
    pub fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("{self}\n")));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self {
            Self::Method => {
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
            }
            Self::NotAnUpgrade | Self::WebSocketVersion => {
                // RFC 9110 section 15.5.22: a 426 names what to upgrade to.
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            Self::HttpVersion | Self::Key | Self::Origin => {}
        }
        response
    }
}

/// Checks an upgrade request and makes its response.
///
/// The connection must be served by hyper's HTTP/1 server `with_upgrades()`.
///
/// # Errors
/// The first rule that the request breaks.
pub fn accept<B>(mut request: Request<B>, origins: &OriginPolicy) -> Result<Handshake, Refusal> {
    check(&request, origins)?;
    let subprotocol = Subprotocol::choose(request.headers());
    let in_header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let in_query = || request.uri().query().and_then(Token::of_query);
    let presented = in_header.and_then(Token::of_header).or_else(in_query);
    // Taken before the crate takes it: its own future wraps the socket in a reader of 8 KiB.
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (response, _) = fastwebsockets::upgrade::upgrade(&mut request).map_err(|_| Refusal::Key)?;
    let (mut parts, body) = response.into_parts();
    if let Some(chosen) = subprotocol {
        parts.headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen.name()));
    }
    debug_assert!(hyper::body::Body::is_end_stream(&body));
    let response = Response::from_parts(parts, Full::default());
    Ok(Handshake { response, subprotocol, presented, upgrade: Upgrade { on_upgrade } })
}

fn check<B>(request: &Request<B>, origins: &OriginPolicy) -> Result<(), Refusal> {
    if request.method() != Method::GET {
        return Err(Refusal::Method);
    }
    if request.version() != Version::HTTP_11 {
        return Err(Refusal::HttpVersion);
    }
    if !fastwebsockets::upgrade::is_upgrade_request(request) {
        return Err(Refusal::NotAnUpgrade);
    }
    let headers = request.headers();
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return Err(Refusal::WebSocketVersion);
    }
    if !has_valid_key(headers) {
        return Err(Refusal::Key);
    }
    if !origins.permits(headers) {
        return Err(Refusal::Origin);
    }
    Ok(())
}

fn has_valid_key(headers: &HeaderMap) -> bool {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return false };
    STANDARD.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == 16)
}

/// A socket on its way from HTTP to WebSocket.
#[derive(Debug)]
pub struct Upgrade {
    on_upgrade: OnUpgrade,
}

/// The socket did not come.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The client went away before the response was sent, or hyper does not serve this connection with
    /// upgrades.
    #[error("upgrade failed: {0}")]
    Hyper(#[from] hyper::Error),
    /// hyper serves this connection over another type of stream.
    #[error("the upgraded connection is of another type than the listener's")]
    StreamType,
}

impl Upgrade {
    /// Waits for the response to be sent; the stream and the bytes that the client sent behind its
    /// request, which are the start of its first frames and must be fed to the reader before anything is
    /// read from the stream.
    ///
    /// `S` is the stream in the `TokioIo<S>` that was given to hyper, usually `tokio::net::TcpStream`.
    ///
    /// Cancel: dropping the future closes the connection; nothing else is lost.
    ///
    /// # Errors
    /// The upgrade failed, or the stream is no `S`.
    pub async fn stream<S>(self) -> Result<(S, Vec<u8>), UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let upgraded = self.on_upgrade.await?;
        let parts = upgraded.downcast::<TokioIo<S>>().map_err(|_| UpgradeError::StreamType)?;
        // Copied, because the slice would keep hyper's whole read buffer alive.
        Ok((parts.io.into_inner(), parts.read_buf.to_vec()))
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
