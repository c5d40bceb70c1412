//! Take-overs, late calls and what an absence of Redis leaves behind. Pure: calls are answered by hand.

use super::*;

const ME: Owner = Owner(1);
/// Whatever is contested is so for long, or not at all.
const LONG: Patience = Patience { window: Duration::from_secs(60), doubted: Duration::from_secs(60) };
const PAST: Patience = Patience { window: Duration::ZERO, doubted: Duration::from_secs(60) };
const OVER: Patience = Patience { window: Duration::ZERO, doubted: Duration::ZERO };

fn key(session: &str) -> Key {
    (Channel::parse("a").unwrap(), session.to_owned())
}

fn join(members: &mut Members, session: &str) {
    members.join(key(session), ME, Bytes::from_static(b"m"), oneshot::channel().0);
}

/// What would be sent now.
fn sent(members: &mut Members) -> (Vec<Change>, Vec<Action>) {
    members.next_batch().into_iter().map(|(change, action, _)| (change, action)).unzip()
}

/// Sends all that waits, and answers it.
fn answer(members: &mut Members, outcome: Outcome, patience: Patience) -> Vec<Action> {
    let (changes, actions) = sent(members);
    changes.into_iter().for_each(|change| members.finish(change, outcome, patience));
    actions
}

fn away(sent: bool) -> BrokerError {
    BrokerError::NotAvailable { reason: "away".into(), sent }
}

#[test]
fn a_take_over_while_the_own_join_was_never_answered_is_contested_however_old_the_join() {
    let mut members = Members::default();
    join(&mut members, "s");
    members.fail_steps(&away(false));
    members.try_again(false);
    // Redis is back; another node's late join was first.
    assert_eq!(answer(&mut members, Outcome::HeldElsewhere, PAST), [Action::Keep]);
    assert!(members.taken(key("s"), PAST));
    assert_eq!(answer(&mut members, Outcome::HeldElsewhere, PAST), [Action::Keep]);
    // The other node has told its leave.
    members.try_again(true);
    assert_eq!(answer(&mut members, Outcome::Announced, PAST), [Action::Keep]);
    assert!(members.get(&key("s")).is_some() && members.contested.is_empty());
    members.leave(key("s"), ME);
    assert_eq!(answer(&mut members, Outcome::Announced, PAST), [Action::Leave]);
}

#[test]
fn a_take_over_between_the_join_and_its_answer_is_contested() {
    let mut members = Members::default();
    join(&mut members, "s");
    let (changes, _) = sent(&mut members);
    assert!(members.taken(key("s"), PAST));
    // The answer is from before: it is asked once more.
    changes.into_iter().for_each(|change| members.finish(change, Outcome::Unchanged, PAST));
    assert_eq!(answer(&mut members, Outcome::HeldElsewhere, LONG), [Action::Keep]);
    assert!(members.get(&key("s")).is_some());
}

#[test]
fn old_news_of_a_take_over_ends_nothing_that_is_held_here_again() {
    let mut members = Members::default();
    join(&mut members, "s");
    answer(&mut members, Outcome::Announced, PAST);
    assert!(members.taken(key("s"), PAST));
    assert_eq!(answer(&mut members, Outcome::Unchanged, PAST), [Action::Keep]);
    members.leave(key("s"), ME);
    assert_eq!(answer(&mut members, Outcome::Announced, PAST), [Action::Leave]);
}

#[test]
fn who_was_here_for_long_and_is_held_elsewhere_is_forgotten() {
    let mut members = Members::default();
    join(&mut members, "s");
    answer(&mut members, Outcome::Announced, PAST);
    assert!(members.taken(key("s"), PAST));
    assert_eq!(answer(&mut members, Outcome::HeldElsewhere, PAST), [Action::Keep]);
    assert!(members.get(&key("s")).is_none() && members.contested.is_empty());
    members.confirm_all(LONG);
    assert!(answer(&mut members, Outcome::Unchanged, PAST).is_empty());
}

#[test]
fn a_contest_ends_when_the_other_node_goes_on_holding_it() {
    let mut members = Members::default();
    join(&mut members, "s");
    answer(&mut members, Outcome::Announced, LONG);
    let soon = Patience { window: Duration::from_millis(50), ..LONG };
    assert!(members.taken(key("s"), soon));
    answer(&mut members, Outcome::HeldElsewhere, soon);
    let end = *members.contested.get(&key("s")).unwrap();
    while Instant::now() < end {
        std::thread::yield_now();
    }
    members.try_again(true);
    assert_eq!(answer(&mut members, Outcome::HeldElsewhere, soon), [Action::Keep]);
    members.try_again(true);
    assert!(answer(&mut members, Outcome::Announced, soon).is_empty(), "no join of a client that is gone");
    assert!(members.get(&key("s")).is_none());
}

#[test]
fn a_new_connection_to_redis_gives_the_other_node_time_to_end_its_late_call() {
    let mut members = Members::default();
    join(&mut members, "s");
    answer(&mut members, Outcome::Announced, OVER);
    members.taken(key("s"), OVER);
    members.confirm_all(LONG);
    answer(&mut members, Outcome::HeldElsewhere, OVER);
    assert!(members.get(&key("s")).is_some());
}

#[test]
fn who_comes_and_goes_while_redis_is_away_leaves_nothing_behind() {
    let mut members = Members::default();
    for _ in 0..3 {
        join(&mut members, "s");
        members.fail_steps(&away(false));
        join(&mut members, "s");
        members.fail_steps(&away(false));
        // A tick tries again in vain.
        members.try_again(true);
        let (changes, _) = sent(&mut members);
        members.fail(changes, &away(false));
        assert_eq!(members.unsettled.len(), 1);
        members.leave(key("s"), ME);
        assert!(members.unsettled.is_empty() && members.steps.is_empty());
        // And within one turn.
        join(&mut members, "s");
        members.leave(key("s"), ME);
        join(&mut members, "s");
        members.leave(key("s"), ME);
        members.fail_steps(&away(false));
        assert!(members.unsettled.is_empty());
    }
}

#[test]
fn whatever_redis_may_know_is_taken_back() {
    let mut members = Members::default();
    join(&mut members, "s");
    let (changes, _) = sent(&mut members);
    members.fail(changes, &away(true));
    members.leave(key("s"), ME);
    members.fail_steps(&away(false));
    members.try_again(false);
    assert_eq!(answer(&mut members, Outcome::Announced, LONG), [Action::Leave]);
    // Held, left in vain, and back in vain: the leave is still to be told.
    join(&mut members, "s");
    answer(&mut members, Outcome::Announced, LONG);
    members.leave(key("s"), ME);
    join(&mut members, "s");
    members.fail_steps(&away(false));
    members.leave(key("s"), ME);
    members.fail_steps(&away(false));
    members.try_again(false);
    assert_eq!(answer(&mut members, Outcome::Announced, LONG), [Action::Leave]);
}
