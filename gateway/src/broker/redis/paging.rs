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
use crate::{broker::BrokerError, channel::Channel, policy::ChannelPolicy};

/// Entries of one page.
pub const PAGE: usize = 500;
/// Most publications of one channel that are replayed or answered at once.
pub const GREATEST_REPLAY: usize = 10_000;

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
        while range.more && range.entries.len() < GREATEST_REPLAY {
            let last = range.entries.last().and_then(|last| last.position);
            let Some(last) = last.filter(|last| range.ends.is_some_and(|ends| *last < ends.last)) else {
                range.more = false;
                break;
            };
            let page = self.page(&channel, &policy, Part::After(last), PAGE).await?;
            range.extend(page);
        }
        Ok(range)
    }

    /// Reads parts of many channels with few calls; the answers are in the order of `wanted`.
    pub async fn read_many(
        &self,
        wanted: Vec<(Channel, Arc<ChannelPolicy>, Part)>,
    ) -> Result<Vec<Range>, BrokerError> {
        let mut ranges = Vec::with_capacity(wanted.len());
        while ranges.len() < wanted.len() {
            let rest = wanted.get(ranges.len()..).unwrap_or_default();
            let mut args = self.head();
            args.push(PAGE.to_string().into());
            for (channel, policy, part) in rest.iter().take(PAGE) {
                push_args(&mut args, channel, policy, *part);
            }
            let call = self.call(&scripts::READ, args);
            count_read();
            let items = call.await?.into_array()?;
            let clock = clock_and_top(&items)?;
            let mut left = PAGE;
            for (reply, (channel, policy, _)) in items.iter().skip(2).zip(rest) {
                let range = Range::from_reply(channel, clock, left, reply)?;
                left = left.saturating_sub(entries_in(reply));
                ranges.push((range, channel.clone(), policy.clone()));
            }
            if items.len() <= 2 {
                return Err(BrokerError::Damaged("a read answered nothing".to_owned()));
            }
        }
        let mut whole = Vec::with_capacity(ranges.len());
        for (range, channel, policy) in ranges {
            whole.push(self.read_on(range, channel, policy).await?);
        }
        Ok(whole)
    }
}

fn count_read() {
    metrics::counter!("streamgate_history_reads_total").increment(1);
}

/// Entries in an answer of `read_channel`, as the script counted them.
fn entries_in(reply: &Reply) -> usize {
    let entries =
        reply.as_array().ok().and_then(|items| items.get(5)).and_then(|entries| entries.as_array().ok());
    entries.map_or(0, <[Reply]>::len)
}
