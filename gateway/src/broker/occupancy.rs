//! Which channels have subscribers by name, on any node. The first one that comes and the last one that goes make an item
//! each in the queue [`OCCUPANCY`], once a node has asked for it by
//! [`Broker::record_occupancy`](super::Broker::record_occupancy). Subscriptions to patterns occupy nothing.

use bytes::Bytes;

use crate::channel::Channel;

/// The queue of shared work with the items; those of a channel are in its lane.
pub const OCCUPANCY: &str = "occupancy";

/// Most items that a lane holds; as `MOST` in `redis/scripts/interest.lua`.
pub(super) const MOST: u64 = 100_000;

/// What the payload of an item says, in text: `o` or `v`, the time, and the channel, with a space between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupancy {
    /// The channel.
    pub channel: Channel,
    /// Whether it has subscribers from then on.
    pub occupied: bool,
    /// When, milliseconds since the Unix epoch by the broker's clock.
    pub time_ms: u64,
}

impl Occupancy {
    /// Reads a payload; `None` if it is none.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(payload).ok()?.splitn(3, ' ');
        let occupied = match words.next()? {
            "o" => true,
            "v" => false,
            _ => return None,
        };
        let time_ms = words.next()?.parse().ok()?;
        let channel = Channel::parse(words.next()?).ok()?;
        Some(Self { channel, occupied, time_ms })
    }

    /// The payload.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let word = if self.occupied { 'o' } else { 'v' };
        format!("{word} {} {}", self.time_ms, self.channel).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        for occupied in [true, false] {
            let told = Occupancy { channel: Channel::parse("a.{b}").unwrap(), occupied, time_ms: 7 };
            assert_eq!(Occupancy::parse(&told.to_bytes()), Some(told));
        }
        assert_eq!(Occupancy::parse(b"o 1792000000000 a").map(|told| told.time_ms), Some(1_792_000_000_000));
        for odd in ["", "o", "o 1", "x 1 a", "o x a", "o 1 a b", "o 1 a.*"] {
            assert_eq!(Occupancy::parse(odd.as_bytes()), None, "{odd}");
        }
    }
}
