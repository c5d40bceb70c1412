//! What goes into a broker and what comes out.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{Publication, Stored, queue::JobOptions};
use crate::{
    channel::{Channel, Pattern},
    position::Position,
};

/// One publish.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where to.
    pub channel: Channel,
    /// The message, checked by the edge.
    pub stored: Stored,
    /// Authenticated user, empty if anonymous; part of the idempotency key's scope.
    pub user_id: String,
    /// A repeat within the policy's window answers the first position and delivers nothing.
    pub idempotency_key: Option<String>,
    /// Deliver to whoever is there, keep nothing, give no position. The policy may say so, too.
    pub transient: bool,
    /// How it waits in queues.
    pub job: JobOptions,
}

/// The answer to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Unset for transient publications and channels without history.
    pub position: Option<Position>,
    /// The idempotency key was used before; `position` is the first one.
    pub duplicate: bool,
}

/// Interest in a channel or pattern, and what to replay of the past.
#[derive(Debug, Clone)]
pub struct Subscribe {
    /// Channel or pattern, with where to start.
    pub to: SubscribeTo,
}

/// A channel or pattern, with where to start.
#[derive(Debug, Clone)]
pub enum SubscribeTo {
    /// One channel.
    Channel {
        /// Which.
        channel: Channel,
        /// From where.
        start: Start<Position>,
    },
    /// Every channel that the pattern matches.
    Pattern {
        /// Which.
        pattern: Pattern,
        /// From where.
        start: Start<PatternCursors>,
    },
}

/// Where a subscription starts; `C` is the form of its cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start<C> {
    /// With the next publication.
    Live,
    /// With everything after the cursor; what cannot be proven complete is reported.
    After(C),
    /// At a point of the history that the subscriber has not seen before; nothing can be missing.
    From(From),
}

/// A point of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The first entry that is kept.
    Start,
    /// The first entry at or after this time, milliseconds since the Unix epoch by the broker's clock.
    TimeMs(u64),
    /// The last so many entries.
    Last(u64),
}

/// What the client of a pattern subscription has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PatternCursors {
    /// Last position seen, by channel.
    pub channels: HashMap<Channel, Position>,
    /// [`Subscribed::marker`] of the earlier subscription, which tells the channels born since; opaque to clients.
    pub marker: Option<String>,
}

/// The answer to a subscribe.
#[derive(Debug, Clone, Default)]
pub struct Subscribed {
    /// Where live deliveries go on: publications up to these positions are in `catchup` or were not asked for, later
    /// ones reach the sink. For a channel with history policy exactly one item, for a pattern one for each matching
    /// channel that exists (at most 1,000). Empty for channels without history.
    pub positions: Vec<(Channel, Position)>,
    /// For a pattern: what to bring back in [`PatternCursors::marker`].
    pub marker: Option<String>,
    /// What was asked for of the past; `None` for [`Start::Live`].
    pub catchup: Option<Catchup>,
}

/// What was missed, channel by channel.
#[derive(Debug, Clone, Default)]
pub struct Catchup {
    /// One item for each channel that has something to replay or to report.
    pub channels: Vec<ChannelCatchup>,
    /// More was missed than a broker replays at once; the rest is in history.
    pub truncated: bool,
}

/// What was missed of one channel.
#[derive(Debug, Clone)]
pub struct ChannelCatchup {
    /// Which.
    pub channel: Channel,
    /// In order of their positions; shared by all who recover the same.
    pub publications: Vec<Arc<Publication>>,
    /// The publications are not everything after the cursor: something is missing before or between them.
    pub gap: Option<GapReason>,
    /// What follows the publications, up to where live deliveries go on, is left out: it was too much at once.
    pub cut: bool,
}

impl ChannelCatchup {
    /// What was missed of `channel`; `None` if there is nothing to replay or to report.
    #[must_use]
    pub fn of(
        channel: &Channel,
        publications: Vec<Arc<Publication>>,
        gap: Option<GapReason>,
        cut: bool,
    ) -> Option<Self> {
        let says_something = !publications.is_empty() || gap.is_some() || cut;
        says_something.then(|| Self { channel: channel.clone(), publications, gap, cut })
    }

    /// What to tell of it in one word.
    #[must_use]
    pub fn reason(&self) -> Option<GapReason> {
        self.gap.or(self.cut.then_some(GapReason::Truncated))
    }
}

/// Why continuity is lost. `Display` gives the wire form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// History no longer holds the publications right after the cursor.
    HeadTrimmed,
    /// The whole history expired or was removed.
    Expired,
    /// The cursor belongs to a history that was lost, or acked writes were lost.
    EpochReset,
    /// Publications inside the range are missing.
    Middle,
    /// More was missed than is replayed or buffered at once.
    Truncated,
}

impl GapReason {
    /// The wire form (PROTOCOL part B, "Recovery").
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeadTrimmed => "HEAD_TRIMMED",
            Self::Expired => "EXPIRED",
            Self::EpochReset => "EPOCH_RESET",
            Self::Middle => "MIDDLE",
            Self::Truncated => "TRUNCATED",
        }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which part of a history to read.
#[derive(Debug, Clone)]
pub struct HistoryQuery {
    /// Whose.
    pub channel: Channel,
    /// Only publications after this position (before it, if `reverse`).
    pub since: Option<Position>,
    /// At most so many; `None`: all that is kept; `Some(0)`: the position only.
    pub limit: Option<u64>,
    /// Newest first.
    pub reverse: bool,
}

/// A page of history.
#[derive(Debug, Clone, Default)]
pub struct HistoryPage {
    /// In the order asked for.
    pub publications: Vec<Arc<Publication>>,
    /// End of the history; unset where there is none.
    pub position: Option<Position>,
    /// The limit, or the greatest page, cut the answer; or `since` is no longer kept.
    pub truncated: bool,
}
