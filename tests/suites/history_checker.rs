//! The history checker finds what is wrong with a history, rule by rule, and nothing in sound ones.

use std::time::{Duration, Instant};

use streamgate_e2e::history::{Ack, History, Place, Rule, Seen};

const ROOM: &str = "room";

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn at(epoch: u64, offset: u64) -> Place {
    Place { epoch, offset }
}

/// A history in the making: publish `n` is sent at `10 n` ms.
struct Run(History);

impl Run {
    /// With these subscribers of the room, from the start.
    fn of(subscribers: &[&str]) -> Self {
        let mut history = History::default();
        subscribers.iter().for_each(|name| history.subscribed(name, ROOM, ms(0)));
        Self(history)
    }

    /// Publishes these offsets of epoch 7, acked, named by their offset; everybody of `subscribers` sees those that
    /// follow their name.
    fn usual(published: &[u64], seen: &[(&str, &[u64])]) -> Self {
        let names: Vec<&str> = seen.iter().map(|(name, _)| *name).collect();
        let mut run = Self::of(&names);
        published.iter().for_each(|offset| run.acked(*offset, at(7, *offset)));
        for (name, offsets) in seen {
            offsets.iter().for_each(|offset| run.sees(name, *offset, at(7, *offset)));
        }
        run
    }

    fn published(&mut self, number: u64) {
        self.0.publishing(&number.to_string(), ROOM, &format!("data {number}"), ms(10 * number));
    }

    fn acked(&mut self, number: u64, place: Place) {
        self.published(number);
        self.0.acked(&number.to_string(), Ack { place, at: ms(10 * number + 5), duplicate: false });
    }

    fn sees(&mut self, name: &str, number: u64, place: Place) {
        self.sees_as(name, number, place, false);
    }

    fn replays(&mut self, name: &str, number: u64, place: Place) {
        self.sees_as(name, number, place, true);
    }

    fn sees_as(&mut self, name: &str, number: u64, place: Place, replay: bool) {
        let data = format!("data {number}");
        let seen = publication(ROOM, number, &data, place, replay);
        self.0.saw(name, seen);
    }

    fn told(&mut self, name: &str, place: Option<Place>, reason: &str) {
        let channel = ROOM.into();
        self.0.saw(name, Seen::Gap { channel, place, reason: reason.into(), at: ms(1_000_000) });
    }

    fn recovered(&mut self, name: &str, place: Place, gap: Option<&str>) {
        let gap = gap.map(str::to_owned);
        self.0.saw(name, Seen::Recovered { place: Some(place), gap, at: ms(1_000_000) });
    }

    fn rules(&self) -> Vec<Rule> {
        let report = self.0.check();
        println!("{report}");
        report.rules()
    }
}

fn publication(channel: &str, number: u64, data: &str, place: Place, replay: bool) -> Seen {
    // The digest is the recorder's business: the history is asked for it by a publish of the same data.
    let digest = History::digest(data);
    let (channel, id) = (channel.into(), number.to_string().as_str().into());
    Seen::Publication { channel, place, id, digest, replay, at: ms(10 * number + 6) }
}

#[test]
fn a_sound_history_has_no_violations() {
    let all = [1, 2, 3];
    assert_eq!(Run::usual(&all, &[("one", &all), ("two", &all)]).rules(), []);
}

#[test]
fn what_was_acked_and_not_seen_is_missing() {
    let last = Run::usual(&[1, 2, 3], &[("one", &[1, 2, 3]), ("two", &[1, 2])]);
    assert_eq!(last.rules(), [Rule::Missing]);
    let first = Run::usual(&[1, 2, 3], &[("one", &[2, 3])]);
    assert_eq!(first.rules(), [Rule::Missing]);
    let all = Run::usual(&[1, 2, 3], &[("one", &[])]);
    assert_eq!(all.0.check().violations.len(), 3);
}

#[test]
fn a_hole_is_found_also_where_nothing_was_acked() {
    let mut run = Run::usual(&[1, 3], &[("one", &[1, 3])]);
    assert_eq!(run.rules(), [Rule::Hole]);
    run.acked(2, at(7, 2));
    assert_eq!(run.rules(), [Rule::Missing, Rule::Hole]);
}

#[test]
fn a_report_names_channel_position_subscriber_and_neighbours() {
    let report = Run::usual(&[1, 2, 3, 4], &[("one", &[1, 2, 4])]).0.check().to_string();
    for part in ["2 violations", "Missing 1", "room at 7:3", "subscriber one", "7:2 2", "-> 46.000ms 7:4 4"] {
        assert!(report.contains(part), "{part}: {report}");
    }
}

#[test]
fn what_is_seen_twice_is_found_also_when_far_apart() {
    assert_eq!(Run::usual(&[1, 2, 3], &[("one", &[1, 2, 3, 1])]).rules(), [Rule::Twice]);
}

#[test]
fn a_changed_order_is_found() {
    assert_eq!(Run::usual(&[1, 2, 3], &[("one", &[1, 3, 2])]).rules(), [Rule::OutOfOrder, Rule::Hole]);
}

#[test]
fn two_publications_at_one_position_are_found_in_acks_and_in_what_is_seen() {
    let mut run = Run::usual(&[1, 2], &[("one", &[1, 2])]);
    run.acked(3, at(7, 2));
    assert_eq!(run.rules(), [Rule::TwoAtOnePlace]);
    let mut run = Run::usual(&[1], &[("one", &[1]), ("two", &[1])]);
    for number in [2, 3] {
        run.published(number);
        run.0.left_open(&number.to_string());
    }
    run.sees("one", 2, at(7, 2));
    run.sees("two", 3, at(7, 2));
    assert_eq!(run.rules(), [Rule::TwoAtOnePlace]);
}

#[test]
fn one_publish_at_two_positions_is_found_whoever_tells_it() {
    let mut acks = Run::usual(&[1, 2], &[("one", &[1, 2])]);
    acks.acked(1, at(7, 3));
    acks.sees("one", 1, at(7, 3));
    assert_eq!(acks.rules(), [Rule::TwoPlaces]);
    // Its first attempt had an unknown outcome, the second one stored it again.
    let mut open = Run::usual(&[1], &[("one", &[1])]);
    open.acked(2, at(7, 3));
    open.0.left_open("2");
    open.sees("one", 2, at(7, 2));
    open.sees("one", 2, at(7, 3));
    assert_eq!(open.rules(), [Rule::TwoPlaces]);
}

#[test]
fn what_nobody_published_or_was_refused_must_not_be_seen() {
    let mut run = Run::usual(&[1], &[("one", &[1, 2])]);
    assert_eq!(run.rules(), [Rule::Foreign]);
    run.published(2);
    run.0.refused("2");
    assert_eq!(run.rules(), [Rule::Foreign]);
    // Another attempt may have stored it.
    run.0.left_open("2");
    assert_eq!(run.rules(), []);
}

#[test]
fn an_altered_payload_or_another_channel_is_found() {
    let mut run = Run::usual(&[1], &[("one", &[1])]);
    run.acked(2, at(7, 2));
    run.0.saw("one", publication(ROOM, 2, "other data", at(7, 2), false));
    assert_eq!(run.rules(), [Rule::Altered]);
    let mut run = Run::of(&[]);
    run.acked(1, at(7, 1));
    run.0.subscribed("all", "*", ms(0));
    run.0.saw("all", publication("elsewhere", 1, "data 1", at(7, 1), false));
    assert!(run.rules().contains(&Rule::Altered));
}

#[test]
fn an_unknown_outcome_may_be_seen_or_not() {
    let mut run = Run::usual(&[1], &[("one", &[1])]);
    run.published(2);
    run.0.left_open("2");
    assert_eq!(run.rules(), []);
    run.sees("one", 2, at(7, 2));
    run.acked(3, at(7, 3));
    run.sees("one", 3, at(7, 3));
    assert_eq!(run.rules(), []);
    assert_eq!((run.0.acknowledged(), run.0.unknown()), (2, 1));
    // But whoever sees what follows has seen it.
    run.0.subscribed("two", ROOM, ms(0));
    run.sees("two", 1, at(7, 1));
    run.sees("two", 3, at(7, 3));
    assert_eq!(run.rules(), [Rule::Hole]);
}

#[test]
fn a_retried_publish_that_is_answered_as_a_duplicate_is_sound() {
    let mut run = Run::usual(&[1, 2], &[("one", &[1, 2])]);
    run.0.left_open("2");
    run.0.acked("2", Ack { place: at(7, 2), at: ms(900), duplicate: true });
    assert_eq!(run.rules(), []);
}

#[test]
fn a_late_subscriber_is_owed_what_is_sent_after_it_came() {
    let mut run = Run::usual(&[1, 2, 3], &[("one", &[1, 2, 3])]);
    run.0.subscribed("late", ROOM, ms(25));
    assert_eq!(run.rules(), [Rule::Missing]);
    run.sees("late", 3, at(7, 3));
    assert_eq!(run.rules(), []);
}

#[test]
fn who_left_is_owed_nothing_more_and_begins_anew_when_it_comes_back() {
    let mut run = Run::usual(&[1, 2, 3, 4], &[("one", &[1])]);
    run.0.saw("one", Seen::Unsubscribed);
    assert_eq!(run.rules(), []);
    run.0.subscribed("one", ROOM, ms(35));
    run.sees("one", 4, at(7, 4));
    assert_eq!(run.rules(), []);
}

#[test]
fn a_pattern_is_owed_every_channel_that_it_matches() {
    let mut run = Run::of(&[]);
    run.0.subscribed("all", "*", ms(0));
    run.0.subscribed("other", "other.*", ms(0));
    run.acked(1, at(7, 1));
    assert_eq!(run.rules(), [Rule::Missing]);
    run.sees("all", 1, at(7, 1));
    assert_eq!(run.rules(), []);
}

#[test]
fn a_subscription_that_the_server_ends_is_found() {
    let mut run = Run::usual(&[1], &[("one", &[1])]);
    run.0.saw("one", Seen::Ended { error: "INTERNAL".to_owned() });
    assert_eq!(run.rules(), [Rule::Ended]);
}

#[test]
fn offsets_that_go_on_in_a_new_epoch_are_no_hole() {
    let mut run = Run::usual(&[1, 2], &[("one", &[1, 2])]);
    run.acked(3, at(9, 3));
    run.sees("one", 3, at(9, 3));
    assert_eq!(run.rules(), []);
}

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
fn a_gap_that_nothing_explains_is_found() {
    for reason in ["EPOCH_RESET", "HEAD_TRIMMED", "EXPIRED", "MIDDLE", "TRUNCATED"] {
        let mut run = Run::usual(&[1, 2], &[("one", &[1, 2])]);
        run.told("one", Some(at(7, 2)), reason);
        assert_eq!(run.rules(), [Rule::UnfoundedGap], "{reason}");
        let mut run = Run::usual(&[1, 2], &[("one", &[1, 2])]);
        run.recovered("one", at(7, 2), Some(reason));
        assert_eq!(run.rules(), [Rule::UnfoundedGap], "{reason}");
    }
}

#[test]
fn a_trim_explains_a_gap_in_its_channel_but_no_reset() {
    let mut run = Run::usual(&[1, 2, 3, 4], &[("one", &[1])]);
    run.replays("one", 4, at(7, 4));
    run.recovered("one", at(7, 4), Some("HEAD_TRIMMED"));
    assert_eq!(run.rules(), [Rule::UnfoundedGap]);
    run.0.trimmed("elsewhere", ms(1));
    assert_eq!(run.rules(), [Rule::UnfoundedGap]);
    run.0.trimmed(ROOM, ms(1));
    assert_eq!(run.rules(), []);
    run.told("one", Some(at(7, 4)), "EPOCH_RESET");
    assert_eq!(run.rules(), [Rule::UnfoundedGap]);
}

#[test]
fn a_gap_excuses_nothing_beyond_its_position() {
    let mut run = Run::usual(&[1, 2, 3, 4, 5], &[("one", &[1])]);
    run.0.trimmed(ROOM, ms(1));
    run.told("one", Some(at(7, 3)), "HEAD_TRIMMED");
    run.sees("one", 5, at(7, 5));
    assert_eq!(run.rules(), [Rule::Missing, Rule::Hole]);
}

#[test]
fn a_history_that_was_removed_begins_again_at_one() {
    let mut run = Run::usual(&[1, 2], &[("one", &[1, 2])]);
    run.acked(3, at(9, 1));
    run.sees("one", 3, at(9, 1));
    assert_eq!(run.rules(), [Rule::Hole, Rule::LostWrite]);
    run.0.removed(ROOM, ms(25));
    assert_eq!(run.rules(), []);
    // But whoever had not seen all of the old one must be told.
    run.0.subscribed("two", ROOM, ms(0));
    run.sees("two", 1, at(7, 1));
    run.replays("two", 3, at(9, 1));
    run.recovered("two", at(9, 1), None);
    assert_eq!(run.rules(), [Rule::Missing]);
}

#[test]
fn a_removed_history_whose_loss_is_told_is_sound() {
    let mut run = Run::usual(&[1, 2], &[("one", &[1])]);
    run.0.removed(ROOM, ms(25));
    run.acked(3, at(9, 1));
    run.replays("one", 3, at(9, 1));
    run.recovered("one", at(9, 1), Some("EPOCH_RESET"));
    assert_eq!(run.rules(), []);
}

#[test]
fn a_hole_in_an_inbox_that_nothing_explains_is_found() {
    let mut run = Run::of(&[]);
    run.0.inbox_hole("node 1", "entries are missing from the inbox");
    assert_eq!(run.rules(), [Rule::InboxHole]);
}

#[test]
fn three_hundred_thousand_sightings_are_checked_in_seconds() {
    let mut run = Run::of(&["a", "b", "c"]);
    for number in 1..=100_000 {
        run.acked(number, at(7, number));
        for name in ["a", "b", "c"] {
            run.sees(name, number, at(7, number));
        }
    }
    let start = Instant::now();
    assert!(run.0.check().is_sound());
    println!("checked in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(20));
}
