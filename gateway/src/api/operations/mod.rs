//! What the server API does, once for both doors.
//!
//! Owns: the table of [`Operation`]s and what each does with the broker and with [`Control`]. Never does: know of HTTP or
//! gRPC, or decide who may call.
//!
//! Invariants:
//! - A request is refused as a whole, before anything is done, if it is malformed; what goes wrong with one of its items
//!   is told in that item's result.
//! - Every operation ends: those on storage and sessions within `limits.request_timeout`, calls and surveys with their
//!   timeout.

mod ask;
mod channels;
mod publish;
mod revoke;
mod sessions;
mod table;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use streamgate_proto::shared;

pub use table::Operation;
pub(super) use table::each_operation;

use super::control::{Control, Who};
use crate::{
    broker::Broker,
    error::{ClientError, ErrorCode},
    session::Settings,
};

/// Items of one request at most: destinations, channels, sessions.
const MOST_ITEMS: usize = 1_000;

/// Carries the operations out. Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    broker: Arc<dyn Broker>,
    control: Option<Arc<dyn Control>>,
    settings: Settings,
    /// Longest that a call or survey may wait.
    rpc_timeout: Duration,
}

impl Operations {
    /// On this broker and these sessions; without `control`, what needs it is `NOT_SUPPORTED`.
    #[must_use]
    pub fn new(
        broker: Arc<dyn Broker>,
        control: Option<Arc<dyn Control>>,
        settings: Settings,
        rpc_timeout: Duration,
    ) -> Self {
        Self { broker, control, settings, rpc_timeout }
    }

    fn control(&self) -> Result<&Arc<dyn Control>, ClientError> {
        let text = "this node cannot reach sessions for the API";
        self.control.as_ref().ok_or_else(|| ClientError::new(ErrorCode::NotSupported, text))
    }

    /// Waits for what storage or another node does, for `limits.request_timeout` at most.
    fn within<T, F>(&self, work: F) -> impl Future<Output = Result<T, ClientError>> + Send + use<T, F>
    where
        F: Future<Output = Result<T, ClientError>> + Send,
    {
        let limit = self.settings.limits.load().request_timeout;
        async move {
            match tokio::time::timeout(limit, work).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    let text = format!("no answer within {limit:?}: it may have happened all the same");
                    Err(ClientError::new(ErrorCode::NotAvailable, text))
                }
            }
        }
    }
}

/// Checks the number of items of a request.
fn check_items(name: &str, got: usize) -> Result<(), ClientError> {
    match got {
        0 => Err(ClientError::bad_request(format!("{name} is empty"))),
        1..=MOST_ITEMS => Ok(()),
        _ => {
            Err(ClientError::bad_request(format!("{name} has {got} items, at most {MOST_ITEMS} are allowed")))
        }
    }
}

/// The size of a page: 0 stands for `usual`.
fn page_size(limit: u32, usual: usize, most: usize) -> Result<usize, ClientError> {
    match usize::try_from(limit).unwrap_or(usize::MAX) {
        0 => Ok(usual),
        limit if limit <= most => Ok(limit),
        limit => Err(ClientError::bad_request(format!("limit is {limit}, at most {most} are given at once"))),
    }
}

/// The one of the two that is given.
fn who(session_id: String, user_id: String) -> Result<Who, ClientError> {
    match (session_id.is_empty(), user_id.is_empty()) {
        (false, true) => Ok(Who::Session(session_id)),
        (true, false) => Ok(Who::User(user_id)),
        _ => Err(ClientError::bad_request("needs one of session_id and user_id")),
    }
}

fn wire_outcome<T>(outcome: &Result<T, ClientError>) -> Option<shared::Error> {
    outcome.as_ref().err().map(ClientError::to_wire)
}

fn missing(name: &str) -> ClientError {
    ClientError::bad_request(format!("{name} is missing"))
}
