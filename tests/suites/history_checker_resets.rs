//! What the history checker lets a lossy restart or failover excuse, and what it does not.

use streamgate_e2e::history::Rule;

use crate::history_checker::{ROOM, Run, at, ms};

/// Redis loses what was acked at 7:3 and 7:4; `saw` had seen that, `behind` had not.
fn lossy_restart() -> Run {
    let mut run = Run::usual(&[1, 2, 3, 4], &[("saw", &[1, 2, 3, 4]), ("behind", &[1, 2])]);
    run.0.lossy_restart(ms(100));
    for (number, offset) in [(11, 3), (12, 4)] {
        run.acked(number, at(9, offset));
        run.sees("behind", number, at(9, offset));
    }
    run
}

fn goes_on_after_the_restart(run: &mut Run) {
    run.sees("saw", 11, at(9, 3));
    run.sees("saw", 12, at(9, 4));
}

#[test]
fn an_epoch_reset_that_is_told_to_those_affected_is_sound() {
    let mut live = lossy_restart();
    live.told("saw", Some(at(9, 2)), "EPOCH_RESET");
    goes_on_after_the_restart(&mut live);
    assert_eq!(live.rules(), []);
    let mut recovering = lossy_restart();
    recovering.replays("saw", 11, at(9, 3));
    recovering.replays("saw", 12, at(9, 4));
    recovering.recovered("saw", at(9, 4), Some("EPOCH_RESET"));
    assert_eq!(recovering.rules(), []);
}

#[test]
fn an_epoch_reset_that_is_not_told_is_found() {
    let mut live = lossy_restart();
    goes_on_after_the_restart(&mut live);
    assert_eq!(live.rules(), [Rule::Hole]);
    let mut recovering = lossy_restart();
    recovering.replays("saw", 11, at(9, 3));
    recovering.replays("saw", 12, at(9, 4));
    recovering.recovered("saw", at(9, 4), None);
    assert_eq!(recovering.rules(), [Rule::Hole]);
}

#[test]
fn a_publish_that_a_restart_lost_may_be_stored_again() {
    let mut run = lossy_restart();
    run.told("saw", Some(at(9, 2)), "EPOCH_RESET");
    goes_on_after_the_restart(&mut run);
    run.acked(4, at(9, 5));
    run.sees("saw", 4, at(9, 5));
    run.sees("behind", 4, at(9, 5));
    assert_eq!(run.rules(), []);
}

#[test]
fn a_write_lost_without_a_restart_that_may_lose_is_found() {
    let mut run = Run::usual(&[1, 2, 3], &[("one", &[1, 2])]);
    run.acked(4, at(9, 3));
    run.sees("one", 4, at(9, 3));
    assert_eq!(run.rules(), [Rule::Missing, Rule::LostWrite]);
    // Declared, but before it was sent.
    run.0.lossy_restart(ms(1));
    assert_eq!(run.rules(), [Rule::Missing, Rule::LostWrite]);
}

#[test]
fn a_publish_of_after_the_restart_is_not_stored_again() {
    let mut run = lossy_restart();
    run.told("saw", Some(at(9, 2)), "EPOCH_RESET");
    goes_on_after_the_restart(&mut run);
    run.acked(20, at(9, 5));
    run.acked(20, at(11, 5));
    assert_eq!(run.rules(), [Rule::Missing, Rule::TwoPlaces, Rule::LostWrite]);
}

#[test]
fn while_there_are_two_masters_writes_may_be_lost_and_resets_told() {
    let mut run = Run::usual(&[1, 2, 3, 4], &[("saw", &[1, 2, 3])]);
    run.0.lossy_failover(ms(5), ms(35));
    run.acked(11, at(9, 3));
    run.told("saw", Some(at(9, 2)), "EPOCH_RESET");
    run.sees("saw", 11, at(9, 3));
    // Sent when only the new master was left.
    assert_eq!(run.rules(), [Rule::LostWrite]);
    run.0.lossy_failover(ms(5), ms(40));
    assert_eq!(run.rules(), []);
}

#[test]
fn a_reset_does_not_excuse_what_stands_in_the_new_history() {
    let mut run = lossy_restart();
    run.told("saw", Some(at(9, 3)), "EPOCH_RESET");
    run.sees("saw", 12, at(9, 4));
    assert_eq!(run.rules(), [Rule::Missing]);
    let mut run = lossy_restart();
    run.told("saw", None, "EPOCH_RESET");
    run.sees("saw", 12, at(9, 4));
    assert_eq!(run.rules(), [Rule::Missing]);
}

#[test]
fn a_reset_that_is_told_to_somebody_who_lost_nothing_is_found() {
    let mut run = lossy_restart();
    run.told("saw", Some(at(9, 2)), "EPOCH_RESET");
    goes_on_after_the_restart(&mut run);
    run.0.subscribed("late", ROOM, ms(0));
    [1, 2].into_iter().for_each(|offset| run.sees("late", offset, at(7, offset)));
    run.told("late", Some(at(9, 2)), "EPOCH_RESET");
    [(11, 3), (12, 4)].into_iter().for_each(|(number, offset)| run.sees("late", number, at(9, offset)));
    assert_eq!(run.rules(), [Rule::UnfoundedGap]);
}

#[test]
fn a_gap_told_to_who_is_past_the_loss_is_found() {
    // It has come to 9:4 without a loss, and then hears of what others lost.
    let mut behind = lossy_restart();
    behind.told("saw", Some(at(9, 2)), "EPOCH_RESET");
    goes_on_after_the_restart(&mut behind);
    behind.told("behind", Some(at(9, 2)), "EPOCH_RESET");
    assert_eq!(behind.rules(), [Rule::StaleGap]);
    // Told by its recovery, and once more.
    let mut recovering = lossy_restart();
    recovering.replays("saw", 11, at(9, 3));
    recovering.replays("saw", 12, at(9, 4));
    recovering.recovered("saw", at(9, 4), Some("EPOCH_RESET"));
    recovering.told("saw", Some(at(9, 2)), "EPOCH_RESET");
    assert_eq!(recovering.rules(), [Rule::StaleGap]);
    // A history that became shorter, and has not begun anew yet.
    let mut shorter = lossy_restart();
    shorter.told("saw", Some(at(7, 2)), "EPOCH_RESET");
    goes_on_after_the_restart(&mut shorter);
    assert_eq!(shorter.rules(), []);
}

#[test]
fn a_gap_back_to_a_history_that_was_thought_gone_is_sound() {
    let mut run = lossy_restart();
    run.told("saw", Some(at(9, 0)), "EXPIRED");
    run.told("saw", Some(at(9, 2)), "HEAD_TRIMMED");
    goes_on_after_the_restart(&mut run);
    assert!(!run.rules().contains(&Rule::StaleGap));
}

#[test]
fn a_trim_up_to_the_end_of_an_epoch_explains_a_reset() {
    // Redis lost nothing when it was restarted, and the publications that would show it were trimmed.
    let trimmed = || {
        let mut run = Run::usual(&[1, 2], &[("one", &[1, 2])]);
        run.0.trimmed(ROOM, ms(1));
        [(3, 3), (4, 4)].into_iter().for_each(|(number, offset)| run.acked(number, at(9, offset)));
        run
    };
    let mut run = trimmed();
    run.told("one", Some(at(9, 2)), "EPOCH_RESET");
    run.replays("one", 3, at(9, 3));
    run.replays("one", 4, at(9, 4));
    run.recovered("one", at(9, 4), Some("EPOCH_RESET"));
    assert_eq!(run.rules(), []);
    // Had it been one further, it would have been known to be missing.
    let mut run = trimmed();
    run.told("one", Some(at(9, 3)), "EPOCH_RESET");
    run.sees("one", 4, at(9, 4));
    assert_eq!(run.rules(), [Rule::UnfoundedGap]);
}
