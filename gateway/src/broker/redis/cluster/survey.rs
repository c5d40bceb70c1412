//! Asking the nodes of a Cluster who owns the slots.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{sleep, timeout};

use super::{
    super::{
        client::Wire,
        command::{Command, CommandName},
        error::{CallError, ConnectError},
        locate::Address,
        options::RedisOptions,
    },
    slots::Slots,
};

/// How long a node may take before the next one is asked beside it: one that is stopped keeps its port open.
const STAGGER: Duration = Duration::from_millis(300);

/// What one node said.
struct View {
    slots: Slots,
    /// Whether the node itself finds that its Cluster works. One that is cut off from the others, or was put aside,
    /// does not; what it says is old.
    works: bool,
}

/// The view of the first of `nodes` that answers and whose Cluster works; of one whose Cluster does not, if there is
/// no other. On connections of its own, closed before the answer. Takes at most about twice the connect timeout.
///
/// # Errors
/// What the last of them said.
pub async fn ask_any(options: &RedisOptions, nodes: Vec<Address>) -> Result<Slots, ConnectError> {
    let (mut rest, mut asking) = (nodes.into_iter(), FuturesUnordered::new());
    let mut failure =
        ConnectError::Unusable { address: options.address(), reason: "no nodes are known".to_owned() };
    let mut doubtful = None;
    loop {
        if let Some(node) = rest.next() {
            asking.push(ask(options, node));
        } else if asking.is_empty() {
            return doubtful.ok_or(failure);
        }
        tokio::select! {
            Some(view) = asking.next() => match view {
                Ok(View { slots, works: true }) => return Ok(slots),
                Ok(View { slots, works: false }) => doubtful = Some(slots),
                Err(error) => failure = error,
            },
            // Who is left keeps silent: what it would say is not worth the wait, others look for a new master.
            () = sleep(STAGGER) => if let Some(slots) = doubtful.take_if(|_| rest.as_slice().is_empty()) {
                return Ok(slots);
            },
        }
    }
}

async fn ask(options: &RedisOptions, node: Address) -> Result<View, ConnectError> {
    let wire = Wire::open(options, &node).await?;
    let call = |what: &'static str| {
        wire.caller().call(Command::new(CommandName::Cluster).arg(what), options.connect_timeout)
    };
    let (info, slots) = (call("INFO"), call("SLOTS"));
    let answers = timeout(options.connect_timeout, async { Ok((info.await?, slots.await?)) }).await;
    let unusable = |reason: String| ConnectError::Unusable { address: node.to_string(), reason };
    let (info, slots) = match answers {
        Ok(Ok(answers)) => answers,
        Ok(Err(error)) => return Err(failure(&node, error)),
        Err(_) => {
            let reason = "no answer to CLUSTER SLOTS".to_owned();
            return Err(ConnectError::Unreachable { address: node.to_string(), reason });
        }
    };
    let slots =
        Slots::from_reply(&slots, &node).map_err(|error| unusable(format!("CLUSTER SLOTS: {error}")))?;
    if slots.is_empty() {
        return Err(unusable("it knows of no slots of a Cluster".to_owned()));
    }
    let works = info.as_str().is_ok_and(|info| info.contains("cluster_state:ok"));
    Ok(View { slots, works })
}

fn failure(node: &Address, error: CallError) -> ConnectError {
    let address = node.to_string();
    match error {
        CallError::Server(error) if error.code == "NOPERM" || error.code == "NOAUTH" => {
            ConnectError::Denied { address, reason: error.to_string() }
        }
        CallError::Server(error) => ConnectError::Unusable { address, reason: error.to_string() },
        CallError::NeverSent(reason) | CallError::MaybeExecuted(reason) => {
            ConnectError::Unreachable { address, reason }
        }
    }
}
