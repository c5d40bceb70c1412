//! First and last subscribers, recorded where they come and go.

use super::State;
use crate::{
    broker::{OCCUPANCY, Occupancy, occupancy::MOST},
    channel::Target,
    telemetry::metrics::HOOK_EVENTS_DROPPED,
};

impl State {
    /// Notes that a channel has its first subscriber, or lost its last one, if anybody wants to know.
    pub(super) fn record_occupancy(&mut self, target: &Target, occupied: bool, time_ms: u64) {
        let Target::Channel(channel) = target else { return };
        if !self.records_occupancy {
            return;
        }
        let item = Occupancy { channel: channel.clone(), occupied, time_ms }.to_bytes();
        if self.work.add(OCCUPANCY, vec![item], MOST) == 0 {
            metrics::counter!(HOOK_EVENTS_DROPPED, "reason" => "full").increment(1);
        }
    }
}
