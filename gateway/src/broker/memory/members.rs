//! Who is on which channel. Bounded by the node's connections and their subscriptions.

use std::{collections::HashMap, sync::Arc};

use crate::{
    broker::{Member, Owner, PresencePage},
    channel::Channel,
};

/// See the module.
#[derive(Debug, Default)]
pub struct Members(HashMap<Channel, HashMap<String, Held>>);

#[derive(Debug)]
struct Held {
    owner: Owner,
    member: Arc<Member>,
}

impl Members {
    /// Adds a member, or lets `owner` take it over; the member if it is new.
    pub fn join(&mut self, channel: Channel, member: Member, owner: Owner) -> Option<Arc<Member>> {
        let member = Arc::new(member);
        let held = Held { owner, member: member.clone() };
        let former = self.0.entry(channel).or_default().insert(member.session_id.clone(), held);
        former.is_none().then_some(member)
    }

    /// Removes the member if `owner` holds it; the member if it was.
    pub fn leave(&mut self, channel: &Channel, session: &str, owner: Owner) -> Option<Arc<Member>> {
        let members = self.0.get_mut(channel)?;
        members.get(session).filter(|held| held.owner == owner)?;
        let left = members.remove(session);
        if members.is_empty() {
            self.0.remove(channel);
        }
        left.map(|held| held.member)
    }

    /// At most `limit` members, and how many there are.
    #[must_use]
    pub fn page(&self, channel: &Channel, limit: usize) -> PresencePage {
        let Some(members) = self.0.get(channel) else { return PresencePage::default() };
        PresencePage {
            members: members.values().take(limit).map(|held| held.member.clone()).collect(),
            count: members.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(session: &str) -> Member {
        Member { session_id: session.to_owned(), ..Member::default() }
    }

    #[test]
    fn a_member_leaves_only_by_its_present_owner_and_nothing_stays_behind() {
        let (mut members, channel) = (Members::default(), Channel::parse("a").unwrap());
        assert!(members.join(channel.clone(), member("s"), Owner(1)).is_some());
        assert!(members.join(channel.clone(), member("s"), Owner(2)).is_none());
        assert!(members.leave(&channel, "s", Owner(1)).is_none());
        assert_eq!(members.page(&channel, 10).count, 1);
        assert!(members.leave(&channel, "s", Owner(2)).is_some());
        assert!(members.leave(&channel, "s", Owner(2)).is_none());
        assert!(members.0.is_empty());
    }

    #[test]
    fn a_page_is_bounded_and_tells_the_whole_number() {
        let (mut members, channel) = (Members::default(), Channel::parse("a").unwrap());
        for n in 0..5 {
            members.join(channel.clone(), member(&n.to_string()), Owner(n));
        }
        let page = members.page(&channel, 2);
        assert_eq!((page.members.len(), page.count), (2, 5));
    }
}
