//! The catalogue's answer to a pattern: the channels with history that it matches.

use super::{
    super::{entry::position_of, paging::Caller, range::clock_and_top, reply::Reply, scripts},
    PatternPart,
};
use crate::{
    broker::BrokerError,
    channel::{Channel, Pattern},
    position::Position,
};

/// Most channels in the answer of one partition.
const GREATEST_CHANNELS: u64 = 1_000;
/// Most names of the catalogue that one call looks at.
const GREATEST_LOOK: u64 = 20_000;

/// A channel of the catalogue.
pub struct Listed {
    pub channel: Channel,
    pub first: Position,
    pub last: Position,
}

/// What the catalogue lists for a pattern.
pub struct Listing {
    /// Highest epoch of the partition.
    pub top: u64,
    pub channels: Vec<Listed>,
    /// There are more.
    pub truncated: bool,
}

impl From<Listing> for PatternPart {
    fn from(listing: Listing) -> Self {
        let positions = listing.channels.into_iter().map(|listed| (listed.channel, listed.last)).collect();
        Self { positions, top: listing.top, missed: Vec::new(), truncated: listing.truncated }
    }
}

/// Queues now: registers the interest and lists the channels.
pub fn scan_catalogue(
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
