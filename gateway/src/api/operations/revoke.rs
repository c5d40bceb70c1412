//! `revoke`.

use std::time::{SystemTime, UNIX_EPOCH};

use streamgate_proto::server::{RevokeRequest, RevokeResponse};

use super::Operations;
use crate::{api::control::Revoke, error::ClientError};

/// How far ahead a revocation may end: every node keeps it until then.
const LONGEST_MS: u64 = 366 * 24 * 60 * 60 * 1_000;

impl Operations {
    /// Has a token, or all tokens of a user, refused.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`](crate::error::ErrorCode::BadRequest) without either, or with an end that is over or too
    /// far; else what the nodes say.
    pub async fn revoke(&self, request: RevokeRequest) -> Result<RevokeResponse, ClientError> {
        let what = match (request.user_id.is_empty(), request.token_id.is_empty()) {
            (false, true) => Revoke::User(request.user_id),
            (true, false) => Revoke::Token(request.token_id),
            _ => return Err(ClientError::bad_request("needs one of user_id and token_id")),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let (until, latest) = (request.until, now.saturating_add(LONGEST_MS));
        if !(now..=latest).contains(&until) {
            let text =
                format!("until is {until}: needs milliseconds since 1970, from now ({now}) to {latest}");
            return Err(ClientError::bad_request(text));
        }
        self.within(self.control()?.revoke(what, until)).await?;
        Ok(RevokeResponse {})
    }
}
