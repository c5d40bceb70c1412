//! What a pattern's subscriber missed: by its cursors, and of channels born since its marker.

use std::{collections::HashSet, sync::Arc};

use super::{
    super::{
        paging::{Caller, GREATEST_REPLAY},
        range::Part,
    },
    PatternPart,
    catalogue::{Listed, Listing},
    subscribe::count_recovery,
};
use crate::{
    broker::{BrokerError, ChannelCatchup, GapReason, PatternCursors, Start},
    channel::{Channel, Pattern},
    policy::{ChannelPolicy, Policies},
    position::Position,
};

/// What a subscriber wants of the past.
pub struct Recovery {
    pub start: Start<PatternCursors>,
    /// Highest epoch of the partition at the client's marker.
    pub marker: Option<u64>,
    pub policies: Policies,
}

/// A part to read.
type Wanted = (Channel, Arc<ChannelPolicy>, Part);

impl Recovery {
    /// Reads what was missed of the channels listed.
    pub async fn run(
        self,
        caller: &Caller,
        pattern: &Pattern,
        listing: Listing,
    ) -> Result<PatternPart, BrokerError> {
        let (wanted, unlisted, unknown) = self.wanted(pattern, &listing);
        let mut part = PatternPart::from(listing);
        // Nothing of the past was asked for: more channels than are listed are no loss.
        part.truncated = self.start != Start::Live && (part.truncated || unknown);
        // What is left of a history that is kept no more is not shown, and a cursor of it is from before.
        let (wanted, unkept): (Vec<Wanted>, Vec<Wanted>) =
            wanted.into_iter().partition(|(_, policy, _)| policy.keeps_history());
        for (channel, _, read) in unkept {
            let gap = matches!(read, Part::After(_)).then_some(GapReason::Expired);
            part.missed.extend(ChannelCatchup::of(&channel, Vec::new(), gap, false));
        }
        if wanted.is_empty() {
            return Ok(part);
        }
        let mut left = GREATEST_REPLAY;
        let ranges = caller.read_many(&wanted).await?;
        for ((channel, _, read), range) in wanted.into_iter().zip(ranges) {
            let Some(mut range) = range else {
                part.truncated = true;
                part.missed.extend(ChannelCatchup::of(&channel, Vec::new(), None, true));
                continue;
            };
            let gap = match read {
                Part::After(cursor) => range.gap_after(cursor),
                _ => range.hole.then_some(GapReason::Middle),
            };
            if unlisted.contains(&channel) {
                // Lets the client replace the cursor of a history that is gone.
                part.positions.push((channel.clone(), range.end()));
            } else if let Some(position) = part.positions.iter_mut().find(|(name, _)| *name == channel) {
                position.1 = position.1.max(range.end());
            }
            let cut = range.more || range.entries.len() > left;
            range.entries.truncate(left);
            left -= range.entries.len();
            part.truncated |= cut;
            let missed = ChannelCatchup::of(&channel, range.entries, gap, cut);
            count_recovery(missed.as_ref().and_then(ChannelCatchup::reason));
            part.missed.extend(missed);
        }
        Ok(part)
    }

    /// What to read, which of it is not listed, and whether something is left out because nothing is known of it.
    fn wanted(&self, pattern: &Pattern, listing: &Listing) -> (Vec<Wanted>, HashSet<Channel>, bool) {
        let of = |channel: &Channel, part| (channel.clone(), self.policies.of(channel.as_str()), part);
        match &self.start {
            Start::Live => (Vec::new(), HashSet::new(), false),
            Start::From(from) => {
                let all = listing.channels.iter().map(|listed| of(&listed.channel, Part::From(*from)));
                (all.collect(), HashSet::new(), false)
            }
            Start::After(cursors) => {
                // Without a marker, the newest cursor tells a time at which the subscription was there.
                let newest = || cursors.channels.values().map(|cursor| cursor.epoch).max().unwrap_or(0);
                let marker = self.marker.unwrap_or_else(newest);
                let (mut wanted, mut unknown) = (Vec::new(), false);
                for Listed { channel, first, last } in &listing.channels {
                    match cursors.channels.get(channel) {
                        Some(cursor) if cursor == last => {}
                        Some(cursor) => wanted.push(of(channel, Part::After(*cursor))),
                        // It was there at the marker, but not among the positions that were answered then.
                        None if first.epoch <= marker => unknown |= marker <= listing.top,
                        None if marker == 0 => {
                            wanted.push(of(channel, Part::From(crate::broker::From::Start)))
                        }
                        None => {
                            let unseen = Position { epoch: marker, offset: 0 };
                            wanted.push(of(channel, Part::After(unseen)));
                        }
                    }
                }
                let listed: HashSet<&Channel> =
                    listing.channels.iter().map(|listed| &listed.channel).collect();
                let unlisted: HashSet<Channel> = cursors
                    .channels
                    .keys()
                    .filter(|channel| !listed.contains(channel) && pattern.matches(channel.as_str()))
                    .cloned()
                    .collect();
                wanted.extend(
                    cursors
                        .channels
                        .iter()
                        .filter(|(channel, _)| unlisted.contains(*channel))
                        .map(|(channel, cursor)| of(channel, Part::After(*cursor))),
                );
                (wanted, unlisted, unknown)
            }
        }
    }
}
