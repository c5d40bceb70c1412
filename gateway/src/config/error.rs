//! What is wrong with a configuration, all of it at once.

use std::fmt;

/// One thing that is wrong, fit for the operator who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from: a file name, an environment variable, a flag. Empty where that is unknown.
    pub origin: String,
    /// Path of the key, as in `limits.frame_bytes`. Empty where the message names it.
    pub key: String,
    /// What is wrong, with the value and what is allowed.
    pub message: String,
}

impl Problem {
    /// A problem of a source as a whole.
    #[must_use]
    pub fn of_source(origin: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: origin.into(), key: String::new(), message: message.into() }
    }

    /// A problem of one key.
    #[must_use]
    pub fn of_key(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: String::new(), key: key.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.origin, &self.key] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

/// Why there is no [`Config`](super::Config): at least one [`Problem`]. Displays one to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// All that was found, in the order of the keys.
    pub problems: Vec<Problem>,
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
