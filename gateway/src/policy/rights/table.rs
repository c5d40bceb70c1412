//! The table: rules by action, and what they say of one wish of one client.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;

use super::{
    Action, Effect, Rule, RulePattern, Who,
    guarded::{Concern, Guarded},
};
use crate::{
    auth::Grants,
    channel::{Channel, covers},
};

/// Numbers tables, so that sessions know whether theirs is the one that holds.
static REVISIONS: AtomicU64 = AtomicU64::new(1);

/// The rules of a node, replaced as a whole on reload. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rights {
    table: Arc<ArcSwap<Table>>,
    /// Outlives a reload.
    guarded: Option<Guarded>,
}

#[derive(Debug)]
struct Table {
    rules: Vec<Rule>,
    /// Places in `rules` by action: those that deny and those that allow. An action in none has its default.
    deny: [Vec<usize>; Action::ALL.len()],
    allow: [Vec<usize>; Action::ALL.len()],
    revision: u64,
}

/// A client, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its user; empty if anonymous.
    pub user_id: &'a str,
    /// What its token brings.
    pub grants: &'a Grants,
}

/// What the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allowed,
    /// A rule denies it: nothing can allow it.
    Denied,
    /// Nothing in the table and in the client's token allows it.
    Unallowed,
    /// As a backend says.
    Ask,
}

impl Rights {
    /// The table of these rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { table: Arc::new(ArcSwap::from_pointee(Table::new(rules))), guarded: None }
    }

    /// The same with a channel of the gateway's own: nobody may publish to it, only rules that name exactly this channel open
    /// it for anything else, and a pattern that it matches is denied. Calls and offers are not concerned.
    #[must_use]
    pub fn guarding(self, channel: Channel) -> Self {
        Self { guarded: Some(Guarded(channel)), ..self }
    }

    /// Whether `subject` may do `action` on `name`, a channel or a pattern.
    #[must_use]
    pub fn verdict(&self, action: Action, name: &str, subject: Subject<'_>) -> Verdict {
        let table = self.table.load();
        match self.guarded.as_ref().and_then(|guarded| guarded.concern(action, name)) {
            None => table.verdict(action, name, subject),
            Some(Concern::Closed) => Verdict::Denied,
            Some(Concern::ByName) => table.by_name(action, name, subject),
        }
    }

    /// Whether no rule names `action`, so that its default holds.
    #[must_use]
    pub fn by_default(&self, action: Action) -> bool {
        self.table.load().by_default(action)
    }

    /// Changes with each [`Self::replace`] by other rules.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.table.load().revision
    }

    /// Replaces the whole table; later lookups see only the new one.
    pub fn replace(&self, rules: Vec<Rule>) {
        if self.table.load().rules != rules {
            self.table.store(Arc::new(Table::new(rules)));
        }
    }
}

impl Default for Rights {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Table {
    fn new(rules: Vec<Rule>) -> Self {
        let of = |effect: Effect| {
            Action::ALL.map(|action| {
                let named = |at: &usize| rules[*at].effect == effect && rules[*at].actions.contain(action);
                (0..rules.len()).filter(named).collect()
            })
        };
        let (deny, allow) = (of(Effect::Deny), of(Effect::Allow));
        Self { rules, deny, allow, revision: REVISIONS.fetch_add(1, Ordering::Relaxed) }
    }

    fn by_default(&self, action: Action) -> bool {
        self.deny[action as usize].is_empty() && self.allow[action as usize].is_empty()
    }

    fn verdict(&self, action: Action, name: &str, subject: Subject<'_>) -> Verdict {
        let user_id = subject.user_id;
        if self.denied(action, name, subject) {
            return Verdict::Denied;
        }
        if self.by_default(action) && action.open_by_default() {
            return Verdict::Allowed;
        }
        let granted = || granted(subject.grants, action).iter().any(|pattern| covers(pattern, name));
        match self.allowed(action, subject, |of| of.covers(name, user_id)) {
            Verdict::Ask | Verdict::Unallowed if granted() => Verdict::Allowed,
            verdict => verdict,
        }
    }

    /// What the rules say that have this very name. What none of them allows is denied, and not merely not allowed.
    fn by_name(&self, action: Action, name: &str, subject: Subject<'_>) -> Verdict {
        if self.denied(action, name, subject) {
            return Verdict::Denied;
        }
        match self.allowed(action, subject, |of| of.names(name)) {
            Verdict::Unallowed => Verdict::Denied,
            verdict => verdict,
        }
    }

    /// Whether a rule denies it.
    fn denied(&self, action: Action, name: &str, subject: Subject<'_>) -> bool {
        self.deny[action as usize].iter().map(|at| &self.rules[*at]).any(|rule| {
            rule.who.is(subject.user_id, &subject.grants.claims)
                && rule.channels.iter().any(|of| of.overlaps(name, subject.user_id))
        })
    }

    /// What the rules say that allow `action`, of those with a pattern that is `meant`.
    fn allowed(&self, action: Action, subject: Subject<'_>, meant: impl Fn(&RulePattern) -> bool) -> Verdict {
        let allow = self.allow[action as usize].iter().map(|at| &self.rules[*at]);
        let mut allow = allow.filter(|rule| rule.channels.iter().any(&meant));
        if allow.clone().any(|rule| rule.who.is(subject.user_id, &subject.grants.claims)) {
            return Verdict::Allowed;
        }
        match allow.any(|rule| rule.who == Who::Hook) {
            true => Verdict::Ask,
            false => Verdict::Unallowed,
        }
    }
}

/// What the client's token allows.
fn granted(grants: &Grants, action: Action) -> &[String] {
    match action {
        Action::Subscribe => &grants.subscribe,
        Action::Publish => &grants.publish,
        _ => &[],
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
