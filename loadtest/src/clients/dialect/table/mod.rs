//! The dialect of any server whose frames are text, by a table of frames to send and texts to look for.
//!
//! The table is a YAML file, as those in `loadtest/adapters/`; its keys are the fields of [`Table`]. Answers are not
//! parsed: one that contains a text is taken for what the table says, in the order delivery, ping, refused, published,
//! page, members, subscribed, unsubscribed, connected, ignored.

mod template;

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use memchr::memmem;
use serde::Deserialize;

use self::template::{Mark, Place, Template, Values};
use super::{Event, Request, Subscription, Unreadable};
use crate::load::stamp::Stamp;

/// A server: where it is, what is sent to it and what it says.
///
/// In templates, `{{id}}` (a number from 1), `{{channel}}`, `{{payload}}`, `{{client}}` and `{{limit}}` are filled in as
/// they are; none has a character that JSON would escape. A request without a template cannot be asked for. A text to
/// recognise an answer by is one that the answer contains or, after a `=`, equals.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The server's name, for reports.
    pub name: String,
    /// Path of its WebSocket endpoint, with the query if it needs one: `/connection/websocket`.
    pub path: String,
    /// WebSocket subprotocol to offer; none if absent.
    pub subprotocol: Option<String>,
    /// Between messages where the server puts several into one frame; absent: one message in a frame. Requests are
    /// always sent one in a frame.
    delimiter: Option<String>,

    /// The first frame of a connection: `{{id}}`, `{{client}}`. An empty text if the server greets without being
    /// spoken to; nothing is sent then. Required.
    connect: Template,
    /// Subscribes to one channel: `{{id}}`, `{{channel}}`, `{{client}}`.
    subscribe: Option<Template>,
    /// Unsubscribes from one channel: `{{id}}`, `{{channel}}`.
    unsubscribe: Option<Template>,
    /// Publishes: `{{id}}`, `{{channel}}`, `{{payload}}`.
    publish: Option<Template>,
    /// Asks for the oldest messages in history: `{{id}}`, `{{channel}}`, `{{limit}}`.
    history: Option<Template>,
    /// Asks who is in a channel: `{{id}}`, `{{channel}}`.
    presence: Option<Template>,
    /// Answers the server's ping: no places.
    pong: Option<Template>,

    /// The text right before the number that names the request in an answer: `"id":`. If absent, answers name none and
    /// tell 0; else an answer without it is none, but for `connected`, `refused` and `ping`.
    id: Option<String>,
    /// In a message that delivers publications. It counts as one only with a stamp in it.
    delivery: Mark,
    /// The answer to `connect`, or the greeting. Required.
    connected: Mark,
    /// The answer to `subscribe`.
    subscribed: Option<Mark>,
    /// The answer to `unsubscribe`.
    unsubscribed: Option<Mark>,
    /// The answer to `publish`.
    published: Option<Mark>,
    /// The answer to `history`; its stamps are the page.
    page: Option<Mark>,
    /// The answer to `presence`.
    members: Option<Mark>,
    /// The text right before the number of members in that answer; 0 if the answer has no such text.
    count: Option<String>,
    /// The answer to any request that failed. Required.
    refused: Mark,
    /// The server's ping.
    ping: Option<Mark>,
    /// What else the server may say. A message that nothing recognises ends its connection, which is a fault of the
    /// run.
    #[serde(default)]
    ignored: Vec<Mark>,
}

impl Table {
    /// Reads a table from a file.
    ///
    /// # Errors
    /// The file cannot be read, or is no table: the error names the file, the key and, of bad YAML, the line.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads a table.
    ///
    /// # Errors
    /// An unknown, missing or malformed key; a request whose answer cannot be recognised; a place that a request does
    /// not fill in.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let table: Self = serde_yaml_ng::from_str(text)?;
        table.check()?;
        Ok(table)
    }

    fn check(&self) -> anyhow::Result<()> {
        use Place::{Channel, Client, Id, Limit, Payload};
        let answers: [(_, _, _, _, &[Place]); 7] = [
            ("connect", Some(&self.connect), "connected", Some(&self.connected), &[Id, Client]),
            (
                "subscribe",
                self.subscribe.as_ref(),
                "subscribed",
                self.subscribed.as_ref(),
                &[Id, Channel, Client],
            ),
            (
                "unsubscribe",
                self.unsubscribe.as_ref(),
                "unsubscribed",
                self.unsubscribed.as_ref(),
                &[Id, Channel],
            ),
            ("publish", self.publish.as_ref(), "published", self.published.as_ref(), &[Id, Channel, Payload]),
            ("history", self.history.as_ref(), "page", self.page.as_ref(), &[Id, Channel, Limit]),
            ("presence", self.presence.as_ref(), "members", self.members.as_ref(), &[Id, Channel]),
            ("pong", self.pong.as_ref(), "ping", self.ping.as_ref(), &[]),
        ];
        for (request, template, answer, mark, known) in answers {
            let Some(template) = template else { continue };
            ensure!(
                mark.is_some(),
                "`{request}` is there, but not `{answer}`, by which its answer is recognised"
            );
            if let Some(place) = template.places().find(|place| !known.contains(place)) {
                bail!("`{request}` has no value for `{place}`");
            }
        }
        ensure!(self.members.is_none() || self.count.is_some(), "`members` is there, but not `count`");
        ensure!(self.delimiter.as_deref() != Some(""), "`delimiter` must not be empty");
        ensure!(self.path.starts_with('/'), "`path` must begin with a slash");
        Ok(())
    }

    /// Appends one request, for one channel at most, without a delimiter: the payload of one frame.
    ///
    /// # Errors
    /// The table has no template for it, or cannot say what it asks for.
    pub fn write(&self, id: u64, request: &Request<'_>, out: &mut Vec<u8>) -> anyhow::Result<()> {
        let mut values = Values { id, ..Values::default() };
        let mut payload = String::new();
        let (key, template) = match *request {
            Request::Connect { client, token, subscriptions } => {
                ensure!(token.is_empty(), "{}: a table has no token to connect with", self.name);
                ensure!(
                    subscriptions.is_empty(),
                    "{}: connect takes no subscriptions; subscribe afterwards",
                    self.name
                );
                values.client = client;
                ("connect", Some(&self.connect))
            }
            Request::Subscribe { subscriptions } => {
                values.channel = self.channel_of(subscriptions)?;
                ("subscribe", self.subscribe.as_ref())
            }
            Request::Unsubscribe { channels } => {
                let [channel] = channels else { bail!("{}: one channel for each unsubscribe", self.name) };
                values.channel = channel;
                ("unsubscribe", self.unsubscribe.as_ref())
            }
            Request::Publish { channel, stamp, size } => {
                stamp.write(size, &mut payload);
                (values.channel, values.payload) = (channel, &payload);
                ("publish", self.publish.as_ref())
            }
            Request::History { channel, since, limit } => {
                ensure!(since.is_none(), "{}: a table cannot ask for history since a position", self.name);
                (values.channel, values.limit) = (channel, limit);
                ("history", self.history.as_ref())
            }
            Request::Presence { channel } => {
                values.channel = channel;
                ("presence", self.presence.as_ref())
            }
            Request::Serve { .. } | Request::Call { .. } | Request::Reply { .. } => {
                bail!("{}: a table knows no calls", self.name)
            }
            Request::Pong => ("pong", self.pong.as_ref()),
        };
        let template = template.with_context(|| format!("{}: the table has no `{key}`", self.name))?;
        template.write(&values, out);
        Ok(())
    }

    /// The channel to subscribe to. What a table cannot ask for is refused, so that no run silently measures less.
    fn channel_of<'a>(&self, subscriptions: &'a [Subscription]) -> anyhow::Result<&'a str> {
        let [subscription] = subscriptions else { bail!("{}: one channel for each subscribe", self.name) };
        ensure!(subscription.cursor.is_none(), "{}: a table cannot ask for recovery", self.name);
        ensure!(!subscription.presence, "{}: a table cannot ask for joins and leaves", self.name);
        Ok(&subscription.channel)
    }

    /// Tells the events of a frame.
    ///
    /// # Errors
    /// [`Unreadable`] for a message that nothing in the table recognises.
    pub fn read(&self, frame: &[u8], tell: &mut dyn FnMut(Event)) -> Result<(), Unreadable> {
        let Some(delimiter) = &self.delimiter else { return self.read_message(frame, tell) };
        let mut rest = frame;
        while !rest.is_empty() {
            let (end, next) = match memmem::find(rest, delimiter.as_bytes()) {
                Some(at) => (at, at + delimiter.len()),
                None => (rest.len(), rest.len()),
            };
            // A delimiter may also end the last message.
            if end > 0 {
                self.read_message(&rest[..end], tell)?;
            }
            rest = &rest[next..];
        }
        Ok(())
    }

    fn read_message(&self, message: &[u8], tell: &mut dyn FnMut(Event)) -> Result<(), Unreadable> {
        let delivery = self.delivery.fits(message);
        if delivery {
            let mut stamps = 0;
            Stamp::find(message, |stamp| {
                stamps += 1;
                tell(Event::Delivery(stamp));
            });
            if stamps > 0 {
                return Ok(());
            }
        }
        match self.answer(message) {
            Some(event) => tell(event),
            None if delivery || self.ignored.iter().any(|mark| mark.fits(message)) => {}
            None => {
                return Err(Unreadable::new(format!("nothing in the table of {} fits", self.name), message));
            }
        }
        Ok(())
    }

    fn answer(&self, message: &[u8]) -> Option<Event> {
        if fits(&self.ping, message) {
            return Some(Event::Ping);
        }
        let id = self.id.as_ref().and_then(|text| number_after(text, message));
        if self.refused.fits(message) {
            // The whole answer, cut as an unreadable one is.
            let code = Unreadable::new("", message).start;
            return Some(Event::Refused { id: id.unwrap_or(0), code });
        }
        // Where answers name their request, what names none is something that the server says of its own accord.
        if let Some(id) = id.or_else(|| self.id.is_none().then_some(0))
            && let Some(event) = self.answer_to(id, message)
        {
            return Some(event);
        }
        self.connected.fits(message).then_some(Event::Connected)
    }

    fn answer_to(&self, id: u64, message: &[u8]) -> Option<Event> {
        if fits(&self.published, message) {
            return Some(Event::Acked { id });
        }
        if fits(&self.page, message) {
            let mut stamps = Vec::new();
            Stamp::find(message, |stamp| stamps.push(stamp));
            return Some(Event::Page { id, stamps, truncated: false });
        }
        if fits(&self.members, message) {
            let count = self.count.as_ref().and_then(|text| number_after(text, message)).unwrap_or(0);
            return Some(Event::Members { id, count });
        }
        let done = fits(&self.subscribed, message) || fits(&self.unsubscribed, message);
        done.then_some(Event::Done { id })
    }
}

fn fits(mark: &Option<Mark>, message: &[u8]) -> bool {
    mark.as_ref().is_some_and(|mark| mark.fits(message))
}

/// The number that stands right after the first `text` in `message`.
fn number_after(text: &str, message: &[u8]) -> Option<u64> {
    let rest = &message[memmem::find(message, text.as_bytes())? + text.len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
