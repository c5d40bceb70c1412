//! What each step of a subscription yields.

use super::*;
use crate::broker::{Catchup, ChannelCatchup, Stored};

fn channel() -> Channel {
    Channel::parse("a").unwrap()
}

fn target() -> Target {
    Target::Channel(channel())
}

fn publication(offset: u64, bytes: usize) -> Arc<Publication> {
    let stored = Stored { event: vec![0; bytes].into(), ..Stored::default() };
    Arc::new(Publication {
        channel: channel(),
        position: Some(Position { epoch: 1, offset }),
        time_ms: 0,
        stored,
    })
}

fn answer(top: u64, replay: std::ops::RangeInclusive<u64>) -> Subscribed {
    let publications = replay.map(|offset| publication(offset, 1)).collect();
    Subscribed {
        positions: vec![(channel(), Position { epoch: 1, offset: top })],
        marker: None,
        catchup: Some(Catchup {
            channels: vec![ChannelCatchup { channel: channel(), publications, gap: None, cut: false }],
            truncated: false,
        }),
    }
}

fn drain(flow: &mut Flow) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some(step) = flow.step() {
        let offset = |p: &Publication| p.position.map_or(0, |at| at.offset);
        steps.push(match step {
            Step::Replay(p) => format!("replay {}", offset(&p)),
            Step::Live(p) => format!("live {}", offset(&p)),
            Step::Complete(outcome) => format!("complete {}", outcome.position.map_or(0, |at| at.offset)),
            Step::Gap(_, Some(to), GapReason::Truncated) => format!("cut up to {}", to.offset),
            Step::Gap(..) => "gap".into(),
            Step::Refetch(cursors) => {
                steps.push(format!("refetch {}", cursors.channels[&channel()].offset));
                break;
            }
            Step::Wait => break,
        });
    }
    steps
}

#[test]
fn the_replay_comes_first_then_complete_then_what_was_held_without_what_was_replayed() {
    let mut flow = Flow::opening(true);
    for offset in 4..=6 {
        assert!(!flow.accept(&publication(offset, 1)));
    }
    assert!(matches!(flow.step(), Some(Step::Wait)));
    flow.opened(&target(), answer(5, 3..=5));
    assert_eq!(drain(&mut flow), ["replay 3", "replay 4", "replay 5", "complete 5", "live 6"]);
    assert!(flow.is_live() && flow.accept(&publication(7, 1)));
}

#[test]
fn what_was_replayed_is_not_sent_again_when_the_broker_delivers_it_late() {
    let mut flow = Flow::opening(false);
    flow.opened(&target(), answer(5, 4..=5));
    assert_eq!(drain(&mut flow), ["replay 4", "replay 5"]);
    let sent: Vec<_> = (4..=7).filter(|offset| flow.accept(&publication(*offset, 1))).collect();
    assert_eq!(sent, [6, 7]);
    assert!(matches!(flow, Flow::Live));
}

#[test]
fn what_could_not_be_held_is_asked_for_again_before_complete() {
    let mut flow = Flow::opening(true);
    flow.opened(&target(), answer(2, 1..=2));
    assert!(!flow.accept(&publication(3, HOLD_BYTES)));
    assert!(!flow.accept(&publication(4, 1)));
    assert_eq!(drain(&mut flow), ["replay 1", "replay 2", "refetch 2"]);
    assert!(!flow.accept(&publication(5, 1)));
    flow.opened(&target(), answer(4, 3..=4));
    assert_eq!(drain(&mut flow), ["replay 3", "replay 4", "complete 4", "live 5"]);
}

#[test]
fn a_gap_of_what_is_read_again_is_told_where_no_complete_follows() {
    let mut flow = Flow::Live;
    flow.fall_behind(&channel(), Position { epoch: 1, offset: 3 });
    assert_eq!(drain(&mut flow), ["refetch 3"]);
    let mut answer = answer(9, 8..=9);
    for part in &mut answer.catchup.as_mut().unwrap().channels {
        part.gap = Some(GapReason::HeadTrimmed);
    }
    flow.opened(&target(), answer);
    assert_eq!(drain(&mut flow), ["gap", "replay 8", "replay 9"]);
}

#[test]
fn what_is_cut_off_of_a_replay_is_told_behind_it_up_to_where_live_goes_on() {
    let cut = |gap| {
        let mut answer = answer(22, 14..=20);
        let catchup = answer.catchup.as_mut().unwrap();
        (catchup.truncated, catchup.channels[0].cut, catchup.channels[0].gap) = (true, true, gap);
        answer
    };
    let pattern = Target::parse("*").unwrap();
    for (gap, steps) in [(None, vec![]), (Some(GapReason::HeadTrimmed), vec!["gap"])] {
        let mut flow = Flow::opening(true);
        assert!(!flow.accept(&publication(23, 1)));
        flow.opened(&pattern, cut(gap));
        let replay: Vec<_> = (14..=20).map(|offset| format!("replay {offset}")).collect();
        let steps: Vec<_> = steps.into_iter().map(str::to_owned).chain(replay).collect();
        assert_eq!(
            drain(&mut flow),
            [&steps[..], &["cut up to 22", "complete 0", "live 23"].map(str::to_owned)].concat()
        );
    }
    // A channel's own subscription has its `recover_complete` for that, unless it only reads again.
    let mut flow = Flow::opening(true);
    flow.opened(&target(), cut(None));
    let mut steps = drain(&mut flow);
    assert_eq!(steps.split_off(7), ["complete 22"]);
    let mut flow = Flow::Live;
    flow.fall_behind(&channel(), Position { epoch: 1, offset: 13 });
    assert_eq!(drain(&mut flow), ["refetch 13"]);
    flow.opened(&target(), cut(None));
    let mut steps = drain(&mut flow);
    assert_eq!(steps.split_off(7), ["cut up to 22"]);
}

#[test]
fn what_was_sent_live_is_not_asked_for_again() {
    let mut flow = Flow::opening(false);
    for offset in 1..=2 {
        flow.accept(&publication(offset, HOLD_BYTES / 2 - 200));
    }
    flow.opened(&target(), Subscribed { catchup: None, ..answer(0, 1..=1) });
    assert!(matches!(flow.step(), Some(Step::Live(_))));
    assert!(!flow.accept(&publication(3, HOLD_BYTES / 2 + 1)), "there is no room for it");
    let Some(Step::Refetch(cursors)) = flow.step() else { panic!("not asked for") };
    assert_eq!(cursors.channels[&channel()].offset, 1);
}

#[test]
fn a_live_subscription_that_fell_behind_reads_again_from_where_it_was() {
    let mut flow = Flow::Live;
    flow.fall_behind(&channel(), Position { epoch: 1, offset: 3 });
    assert!(!flow.accept(&publication(9, 1)));
    assert_eq!(drain(&mut flow), ["refetch 3"]);
    assert!(!flow.accept(&publication(10, 1)));
    flow.opened(&target(), answer(9, 4..=9));
    let steps = drain(&mut flow);
    assert_eq!(steps, ["replay 4", "replay 5", "replay 6", "replay 7", "replay 8", "replay 9", "live 10"]);
}

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

fn reset(after: Position, position: Position) -> Gap {
    let (after, position) = (Some(after), Some(position));
    Gap { channel: channel(), after, left: None, position, reason: GapReason::EpochReset }
}

/// A subscription that was answered `top`, and has got nothing since.
fn answered(top: Position, pattern: bool) -> Flow {
    let mut flow = Flow::opening(true);
    let to = if pattern { Target::Pattern(crate::channel::Pattern::parse("*").unwrap()) } else { target() };
    flow.opened(&to, Subscribed { positions: vec![(channel(), top)], marker: None, catchup: None });
    assert_eq!(drain(&mut flow).len(), 1);
    assert!(flow.is_live());
    flow
}

#[test]
fn a_gap_is_kept_from_who_recovered_past_the_loss_and_from_nobody_else() {
    let gap = reset(at(1, 50), at(2, 40));
    for pattern in [false, true] {
        assert!(!answered(at(2, 43), pattern).gap(&gap));
        for affected in [at(1, 40), at(1, 50), at(1, 52), at(2, 39)] {
            let mut flow = answered(affected, pattern);
            assert!(flow.gap(&gap), "{affected:?}");
            assert!(flow.accept(&in_epoch(2, 41)), "what follows the gap reaches it");
        }
    }
    assert!(Flow::Live.gap(&gap));
}

#[test]
fn who_was_answered_all_that_was_left_goes_on_in_the_new_epoch_untold() {
    let gap = Gap { left: Some(at(1, 40)), ..reset(at(1, 50), at(2, 40)) };
    for pattern in [false, true] {
        let mut flow = answered(at(1, 40), pattern);
        assert!(!flow.gap(&gap));
        let next = in_epoch(2, 41);
        assert!(!flow.is_overtaken_by(&next) && flow.accept(&next));
        // Who got some of what is lost, since.
        let mut had_more = answered(at(1, 40), pattern);
        assert!(had_more.accept(&in_epoch(1, 41)) && had_more.gap(&gap));
    }
}

fn in_epoch(epoch: u64, offset: u64) -> Arc<Publication> {
    let mut publication = Arc::unwrap_or_clone(publication(offset, 1));
    publication.position = Some(at(epoch, offset));
    Arc::new(publication)
}

#[test]
fn a_gap_that_comes_before_the_answer_is_told_in_its_place_unless_the_answer_came_after_the_loss() {
    let run = |top: Position, gap: Gap| {
        let mut flow = Flow::opening(true);
        flow.accept(&in_epoch(1, 51));
        assert!(!flow.gap(&gap));
        flow.accept(&in_epoch(2, 44));
        let positions = vec![(channel(), top)];
        flow.opened(&target(), Subscribed { positions, marker: None, catchup: None });
        drain(&mut flow)
    };
    let gap = || reset(at(1, 51), at(2, 43));
    assert_eq!(run(at(1, 50), gap()), ["complete 50", "live 51", "gap", "live 44"]);
    assert_eq!(run(at(1, 52), gap()), ["complete 52", "gap", "live 44"]);
    assert_eq!(run(at(2, 43), gap()), ["complete 43", "live 44"]);
}

#[test]
fn a_gap_that_comes_when_no_more_can_be_held_is_left_to_the_answer() {
    let mut flow = Flow::opening(true);
    flow.accept(&publication(3, HOLD_BYTES + 1));
    flow.gap(&reset(at(1, 3), at(2, 2)));
    flow.opened(&target(), Subscribed { positions: Vec::new(), marker: None, catchup: None });
    assert_eq!(drain(&mut flow), ["refetch 2"]);
    let mut flow = Flow::opening(true);
    flow.gap(&reset(at(1, 3), at(2, 2)));
    flow.accept(&publication(9, HOLD_BYTES + 1));
    flow.opened(&target(), Subscribed { positions: Vec::new(), marker: None, catchup: None });
    assert_eq!(drain(&mut flow), ["refetch 3"]);
}

#[test]
fn who_was_answered_what_the_node_never_delivered_is_told_when_it_is_lost() {
    // The node had delivered up to 50, and that is still there: to the broker nothing is missing.
    let mut flow = answered(at(1, 52), false);
    assert!(!flow.accept(&in_epoch(1, 51)));
    assert!(flow.is_overtaken_by(&in_epoch(2, 52)) && !flow.is_overtaken_by(&in_epoch(2, 53)));
    let mut behind = Flow::opening(true);
    behind.accept(&in_epoch(2, 53));
    behind.opened(&target(), Subscribed { catchup: None, ..answer(53, 1..=1) });
    assert_eq!(drain(&mut behind), ["complete 53", "gap", "live 53"]);
}

#[test]
fn who_got_nothing_since_its_answer_reads_again_from_there() {
    let mut flow = answered(at(1, 52), false);
    flow.fall_behind(&channel(), at(2, 51));
    let Some(Step::Refetch(cursors)) = flow.step() else { panic!("not asked for") };
    assert_eq!(cursors.channels[&channel()], at(1, 52));
}

#[test]
fn a_loss_of_what_came_by_another_subscription_meanwhile_is_told() {
    let lost = Gap {
        channel: channel(),
        after: Some(Position { epoch: 1, offset: 5 }),
        left: None,
        position: Some(Position { epoch: 1, offset: 3 }),
        reason: GapReason::EpochReset,
    };
    let by_another = |flow: &mut Flow| (4..=5).for_each(|offset| flow.pass_by(&publication(offset, 1)));
    // While it waits for its answer, and after it has it.
    let (mut early, mut late) = (Flow::opening(true), Flow::opening(true));
    by_another(&mut early);
    assert!(!early.gap(&lost));
    early.opened(&target(), answer(3, 2..=3));
    assert_eq!(drain(&mut early), ["replay 2", "replay 3", "complete 3", "gap"]);
    by_another(&mut late);
    late.opened(&target(), answer(3, 2..=3));
    assert_eq!(drain(&mut late), ["replay 2", "replay 3", "complete 3"]);
    assert!(late.gap(&lost));
    // Who had nothing of it has lost nothing.
    let mut other = Flow::opening(true);
    other.opened(&target(), answer(3, 2..=3));
    drain(&mut other);
    assert!(!other.gap(&lost));
}

#[test]
fn what_was_held_and_came_by_another_subscription_is_not_sent_again() {
    let mut flow = Flow::opening(true);
    let both = publication(4, 1);
    flow.accept(&both);
    flow.forget(&both);
    (5..=2_000).for_each(|offset| flow.pass_by(&publication(offset, 1_000)));
    flow.opened(&target(), answer(3, 3..=3));
    assert_eq!(drain(&mut flow), ["replay 3", "complete 3"], "many that passed by cost no room");
    assert!(!flow.accept(&publication(2_000, 1)) && flow.accept(&publication(2_001, 1)));
}

#[test]
fn a_loss_of_what_was_answered_is_told_though_the_new_epoch_came_by_another_subscription() {
    let run = |held: &[(u64, u64)], forgotten: bool| {
        let mut flow = Flow::opening(true);
        flow.opened(&target(), answer(52, 51..=52));
        assert!(matches!(flow.step(), Some(Step::Replay(_))));
        for (epoch, offset) in held {
            let publication = in_epoch(*epoch, *offset);
            if forgotten {
                flow.accept(&publication);
                flow.forget(&publication);
            } else {
                flow.pass_by(&publication);
            }
        }
        let steps = drain(&mut flow);
        let last = held.last().unwrap();
        assert!(!flow.accept(&in_epoch(last.0, last.1)) && flow.accept(&in_epoch(last.0, last.1 + 1)));
        steps
    };
    for forgotten in [false, true] {
        let told = ["replay 52", "complete 52", "gap"];
        assert_eq!(run(&[(2, 41)], forgotten), told);
        // The first one of the epoch shows it, whatever came before and after.
        assert_eq!(run(&[(2, 41), (2, 42), (2, 60)], forgotten), told);
        assert_eq!(run(&[(1, 51), (2, 41), (2, 60)], forgotten), told);
        let whole = ["replay 52", "complete 52"];
        assert_eq!(run(&[(1, 53), (2, 54)], forgotten), whole);
        assert_eq!(run(&[(2, 53), (2, 60)], forgotten), whole);
        // A history that was born again may have expired in peace.
        assert_eq!(run(&[(2, 1), (2, 2)], forgotten), whole);
    }
}

#[test]
fn what_came_by_another_subscription_and_cannot_be_held_is_asked_for_again() {
    let mut flow = Flow::opening(true);
    flow.opened(&target(), answer(52, 52..=52));
    flow.accept(&publication(53, HOLD_BYTES - 128));
    flow.pass_by(&in_epoch(2, 41));
    assert_eq!(drain(&mut flow), ["replay 52", "refetch 52"]);
}

/// A live subscription that has read again after `cursor`, with a loss, up to `end`.
fn told_of_a_loss(
    cursor: Position,
    end: Position,
    left: Vec<Arc<Publication>>,
    between: Option<Gap>,
) -> Flow {
    let mut flow = Flow::Live;
    flow.fall_behind(&channel(), cursor);
    assert!(matches!(flow.step(), Some(Step::Refetch(_))));
    if let Some(gap) = between {
        assert!(!flow.gap(&gap));
    }
    let gap = Some(GapReason::EpochReset);
    let channels = vec![ChannelCatchup { channel: channel(), publications: left, gap, cut: false }];
    let catchup = Some(Catchup { channels, truncated: false });
    flow.opened(&target(), Subscribed { positions: vec![(channel(), end)], marker: None, catchup });
    let Some(Step::Gap(_, position, GapReason::EpochReset)) = flow.step() else { panic!("untold") };
    assert_eq!(position, Some(end));
    assert_eq!(drain(&mut flow), Vec::<String>::new(), "told once");
    assert!(flow.is_live());
    flow
}

#[test]
fn a_loss_that_reading_again_has_told_is_not_told_again_by_the_broker() {
    let (cursor, end) = (at(1, 50), at(1, 40));
    let no_publisher_yet = reset(cursor, end);
    let in_a_new_epoch = Gap { left: Some(end), ..reset(cursor, at(2, 40)) };
    for same in [no_publisher_yet, in_a_new_epoch] {
        let mut before = told_of_a_loss(cursor, end, Vec::new(), Some(same.clone()));
        let mut after = told_of_a_loss(cursor, end, Vec::new(), None);
        assert!(!after.gap(&same));
        for flow in [&mut before, &mut after] {
            let next = in_epoch(2, 41);
            assert!(!flow.is_overtaken_by(&next) && flow.accept(&next) && matches!(flow, Flow::Live));
        }
    }
}

#[test]
fn a_loss_that_may_be_another_than_reading_again_has_told_is_told() {
    let (cursor, end) = (at(1, 50), at(1, 40));
    for other in [reset(cursor, at(1, 39)), reset(cursor, at(2, 40)), reset(cursor, at(2, 45))] {
        assert!(told_of_a_loss(cursor, end, Vec::new(), None).gap(&other), "{other:?}");
    }
    // What came since is lost as well.
    let mut flow = told_of_a_loss(cursor, end, Vec::new(), None);
    assert!(flow.accept(&in_epoch(1, 51)) && flow.gap(&reset(at(1, 51), end)));
    let flow = told_of_a_loss(cursor, end, Vec::new(), None);
    assert!(flow.is_overtaken_by(&in_epoch(2, 40)));
}

#[test]
fn what_was_sent_before_it_was_lost_is_not_sent_again() {
    // It was answered more than the node had delivered, which comes late.
    let mut flow = answered(at(1, 52), false);
    flow.fall_behind(&channel(), at(1, 50));
    assert!(matches!(flow.step(), Some(Step::Refetch(_))));
    let positions = vec![(channel(), at(1, 40))];
    let channels = vec![ChannelCatchup {
        channel: channel(),
        publications: vec![],
        gap: Some(GapReason::EpochReset),
        cut: false,
    }];
    let catchup = Some(Catchup { channels, truncated: false });
    flow.opened(&target(), Subscribed { positions, marker: None, catchup });
    assert_eq!(drain(&mut flow), ["gap"]);
    assert!(!flow.accept(&in_epoch(1, 51)) && !flow.accept(&in_epoch(1, 52)));
    // Read again once more, it goes on from where it stands, and is whole.
    flow.fall_behind(&channel(), at(2, 41));
    let Some(Step::Refetch(cursors)) = flow.step() else { panic!("not asked for") };
    assert_eq!(cursors.channels[&channel()], at(1, 40));
}

#[test]
fn what_is_left_of_a_history_that_lost_the_epoch_of_the_cursor_is_not_replayed_again() {
    let left = vec![in_epoch(1, 39), in_epoch(1, 40)];
    let mut flow = told_of_a_loss(at(2, 50), at(1, 40), left, None);
    assert!(!flow.gap(&reset(at(2, 50), at(1, 40))));
}
