//! Compares what Redis thinks that this node holds with what it does hold, and withdraws the rest.
//!
//! After a re-sync Redis has at least what it should. It may have more: a withdrawal or a leave that it was never told,
//! or that a failover undid. Nothing else would ever remove that while this node lives.

use super::{
    super::{
        reply::{Reply, ReplyError},
        scripts,
    },
    actor::{Actor, Done},
};
use crate::{
    broker::BrokerError,
    channel::{Channel, Pattern},
};

/// Things of one page.
const PAGE: u64 = 500;

/// How far an audit is.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// One is to be made.
    pub(super) due: bool,
    /// The cursor of the next page of the one that is being made.
    cursor: Option<String>,
    under_way: bool,
    /// It must begin again.
    stale: bool,
}

impl Audit {
    /// Asks for an audit that looks at everything as it is from now on.
    pub(super) fn begin(&mut self) {
        self.due = true;
        self.stale = self.under_way;
        self.cursor = None;
    }
}

/// One page.
#[derive(Debug)]
pub(super) struct Page {
    cursor: String,
    held: Vec<String>,
}

impl Page {
    fn of(items: &[Reply]) -> Result<Self, BrokerError> {
        let [_, cursor, held @ ..] = items else {
            return Err(ReplyError::Length { expected: 2, got: items.len() }.into());
        };
        let held = held.iter().filter_map(|item| item.as_str().ok().map(str::to_owned)).collect();
        Ok(Self { cursor: cursor.as_str()?.to_owned(), held })
    }
}

impl Actor {
    /// Reads the next page, one at a time.
    pub(super) fn audit_next(&mut self) {
        if self.audit.under_way || !(self.audit.due || self.audit.cursor.is_some()) {
            return;
        }
        let Ok(caller) = self.caller() else { return };
        if self.audit.cursor.is_none() {
            self.audit.due = false;
        }
        self.audit.under_way = true;
        let cursor = self.audit.cursor.clone().unwrap_or_else(|| "0".to_owned());
        let args = vec![
            caller.keys.base(caller.partition),
            caller.node.to_string().into(),
            cursor.into(),
            PAGE.to_string().into(),
        ];
        let call = caller.call(&scripts::HELD, args);
        self.later(async move {
            let read = async { Page::of(&call.await?.into_array()?) };
            Done::Audited(read.await)
        });
    }

    pub(super) fn finish_audit(&mut self, outcome: Result<Page, BrokerError>) {
        self.audit.under_way = false;
        let stale = std::mem::take(&mut self.audit.stale);
        match outcome {
            Ok(page) => {
                self.withdraw_unwanted(page.held);
                self.audit.cursor = Some(page.cursor).filter(|cursor| cursor != "0" && !stale);
            }
            Err(error) => {
                tracing::debug!(%error, "what this node holds could not be audited, trying again");
                self.audit.begin();
                return;
            }
        }
        self.audit_next();
    }

    fn withdraw_unwanted(&mut self, held: Vec<String>) {
        let mut names = Vec::new();
        for item in held {
            match item.strip_prefix('m').and_then(|rest| rest.split_once(' ')) {
                Some((session, channel)) => {
                    if let Ok(channel) = Channel::parse(channel)
                        && !self.members.concerns(&channel, session)
                    {
                        self.members.settle(channel, session.to_owned());
                    }
                }
                None if item == "lease" || self.wants_interest(&item) => {}
                None => names.push(item),
            }
        }
        self.send_changes();
        if !names.is_empty() {
            tracing::info!(interests = names.len(), "Redis still had interest of this node that has ended");
            self.withdraw_names(names);
        }
    }

    /// Whether somebody here is behind an interest, or will be when a call that is under way is answered.
    pub(super) fn wants_interest(&self, name: &str) -> bool {
        if let Some(channel) = name.strip_prefix("i:") {
            return self
                .slots
                .get(channel)
                .is_some_and(|slot| slot.registered || slot.reading.is_some() || !slot.waiters.is_empty());
        }
        if let Some(prefix) = name.strip_prefix("w:") {
            return self.patterns.keys().any(|pattern: &Pattern| pattern.literal_prefix() == prefix);
        }
        self.watching.wants_interest(name)
    }

    pub(super) fn finish_withdrawal(&mut self, names: &[String], outcome: Result<(), BrokerError>) {
        if let Err(error) = outcome {
            tracing::warn!(%error, interests = names.len(), "interest could not be withdrawn, trying again");
            self.audit.due = true;
            return;
        }
        // It may have begun again meanwhile, and the withdrawal may have been late: a script that Redis had forgotten is
        // called once more behind what was called since.
        for name in names.iter().filter(|name| self.wants_interest(name)).cloned().collect::<Vec<_>>() {
            if let Some(channel) = name.strip_prefix("i:").and_then(|channel| Channel::parse(channel).ok()) {
                self.unchecked.push_back(channel);
            }
            self.watching.relist(&name);
            self.unconfirmed.push_back(name);
        }
        self.check_next();
        self.list_next();
    }
}
