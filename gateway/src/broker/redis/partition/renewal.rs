//! Interest that nothing else would miss is told to Redis again, about every minute.
//!
//! What a channel with history lacks shows when histories are compared. Where there is none (a channel without history or
//! publications, a watch, a pattern whose channels are yet to come) silence is no sign: whatever took the interest away,
//! this gives it back.

use std::collections::VecDeque;

use super::actor::Actor;

/// Ticks between the beginnings of two turns.
const TURN_TICKS: u64 = 60;
/// Interests in one tick.
const BATCH: usize = 500;

impl Actor {
    /// Tells the next batch, unless something else is being told.
    pub(super) fn renew_interest(&mut self) {
        if self.renewals.is_empty() && self.ticks.is_multiple_of(TURN_TICKS) {
            self.renewals = self.silent_interests();
        }
        if self.checking || !self.unconfirmed.is_empty() {
            return;
        }
        while self.unconfirmed.len() < BATCH {
            let Some(name) = self.renewals.pop_front() else { break };
            // It may have ended since the turn began.
            if self.wants_interest(&name) {
                self.unconfirmed.push_back(name);
            }
        }
        self.check_next();
    }

    fn silent_interests(&self) -> VecDeque<String> {
        let silent = self.slots.iter().filter(|(channel, slot)| {
            slot.registered
                && (slot.last.is_none() || !self.environment.policies.of(channel.as_str()).keeps_history())
        });
        let channels = silent.map(|(channel, _)| format!("i:{channel}"));
        let patterns = self.patterns.keys().map(|pattern| format!("w:{}", pattern.literal_prefix()));
        channels.chain(patterns).chain(self.watching.interests()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{doubt_tests::actor, slot::Slot},
        *,
    };
    use crate::{
        broker::SinkId,
        channel::{Channel, Pattern, Target},
        position::Position,
    };

    #[tokio::test]
    async fn interest_that_nothing_would_miss_is_told_again_in_batches_while_it_lasts() {
        let mut actor = actor();
        let name = |n: usize| Channel::parse(&format!("a.{n}")).unwrap();
        for n in 0..600 {
            actor.slots.insert(name(n), Slot { registered: true, ..Slot::new(None) });
        }
        let heard = Slot::new(Some(Position { epoch: 1, offset: 1 }));
        actor.slots.insert(Channel::parse("heard").unwrap(), Slot { registered: true, ..heard });
        let watched = Target::Channel(Channel::parse("w").unwrap());
        actor.watching.interest.insert(&watched, SinkId(1));
        actor.watching.patterns.insert(Pattern::parse("p.q.*").unwrap(), Default::default());
        actor.renew_interest();
        assert_eq!(actor.unconfirmed.len(), BATCH);
        let told = std::mem::take(&mut actor.unconfirmed);
        // Half of the rest ends meanwhile.
        for n in (0..600).step_by(2) {
            actor.slots.remove(&name(n));
        }
        actor.renew_interest();
        let rest: Vec<_> = actor.unconfirmed.iter().cloned().collect();
        assert!(rest.contains(&"pi:w".to_owned()) && rest.contains(&"pw:p.q".to_owned()), "{rest:?}");
        assert!(rest.iter().all(|name| actor.wants_interest(name)));
        assert!(!told.iter().chain(&rest).any(|name| name == "i:heard"));
        actor.unconfirmed.clear();
        actor.ticks = 1;
        actor.renew_interest();
        assert!(actor.unconfirmed.is_empty(), "until the next turn");
    }
}
