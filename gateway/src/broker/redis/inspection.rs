//! What an operator should know of the masters besides the one that the node registered at.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{boot::BootReport, link::Link};

/// Logs the warnings of each server that the links lead to, once; the first of them was inspected at boot. Ends when all
/// have been connected. Safe to cancel.
pub async fn inspect(links: Vec<Arc<Link>>, deadline: Duration) {
    let mut seen = HashSet::new();
    for link in links {
        let Some(connection) = link.connected().await else { return };
        let first = seen.is_empty();
        if !seen.insert(connection.address().clone()) || first {
            continue;
        }
        // A failure to ask is a failure of the connection, which its link tells.
        let Ok(report) = BootReport::of(&connection, deadline).await else { continue };
        for warning in report.warnings {
            tracing::warn!(redis = %connection.address(), "{warning}");
        }
    }
}
