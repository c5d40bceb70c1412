//! Interest in patterns, their recovery, and the search for channels born while the inbox may have missed entries.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::oneshot;

use super::{
    super::{
        entry::position_of,
        paging::{Caller, GREATEST_REPLAY},
        range::{Part, clock_and_top},
        reply::Reply,
        scripts,
    },
    PatternPart, Permit,
    actor::{Actor, Done},
    slot::{Fill, Slot},
    subscribe::{count_recovery, missed},
};
use crate::{
    broker::{BrokerError, GapReason, PatternCursors, SinkId, Start},
    channel::{Channel, Pattern, Target},
    policy::{ChannelPolicy, Policies},
    position::Position,
};

/// Most channels in the answer of one partition.
const GREATEST_CHANNELS: u64 = 1_000;
/// Most names of the catalogue that one call looks at.
const GREATEST_LOOK: u64 = 20_000;

/// What a partition knows of a pattern that somebody here listens to.
#[derive(Debug, Default)]
pub struct PatternState {
    /// Channels of epochs up to here are known, or were there before the interest began.
    pub known_top: u64,
    /// The catalogue must be looked at again: channels may have been born unnoticed.
    pub rescan: bool,
    /// That is under way.
    pub scanning: bool,
}

/// Why a pattern was looked up.
pub enum Scan {
    /// For a subscriber.
    Subscribe {
        sink: SinkId,
        fresh: bool,
        reply: oneshot::Sender<Result<PatternPart, BrokerError>>,
        _permit: Permit,
    },
    /// See [`PatternState::rescan`].
    Rescan,
}

impl Actor {
    pub(super) fn subscribe_pattern(
        &mut self,
        sink: SinkId,
        pattern: Pattern,
        start: Start<PatternCursors>,
        marker: Option<u64>,
        reply: oneshot::Sender<Result<PatternPart, BrokerError>>,
        permit: Permit,
    ) {
        let target = Target::Pattern(pattern.clone());
        let fresh = !self.interest.of(&target).contains(sink);
        self.interest.insert(&target, sink);
        self.patterns.entry(pattern.clone()).or_default();
        let scan = Scan::Subscribe { sink, fresh, reply, _permit: permit };
        match self.caller() {
            Ok(caller) => {
                let recovery = Recovery { start, marker, policies: self.environment.policies.clone() };
                let call = scan_catalogue(&caller, &pattern);
                self.later(async move {
                    let outcome = async { recovery.run(&caller, &pattern, call.await?).await }.await;
                    Done::Scanned { pattern, scan, outcome }
                });
            }
            Err(error) => self.finish_scan(&pattern, scan, Err(error)),
        }
    }

    pub(super) fn finish_scan(
        &mut self,
        pattern: &Pattern,
        scan: Scan,
        outcome: Result<PatternPart, BrokerError>,
    ) {
        match scan {
            Scan::Subscribe { sink, fresh, reply, .. } => {
                match &outcome {
                    Ok(part) => self.take_positions(pattern, part),
                    Err(_) if fresh => self.unsubscribe(sink, &Target::Pattern(pattern.clone())),
                    Err(_) => {}
                }
                let _ = reply.send(outcome);
            }
            Scan::Rescan => {
                let Some(state) = self.patterns.get_mut(pattern) else { return };
                state.scanning = false;
                match outcome {
                    Ok(part) => self.take_births(pattern, &part),
                    Err(_) => state.rescan = true,
                }
            }
        }
    }

    /// The channels that were there when the interest began.
    fn take_positions(&mut self, pattern: &Pattern, part: &PatternPart) {
        let Some(state) = self.patterns.get_mut(pattern) else { return };
        if state.known_top == 0 {
            state.known_top = part.top;
        }
        for (channel, position) in &part.positions {
            let slot = self.slots.entry(channel.clone()).or_insert_with(|| Slot::new(None));
            slot.learn_end(*position);
        }
    }

    /// Fills the channels that nobody told us of.
    fn take_births(&mut self, pattern: &Pattern, part: &PatternPart) {
        let Some(state) = self.patterns.get_mut(pattern) else { return };
        let known = std::mem::replace(&mut state.known_top, part.top);
        for (channel, position) in &part.positions {
            let slot = self.slots.entry(channel.clone()).or_insert_with(|| Slot::new(None));
            if slot.last.is_some() {
                continue;
            }
            if position.epoch > known {
                slot.last = Some(Position { epoch: known, offset: 0 });
                slot.fill = Some(Fill::default());
                self.start_fill(channel);
            } else {
                slot.learn_end(*position);
            }
        }
    }

    pub(super) fn rescan_if_needed(&mut self) {
        let wanted: Vec<Pattern> = self
            .patterns
            .iter()
            .filter(|(_, state)| state.rescan && !state.scanning)
            .map(|(pattern, _)| pattern.clone())
            .collect();
        for pattern in wanted {
            let Ok(caller) = self.caller() else { return };
            if let Some(state) = self.patterns.get_mut(&pattern) {
                (state.rescan, state.scanning) = (false, true);
            }
            let call = scan_catalogue(&caller, &pattern);
            self.later(async move {
                Done::Scanned { pattern, scan: Scan::Rescan, outcome: call.await.map(PatternPart::from) }
            });
        }
    }
}

/// A channel of the catalogue.
struct Listed {
    channel: Channel,
    first: Position,
    last: Position,
}

/// What the catalogue lists for a pattern.
struct Listing {
    top: u64,
    channels: Vec<Listed>,
    truncated: bool,
}

impl From<Listing> for PatternPart {
    fn from(listing: Listing) -> Self {
        let positions = listing.channels.into_iter().map(|listed| (listed.channel, listed.last)).collect();
        Self { positions, top: listing.top, missed: Vec::new(), truncated: listing.truncated }
    }
}

/// Queues now: registers the interest and lists the channels.
fn scan_catalogue(
    caller: &Caller,
    pattern: &Pattern,
) -> impl Future<Output = Result<Listing, BrokerError>> + Send + use<> {
    let mut args = caller.head();
    args.push(caller.node.to_string().into());
    args.push(bytes::Bytes::copy_from_slice(pattern.as_str().as_bytes()));
    args.push(bytes::Bytes::copy_from_slice(pattern.literal_prefix().as_bytes()));
    args.push(GREATEST_CHANNELS.to_string().into());
    args.push(GREATEST_LOOK.to_string().into());
    let call = caller.call(&scripts::SUBSCRIBE_PATTERN, args);
    let pattern = pattern.clone();
    async move { listing_of(&pattern, &call.await?.into_array()?) }
}

fn listing_of(pattern: &Pattern, items: &[Reply]) -> Result<Listing, BrokerError> {
    let (_, top) = clock_and_top(items)?;
    let truncated = items.get(2).is_some_and(|more| more.as_str() == Ok("1"));
    let mut channels = Vec::new();
    for listed in items.get(3..).unwrap_or_default().chunks_exact(3) {
        let [name, first, last] = listed else { continue };
        let name = name.as_str()?;
        if let Some(channel) = Channel::parse(name).ok().filter(|_| pattern.matches(name)) {
            let (first, last) = (position_of(first.as_bytes()?)?, position_of(last.as_bytes()?)?);
            channels.push(Listed { channel, first, last });
        }
    }
    Ok(Listing { top, channels, truncated })
}

/// What a subscriber wants of the past.
struct Recovery {
    start: Start<PatternCursors>,
    marker: Option<u64>,
    policies: Policies,
}

/// A range to read, and from which epoch on its entries count.
type Wanted = (Channel, Arc<ChannelPolicy>, Part);

impl Recovery {
    async fn run(
        self,
        caller: &Caller,
        pattern: &Pattern,
        listing: Listing,
    ) -> Result<PatternPart, BrokerError> {
        let (wanted, unlisted, unknown) = self.wanted(pattern, &listing);
        let mut part = PatternPart::from(listing);
        part.truncated = matches!(self.start, Start::After(_)) && (part.truncated || unknown)
            || !matches!(self.start, Start::After(_) | Start::Live) && part.truncated;
        if wanted.is_empty() {
            return Ok(part);
        }
        let mut left = GREATEST_REPLAY;
        let ranges = caller.read_many(wanted.clone()).await?;
        for ((channel, _, read), mut range) in wanted.into_iter().zip(ranges) {
            let mut gap = match read {
                Part::After(cursor) => range.gap_after(cursor),
                _ => range.hole.then_some(GapReason::Middle),
            };
            if unlisted.contains(&channel) {
                // Lets the client replace the cursor of a history that is gone.
                part.positions.push((channel.clone(), range.end()));
            } else if let Some(position) = part.positions.iter_mut().find(|(name, _)| *name == channel) {
                position.1 = position.1.max(range.end());
            }
            if range.more || range.entries.len() > left {
                range.entries.truncate(left);
                gap = gap.or(Some(GapReason::Truncated));
                part.truncated = true;
            }
            left -= range.entries.len();
            count_recovery(gap);
            part.missed.extend(missed(&channel, range.entries, gap));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_skips_what_the_pattern_does_not_match() {
        let bulk = |text: &str| Reply::Bulk(bytes::Bytes::copy_from_slice(text.as_bytes()));
        let mut items = vec![Reply::Int(5), bulk("9"), bulk("1")];
        for text in ["a.b", "7-1", "7-3", "a.b.c", "8-1", "8-1", "a..", "8-1", "8-1"] {
            items.push(bulk(text));
        }
        let listing = listing_of(&Pattern::parse("a.*").unwrap(), &items).unwrap();
        let names: Vec<_> = listing.channels.iter().map(|listed| listed.channel.as_str()).collect();
        assert_eq!((names, listing.top, listing.truncated), (vec!["a.b"], 9, true));
    }
}
