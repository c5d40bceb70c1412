//! Bodies of requests.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    StatusCode,
    body::{Body as _, Incoming},
};

use super::Refusal;
use crate::error::{ClientError, ErrorCode};

/// Time for a request's body.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A body that is still to be read.
pub(in crate::transport) struct RequestBody(pub(super) Incoming);

impl RequestBody {
    /// Reads it. Memory follows what has come, not what was announced.
    ///
    /// # Errors
    /// It has more than `limit` bytes, breaks off, or takes too long.
    pub async fn whole(self, limit: usize) -> Result<Bytes, Refusal> {
        let too_large = |size: &str| {
            let text = format!("the request has {size} bytes, at most {limit} are allowed");
            Refusal::from(ClientError::new(ErrorCode::TooLarge, text))
        };
        let announced = self.0.size_hint().lower();
        if usize::try_from(announced).unwrap_or(usize::MAX) > limit {
            return Err(too_large(&announced.to_string()));
        }
        let Ok(read) = tokio::time::timeout(TIMEOUT, Limited::new(self.0, limit).collect()).await else {
            let text = format!("the request did not come within {TIMEOUT:?}");
            return Err(Refusal::of(StatusCode::REQUEST_TIMEOUT, &text));
        };
        match read {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large("more")),
            Err(error) => Err(ClientError::bad_request(format!("the request breaks off: {error}")).into()),
        }
    }
}
