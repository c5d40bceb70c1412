//! The ids of a stream's events: where the client stands in all that it listens to.

use std::{collections::VecDeque, fmt::Write as _};

use streamgate_proto::v1::Position;

use crate::{
    channel::Target,
    error::ClientError,
    transport::cursor::{Cursor, encoded, only},
};

/// Longest id, in bytes. Each event has one, and it comes back as a header, for which 8 KiB are a usual limit.
pub const MOST_BYTES: usize = 4 * 1024;
/// Bytes of a place in a channel with what stands around it, at most.
const PLACE_BYTES: usize = 43;
/// Bytes of a marker, usually: it has a number for each partition.
const MARKER_BYTES: usize = 256;

/// What a client has been sent, as its ids tell it.
#[derive(Debug)]
pub(super) struct Ids {
    /// The place alone is the id.
    alone: bool,
    /// What was asked for by name: channels, and patterns with their markers. Always told.
    named: Vec<(String, Option<String>)>,
    /// Channels of patterns, the one with the latest event last.
    matched: VecDeque<(String, String)>,
    /// Bytes of those.
    bytes: usize,
    /// Some had no room.
    partial: bool,
}

impl Ids {
    /// Of a client that asks for this, and has seen what its cursor says.
    ///
    /// # Errors
    /// `BAD_REQUEST`: so many names do not fit into an id.
    pub fn new(targets: &[Target], cursor: &Cursor) -> Result<Self, ClientError> {
        let mut bytes = 0;
        let mut named = Vec::with_capacity(targets.len());
        for target in targets {
            let name = encoded(target.as_str());
            bytes +=
                name.len() + if matches!(target, Target::Pattern(_)) { MARKER_BYTES } else { PLACE_BYTES };
            named.push((name, None));
        }
        if bytes > MOST_BYTES {
            let text = format!(
                "the ids of these {} channels and patterns could have {bytes} bytes, at most {MOST_BYTES} are allowed: \
                 listen to fewer, or by WebSocket",
                targets.len()
            );
            return Err(ClientError::bad_request(text));
        }
        let alone = matches!(only(targets), Some(Target::Channel(_)));
        let matched = VecDeque::new();
        let mut ids = Self { alone, named, matched, bytes: 0, partial: cursor.is_partial() };
        ids.take(cursor);
        Ok(ids)
    }

    /// Takes over places and markers.
    pub fn take(&mut self, cursor: &Cursor) {
        cursor.texts().for_each(|(name, value)| self.see(&name, value));
    }

    /// Notes a place that the server tells.
    pub fn see_at(&mut self, name: &str, at: &Position) {
        let mut cursor = Cursor::default();
        cursor.see(name, at);
        self.take(&cursor);
    }

    /// Notes the place of a channel, or the marker of a pattern, both as they are written.
    pub fn see(&mut self, name: &str, value: String) {
        match self.named.iter_mut().find(|(known, _)| known == name) {
            Some((_, held)) => *held = Some(value),
            None => {
                if let Some(at) = self.matched.iter().position(|(known, _)| known == name)
                    && let Some((name, value)) = self.matched.remove(at)
                {
                    self.bytes -= size(&name, &value);
                }
                self.bytes += size(name, &value);
                self.matched.push_back((name.to_owned(), value));
            }
        }
        self.shrink();
    }

    /// Forgets what has no room, the channels that were silent for the longest time first.
    fn shrink(&mut self) {
        let told =
            |(name, value): &(String, Option<String>)| value.as_ref().map_or(0, |value| size(name, value));
        // With the sign that something is missing.
        let mut named = self.named.iter().map(told).sum::<usize>() + 2;
        while named > MOST_BYTES
            && let Some(long) = self.named.iter_mut().max_by_key(|named| told(named))
        {
            named -= told(long);
            (long.1, self.partial) = (None, true);
        }
        while named + self.bytes > MOST_BYTES
            && let Some((name, value)) = self.matched.pop_front()
        {
            self.bytes -= size(&name, &value);
            self.partial = true;
        }
    }

    /// The id of what was just sent; `None` where there is nothing to come back to.
    pub fn text(&self) -> Option<String> {
        if let (true, [(_, place)]) = (self.alone, &self.named[..]) {
            return place.clone();
        }
        let mut text = String::new();
        let named = self.named.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        for (name, value) in named.chain(self.matched.iter().map(|(name, value)| (name, value))) {
            // To a String it cannot fail.
            let _ = write!(text, "{}{name}={value}", if text.is_empty() { "" } else { "," });
        }
        if self.partial {
            text.push_str(if text.is_empty() { "~" } else { ",~" });
        }
        (!text.is_empty()).then_some(text)
    }
}

fn size(name: &str, value: &str) -> usize {
    name.len() + value.len() + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(names: &[&str]) -> Vec<Target> {
        names.iter().map(|name| Target::parse(name).unwrap()).collect()
    }

    fn ids(names: &[&str]) -> Ids {
        Ids::new(&targets(names), &Cursor::default()).unwrap()
    }

    #[test]
    fn of_one_channel_the_id_is_the_place() {
        let mut ids = ids(&["a"]);
        assert_eq!(ids.text(), None);
        ids.see("a", "17:1".into());
        assert_eq!(ids.text().unwrap(), "17:1");
    }

    #[test]
    fn of_several_it_is_a_cursor_that_can_be_read() {
        let mut ids = ids(&["a", "b.*"]);
        ids.see("a", "17:1".into());
        ids.see("b.*", "m".into());
        ids.see("b.x", "17:2".into());
        ids.see("b.y", "17:3".into());
        ids.see("b.x", "17:4".into());
        assert_eq!(ids.text().unwrap(), "a=17:1,b.*=m,b.y=17:3,b.x=17:4");
        let cursor = Cursor::parse(&ids.text().unwrap(), None).unwrap();
        assert_eq!(cursor.text(None), ids.text().unwrap());
        assert_eq!(Ids::new(&targets(&["a", "b.*"]), &cursor).unwrap().text(), ids.text());
    }

    #[test]
    fn it_stays_bounded_and_says_what_it_does_not_tell() {
        let mut ids = ids(&["a", "b.*"]);
        ids.see("a", "1700000000000:1".into());
        for number in 0..1_000 {
            ids.see(&format!("b.{number}"), format!("1700000000000:{number}"));
            assert!(ids.text().unwrap().len() <= MOST_BYTES);
        }
        let text = ids.text().unwrap();
        assert!(
            text.starts_with("a=1700000000000:1,") && text.ends_with(",b.999=1700000000000:999,~"),
            "{text}"
        );
        let again = Ids::new(&targets(&["a", "b.*"]), &Cursor::parse(&text, None).unwrap()).unwrap();
        assert!(again.text().unwrap().ends_with(",~"), "it does not forget that");
    }

    #[test]
    fn a_marker_beyond_all_measure_is_left_out() {
        let mut ids = ids(&["a", "b.*"]);
        ids.see("a", "17:1".into());
        ids.see("b.*", "m".repeat(MOST_BYTES));
        assert_eq!(ids.text().unwrap(), "a=17:1,~");
    }

    #[test]
    fn names_that_cannot_all_be_told_are_refused() {
        let many: Vec<String> = (0..200).map(|number| format!("channel.{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let error = Ids::new(&targets(&many), &Cursor::default()).unwrap_err();
        assert!(error.message.contains("200 channels"), "{error}");
    }
}
