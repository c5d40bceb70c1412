//! Telling the node of a session's former connection that the session goes on elsewhere.

use std::time::Duration;

use super::{Ask, Peers, YieldAsk};
use crate::{broker::NodeId, error::ErrorCode};

/// How long an answer is awaited.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it is tried. A node that is silent for longer finds out when it next keeps the session's record.
const TRIES: u32 = 24;

impl Peers {
    /// Has `node` close the connections that the session had there before the one of this tenure. A letter may be lost, and a
    /// node may stand still: so until it answers, or is gone.
    ///
    /// Cancel: safe; the node finds out by itself, later.
    pub async fn have_yielded(&self, node: NodeId, session: String, tenure: u32) {
        for _ in 0..TRIES {
            let ask = Ask::Yield(YieldAsk { session: session.clone(), tenure });
            match self.ask(node, ask, PATIENCE).await {
                Ok(_) => return,
                Err(error) if error.code == ErrorCode::RpcTimeout => {}
                // Storage is away.
                Err(error) if error.code == ErrorCode::NotAvailable && error.given.is_none() => {
                    tokio::time::sleep(PATIENCE).await;
                }
                Err(error) => {
                    return tracing::debug!(%node, session, %error, "a session's former node was not told");
                }
            }
        }
    }
}
