//! Frames to send, with places to fill in; and texts to recognise an answer by.

use std::fmt;

use memchr::memmem;
use serde::Deserialize;

/// A frame to send.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Place),
}

/// What a template may name in double braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `{{id}}`: the number of the request, from 1.
    Id,
    /// `{{channel}}`.
    Channel,
    /// `{{payload}}`: the stamp and what fills it up.
    Payload,
    /// `{{client}}`: what the client says of itself.
    Client,
    /// `{{limit}}`: at most so many.
    Limit,
}

/// What goes into the places. Texts are put in as they are: none may need an escape in the server's format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Values<'a> {
    /// The number of the request.
    pub id: u64,
    /// The channel.
    pub channel: &'a str,
    /// The stamp and what fills it up.
    pub payload: &'a str,
    /// What the client says of itself.
    pub client: &'a str,
    /// At most so many.
    pub limit: i32,
}

/// How an answer is recognised.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub enum Mark {
    /// It contains this text; boxed because a finder is large.
    Contains(Box<memmem::Finder<'static>>),
    /// It is this text.
    Equals(Vec<u8>),
}

impl Place {
    const ALL: [Self; 5] = [Self::Id, Self::Channel, Self::Payload, Self::Client, Self::Limit];

    fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Channel => "channel",
            Self::Payload => "payload",
            Self::Client => "client",
            Self::Limit => "limit",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{{{{}}}}}", self.name())
    }
}

impl Template {
    /// The places that it names.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Place(place) => Some(*place),
            Piece::Text(_) => None,
        })
    }

    /// Appends the frame.
    pub fn write(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Place(Place::Id) => out.extend_from_slice(values.id.to_string().as_bytes()),
                Piece::Place(Place::Channel) => out.extend_from_slice(values.channel.as_bytes()),
                Piece::Place(Place::Payload) => out.extend_from_slice(values.payload.as_bytes()),
                Piece::Place(Place::Client) => out.extend_from_slice(values.client.as_bytes()),
                Piece::Place(Place::Limit) => out.extend_from_slice(values.limit.to_string().as_bytes()),
            }
        }
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, named)) = rest.split_once("{{") {
            // `{"a":{{{id}}}}`: braces of JSON may stand right before those of a place and right after.
            let outer = named.bytes().take_while(|&byte| byte == b'{').count();
            let known = Place::ALL.into_iter().find_map(|place| {
                named[outer..].strip_prefix(place.name())?.strip_prefix("}}").map(|after| (place, after))
            });
            // Two braces that open JSON objects only.
            let Some((place, after)) = known else {
                if named[outer..].starts_with(|first: char| first.is_ascii_alphabetic()) {
                    let name = named[outer..].split('}').next().unwrap_or_default();
                    return Err(format!(
                        "`{{{{{name}}}}}` is none of {}",
                        Place::ALL.map(|p| p.to_string()).join(" ")
                    ));
                }
                pieces.push(Piece::Text(format!("{before}{}", "{".repeat(2 + outer))));
                rest = &named[outer..];
                continue;
            };
            pieces.push(Piece::Text(format!("{before}{}", "{".repeat(outer))));
            pieces.push(Piece::Place(place));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Self(pieces))
    }
}

impl Mark {
    /// True if `message` is recognised.
    pub fn fits(&self, message: &[u8]) -> bool {
        match self {
            Self::Contains(finder) => finder.find(message).is_some(),
            Self::Equals(text) => message == text,
        }
    }
}

impl TryFrom<String> for Mark {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (equals, wanted) = match text.strip_prefix('=') {
            Some(wanted) => (true, wanted),
            None => (false, text.as_str()),
        };
        match (wanted, equals) {
            ("", _) => Err("a text to recognise an answer by must not be empty".to_owned()),
            (wanted, true) => Ok(Self::Equals(wanted.as_bytes().to_owned())),
            (wanted, false) => Ok(Self::Contains(Box::new(memmem::Finder::new(wanted).into_owned()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> String {
        let values = Values { id: 7, channel: "a.b", payload: "sg!", client: "c1", limit: -1 };
        let mut out = Vec::new();
        Template::try_from(template.to_owned()).unwrap().write(&values, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn places_are_filled_in_between_any_braces() {
        assert_eq!(
            filled(r#"{"id":{{id}},"p":{"c":"{{channel}}","d":"{{payload}}"}}"#),
            r#"{"id":7,"p":{"c":"a.b","d":"sg!"}}"#
        );
        assert_eq!(filled("{{client}} {{limit}}"), "c1 -1");
        assert_eq!(filled(r#"{"a":{{{id}}}}"#), r#"{"a":{7}}"#);
        assert_eq!(filled(r#"[{{"x":{}}}]"#), r#"[{{"x":{}}}]"#);
        assert_eq!(filled(""), "");
    }

    #[test]
    fn an_unknown_place_is_an_error_that_lists_the_known_ones() {
        let error = Template::try_from("x {{chanel}}".to_owned()).unwrap_err();
        assert_eq!(error, "`{{chanel}}` is none of {{id}} {{channel}} {{payload}} {{client}} {{limit}}");
        assert!(Template::try_from("{{id".to_owned()).is_err());
    }

    #[test]
    fn marks_are_contained_or_equal() {
        let mark = |text: &str| Mark::try_from(text.to_owned()).unwrap();
        assert!(mark("{}").fits(b"a{}b") && !mark("={}").fits(b"a{}b") && mark("={}").fits(b"{}"));
        assert!(Mark::try_from(String::new()).is_err() && Mark::try_from("=".to_owned()).is_err());
    }
}
