//! Calls that read histories, page by page.
//!
//! Not safe against trimming between two pages by itself: [`Range::extend`] notices and marks the hole.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    connection::Connection,
    error::CallError,
    keys::Keys,
    range::{Part, Range, clock_and_top, push_args},
    reply::Reply,
    scripts,
};
use crate::{broker::BrokerError, channel::Channel, policy::ChannelPolicy, position::Position};

/// Entries of one page.
pub const PAGE: usize = 500;
/// Most publications of one channel that are replayed or answered at once.
pub const GREATEST_REPLAY: usize = 10_000;
/// Most bytes of events that are replayed or answered at once, give or take a page.
pub const GREATEST_BYTES: usize = 32 * 1024 * 1024;

/// Calls scripts of one partition on one connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The connection.
    pub connection: Arc<Connection>,
    /// Names of keys.
    pub keys: Arc<Keys>,
    /// The partition.
    pub partition: usize,
    /// This node's incarnation.
    pub node: u64,
    /// Longest wait for a reply.
    pub deadline: Duration,
}

impl Caller {
    /// The partition's `meta`.
    #[must_use]
    pub fn meta(&self) -> Vec<Bytes> {
        vec![self.keys.key(self.partition, "meta")]
    }

    /// The first arguments of every script that includes `meta.lua`.
    #[must_use]
    pub fn head(&self) -> Vec<Bytes> {
        let replid = Bytes::copy_from_slice(self.connection.hello().replid.as_bytes());
        vec![self.keys.base(self.partition), replid]
    }

    /// Queues a script's call now.
    pub fn call(
        &self,
        script: &'static super::script::Script,
        args: Vec<Bytes>,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send + use<> {
        self.connection.call_script(script, self.meta(), args, self.deadline)
    }

    /// Queues now: registers interest in a channel and reads the part, to its end. `None` if the channel keeps no
    /// history.
    pub fn subscribe(
        &self,
        channel: &Channel,
        policy: Arc<ChannelPolicy>,
        part: Part,
    ) -> impl Future<Output = Result<Option<Range>, BrokerError>> + Send + use<> {
        let mut args = self.head();
        args.push(self.node.to_string().into());
        args.push(PAGE.to_string().into());
        let shown = if policy.keeps_history() {
            policy.as_ref().clone()
        } else {
            ChannelPolicy { history_size: 0, ..policy.as_ref().clone() }
        };
        push_args(&mut args, channel, &shown, part);
        let call = self.call(&scripts::SUBSCRIBE, args);
        count_read();
        let (caller, channel) = (self.clone(), channel.clone());
        async move {
            let items = call.await?.into_array()?;
            let clock = clock_and_top(&items)?;
            let Some(reply) = items.get(2) else { return Ok(None) };
            let range = Range::from_reply(&channel, clock, PAGE, reply)?;
            caller.read_on(range, channel, policy).await.map(Some)
        }
    }

    /// Queues now: reads the part, to its end.
    pub fn read(
        &self,
        channel: &Channel,
        policy: Arc<ChannelPolicy>,
        part: Part,
    ) -> impl Future<Output = Result<Range, BrokerError>> + Send + use<> {
        let page = self.page(channel, &policy, part, PAGE);
        let (caller, channel) = (self.clone(), channel.clone());
        async move { caller.read_on(page.await?, channel, policy).await }
    }

    /// Queues now: reads one page.
    pub fn page(
        &self,
        channel: &Channel,
        policy: &ChannelPolicy,
        part: Part,
        limit: usize,
    ) -> impl Future<Output = Result<Range, BrokerError>> + Send + use<> {
        let mut args = self.head();
        // Without room the script would not look at the channel at all.
        args.push(limit.max(1).to_string().into());
        push_args(&mut args, channel, policy, part);
        let call = self.call(&scripts::READ, args);
        count_read();
        let channel = channel.clone();
        async move {
            let items = call.await?.into_array()?;
            let reply =
                items.get(2).ok_or(super::reply::ReplyError::Length { expected: 3, got: items.len() })?;
            Range::from_reply(&channel, clock_and_top(&items)?, limit, reply)
        }
    }

    /// Reads the pages after the first.
    async fn read_on(
        &self,
        mut range: Range,
        channel: Channel,
        policy: Arc<ChannelPolicy>,
    ) -> Result<Range, BrokerError> {
        let mut bytes = bytes_of(&range);
        while range.more && range.entries.len() < GREATEST_REPLAY && bytes < GREATEST_BYTES {
            let Some(last) = unfinished_at(&range) else { break };
            let page = self.page(&channel, &policy, Part::After(last), PAGE).await?;
            bytes += bytes_of(&page);
            range.extend(page);
        }
        settle(&mut range);
        Ok(range)
    }

    /// Reads parts of many channels with few calls; the answers are in the order of `wanted`. `None` for those that
    /// were not read because [`GREATEST_REPLAY`] or the greatest number of bytes was reached before.
    pub async fn read_many(
        &self,
        wanted: &[(Channel, Arc<ChannelPolicy>, Part)],
    ) -> Result<Vec<Option<Range>>, BrokerError> {
        let (mut ranges, mut entries, mut bytes) = (Vec::with_capacity(wanted.len()), 0, 0);
        while ranges.len() < wanted.len() {
            if entries >= GREATEST_REPLAY || bytes >= GREATEST_BYTES {
                ranges.push(None);
                continue;
            }
            let rest = wanted.get(ranges.len()..).unwrap_or_default();
            for (range, (channel, policy, _)) in self.read_some(rest).await?.into_iter().zip(rest) {
                let range = self.read_on(range, channel.clone(), policy.clone()).await?;
                entries += range.entries.len();
                bytes += bytes_of(&range);
                ranges.push(Some(range));
            }
        }
        Ok(ranges)
    }

    /// The first pages of the first ones of `wanted`, at least of one.
    async fn read_some(
        &self,
        wanted: &[(Channel, Arc<ChannelPolicy>, Part)],
    ) -> Result<Vec<Range>, BrokerError> {
        let mut args = self.head();
        args.push(PAGE.to_string().into());
        for (channel, policy, part) in wanted.iter().take(PAGE) {
            push_args(&mut args, channel, policy, *part);
        }
        let call = self.call(&scripts::READ, args);
        count_read();
        let items = call.await?.into_array()?;
        let clock = clock_and_top(&items)?;
        let (mut left, mut ranges) = (PAGE, Vec::new());
        for (reply, (channel, ..)) in items.iter().skip(2).zip(wanted) {
            ranges.push(Range::from_reply(channel, clock, left, reply)?);
            left = left.saturating_sub(entries_in(reply));
        }
        if ranges.is_empty() {
            return Err(BrokerError::Damaged("a read answered nothing".to_owned()));
        }
        Ok(ranges)
    }
}

/// After the last page: a page that is just full does not tell whether there are more, and one that is not full ends
/// too early when the history was gone before it was read.
fn settle(range: &mut Range) {
    let unfinished = unfinished_at(range).is_some();
    range.hole |= unfinished && !range.more;
    range.more &= unfinished;
}

/// The last entry that was looked at, if it is not the last one of the history.
fn unfinished_at(range: &Range) -> Option<Position> {
    let last = range.read_to?;
    range.ends.is_some_and(|ends| last < ends.last).then_some(last)
}

/// Bytes of the events in a range.
pub fn bytes_of(range: &Range) -> usize {
    range.entries.iter().map(|entry| entry.stored.event.len()).sum()
}

fn count_read() {
    metrics::counter!(crate::telemetry::metrics::HISTORY_READS).increment(1);
}

/// Entries in an answer of `read_channel`, as the script counted them.
fn entries_in(reply: &Reply) -> usize {
    let entries =
        reply.as_array().ok().and_then(|items| items.get(5)).and_then(|entries| entries.as_array().ok());
    entries.map_or(0, <[Reply]>::len)
}

#[cfg(test)]
mod tests {
    use super::{super::range::Ends, *};
    use crate::broker::{Publication, Stored};

    fn range(entries: u64, last: u64, more: bool) -> Range {
        let at = |offset| Position { epoch: 5, offset };
        let channel = Channel::parse("a").unwrap();
        let entry = |offset| Publication {
            channel: channel.clone(),
            position: Some(at(offset)),
            time_ms: 0,
            stored: Stored::default(),
        };
        Range {
            top: 5,
            now_ms: 0,
            ends: Some(Ends { raw: at(1), first: at(1), last: at(last) }),
            lost_epoch: None,
            end_of_cursor_epoch: None,
            entries: (1..=entries).map(|offset| Arc::new(entry(offset))).collect(),
            read_to: (entries > 0).then(|| at(entries)),
            more,
            hole: false,
        }
    }

    #[test]
    fn a_history_that_is_gone_between_two_pages_leaves_a_hole() {
        let mut first = range(3, 5, true);
        first.extend(Range { ends: None, entries: Vec::new(), ..range(0, 0, false) });
        settle(&mut first);
        assert!(first.hole && !first.more);
    }

    #[test]
    fn a_page_that_cannot_be_read_is_passed() {
        let damaged = |to, more| Range {
            entries: Vec::new(),
            read_to: Some(Position { epoch: 5, offset: to }),
            hole: true,
            ..range(0, 9, more)
        };
        let mut first = range(3, 9, true);
        first.extend(damaged(6, true));
        assert_eq!(unfinished_at(&first).map(|position| position.offset), Some(6));
        first.extend(damaged(9, true));
        settle(&mut first);
        assert!(first.hole && !first.more);
    }

    #[test]
    fn a_full_last_page_is_the_end_and_a_cut_goes_on() {
        for (entries, more) in [(5, false), (3, true)] {
            let mut range = range(entries, 5, true);
            settle(&mut range);
            assert_eq!((range.hole, range.more), (false, more));
        }
    }
}
