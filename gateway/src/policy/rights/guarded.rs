//! A channel that is the gateway's own: it publishes there what is not for every client.

use super::Action;
use crate::channel::{Channel, overlaps};

/// The channel. Nobody may publish to it. Who may subscribe, ask for presence or history, or survey, is said by rules that
/// name exactly this channel: nothing is open by default, no pattern and no token covers it, and a subscription to a pattern
/// that it matches is denied.
#[derive(Debug, Clone)]
pub(super) struct Guarded(pub Channel);

/// What a wish has to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concern {
    /// It is denied, whatever rules say.
    Closed,
    /// Rules with the very name say.
    ByName,
}

impl Guarded {
    /// `None`: nothing.
    pub fn concern(&self, action: Action, name: &str) -> Option<Concern> {
        let channel = self.0.as_str();
        match action {
            // About channels of calls, which lead to responders, and about methods.
            Action::Rpc | Action::Serve => None,
            Action::Publish => (name == channel).then_some(Concern::Closed),
            Action::Subscribe | Action::Presence | Action::History | Action::Survey => {
                if name == channel {
                    return Some(Concern::ByName);
                }
                overlaps(name, channel).then_some(Concern::Closed)
            }
        }
    }
}
