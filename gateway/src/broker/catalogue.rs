//! Which channels there are: those that have a history.

use crate::channel::{Channel, Target, glob};

/// Which channels to list.
#[derive(Debug, Clone)]
pub struct ChannelQuery {
    /// Only those that it matches; `None`: all.
    pub target: Option<Target>,
    /// Only those whose names follow this one, by their bytes.
    pub after: Option<Channel>,
    /// At most so many.
    pub limit: usize,
}

impl ChannelQuery {
    /// What the name of every channel that is wanted starts with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match &self.target {
            None => "",
            Some(Target::Channel(channel)) => channel.as_str(),
            Some(Target::Pattern(pattern)) => pattern.literal_prefix(),
        }
    }

    /// Whether `channel` is wanted, wherever the page starts.
    #[must_use]
    pub fn matches(&self, channel: &str) -> bool {
        self.target.as_ref().is_none_or(|target| glob(target.as_str(), channel))
    }
}

/// A page of channels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelPage {
    /// In the order of their names.
    pub channels: Vec<Channel>,
    /// Where the next page starts ([`ChannelQuery::after`]); `None`: this is the last one. A page may be empty and not
    /// the last: a broker looks at a bounded number of names.
    pub next: Option<Channel>,
}
