//! Calls that list members, page by page.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::super::{
    entry::held_member,
    paging::Caller,
    reply::{Reply, ReplyError},
    scripts,
};
use crate::{
    broker::{BrokerError, Member, PresencePage},
    channel::{Channel, Pattern},
};

/// Members of one page.
const PAGE: usize = 500;
/// Channels of one page.
const CHANNELS_PAGE: usize = 1_000;
/// Most members of one channel that are listed for watchers, or answered.
const GREATEST_LISTING: usize = 100_000;
/// Most channels with members that one pattern is looked up in.
const GREATEST_LOOK: usize = 100_000;

fn page(
    caller: &Caller,
    register: bool,
    channel: &Channel,
    cursor: &str,
    count: usize,
) -> impl Future<Output = Result<Reply, super::super::error::CallError>> + Send + use<> {
    caller.call(
        &scripts::MEMBERS,
        vec![
            caller.keys.base(caller.partition),
            caller.node.to_string().into(),
            flag(register),
            Bytes::copy_from_slice(channel.as_str().as_bytes()),
            Bytes::copy_from_slice(cursor.as_bytes()),
            count.to_string().into(),
        ],
    )
}

pub(super) fn flag(set: bool) -> Bytes {
    Bytes::from_static(if set { b"1" } else { b"0" })
}

/// Queues now: lists up to `limit` members, after registering the interest of a watcher if `register`.
pub(super) fn list_members(
    caller: &Caller,
    channel: &Channel,
    limit: usize,
    register: bool,
) -> impl Future<Output = Result<PresencePage, BrokerError>> + Send + use<> {
    let limit = limit.min(GREATEST_LISTING);
    let first = page(caller, register, channel, "0", limit.min(PAGE));
    let (caller, channel) = (caller.clone(), channel.clone());
    async move {
        let mut reply = first.await?;
        // A page may repeat members of another while the hash grows or shrinks.
        let mut members: HashMap<String, Arc<Member>> = HashMap::new();
        loop {
            let items = reply.into_array()?;
            let (count, cursor) = read_page(&items, &mut members)?;
            if cursor == "0" || members.len() >= limit {
                let members = members.into_values().take(limit).collect();
                return Ok(PresencePage { members, count });
            }
            reply = page(&caller, false, &channel, &cursor, (limit - members.len()).min(PAGE)).await?;
        }
    }
}

/// Number of members and next cursor.
fn read_page(
    items: &[Reply],
    members: &mut HashMap<String, Arc<Member>>,
) -> Result<(u64, String), BrokerError> {
    let [count, cursor, rest @ ..] = items else {
        return Err(ReplyError::Length { expected: 2, got: items.len() }.into());
    };
    for value in rest.chunks_exact(2).filter_map(|pair| pair.get(1)) {
        match held_member(value.as_bytes()?) {
            Ok(member) => drop(members.insert(member.session_id.clone(), Arc::new(member))),
            Err(error) => tracing::error!(%error, "a member is damaged"),
        }
    }
    Ok((count.as_u64()?, cursor.as_str()?.to_owned()))
}

/// Queues now: registers the interest of a watcher and lists the channels with members that the pattern matches.
pub(super) fn list_channels(
    caller: &Caller,
    pattern: &Pattern,
) -> impl Future<Output = Result<Vec<Channel>, BrokerError>> + Send + use<> {
    let page = |caller: &Caller, pattern: &Pattern, register, after: &str| {
        caller.call(
            &scripts::MEMBER_CHANNELS,
            vec![
                caller.keys.base(caller.partition),
                caller.node.to_string().into(),
                flag(register),
                Bytes::copy_from_slice(pattern.literal_prefix().as_bytes()),
                Bytes::copy_from_slice(after.as_bytes()),
                CHANNELS_PAGE.to_string().into(),
            ],
        )
    };
    let first = page(caller, pattern, true, "");
    let (caller, pattern) = (caller.clone(), pattern.clone());
    async move {
        let (mut reply, mut channels, mut looked) = (first.await?, Vec::new(), 0);
        loop {
            let names = reply.into_array()?;
            let names: Vec<&str> = names.iter().skip(1).map(Reply::as_str).collect::<Result<_, _>>()?;
            looked += names.len();
            let matching = names.iter().filter(|name| pattern.matches(name));
            channels.extend(matching.filter_map(|name| Channel::parse(name).ok()));
            if looked >= GREATEST_LOOK {
                tracing::warn!(%pattern, looked, "too many channels have members: who was on the others is not known");
                return Ok(channels);
            }
            let Some(last) = names.last().filter(|_| names.len() >= CHANNELS_PAGE) else {
                return Ok(channels);
            };
            reply = page(&caller, &pattern, false, last).await?;
        }
    }
}
