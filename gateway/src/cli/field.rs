//! One field of a message, by its path.

use serde_json::Value;
use streamgate_client::Message;

use super::{Format, output};

/// A path such as `data.user.id` or `data.items.0`: what the message's line has as JSON, without the `event` in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field(Vec<String>);

impl Field {
    /// Reads a path.
    ///
    /// # Errors
    /// It is empty, or has an empty step.
    pub fn parse(text: &str) -> Result<Self, String> {
        let steps: Vec<_> = text.split('.').map(str::to_owned).collect();
        if steps.iter().any(String::is_empty) {
            return Err("expected names with dots between them, as in data.user.id".to_owned());
        }
        Ok(Self(steps))
    }

    /// The line of this field of a message: a text as it is, anything else as JSON; empty (in JSON: null) if the message does
    /// not have it.
    pub(super) fn line(&self, format: Format, message: &Message) -> String {
        // The line is made here: it is JSON.
        let whole: Value = serde_json::from_str(&output::message(Format::Json, message)).unwrap_or_default();
        let found = self.of(&whole["event"]).or_else(|| self.of(&whole));
        match (format, found) {
            (Format::Json, found) => found.unwrap_or(&Value::Null).to_string(),
            (Format::Text, Some(Value::String(text))) => output::printable(text),
            (Format::Text, Some(value)) => value.to_string(),
            (Format::Text, None) => String::new(),
        }
    }

    fn of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, |value, step| match value {
            Value::Object(members) => members.get(step),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use streamgate_client::CloudEventBuilder;

    use super::*;

    #[test]
    fn a_field_is_found_in_the_data_the_attributes_and_the_message() {
        let data = r#"{"user":{"id":7,"name":"Ann\n"},"items":[{"n":null},true]}"#;
        let event =
            CloudEventBuilder::new("t").attribute("subject", "s").json(&serde_json::from_str(data).unwrap());
        let message = Message {
            id: "m".into(),
            channel: "a.b".into(),
            position: Some("17:4".parse().unwrap()),
            offset: 4,
            replay: false,
            publisher: None,
            delivery: None,
            event: event.build(),
        };
        let line = |path: &str, format| Field::parse(path).unwrap().line(format, &message);
        for (path, text, json) in [
            ("data.user.id", "7", "7"),
            ("data.user.name", "Ann\\n", "\"Ann\\n\""),
            ("data.items.0.n", "null", "null"),
            ("data.items.1", "true", "true"),
            ("data.items.2", "", "null"),
            ("data.items.-1", "", "null"),
            ("subject", "s", "\"s\""),
            ("channel", "a.b", "\"a.b\""),
            ("position", "17:4", "\"17:4\""),
            ("data.user", r#"{"id":7,"name":"Ann\n"}"#, r#"{"id":7,"name":"Ann\n"}"#),
            ("event.type", "t", "\"t\""),
            ("nothing", "", "null"),
        ] {
            assert_eq!(
                (line(path, Format::Text).as_str(), line(path, Format::Json).as_str()),
                (text, json),
                "{path}"
            );
        }
        assert!(
            Field::parse("").is_err() && Field::parse("data..id").is_err() && Field::parse("data.").is_err()
        );
    }
}
