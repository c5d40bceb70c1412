//! The history checker finds what is wrong with joins, leaves and lists of members.

use std::{collections::BTreeSet, time::Duration};

use streamgate_e2e::history::{
    History, Rule,
    presence::{Presence, Told},
};

const CHANNEL: &str = "room";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn join(session: &str, at: u64) -> Told {
    Told::Join { channel: CHANNEL.into(), session: session.into(), at: secs(at) }
}

fn leave(session: &str, at: u64) -> Told {
    Told::Leave { channel: CHANNEL.into(), session: session.into(), at: secs(at) }
}

fn members(sessions: &[&str], at: u64) -> Told {
    let sessions = sessions.iter().map(|session| (*session).to_owned()).collect();
    Told::Members { channel: CHANNEL.into(), sessions, at: secs(at) }
}

/// Alice stays from 1 s on, Bob from 2 s to 10 s; the run ends at 100 s, and a leave may take 20 s.
fn true_members() -> Presence {
    let mut presence = Presence::default();
    presence.terms(secs(20), secs(100), false);
    presence.joined(CHANNEL, "alice", secs(1));
    presence.joined(CHANNEL, "bob", secs(2));
    presence.left(CHANNEL, "bob", secs(10));
    presence
}

/// What is wrong when a watcher was told this.
fn rules(told: impl IntoIterator<Item = Told>) -> Vec<Rule> {
    let mut presence = true_members();
    told.into_iter().for_each(|told| presence.told("watcher", told));
    check(presence)
}

fn check(presence: Presence) -> Vec<Rule> {
    let mut history = History::default();
    history.presence = presence;
    history.check().rules()
}

#[test]
fn turns_that_end_with_the_true_members_are_sound() {
    assert_eq!(rules([members(&[], 0), join("alice", 1), join("bob", 2), leave("bob", 12)]), []);
    // It came later: Bob had left, or was listed.
    assert_eq!(rules([members(&["alice"], 30)]), []);
    assert_eq!(rules([members(&["alice", "bob"], 5), leave("bob", 11)]), []);
    // It was away, and begins anew.
    assert_eq!(rules([join("alice", 1), join("bob", 2), members(&["alice"], 30)]), []);
}

#[test]
fn two_joins_or_two_leaves_in_a_row_are_unbalanced() {
    let twice = rules([join("alice", 1), join("bob", 2), join("bob", 3), leave("bob", 12)]);
    assert_eq!(twice, [Rule::Unbalanced]);
    let twice = rules([join("alice", 1), join("bob", 2), leave("bob", 12), leave("bob", 13)]);
    assert_eq!(twice, [Rule::Unbalanced]);
}

#[test]
fn a_leave_of_a_member_that_stayed_is_false() {
    let false_leave = [join("alice", 1), leave("alice", 50), join("alice", 51)];
    assert_eq!(rules(false_leave), [Rule::FalseLeave]);
}

#[test]
fn where_redis_forgot_members_a_leave_may_be_false_but_not_the_end() {
    let told = |told: &[Told]| {
        let mut presence = true_members();
        presence.terms(secs(20), secs(100), true);
        told.iter().for_each(|told| presence.told("watcher", told.clone()));
        check(presence)
    };
    let forgotten = [members(&["alice"], 30), leave("alice", 50), join("alice", 51)];
    assert_eq!(told(&forgotten), []);
    assert_eq!(told(&forgotten[..2]), [Rule::MissingJoin]);
}

#[test]
fn a_leave_after_a_move_that_was_a_leave_is_not() {
    let mut presence = true_members();
    presence.joined(CHANNEL, "bob", secs(60));
    for told in [join("alice", 1), join("bob", 2), leave("bob", 62), join("bob", 63)] {
        presence.told("watcher", told);
    }
    assert_eq!(check(presence), []);
}

#[test]
fn a_leave_or_join_that_nobody_tells_is_missing() {
    assert_eq!(rules([join("alice", 1), join("bob", 2)]), [Rule::MissingLeave]);
    assert_eq!(rules([members(&[], 0), join("bob", 2), leave("bob", 12)]), [Rule::MissingJoin]);
}

#[test]
fn what_changed_just_now_may_be_told_later() {
    let mut presence = true_members();
    presence.joined(CHANNEL, "carol", secs(95));
    [join("alice", 1), join("bob", 2), leave("bob", 12)]
        .into_iter()
        .for_each(|t| presence.told("watcher", t));
    assert_eq!(check(presence), []);
}

#[test]
fn the_list_in_the_end_is_that_of_the_true_members() {
    let listed = |sessions: &[&str]| {
        let mut presence = true_members();
        let sessions: BTreeSet<String> = sessions.iter().map(|session| (*session).to_owned()).collect();
        presence.members_at_end(CHANNEL, sessions);
        check(presence)
    };
    assert_eq!(listed(&["alice"]), []);
    assert_eq!(listed(&["alice", "bob"]), [Rule::WrongMembers]);
    assert_eq!(listed(&[]), [Rule::WrongMembers]);
}
