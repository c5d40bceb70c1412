//! What the checker finds, in words that let a failure be understood without running it again.

use std::fmt;

use super::log::Place;

/// More violations than this are only counted.
const GREATEST_REPORT: usize = 20;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// An acknowledged publication was seen by everybody who was subscribed, or lies in a gap that they were told of.
    Missing,
    /// Nothing is seen twice by one subscriber.
    Twice,
    /// Positions only rise.
    OutOfOrder,
    /// Offsets follow each other, except across a gap that was told.
    Hole,
    /// One position has one publication.
    TwoAtOnePlace,
    /// One publish has one position, unless the first one was lost by a declared restart.
    TwoPlaces,
    /// What is seen was published, and was not surely refused.
    Foreign,
    /// It is seen as it was published, in its channel.
    Altered,
    /// An acknowledged publication is only lost by a restart that the run declares as lossy.
    LostWrite,
    /// What is told to be missing may really be missing: there was a lossy restart, a trim or a removal before.
    UnfoundedGap,
    /// Nobody is told of a gap that ends before what it has, unless what it has was lost.
    StaleGap,
    /// A node's inbox only has a hole if something was done to it: nothing is lost to an abandoned connection.
    InboxHole,
    /// A subscription does not end by itself.
    Ended,
    /// Joins and leaves of one session take turns.
    Unbalanced,
    /// Nobody is told of a leave of a member that stayed.
    FalseLeave,
    /// Everybody is told of the leave of a member that left.
    MissingLeave,
    /// Everybody is told of the join of a member.
    MissingJoin,
    /// The list of members in the end is that of those who are there.
    WrongMembers,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What it breaks.
    pub rule: Rule,
    /// In which channel; empty if it is about none.
    pub channel: String,
    /// Who saw it, or was to see it; `None` if it is wrong for all.
    pub subscriber: Option<String>,
    /// Where.
    pub place: Option<Place>,
    /// What happened.
    pub what: String,
    /// What this subscriber saw of the channel before and after.
    pub around: Vec<String>,
}

/// All that is wrong with a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The violations, those of one subscriber together.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.violations.is_empty()
    }

    /// The rules that are broken, each once, in the order of [`Rule`].
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules: Vec<Rule> = self.violations.iter().map(|violation| violation.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.channel)?;
        if let Some(place) = self.place {
            write!(f, " at {place}")?;
        }
        if let Some(subscriber) = &self.subscriber {
            write!(f, ", subscriber {subscriber}")?;
        }
        write!(f, ": {}", self.what)?;
        for line in &self.around {
            write!(f, "\n      {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} violations", self.violations.len())?;
        for rule in self.rules() {
            let count = self.violations.iter().filter(|violation| violation.rule == rule).count();
            write!(f, ", {rule:?} {count}")?;
        }
        for violation in self.violations.iter().take(GREATEST_REPORT) {
            write!(f, "\n  {violation}")?;
        }
        if self.violations.len() > GREATEST_REPORT {
            write!(f, "\n  and {} more", self.violations.len() - GREATEST_REPORT)?;
        }
        Ok(())
    }
}
