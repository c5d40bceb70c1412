//! Where everything stands, as far as anybody was told: by an ack, or by seeing it.

use std::collections::{BTreeMap, HashMap};

use super::log::{History, Place, Seen};

/// All positions of a run.
pub(super) struct Canon<'a> {
    channels: HashMap<&'a str, Channel<'a>>,
}

/// The positions of one channel.
#[derive(Default)]
pub(super) struct Channel<'a> {
    /// Publishes that stand, or stood, at a position: one, if all is well.
    pub(super) at: BTreeMap<Place, Vec<&'a str>>,
    /// By epoch, the lowest offset of this epoch and all newer ones.
    lowest_from: BTreeMap<u64, u64>,
}

impl<'a> Canon<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut channels: HashMap<&str, Channel<'_>> = HashMap::new();
        let mut note = |channel: &'a str, place: Place, id: &'a str| {
            let ids = channels.entry(channel).or_default().at.entry(place).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        };
        for (id, publish) in &history.publishes {
            publish.acks.iter().for_each(|ack| note(&publish.channel, ack.place, id));
        }
        for seen in history.subscribers.values().flat_map(|subscriber| &subscriber.seen) {
            if let Seen::Publication { channel, place, id, .. } = seen {
                note(channel, *place, id);
            }
        }
        channels.values_mut().for_each(Channel::find_lowest);
        Self { channels }
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = (&'a str, &Channel<'a>)> {
        self.channels.iter().map(|(name, channel)| (*name, channel))
    }

    /// Whether what stands there was lost, or its history removed, before a newer epoch began.
    pub(super) fn is_superseded(&self, channel: &str, place: Place) -> bool {
        self.channels.get(channel).is_some_and(|channel| channel.is_superseded(place))
    }

    /// Whether what stands there was surely not lost: its channel went on behind it.
    pub(super) fn is_kept(&self, channel: &str, place: Place) -> bool {
        self.channels.get(channel).is_some_and(|channel| {
            !channel.is_superseded(place) && channel.at.keys().next_back().is_some_and(|last| *last > place)
        })
    }
}

impl Channel<'_> {
    fn find_lowest(&mut self) {
        let mut lowest = u64::MAX;
        // From the newest epoch back; within one, the entry taken last has its lowest offset.
        for place in self.at.keys().rev() {
            lowest = lowest.min(place.offset);
            self.lowest_from.insert(place.epoch, lowest);
        }
    }

    /// Offsets go on across epochs: where a newer one gave the offset out again, the older entry was not there any more.
    fn is_superseded(&self, place: Place) -> bool {
        let newer = self.lowest_from.range(place.epoch.saturating_add(1)..).next();
        newer.is_some_and(|(_, lowest)| *lowest <= place.offset)
    }
}
