//! Entries of histories and inboxes, read from replies. Everything held is copied out of the read buffer.

use std::sync::Arc;

use bytes::Bytes;

use super::reply::{Reply, ReplyError};
use prost::Message as _;

use crate::{
    broker::{BrokerError, Member, PresenceAction, PresenceEvent, Publication, Stored},
    channel::Channel,
    position::Position,
};

/// One publication of an inbox.
#[derive(Debug, Clone)]
pub struct InboxEntry {
    /// Number of the publication in this inbox, without holes.
    pub sequence: u64,
    /// What it brings; an error if its content is damaged.
    pub content: Result<InboxContent, BrokerError>,
}

impl InboxEntry {
    /// About how many bytes it took in the reply.
    #[must_use]
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 128;
        match &self.content {
            Ok(InboxContent::Publication(publication)) => OVERHEAD + publication.stored.event.len(),
            Ok(InboxContent::Letter(letter)) => OVERHEAD + letter.len(),
            _ => OVERHEAD,
        }
    }
}

/// What an inbox brings.
#[derive(Debug, Clone)]
pub enum InboxContent {
    /// Of a channel with interest.
    Publication(Arc<Publication>),
    /// Of a channel that is watched.
    Presence(PresenceEvent),
    /// From a node, for this one.
    Letter(Bytes),
    /// There are jobs in a queue that this node waits for.
    Jobs {
        /// Its name in keys.
        queue: String,
        /// Set if a delivery of this node was settled through another one: the job, and the session.
        settled: Option<(String, String)>,
    },
    /// Another node took a member over that this one held.
    Taken {
        /// Where.
        channel: Channel,
        /// Who.
        session: String,
    },
}

/// Reads `<epoch>-<offset>`.
///
/// # Errors
/// [`BrokerError::Damaged`].
pub fn position_of(id: &[u8]) -> Result<Position, BrokerError> {
    let (epoch, offset) = two_numbers(id).ok_or_else(|| {
        BrokerError::Damaged(format!("{:?} is not an entry ID", String::from_utf8_lossy(id)))
    })?;
    Ok(Position { epoch, offset })
}

/// Reads an ID that may be empty.
///
/// # Errors
/// [`BrokerError::Damaged`].
pub fn optional_position(id: &Reply) -> Result<Option<Position>, BrokerError> {
    let id = id.as_bytes()?;
    if id.is_empty() { Ok(None) } else { position_of(id).map(Some) }
}

/// The entry ID of a position.
#[must_use]
pub fn id_of(position: Position) -> Bytes {
    format!("{}-{}", position.epoch, position.offset).into()
}

fn two_numbers(id: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

/// Reads one entry of a history, `[id, [t, time, b, blob]]`.
///
/// # Errors
/// [`BrokerError::Damaged`].
pub fn history_entry(channel: &Channel, entry: &Reply) -> Result<Arc<Publication>, BrokerError> {
    let [id, fields] = pair(entry)?;
    let position = position_of(id.as_bytes()?)?;
    publication(channel.clone(), Some(position), field(fields, b"t")?.as_u64()?, field(fields, b"b")?)
}

/// The position of an entry of a history, whatever else it is.
///
/// # Errors
/// [`BrokerError::Damaged`].
pub fn entry_position(entry: &Reply) -> Result<Position, BrokerError> {
    let [id, _] = pair(entry)?;
    position_of(id.as_bytes()?)
}

/// Reads one entry of an inbox, `[id, [head, blob, head, blob...]]`. A head of `<position> <time> <channel>` is that of a
/// publication (no position: nothing before the first space), `<j, l or t> <channel>` that of a join or
/// leave, or of a member that was taken over, `c ` that of a letter, `q <queue>` word
/// of jobs. The first pair has the entry's sequence, the others follow it: so does the stream's last ID, though no entry has it
/// (`scripts/publish.lua`).
///
/// # Errors
/// [`BrokerError::Damaged`] if not even its sequence can be read, or how many publications it has.
pub fn inbox_entries(entry: &Reply) -> Result<Vec<InboxEntry>, BrokerError> {
    let [id, fields] = pair(entry)?;
    let first = position_of(id.as_bytes()?)?.offset;
    let pairs = fields.as_array()?.chunks(2);
    Ok(pairs
        .zip(first..)
        .map(|(pair, sequence)| InboxEntry { sequence, content: inbox_content(pair) })
        .collect())
}

fn inbox_content(pair: &[Reply]) -> Result<InboxContent, BrokerError> {
    let [head, blob] = pair else {
        return Err(ReplyError::Length { expected: 2, got: pair.len() }.into());
    };
    let head = head.as_str()?;
    let event = |action, channel: &str| {
        let (channel, member) = member_of(channel, blob)?;
        Ok(InboxContent::Presence(PresenceEvent { channel, action, member: Arc::new(member) }))
    };
    match head.split_once(' ') {
        Some(("j", channel)) => event(PresenceAction::Join, channel),
        Some(("l", channel)) => event(PresenceAction::Leave, channel),
        Some(("t", channel)) => {
            let (channel, member) = member_of(channel, blob)?;
            Ok(InboxContent::Taken { channel, session: member.session_id })
        }
        Some(("q", queue)) => {
            let settled = blob.as_str()?.split_once(' ');
            let settled = settled.map(|(job, session)| (job.to_owned(), session.to_owned()));
            Ok(InboxContent::Jobs { queue: queue.to_owned(), settled })
        }
        Some(("c", "")) => Ok(InboxContent::Letter(Bytes::copy_from_slice(blob.as_bytes()?))),
        _ => inbox_publication(head, blob).map(InboxContent::Publication),
    }
}

fn member_of(channel: &str, blob: &Reply) -> Result<(Channel, Member), BrokerError> {
    let channel = Channel::parse(channel).map_err(|error| BrokerError::Damaged(error.to_string()))?;
    Ok((channel, member(blob.as_bytes()?)?))
}

/// Reads a member. Its strings are copied out of the read buffer by decoding.
fn member(bytes: &[u8]) -> Result<Member, BrokerError> {
    Member::decode(bytes).map_err(|error| BrokerError::Damaged(error.to_string()))
}

/// Reads a member as a channel's hash holds it, `<node>/<0 or 1> <member>`.
///
/// # Errors
/// [`BrokerError::Damaged`].
pub fn held_member(value: &[u8]) -> Result<Member, BrokerError> {
    let space = value.iter().position(|byte| *byte == b' ');
    let bytes = space.and_then(|space| value.get(space + 1..));
    member(bytes.ok_or_else(|| BrokerError::Damaged("a member without holder".to_owned()))?)
}

fn inbox_publication(head: &str, blob: &Reply) -> Result<Arc<Publication>, BrokerError> {
    let damaged = || BrokerError::Damaged(format!("{head:?} is not the head of a publication"));
    let (position, rest) = head.split_once(' ').ok_or_else(damaged)?;
    let (time, channel) = rest.split_once(' ').ok_or_else(damaged)?;
    let channel = Channel::parse(channel).map_err(|error| BrokerError::Damaged(error.to_string()))?;
    let position = if position.is_empty() { None } else { Some(position_of(position.as_bytes())?) };
    publication(channel, position, time.parse().map_err(|_| damaged())?, blob)
}

fn publication(
    channel: Channel,
    position: Option<Position>,
    time_ms: u64,
    blob: &Reply,
) -> Result<Arc<Publication>, BrokerError> {
    let stored = Stored::from_bytes(Bytes::copy_from_slice(blob.as_bytes()?))?;
    Ok(Arc::new(Publication { channel, position, time_ms, stored }))
}

fn pair(reply: &Reply) -> Result<&[Reply; 2], BrokerError> {
    let items = reply.as_array()?;
    Ok(items.try_into().map_err(|_| ReplyError::Length { expected: 2, got: items.len() })?)
}

fn field<'a>(fields: &'a Reply, name: &[u8]) -> Result<&'a Reply, BrokerError> {
    fields
        .as_array()?
        .chunks_exact(2)
        .find(|pair| pair.first().and_then(|key| key.as_bytes().ok()).is_some_and(|key| key == name))
        .and_then(|pair| pair.get(1))
        .ok_or_else(|| {
            BrokerError::Damaged(format!("an entry has no field {}", String::from_utf8_lossy(name)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn publications_of_an_inbox_entry_count_on_from_its_sequence_and_a_damaged_one_keeps_its_own() {
        let fields = ["7-3 9 a.b", "", "7-4 9 a..b", "", " 8 c", ""];
        let fields = Reply::Array(fields.iter().map(|text| bulk(text)).collect());
        let entries = inbox_entries(&Reply::Array(vec![bulk("4-12"), fields])).unwrap();
        assert_eq!(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [12, 13, 14]);
        let publication = published(&entries[0]).unwrap();
        assert_eq!((publication.channel.as_str(), publication.time_ms), ("a.b", 9));
        assert_eq!(publication.position, Some(Position { epoch: 7, offset: 3 }));
        assert!(entries[1].content.is_err());
        assert_eq!(published(&entries[2]).unwrap().position, None);
    }

    fn published(entry: &InboxEntry) -> Option<&Publication> {
        match entry.content.as_ref().ok()? {
            InboxContent::Publication(publication) => Some(publication),
            _ => None,
        }
    }

    #[test]
    fn joins_and_leaves_are_told_apart_from_publications() {
        let member = Member { session_id: "s".into(), user_id: "u".into(), ..Member::default() };
        let entry = |head: &str| {
            let fields = [bulk(head), Reply::Bulk(member.encode_to_vec().into())];
            let entry = Reply::Array(vec![bulk("4-12"), Reply::Array(fields.into())]);
            inbox_entries(&entry).unwrap().remove(0).content
        };
        let InboxContent::Presence(event) = entry("l a.b").unwrap() else { panic!() };
        assert_eq!((event.action, event.channel.as_str()), (PresenceAction::Leave, "a.b"));
        assert_eq!(*event.member, member);
        let InboxContent::Taken { session, .. } = entry("t a.b").unwrap() else { panic!() };
        assert_eq!(session, "s");
        assert!(entry("x a.b").is_err() && entry("j").is_err());
        let held = [b"17/1 ", member.encode_to_vec().as_slice()].concat();
        assert_eq!(held_member(&held).unwrap(), member);
        assert!(held_member(b"17/1").is_err());
    }

    #[test]
    fn what_is_not_an_id_is_damaged() {
        for id in ["", "1", "1-", "a-1", "1-2-3"] {
            assert!(matches!(position_of(id.as_bytes()), Err(BrokerError::Damaged(_))), "{id}");
        }
    }
}
