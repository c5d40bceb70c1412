//! This node's lease in the partition, and its turns at cleaning up after nodes that are gone.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;

use super::{
    super::{
        paging::Caller,
        reply::{Reply, ReplyError},
        scripts,
    },
    actor::{Actor, Done},
    member_calls::flag,
};
use crate::{
    broker::BrokerError,
    telemetry::metrics::{HOOK_EVENTS_DROPPED, LEASES_LOST, MEMBERS_REAPED, NODES_REAPED},
};

/// Longest time between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// So long without any heartbeat, and it was Redis that was away.
const AWAY: Duration = Duration::from_secs(3);
/// Things that one call cleans up.
const REAP_BATCH: u64 = 200;

/// Time between two heartbeats: several fit into a lease.
pub(super) fn beat(lease: Duration) -> Duration {
    BEAT.min(lease / 5)
}

/// What a heartbeat answered (`scripts/heartbeat.lua`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    lost: bool,
    more: bool,
    nodes: u64,
    members: u64,
    extended: bool,
    /// What there was no room for in the queue of occupancy.
    dropped: u64,
}

impl Beat {
    fn of(items: &[Reply]) -> Result<Self, BrokerError> {
        let [lost, more, nodes, members, extended, rest @ ..] = items else {
            return Err(ReplyError::Length { expected: 5, got: items.len() }.into());
        };
        let error = rest.first().and_then(|error| error.as_str().ok());
        if let Some(error) = error.filter(|error| !error.is_empty()) {
            tracing::warn!(error, "cleaning up failed, trying again");
        }
        Ok(Self {
            lost: lost.as_int()? == 1,
            more: more.as_int()? == 1,
            nodes: nodes.as_u64()?,
            members: members.as_u64()?,
            extended: extended.as_int()? == 1,
            dropped: rest.get(1).map_or(Ok(0), Reply::as_u64)?,
        })
    }
}

impl Actor {
    /// The first arguments of the scripts that change members.
    pub(super) fn presence_args(&self, caller: &Caller) -> Vec<Bytes> {
        vec![
            caller.keys.base(caller.partition),
            caller.node.to_string().into(),
            self.environment.inbox_max.to_string().into(),
        ]
    }

    /// Shows that this node lives. `go_on`: the call before left something to clean up.
    pub(super) fn beat(&mut self, go_on: bool) {
        if self.beating {
            return;
        }
        // Without a connection the lease runs on: it outlives short absences, and long ones are noticed.
        let Ok(caller) = self.caller() else { return };
        let lease = self.environment.lease;
        let ms = |time: Duration| Bytes::from(time.as_millis().to_string());
        let mut args = self.presence_args(&caller);
        args.extend([ms(lease), ms(beat(lease).mul_f64(0.9)), ms(AWAY.min(lease.mul_f64(0.6)))]);
        // A server that may be one of a Cluster counts as one.
        let clustered = !caller.connection.hello().standalone;
        let records = self.environment.records_occupancy.load(Ordering::Relaxed);
        args.extend([REAP_BATCH.to_string().into(), flag(go_on), flag(clustered), flag(records)]);
        self.beating = true;
        let call = caller.call(&scripts::HEARTBEAT, args);
        self.later(async move {
            let read = async { Beat::of(&call.await?.into_array()?) };
            Done::Beaten(read.await)
        });
    }

    pub(super) fn finish_beat(&mut self, outcome: Result<Beat, BrokerError>) {
        self.beating = false;
        let beat = match outcome {
            Ok(beat) => beat,
            Err(error) => {
                tracing::debug!(%error, "the lease could not be renewed, trying again");
                return;
            }
        };
        let partition = self.environment.partition;
        if beat.extended {
            tracing::debug!(partition, "nobody had a chance to renew leases: all were extended");
        }
        if beat.nodes > 0 || beat.members > 0 {
            tracing::info!(
                partition,
                ended = beat.nodes > 0,
                members = beat.members,
                "cleaned up after a dead node"
            );
            metrics::counter!(NODES_REAPED).increment(beat.nodes);
            metrics::counter!(MEMBERS_REAPED).increment(beat.members);
        }
        if beat.dropped > 0 {
            tracing::warn!(
                partition,
                lost = beat.dropped,
                "nobody takes what is recorded of occupied channels: nobody will be told of these"
            );
            metrics::counter!(HOOK_EVENTS_DROPPED, "reason" => "full").increment(beat.dropped);
        }
        if beat.lost {
            tracing::warn!(
                partition,
                "this node's lease was gone: it was taken for dead, or Redis lost its data"
            );
            metrics::counter!(LEASES_LOST).increment(1);
            self.resync("the lease was gone");
        }
        if beat.more {
            self.beat(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_beats_fit_into_the_shortest_lease() {
        assert_eq!(beat(Duration::from_secs(10)), BEAT);
        assert_eq!(beat(Duration::from_secs(1)), Duration::from_millis(200));
    }
}
