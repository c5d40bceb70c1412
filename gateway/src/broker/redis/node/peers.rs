//! What nodes tell each other: letters through the inboxes; cards and revocations in one partition, the first.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::FutureExt as _;

use super::{Answer, RedisBroker, failed};
use crate::broker::{
    Addressee, BrokerError, NodeId, Revocation, Revocations, Revoked,
    redis::{error::CallError, paging::Caller, reply::Reply, script::Script, scripts},
};

/// The partition that holds what is of no channel.
const BOARD: usize = 0;

/// Which partition the next letter goes through: they share the load.
static TURN: AtomicUsize = AtomicUsize::new(0);

impl RedisBroker {
    pub(super) fn send_letter(&self, to: Addressee, letter: Bytes) -> Answer<Vec<NodeId>> {
        let (turn, count) = (TURN.fetch_add(1, Ordering::Relaxed), self.partitions.len());
        // In a Cluster some partitions may be away while the others are not.
        let reachable = |partition: &usize| self.caller(*partition).is_ok();
        let partition =
            (0..count).map(|n| turn.wrapping_add(n) % count).find(reachable).unwrap_or(turn % count);
        let to = match to {
            Addressee::Node(NodeId(node)) => node.to_string(),
            Addressee::Every => String::new(),
        };
        let args = vec![self.inbox_max.to_string().into(), letter, to.into()];
        self.ask(partition, &scripts::POST, args, |reply| {
            reply.into_array()?.iter().skip(1).map(|node| Ok(NodeId(node.as_u64()?))).collect()
        })
    }

    pub(super) fn keep_card(&self, card: Bytes) -> Answer<()> {
        self.ask(BOARD, &scripts::ANNOUNCE, vec![card], |_| Ok(()))
    }

    pub(super) fn living(&self) -> Answer<Vec<(NodeId, Bytes)>> {
        self.ask(BOARD, &scripts::NODES, Vec::new(), |reply| {
            let items = reply.into_array()?;
            let pairs = items.get(1..).unwrap_or_default().chunks_exact(2);
            let mut nodes = pairs
                .map(|pair| Ok((NodeId(pair[0].as_u64()?), Bytes::copy_from_slice(pair[1].as_bytes()?))))
                .collect::<Result<Vec<_>, BrokerError>>()?;
            nodes.sort_by_key(|(node, _)| *node);
            Ok(nodes)
        })
    }

    pub(super) fn add_revocation(&self, what: &Revoked, until_ms: u64) -> Answer<()> {
        let name = match what {
            Revoked::User(user) => format!("u:{user}"),
            Revoked::Token(id) => format!("t:{id}"),
        };
        self.ask(BOARD, &scripts::REVOKE, vec![name.into(), until_ms.to_string().into()], |_| Ok(()))
    }

    pub(super) fn changed_revocations(&self, known: u64) -> Answer<Option<Revocations>> {
        self.ask(BOARD, &scripts::REVOCATIONS, vec![known.to_string().into()], |reply| {
            let items = reply.into_array()?;
            let Some(version) = items.get(1) else { return Ok(None) };
            let pairs = items.get(2..).unwrap_or_default().chunks_exact(2);
            let mut entries = Vec::new();
            for pair in pairs {
                match revocation(pair[0].as_str()?, pair[1].as_str()?) {
                    Ok(entry) => entries.push(entry),
                    // Of a later version perhaps: it must not keep the others from holding.
                    Err(error) => tracing::warn!(%error, "a revocation cannot be read"),
                }
            }
            Ok(Some(Revocations { version: version.as_u64()?, entries }))
        })
    }

    /// Queues a script's call now, with the partition and this node before `args`.
    fn ask<T: Send + 'static>(
        &self,
        partition: usize,
        script: &'static Script,
        args: Vec<Bytes>,
        read: impl FnOnce(Reply) -> Result<T, BrokerError> + Send + 'static,
    ) -> Answer<T> {
        let caller: Caller = match self.must_have_started().and_then(|()| self.caller(partition)) {
            Ok(caller) => caller,
            Err(error) => return failed(error),
        };
        let head = [self.keys.base(partition), caller.node.to_string().into()];
        let call = caller.call(script, head.into_iter().chain(args).collect());
        async move { read(call.await.map_err(|error: CallError| BrokerError::from(error))?) }.boxed()
    }
}

fn revocation(name: &str, times: &str) -> Result<Revocation, BrokerError> {
    let damaged = || BrokerError::Damaged(format!("{name:?} is revoked from and until {times:?}"));
    let what = match name.split_once(':') {
        Some(("u", user)) => Revoked::User(user.to_owned()),
        Some(("t", id)) => Revoked::Token(id.to_owned()),
        _ => return Err(damaged()),
    };
    let (at_ms, until_ms) = times
        .split_once(' ')
        .and_then(|(at, until)| Some((at.parse().ok()?, until.parse().ok()?)))
        .ok_or_else(damaged)?;
    Ok(Revocation { what, at_ms, until_ms })
}
