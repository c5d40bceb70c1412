//! Texts with places to fill in: `{{count}}`, `{{time}}`, `{{uuid}}`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::output;

/// A text with places, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Which message, from 1.
    Count,
    /// When it is published, RFC 3339.
    Time,
    /// A random one.
    Uuid,
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// It has a place of another name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, behind) =
                after.split_once("}}").ok_or_else(|| format!("{{{{ without }}}} in {text:?}"))?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(match name.trim() {
                "count" => Piece::Count,
                "time" => Piece::Time,
                "uuid" => Piece::Uuid,
                other => {
                    return Err(format!(
                        "{{{{{other}}}}} is not one of {{{{count}}}}, {{{{time}}}}, {{{{uuid}}}}"
                    ));
                }
            });
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// A text without places.
    pub(super) fn plain(text: &str) -> Self {
        Self(vec![Piece::Text(text.to_owned())])
    }

    /// Whether it is another text for each message.
    pub(super) fn varies(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Count | Piece::Uuid))
    }

    /// The text for this message.
    pub(super) fn fill(&self, count: u64) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Count => count.to_string(),
                Piece::Time => now(),
                Piece::Uuid => uuid::Uuid::new_v4().to_string(),
            })
            .collect()
    }
}

fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = output::time(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    time.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in_and_nothing_else_is_touched() {
        let template = Template::parse("{\"n\":{{count}},\"m\":{{ count }}} {x} }}").unwrap();
        assert_eq!(template.fill(7), "{\"n\":7,\"m\":7} {x} }}");
        assert!(template.varies());
        let uuids = Template::parse("{{uuid}}").unwrap();
        assert!(uuids.varies() && uuids.fill(1) != uuids.fill(1) && uuids.fill(1).len() == 36);
        let time = Template::parse("{{time}}").unwrap().fill(1);
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
        assert_eq!(Template::plain("{{count}}").fill(1), "{{count}}");
    }

    #[test]
    fn a_place_of_another_name_is_told() {
        assert!(Template::parse("{{Count}}").unwrap_err().contains("{{count}}"));
        assert!(Template::parse("{{count").is_err());
        assert!(!Template::parse("plain").unwrap().varies());
    }
}
