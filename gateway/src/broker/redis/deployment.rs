//! The first words with a server: is it fit, is this node configured as the deployment is, and who is this node.

use std::{sync::Arc, time::Duration};

use super::{boot::BootReport, connection::Connection, error::CallError, keys::Keys, scripts};
use crate::broker::BrokerError;

/// Version of keys and contents in Redis. A node of another version refuses to start.
pub const DATA_VERSION: u32 = 2;

/// Why this node must not run; waiting does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The server will not do.
    #[error("{0}")]
    Unfit(String),
    /// The deployment was set up with another number of partitions.
    #[error(
        "this deployment has {recorded} partitions, this node is configured with {configured}: the number is fixed at \
         the first start. Configure {recorded}, or use another key prefix"
    )]
    Partitions {
        /// As recorded in Redis.
        recorded: String,
        /// As configured here.
        configured: usize,
    },
    /// The data was written by another version.
    #[error(
        "the data in Redis has version {recorded}, this node needs {DATA_VERSION}. Use another key prefix, or stop all \
         nodes and remove every key under this one"
    )]
    DataVersion {
        /// As recorded in Redis.
        recorded: String,
    },
    /// The options make no sense.
    #[error("{0}")]
    Options(String),
}

/// What became of an attempt.
pub enum Attempt {
    /// This node's incarnation.
    Node(u64),
    /// Try again on the next connection.
    Later(BrokerError),
    /// Do not try again.
    Refused(BootError),
}

/// Checks the server, compares the deployment record and takes an incarnation.
pub async fn boot(connection: &Arc<Connection>, keys: &Keys, deadline: Duration) -> Attempt {
    match BootReport::of(connection, deadline).await {
        Ok(BootReport { fatal: Some(reason), .. }) => return Attempt::Refused(BootError::Unfit(reason)),
        Ok(BootReport { warnings, .. }) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
        }
        Err(error) => return Attempt::Later(error.into()),
    }
    match register(connection, keys, deadline).await {
        Ok(Ok(node)) => Attempt::Node(node),
        Ok(Err(refusal)) => Attempt::Refused(refusal),
        Err(error) => Attempt::Later(error),
    }
}

async fn register(
    connection: &Arc<Connection>,
    keys: &Keys,
    deadline: Duration,
) -> Result<Result<u64, BootError>, BrokerError> {
    let names = vec![keys.deployment("layout"), keys.deployment("incarnation")];
    let args = vec![keys.partitions().to_string().into(), DATA_VERSION.to_string().into()];
    let call = connection.call_script(&scripts::DEPLOYMENT, names, args, deadline);
    let [node, partitions, version] =
        call.await.map_err(|error: CallError| BrokerError::from(error))?.into_exactly::<3>()?;
    let (partitions, version) = (partitions.as_str()?.to_owned(), version.as_str()?.to_owned());
    Ok(match node.as_u64()? {
        0 if version != DATA_VERSION.to_string() => Err(BootError::DataVersion { recorded: version }),
        0 => Err(BootError::Partitions { recorded: partitions, configured: keys.partitions() }),
        node => Ok(node),
    })
}
