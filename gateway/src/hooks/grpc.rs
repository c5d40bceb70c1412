//! Hooks over gRPC: `messageloop.proxy.v1.ProxyService` of the backend, on one HTTP/2 connection that is opened when it
//! is needed and opened again when it was lost.

use std::{error::Error as _, time::Duration};

use hyper::{
    header::{HeaderName, HeaderValue},
    http::uri::PathAndQuery,
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    metadata::{MetadataKey, MetadataMap, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{GrpcOptions, Hook, HookError, backend::Question};
use crate::http_client::https;

/// Longest that opening the connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a silent connection is asked whether it is still there, and how long that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// A backend that speaks gRPC.
#[derive(Debug)]
pub(super) struct GrpcBackend {
    channel: Channel,
    metadata: MetadataMap,
    max_message_bytes: usize,
}

impl GrpcBackend {
    /// A backend that nothing connects to yet. Reads files, blocking.
    pub fn new(options: &GrpcOptions) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(options.url.clone())
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1);
        let mut metadata = MetadataMap::new();
        for (name, value) in &options.metadata {
            let key: MetadataKey<_> =
                name.as_str().parse().map_err(|_| format!("`{name}` is no metadata"))?;
            let mut value = MetadataValue::try_from(value.as_bytes())
                .map_err(|_| format!("the value of `{name}` is no metadata"))?;
            value.set_sensitive(true);
            metadata.append(key, value);
        }
        Ok(Self {
            channel: endpoint.connect_with_connector_lazy(https(&options.trust)?),
            metadata,
            max_message_bytes: options.max_message_bytes,
        })
    }

    /// Asks once; the deadline is told to the backend, too. Cancel: the backend may have got the question.
    pub async fn ask<H: Hook>(
        &self,
        question: &Question<'_, H>,
        limit: Duration,
    ) -> Result<H::Answer, HookError> {
        let asked = self.exchange(question.request.clone(), self.metadata(&question.headers), limit);
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(of_status(&status, limit)),
            Err(_) => Err(HookError::Timeout { limit }),
        }
    }

    /// The metadata of a call. What the configuration says is the backend's own goes before what a client says.
    fn metadata(&self, client: &[(HeaderName, HeaderValue)]) -> MetadataMap {
        let mut headers = self.metadata.clone().into_headers();
        for (name, value) in client {
            // One of a WebSocket may hold bytes that gRPC has no word for.
            if !self.metadata.contains_key(name.as_str()) && value.to_str().is_ok() {
                headers.append(name.clone(), value.clone());
            }
        }
        MetadataMap::from_headers(headers)
    }

    async fn exchange<H: Hook>(
        &self,
        message: H,
        metadata: MetadataMap,
        limit: Duration,
    ) -> Result<H::Answer, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(self.max_message_bytes);
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let mut request = Request::new(message);
        *request.metadata_mut() = metadata;
        request.set_timeout(limit);
        let path = format!("/messageloop.proxy.v1.ProxyService/{}", H::NAME);
        let path = PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
        let codec = ProstCodec::<H, H::Answer>::default();
        Ok(grpc.unary(request, path, codec).await?.into_inner())
    }
}

/// What a status means. One that this side made has a cause; the backend's own has none.
fn of_status(status: &Status, limit: Duration) -> HookError {
    if status.source().is_some() {
        return of_transport(status, limit);
    }
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => HookError::Refused { reason: words(status) },
        Code::DeadlineExceeded => HookError::Timeout { limit },
        code => HookError::Failed {
            status: format!("gRPC status {}", name(code)),
            unwell: !matches!(
                code,
                Code::InvalidArgument
                    | Code::NotFound
                    | Code::AlreadyExists
                    | Code::FailedPrecondition
                    | Code::OutOfRange
                    | Code::Unimplemented
            ),
        },
    }
}

/// A status that this side made: no connection, a broken one, or an answer that cannot be taken.
fn of_transport(status: &Status, limit: Duration) -> HookError {
    let (mut connect, mut expired, mut last, mut next) = (false, false, None, status.source());
    while let Some(cause) = next {
        connect |= cause.downcast_ref::<tonic::ConnectError>().is_some();
        expired |= cause.downcast_ref::<tonic::TimeoutExpired>().is_some();
        (last, next) = (Some(cause), cause.source());
    }
    let reason = last.map_or_else(|| status.message().to_owned(), ToString::to_string);
    match status.code() {
        _ if connect => {
            HookError::Transport { reason: format!("cannot connect: {reason}"), sent: false, broke: false }
        }
        _ if expired => HookError::Timeout { limit },
        Code::DeadlineExceeded => HookError::Timeout { limit },
        Code::OutOfRange => HookError::Transport { reason, sent: true, broke: false },
        _ => HookError::Transport { reason, sent: true, broke: true },
    }
}

/// The backend's own words, if they are short and show nothing odd.
fn words(status: &Status) -> String {
    let text = status.message().trim();
    if (1..=200).contains(&text.len()) && !text.contains(char::is_control) {
        return text.to_owned();
    }
    format!("gRPC status {}", name(status.code()))
}

/// The code as gRPC's documentation writes it.
fn name(code: Code) -> String {
    let mut out = String::new();
    for (at, letter) in format!("{code:?}").chars().enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_the_backend_are_told_apart() {
        let of = |code| of_status(&Status::new(code, "text"), Duration::from_secs(1));
        assert_eq!(of(Code::PermissionDenied), HookError::Refused { reason: "text".into() });
        assert_eq!(of(Code::DeadlineExceeded), HookError::Timeout { limit: Duration::from_secs(1) });
        for (code, text, unwell) in [
            (Code::NotFound, "gRPC status NOT_FOUND", false),
            (Code::Unimplemented, "gRPC status UNIMPLEMENTED", false),
            (Code::Unavailable, "gRPC status UNAVAILABLE", true),
        ] {
            assert_eq!(of(code), HookError::Failed { status: text.into(), unwell });
        }
    }
}
