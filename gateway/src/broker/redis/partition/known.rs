//! Who is on a watched channel, as far as watchers were told. Pure.
//!
//! Invariant: what [`Known::apply`] and [`Known::compare`] let through is, for each session, a join and a leave in turn.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::broker::{Member, PresenceAction};

/// See the module.
#[derive(Debug, Default)]
pub struct Known {
    members: HashMap<String, Arc<Member>>,
    /// Sessions of which something was heard since a listing began; `None`: no listing is under way.
    heard: Option<HashSet<String>>,
    /// Sessions that the last listing did not have. Their node may only be late in telling Redis of them again.
    suspects: HashSet<String>,
}

/// What a listing told anew.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Members that nobody was told of.
    pub joined: Vec<Arc<Member>>,
    /// Members that are gone for good.
    pub left: Vec<Arc<Member>>,
    /// Some are absent and must be looked for once more.
    pub doubtful: bool,
}

impl Known {
    /// Takes a join or leave from the inbox; whether it is new.
    pub fn apply(&mut self, action: PresenceAction, member: &Arc<Member>) -> bool {
        let session = &member.session_id;
        if let Some(heard) = &mut self.heard {
            heard.insert(session.clone());
        }
        self.suspects.remove(session);
        match action {
            PresenceAction::Join => self.members.insert(session.clone(), member.clone()).is_none(),
            PresenceAction::Leave => self.members.remove(session).is_some(),
        }
    }

    /// A listing begins: what is heard from now on is newer than what it will bring.
    pub fn begin(&mut self) {
        self.heard = Some(HashSet::new());
    }

    /// The listing failed.
    pub fn give_up(&mut self) {
        self.heard = None;
    }

    /// Compares with what was listed. Who is absent for the second time has left, if this is a `second` look.
    pub fn compare(&mut self, listed: Vec<Arc<Member>>, second: bool) -> Difference {
        let heard = self.heard.take().unwrap_or_default();
        let mut difference = Difference::default();
        let mut absent: HashSet<String> =
            self.members.keys().filter(|session| !heard.contains(*session)).cloned().collect();
        for member in listed {
            absent.remove(&member.session_id);
            if !heard.contains(&member.session_id)
                && self.members.insert(member.session_id.clone(), member.clone()).is_none()
            {
                difference.joined.push(member);
            }
        }
        if second {
            let gone = absent.extract_if(|session| self.suspects.contains(session));
            difference.left = gone.filter_map(|session| self.members.remove(&session)).collect();
        }
        difference.doubtful = !absent.is_empty();
        self.suspects = absent;
        difference
    }

    /// Whether nobody is there and no listing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.heard.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PresenceAction::{Join, Leave};

    fn member(session: &str) -> Arc<Member> {
        Arc::new(Member { session_id: session.to_owned(), ..Member::default() })
    }

    fn sessions(members: &[Arc<Member>]) -> Vec<&str> {
        members.iter().map(|member| member.session_id.as_str()).collect()
    }

    #[test]
    fn repeated_joins_and_leaves_are_not_news() {
        let mut known = Known::default();
        assert!(known.apply(Join, &member("a")) && !known.apply(Join, &member("a")));
        assert!(known.apply(Leave, &member("a")) && !known.apply(Leave, &member("a")));
        assert!(known.is_empty());
    }

    #[test]
    fn what_was_heard_during_a_listing_wins_over_it() {
        let mut known = Known::default();
        known.apply(Join, &member("left"));
        known.begin();
        known.apply(Leave, &member("left"));
        known.apply(Join, &member("came"));
        let difference = known.compare(vec![member("left"), member("missed")], false);
        assert_eq!(sessions(&difference.joined), ["missed"]);
        assert!(difference.left.is_empty() && !difference.doubtful);
        assert_eq!(known.members.len(), 2);
    }

    #[test]
    fn who_is_absent_twice_has_left_and_who_comes_back_has_not() {
        let mut known = Known::default();
        for session in ["gone", "back", "late"] {
            known.apply(Join, &member(session));
        }
        known.begin();
        let first = known.compare(Vec::new(), false);
        assert!(first.doubtful && first.left.is_empty());
        // Its node told Redis of it again: nobody who watches missed it.
        assert!(!known.apply(Join, &member("late")));
        known.begin();
        let second = known.compare(vec![member("back"), member("late")], true);
        assert_eq!((sessions(&second.left), second.joined.len(), second.doubtful), (vec!["gone"], 0, false));
        assert!(!known.apply(Leave, &member("gone")));
        // Absent for the first time in a second look: looked for again.
        known.begin();
        let third = known.compare(vec![member("back")], true);
        assert!(third.doubtful && third.left.is_empty());
    }
}
