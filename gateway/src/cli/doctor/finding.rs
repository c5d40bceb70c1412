//! What was looked at, how it is, and what to change.

use serde_json::json;

use crate::cli::{Format, output};

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Works; somebody should know.
    Warn,
    /// A node does not work like that, or loses what it should keep.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub level: Level,
    pub subject: String,
    pub text: String,
    /// What to change.
    pub change: Option<String>,
}

impl Finding {
    pub(super) fn ok(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), text: text.into(), change: None }
    }

    pub(super) fn warn(
        subject: impl Into<String>,
        text: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warn, change: Some(change.into()), ..Self::ok(subject, text) }
    }

    pub(super) fn fail(
        subject: impl Into<String>,
        text: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        Self { level: Level::Fail, change: Some(change.into()), ..Self::ok(subject, text) }
    }

    /// Its lines; `width` is that of the subjects.
    pub(super) fn lines(&self, format: Format, width: usize) -> Vec<String> {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        match format {
            Format::Json => {
                let object = json!({"level": level, "subject": self.subject, "text": self.text, "change": self.change});
                vec![object.to_string()]
            }
            Format::Text => {
                let first = format!("{level:4}  {:width$}  {}", self.subject, self.text);
                let change =
                    self.change.as_ref().map(|change| format!("      {:width$}  change: {change}", ""));
                // Servers and files say part of it.
                std::iter::once(first).chain(change).map(|line| output::printable(&line)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_one_for_the_change() {
        let finding = Finding::warn("redis", "it\u{1b}[2J is slow", "nothing");
        let lines = finding.lines(Format::Text, 7);
        assert_eq!(lines, ["warn  redis    it\\u{1b}[2J is slow", "               change: nothing"]);
        let object: serde_json::Value = serde_json::from_str(&finding.lines(Format::Json, 7)[0]).unwrap();
        assert_eq!((&object["level"], &object["change"]), (&"warn".into(), &"nothing".into()));
        assert!(Level::Ok < Level::Warn && Level::Warn < Level::Fail);
    }
}
