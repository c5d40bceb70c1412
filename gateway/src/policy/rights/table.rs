//! The table: rules by action, and what they say of one wish of one client.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;

use super::{Action, Effect, Rule, Who};
use crate::{auth::Grants, channel::covers};

/// Numbers tables, so that sessions know whether theirs is the one that holds.
static REVISIONS: AtomicU64 = AtomicU64::new(1);

/// The rules of a node, replaced as a whole on reload. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rights(Arc<ArcSwap<Table>>);

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
        Self(Arc::new(ArcSwap::from_pointee(Table::new(rules))))
    }

    /// Whether `subject` may do `action` on `name`, a channel or a pattern.
    #[must_use]
    pub fn verdict(&self, action: Action, name: &str, subject: Subject<'_>) -> Verdict {
        self.0.load().verdict(action, name, subject)
    }

    /// Whether no rule names `action`, so that its default holds.
    #[must_use]
    pub fn by_default(&self, action: Action) -> bool {
        self.0.load().by_default(action)
    }

    /// Changes with each [`Self::replace`] by other rules.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.load().revision
    }

    /// Replaces the whole table; later lookups see only the new one.
    pub fn replace(&self, rules: Vec<Rule>) {
        if self.0.load().rules != rules {
            self.0.store(Arc::new(Table::new(rules)));
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
        let Subject { user_id, grants } = subject;
        let (deny, allow) = (&self.deny[action as usize], &self.allow[action as usize]);
        let deny = deny.iter().map(|at| &self.rules[*at]);
        let mut allow = allow.iter().map(|at| &self.rules[*at]);
        let is_for = |rule: &Rule| rule.who.is(user_id, &grants.claims);
        let touched = |rule: &Rule| rule.channels.iter().any(|of| of.overlaps(name, user_id));
        if deny.clone().any(|rule| is_for(rule) && touched(rule)) {
            return Verdict::Denied;
        }
        if self.by_default(action) && action.open_by_default() {
            return Verdict::Allowed;
        }
        let covered = |rule: &Rule| rule.channels.iter().any(|of| of.covers(name, user_id));
        if allow.clone().any(|rule| is_for(rule) && covered(rule))
            || granted(grants, action).iter().any(|pattern| covers(pattern, name))
        {
            return Verdict::Allowed;
        }
        if allow.any(|rule| rule.who == Who::Hook && covered(rule)) {
            return Verdict::Ask;
        }
        Verdict::Unallowed
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
