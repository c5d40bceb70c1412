//! What a client of events has seen, as one text that it brings back: `since` of an address, the ids of server-sent events.
//!
//! ```text
//! <epoch>:<offset>                              of the only channel that is asked for
//! <channel>=<epoch>:<offset>,<pattern>=<marker> of several, and of patterns; names and markers are percent-encoded
//! ```
//!
//! A pattern's channels stand beside its marker, which tells those that are born later (decision 0004). The text is ASCII
//! without white space, fit for a header and, encoded, for a query. `~` among the entries: some had no room.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use streamgate_proto::v1::{Position as WirePosition, Subscription};

use crate::{
    channel::{Channel, Target},
    error::ClientError,
};

/// What is encoded: everything but what a URL leaves alone, and the star.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'*');
/// The entry that says that others are missing.
const PARTIAL: &str = "~";
/// Longest cursor that is read.
const MOST_BYTES: usize = 16 * 1024;

/// Places in channels, and markers of patterns. Each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    entries: Vec<(Target, String)>,
    partial: bool,
}

impl Cursor {
    /// Reads a cursor. `only` is what a place without a name is in.
    ///
    /// # Errors
    /// `BAD_REQUEST`: it is none, or has no name and could be of several channels.
    pub fn parse(text: &str, only: Option<&Target>) -> Result<Self, ClientError> {
        if text.len() > MOST_BYTES {
            let text = format!("the cursor has {} bytes, at most {MOST_BYTES} are allowed", text.len());
            return Err(ClientError::bad_request(text));
        }
        let mut cursor = Self::default();
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            match entry.split_once('=') {
                None if entry == PARTIAL => cursor.partial = true,
                None => {
                    let only = only.filter(|only| matches!(only, Target::Channel(_)));
                    let only = only.ok_or_else(|| {
                        let text = format!("the cursor {entry:?} names no channel, and could be of several");
                        ClientError::bad_request(text)
                    })?;
                    cursor.set(only.clone(), position(entry)?);
                }
                Some((name, value)) => {
                    let target = Target::parse(&decoded(name)?)?;
                    let value = match target {
                        Target::Channel(_) => position(value)?,
                        Target::Pattern(_) => decoded(value)?,
                    };
                    cursor.set(target, value);
                }
            }
        }
        Ok(cursor)
    }

    /// Takes over what another cursor knows.
    pub fn merge(&mut self, other: Self) {
        self.partial |= other.partial;
        other.entries.into_iter().for_each(|(target, value)| self.set(target, value));
    }

    /// The places that an acknowledged subscription begins at.
    #[must_use]
    pub fn of_ack(subscription: &Subscription) -> Self {
        let mut cursor = Self::default();
        let of_channel = subscription.cursor.iter().map(|at| (&subscription.channel, at));
        for (name, at) in of_channel.chain(&subscription.cursors) {
            cursor.see(name, at);
        }
        cursor
    }

    /// Notes where a client stands in what the server calls `name`; a pattern's marker stands in the epoch.
    pub fn see(&mut self, name: &str, at: &WirePosition) {
        // The server's own names are sound.
        if let Ok(target) = Target::parse(name) {
            let value = match target {
                Target::Channel(_) => format!("{}:{}", at.epoch, at.offset),
                Target::Pattern(_) => at.epoch.clone(),
            };
            self.set(target, value);
        }
    }

    fn set(&mut self, target: Target, value: String) {
        match self.entries.iter_mut().find(|(known, _)| *known == target) {
            Some((_, held)) => *held = value,
            None => self.entries.push((target, value)),
        }
    }

    /// Whether it knows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.partial
    }

    /// Whether some of what it should tell had no room in it.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Its entries as they are written, each a name and a value.
    pub fn texts(&self) -> impl Iterator<Item = (String, String)> {
        self.entries.iter().map(|(target, value)| {
            let value = match target {
                Target::Channel(_) => value.clone(),
                Target::Pattern(_) => encoded(value),
            };
            (encoded(target.as_str()), value)
        })
    }

    /// The cursor as it is written; with the place alone if `only` is a channel.
    #[must_use]
    pub fn text(&self, only: Option<&Target>) -> String {
        if let (Some(Target::Channel(_)), [(_, value)]) = (only, &self.entries[..]) {
            return value.clone();
        }
        let mut entries: Vec<_> = self.texts().map(|(name, value)| format!("{name}={value}")).collect();
        if self.partial {
            entries.push(PARTIAL.to_owned());
        }
        entries.join(",")
    }

    /// A subscription that goes on where the cursor stands; live, if it knows nothing of the target.
    #[must_use]
    pub fn subscription(&self, target: &Target) -> Subscription {
        let mut subscription =
            Subscription { channel: target.as_str().to_owned(), ..Subscription::default() };
        for (known, value) in &self.entries {
            match (target, known) {
                (Target::Channel(channel), Target::Channel(known)) if channel == known => {
                    subscription.cursor = wire(value);
                }
                (Target::Pattern(pattern), Target::Channel(known)) if pattern.matches(known.as_str()) => {
                    subscription.cursors.extend(wire(value).map(|at| (known.as_str().to_owned(), at)));
                }
                (Target::Pattern(pattern), Target::Pattern(known)) if pattern == known => {
                    let marker = WirePosition { epoch: value.clone(), offset: 0 };
                    subscription.cursors.insert(pattern.as_str().to_owned(), marker);
                }
                _ => {}
            }
        }
        subscription.recover = subscription.cursor.is_some() || !subscription.cursors.is_empty();
        subscription
    }
}

/// A name or marker as it stands in a cursor.
#[must_use]
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn decoded(text: &str) -> Result<String, ClientError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| ClientError::bad_request(format!("the cursor's name {text:?} is not UTF-8")))
}

/// Checks a place; an epoch that this deployment never gave out is no error, but one of a history that is lost.
fn position(text: &str) -> Result<String, ClientError> {
    let sound = text.split_once(':').is_some_and(|(epoch, offset)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        digits(epoch) && offset.parse::<u64>().is_ok()
    });
    if sound {
        return Ok(text.to_owned());
    }
    Err(ClientError::bad_request(format!("{text:?} is no place in a channel: <epoch>:<offset> is expected")))
}

fn wire(text: &str) -> Option<WirePosition> {
    let (epoch, offset) = text.split_once(':')?;
    Some(WirePosition { epoch: epoch.to_owned(), offset: offset.parse().ok()? })
}

/// The only target of several, if it is one.
#[must_use]
pub fn only(targets: &[Target]) -> Option<&Target> {
    match targets {
        [only] => Some(only),
        _ => None,
    }
}

/// A place in one channel, as `since` of a page of history names it.
///
/// # Errors
/// `BAD_REQUEST`.
pub fn of_channel(text: &str, channel: &Channel) -> Result<Option<WirePosition>, ClientError> {
    let target = Target::Channel(channel.clone());
    Ok(Cursor::parse(text, Some(&target))?.subscription(&target).cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> Target {
        Target::parse(name).unwrap()
    }

    #[test]
    fn the_place_of_the_only_channel_needs_no_name() {
        let a = target("a");
        let cursor = Cursor::parse("17:42", Some(&a)).unwrap();
        assert_eq!(cursor.text(Some(&a)), "17:42");
        let subscription = cursor.subscription(&a);
        assert!(subscription.recover);
        assert_eq!(subscription.cursor, Some(WirePosition { epoch: "17".into(), offset: 42 }));
        assert_eq!(cursor.text(None), "a=17:42");
        for without in [None, Some(&target("a.*"))] {
            assert!(Cursor::parse("17:42", without).unwrap_err().message.contains("names no channel"));
        }
    }

    #[test]
    fn a_compound_cursor_is_read_as_it_was_written() {
        let text = "room.b%3Dlue=17:42,room.*=kq3z1.0.2f,gr%C3%BCn=17:1,~";
        let cursor = Cursor::parse(text, None).unwrap();
        assert_eq!(cursor.text(None), text);
        assert!(cursor.is_partial());
        let pattern = cursor.subscription(&target("room.*"));
        assert_eq!(pattern.cursors["room.b=lue"].offset, 42);
        assert_eq!(pattern.cursors["room.*"].epoch, "kq3z1.0.2f");
        assert_eq!((pattern.cursors.len(), pattern.cursor), (2, None));
        assert_eq!(cursor.subscription(&target("grün")).cursor.map(|at| at.offset), Some(1));
        assert!(!cursor.subscription(&target("other")).recover);
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for bad in [
            "x",
            "17:",
            ":1",
            "17:x",
            "a=5",
            "a b=1:1",
            "a=1:-1",
            "=1:1",
            "a.**.b=1:1",
            "1:18446744073709551616",
        ] {
            assert!(Cursor::parse(bad, Some(&target("a"))).is_err(), "{bad}");
        }
        assert!(Cursor::parse(&"a".repeat(MOST_BYTES + 1), None).is_err());
        assert!(Cursor::parse("", None).unwrap().is_empty());
    }

    #[test]
    fn what_is_seen_stands_in_place_of_what_was() {
        let mut cursor = Cursor::parse("a=1:1", None).unwrap();
        cursor.see("a", &WirePosition { epoch: "2".into(), offset: 7 });
        cursor.see("b.*", &WirePosition { epoch: "m/1".into(), offset: 0 });
        assert_eq!(cursor.text(None), "a=2:7,b.*=m%2F1");
        let mut other = Cursor::parse("a=3:1", None).unwrap();
        other.merge(Cursor::parse("c=1:1", None).unwrap());
        cursor.merge(other);
        assert_eq!(cursor.text(None), "a=3:1,b.*=m%2F1,c=1:1");
    }
}
