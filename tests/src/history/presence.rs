//! Members: who was truly there, and who was told of whom.
//!
//! Presence events have no position: a watcher is owed the right picture in the end, turns of joins and leaves, and no
//! leave of a member that never left. What it missed while it was away comes as a difference, or with a new list.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::violation::{Rule, Violation};

/// A broken connection may be noticed by its node, and told to a watcher, so much sooner than by its client.
const SLACK: Duration = Duration::from_secs(5);

/// What a watcher was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Everybody who is there: the watcher begins, or begins anew.
    Members {
        /// The channel.
        channel: String,
        /// Their sessions.
        sessions: BTreeSet<String>,
        /// When.
        at: Duration,
    },
    /// Somebody came.
    Join {
        /// The channel.
        channel: String,
        /// Who.
        session: String,
        /// When.
        at: Duration,
    },
    /// Somebody left.
    Leave {
        /// The channel.
        channel: String,
        /// Who.
        session: String,
        /// When.
        at: Duration,
    },
}

/// A time in which a session was a member, whichever nodes it was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// From when.
    pub from: Duration,
    /// Until when; `None`: to the end of the run.
    pub to: Option<Duration>,
}

/// The members of one run.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    stays: BTreeMap<(String, String), Vec<Stay>>,
    told: BTreeMap<String, Vec<Told>>,
    last_members: BTreeMap<String, BTreeSet<String>>,
    /// How late a leave may be: twice the lease.
    grace: Duration,
    end: Duration,
    lossy: bool,
}

impl Presence {
    /// How late a leave may be told, when the run ends, and whether Redis forgot members in this run: then leaves may be
    /// told of members that stayed, and their joins again.
    pub fn terms(&mut self, grace: Duration, end: Duration, lossy: bool) {
        (self.grace, self.end, self.lossy) = (grace, end, lossy);
    }

    /// A session is a member from now on; it may be on the way already.
    pub fn joined(&mut self, channel: &str, session: &str, at: Duration) {
        let stays = self.stays.entry((channel.to_owned(), session.to_owned())).or_default();
        stays.push(Stay { from: at, to: None });
    }

    /// It is not any more.
    pub fn left(&mut self, channel: &str, session: &str, at: Duration) {
        let stays = self.stays.get_mut(&(channel.to_owned(), session.to_owned()));
        if let Some(stay) = stays.and_then(|stays| stays.last_mut()) {
            stay.to.get_or_insert(at);
        }
    }

    /// A watcher was told something.
    pub fn told(&mut self, watcher: &str, told: Told) {
        self.told.entry(watcher.to_owned()).or_default().push(told);
    }

    /// What a query answers in the end.
    pub fn members_at_end(&mut self, channel: &str, sessions: BTreeSet<String>) {
        self.last_members.insert(channel.to_owned(), sessions);
    }

    /// Who was there and what watchers were told, a line for each.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let stays =
            self.stays.iter().map(|((channel, session), stays)| format!("{channel} {session} {stays:?}"));
        let told = self
            .told
            .iter()
            .flat_map(|(watcher, told)| told.iter().map(move |told| format!("{watcher} {told:?}")));
        stays.chain(told).collect()
    }

    pub(super) fn check(&self, violations: &mut Vec<Violation>) {
        for (channel, sessions) in &self.last_members {
            if *sessions != self.members(channel) {
                violations.push(self.wrong_members(channel, sessions));
            }
        }
        for (watcher, told) in &self.told {
            self.check_watcher(watcher, told, violations);
        }
    }

    /// Who is truly on a channel now.
    #[must_use]
    pub fn members(&self, channel: &str) -> BTreeSet<String> {
        let there = |((of, _), stays): &(&(String, String), &Vec<Stay>)| {
            of == channel && stays.last().is_some_and(|stay| stay.to.is_none())
        };
        self.stays.iter().filter(there).map(|((_, session), _)| session.clone()).collect()
    }

    fn check_watcher(&self, watcher: &str, told: &[Told], violations: &mut Vec<Violation>) {
        let mut views: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut report = |rule, channel: &str, index: usize, what: String| {
            violations.push(Violation {
                rule,
                channel: channel.to_owned(),
                subscriber: Some(watcher.to_owned()),
                place: None,
                what,
                around: told
                    .iter()
                    .skip(index.saturating_sub(3))
                    .take(6)
                    .map(|told| format!("{told:?}"))
                    .collect(),
            });
        };
        for (index, event) in told.iter().enumerate() {
            match event {
                Told::Members { channel, sessions, .. } => {
                    views.insert(channel, sessions.clone());
                }
                Told::Join { channel, session, .. } => {
                    if !views.entry(channel).or_default().insert(session.clone()) {
                        report(Rule::Unbalanced, channel, index, format!("{session} joined, and was there"));
                    }
                }
                Told::Leave { channel, session, at } => {
                    if !views.entry(channel).or_default().remove(session) {
                        report(
                            Rule::Unbalanced,
                            channel,
                            index,
                            format!("{session} left, and was not there"),
                        );
                    }
                    if self.stayed(channel, session, *at) {
                        report(Rule::FalseLeave, channel, index, format!("{session} left, and never went"));
                    }
                }
            }
        }
        for (channel, view) in &views {
            let members = self.members(channel);
            for session in view.difference(&members).filter(|session| self.is_settled(channel, session)) {
                report(
                    Rule::MissingLeave,
                    channel,
                    told.len(),
                    format!("{session} left, and nobody said so"),
                );
            }
            for session in members.difference(view).filter(|session| self.is_settled(channel, session)) {
                report(
                    Rule::MissingJoin,
                    channel,
                    told.len(),
                    format!("{session} is there, and nobody said so"),
                );
            }
        }
    }

    /// Whether the session was there at `at`, for a while longer, and long enough before that no earlier leave can be meant.
    fn stayed(&self, channel: &str, session: &str, at: Duration) -> bool {
        let Some(stays) = self.stays.get(&(channel.to_owned(), session.to_owned())) else { return false };
        let there = |stay: &Stay, from| from < at && stay.to.is_none_or(|to| at + SLACK < to);
        !self.lossy
            && (stays.iter().any(|stay| there(stay, stay.from + self.grace))
                || stays.first().is_some_and(|first| there(first, first.from)))
    }

    /// Its last change is so long ago that everybody must know.
    fn is_settled(&self, channel: &str, session: &str) -> bool {
        let Some(stays) = self.stays.get(&(channel.to_owned(), session.to_owned())) else { return true };
        let Some(last) = stays.last() else { return true };
        last.to.unwrap_or(last.from) + self.grace <= self.end
    }

    fn wrong_members(&self, channel: &str, seen: &BTreeSet<String>) -> Violation {
        let members = self.members(channel);
        let too_many: Vec<_> = seen.difference(&members).collect();
        let too_few: Vec<_> = members.difference(seen).collect();
        Violation {
            rule: Rule::WrongMembers,
            channel: channel.to_owned(),
            subscriber: None,
            place: None,
            what: format!("not there, but listed: {too_many:?}; there, but not listed: {too_few:?}"),
            around: Vec::new(),
        }
    }
}
