//! Pages of channels: those of all partitions, merged by their names.

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::{
    paging::Caller,
    reply::{Reply, ReplyError},
    scripts,
};
use crate::{
    broker::{BrokerError, ChannelPage, ChannelQuery},
    channel::Channel,
};

/// Names that one call looks at.
const PAGE: usize = 1_000;
/// Calls to one partition for one page: with a pattern that matches few of many names a page ends before it is full.
const GREATEST_CALLS: usize = 20;

/// What one partition has.
#[derive(Debug, Default)]
struct Part {
    /// In order; at most as many as are wanted.
    channels: Vec<Channel>,
    /// Names after this one are not known yet; `None`: that was all.
    known_to: Option<String>,
}

/// Reads a page of all partitions.
///
/// # Errors
/// [`BrokerError`] of the calls: a page without a partition would be no page.
pub async fn channels(callers: Vec<Caller>, query: ChannelQuery) -> Result<ChannelPage, BrokerError> {
    let parts = try_join_all(callers.iter().map(|caller| read(caller, &query))).await?;
    Ok(merge(parts, query.limit))
}

async fn read(caller: &Caller, query: &ChannelQuery) -> Result<Part, BrokerError> {
    let prefix = query.prefix();
    let mut after =
        query.after.as_ref().map(Channel::as_str).filter(|after| *after >= prefix).unwrap_or("").to_owned();
    let mut part = Part::default();
    for _ in 0..GREATEST_CALLS {
        let args = vec![
            caller.keys.base(caller.partition),
            Bytes::copy_from_slice(prefix.as_bytes()),
            Bytes::copy_from_slice(after.as_bytes()),
            PAGE.to_string().into(),
        ];
        let items = caller.call(&scripts::CHANNELS, args).await?.into_array()?;
        let [more, last, names @ ..] = items.as_slice() else {
            return Err(ReplyError::Length { expected: 2, got: items.len() }.into());
        };
        let (more, last) = (more.as_u64()? == 1, last.as_str()?.to_owned());
        let names: Vec<&str> = names.iter().map(Reply::as_str).collect::<Result<_, _>>()?;
        // Whoever wrote a name that is none did so by other means.
        let wanted = names.into_iter().filter(|name| query.matches(name));
        part.channels.extend(wanted.filter_map(|name| Channel::parse(name).ok()));
        part.known_to = more.then(|| last.clone());
        if !more || part.channels.len() >= query.limit {
            break;
        }
        after = last;
    }
    if part.channels.len() > query.limit {
        part.channels.truncate(query.limit);
        part.known_to = part.channels.last().map(|last| last.as_str().to_owned());
    }
    Ok(part)
}

/// The first `limit` names of those that are known of every partition.
fn merge(parts: Vec<Part>, limit: usize) -> ChannelPage {
    let known_to = parts.iter().filter_map(|part| part.known_to.clone()).min();
    let mut channels: Vec<Channel> = parts.into_iter().flat_map(|part| part.channels).collect();
    channels.sort_unstable();
    let before = channels.len();
    if let Some(known_to) = &known_to {
        channels.retain(|channel| channel.as_str() <= known_to.as_str());
    }
    let cut = channels.len() > limit || channels.len() < before;
    channels.truncate(limit);
    let next = match channels.last() {
        // A full page ends with its last name: behind it there may be others that are known already.
        Some(last) if channels.len() == limit && (cut || known_to.is_some()) => Some(last.clone()),
        _ => known_to.and_then(|known_to| Channel::parse(&known_to).ok()),
    };
    ChannelPage { channels, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(names: &[&str], known_to: Option<&str>) -> Part {
        Part {
            channels: names.iter().map(|name| Channel::parse(name).unwrap()).collect(),
            known_to: known_to.map(str::to_owned),
        }
    }

    fn merged(parts: Vec<Part>, limit: usize) -> (Vec<String>, Option<String>) {
        let page = merge(parts, limit);
        let names = page.channels.iter().map(|channel| channel.as_str().to_owned()).collect();
        (names, page.next.map(|next| next.as_str().to_owned()))
    }

    #[test]
    fn a_page_has_no_name_behind_what_is_known_of_every_partition() {
        let parts = || vec![part(&["a", "d"], Some("d")), part(&["b", "c"], Some("c")), part(&["e"], None)];
        assert_eq!(merged(parts(), 10), (vec!["a".into(), "b".into(), "c".into()], Some("c".into())));
        assert_eq!(merged(parts(), 2), (vec!["a".into(), "b".into()], Some("b".into())));
    }

    #[test]
    fn the_last_page_says_so_and_an_empty_one_may_go_on() {
        let all = vec![part(&["b"], None), part(&["a"], None)];
        assert_eq!(merged(all, 2), (vec!["a".into(), "b".into()], None));
        let cut = vec![part(&["b", "c"], None), part(&["a"], None)];
        assert_eq!(merged(cut, 2), (vec!["a".into(), "b".into()], Some("b".into())));
        let nothing_yet = vec![part(&[], Some("m")), part(&["x"], None)];
        assert_eq!(merged(nothing_yet, 2), (vec![], Some("m".into())));
    }
}
