//! Where a back-fill tells what is missing. What is asked waits, what is answered is made up.

use std::sync::Mutex;

use super::{
    super::range::{Ends, Range},
    actor::Actor,
    doubt_tests::{LAST, actor, channel, listening, nothing, stored},
    slot::{Fill, Slot},
};
use crate::{broker::Delivery, channel::Target, position::Position};

type At = (u64, u64);

fn at((epoch, offset): At) -> Position {
    Position { epoch, offset }
}

/// A history from `first` to `last`, of which `entries` were read.
fn read(first: At, last: At, entries: &[At]) -> Range {
    Range {
        ends: Some(Ends { raw: at(first), first: at(first), last: at(last) }),
        end_of_cursor_epoch: (first.0 <= LAST.epoch).then_some(LAST.offset.max(last.1)),
        entries: entries.iter().map(|entry| stored(at(*entry))).collect(),
        ..nothing()
    }
}

fn holding(held: &[At]) -> Fill {
    Fill { held: held.iter().map(|one| stored(at(*one))).collect(), ..Fill::default() }
}

/// What is told when a read after [`LAST`] brings `range`, and where delivery goes on.
fn told_by(actor: &mut Actor, range: Range, fill: Fill) -> (Vec<String>, Position) {
    let (sink, told) = listening(actor);
    actor.interest.insert(&Target::Channel(channel()), sink);
    actor.slots.get_mut(&channel()).unwrap().fill = Some(fill);
    finish(actor, range);
    (texts(&told), actor.slots[&channel()].last.unwrap())
}

/// The read that is under way, from where it was asked for, brings `range`.
fn finish(actor: &mut Actor, range: Range) {
    let slot = &actor.slots[&channel()];
    let (from, doubts) = (slot.fill.as_ref().unwrap().cursor(slot.last.unwrap()), actor.doubts);
    actor.finish_fill(&channel(), from, doubts, Ok(range));
}

fn texts(told: &Mutex<Vec<Delivery>>) -> Vec<String> {
    let mut told = told.lock().unwrap();
    let texts = told.drain(..).map(|delivery| match delivery {
        Delivery::Publication(publication) => publication.position.unwrap().to_string(),
        Delivery::Gap { after: Some(after), position: Some(position), reason, .. } => {
            format!("{reason} from {after} to {position}")
        }
        other => panic!("{other:?}"),
    });
    texts.collect()
}

/// An actor that has delivered up to [`LAST`].
fn following() -> Actor {
    let mut actor = actor();
    actor.slots.insert(channel(), Slot::new(Some(LAST)));
    actor
}

fn told(range: Range, fill: Fill) -> (Vec<String>, Position) {
    told_by(&mut following(), range, fill)
}

#[tokio::test]
async fn a_hole_inside_of_what_is_read_is_told_in_its_place() {
    let range = Range { hole: true, ..read((5, 1), (5, 9), &[(5, 4), (5, 5), (5, 8), (5, 9)]) };
    let (told, last) = told(range, Fill::default());
    assert_eq!(told, ["5:4", "5:5", "MIDDLE from 5:5 to 5:7", "5:8", "5:9"]);
    assert_eq!(last, at((5, 9)));
}

#[tokio::test]
async fn each_of_several_holes_is_told_once_and_the_first_may_be_at_the_beginning() {
    let range = Range { hole: true, ..read((5, 1), (5, 9), &[(5, 6), (5, 7), (5, 9)]) };
    let (told, _) = told(range, Fill::default());
    assert_eq!(told, ["MIDDLE from 5:3 to 5:5", "5:6", "5:7", "MIDDLE from 5:7 to 5:8", "5:9"]);
}

#[tokio::test]
async fn a_history_that_goes_on_in_another_epoch_is_whole() {
    let (told, _) = told(read((5, 1), (6, 6), &[(5, 4), (6, 5), (6, 6)]), Fill::default());
    assert_eq!(told, ["5:4", "6:5", "6:6"]);
}

#[tokio::test]
async fn what_was_read_and_then_lost_between_two_pages_is_told_in_its_place() {
    // Read to 5, of which 5 was lost before the next page was read.
    let range = Range { hole: true, ..read((5, 1), (6, 6), &[(5, 4), (5, 5), (6, 5), (6, 6)]) };
    let (told, _) = told(range, Fill::default());
    assert_eq!(told, ["5:4", "5:5", "EPOCH_RESET from 5:5 to 6:4", "6:5", "6:6"]);
}

#[tokio::test]
async fn a_history_that_was_replaced_between_two_pages_is_not_taken_for_one_that_was_born_in_peace() {
    let range = Range { hole: true, ..read((5, 1), (7, 2), &[(5, 4), (5, 5), (7, 1), (7, 2)]) };
    let (told, _) = told(range, Fill::default());
    assert_eq!(told, ["5:4", "5:5", "EPOCH_RESET from 5:5 to 7:0", "7:1", "7:2"]);
}

#[tokio::test]
async fn a_loss_before_the_first_and_one_behind_it_are_both_told() {
    let reset = || Range { end_of_cursor_epoch: Some(2), ..read((5, 1), (6, 6), &[]) };
    let entries = [(6, 3), (6, 4), (6, 6)].map(|entry| stored(at(entry))).to_vec();
    let (before_and_inside, _) = told(Range { hole: true, entries, ..reset() }, Fill::default());
    assert_eq!(
        before_and_inside,
        ["EPOCH_RESET from 5:3 to 6:2", "6:3", "6:4", "MIDDLE from 6:4 to 6:5", "6:6"]
    );
}

#[tokio::test]
async fn a_reset_says_where_the_old_epoch_ended_only_if_nothing_is_missing_behind_that() {
    let left = |first: At, entries: &[At]| {
        let mut actor = following();
        let (sink, told) = listening(&actor);
        actor.interest.insert(&Target::Channel(channel()), sink);
        actor.slots.get_mut(&channel()).unwrap().fill = Some(Fill::default());
        let range = Range { end_of_cursor_epoch: Some(2), ..read(first, (6, 6), entries) };
        actor.finish_fill(&channel(), LAST, 0, Ok(range));
        let told = told.lock().unwrap();
        let Some(Delivery::Gap { left, .. }) = told.first() else { panic!("{told:?}") };
        *left
    };
    assert_eq!(left((5, 1), &[(6, 3), (6, 4)]), Some(at((5, 2))));
    // The policy hides the end of the old epoch and the beginning of the new one.
    assert_eq!(left((6, 4), &[(6, 4)]), None);
}

#[tokio::test]
async fn an_end_that_cannot_be_read_is_told_last_and_only_once() {
    let mut actor = following();
    let range = || Range { hole: true, ..read((5, 1), (5, 6), &[(5, 4), (5, 5)]) };
    let (told, last) = told_by(&mut actor, range(), Fill::default());
    assert_eq!(told, ["5:4", "5:5", "MIDDLE from 5:5 to 5:6"]);
    assert_eq!(last, at((5, 6)));
    let (told, _) = told_by(&mut actor, Range { entries: Vec::new(), ..range() }, holding(&[(5, 7)]));
    assert_eq!(told, ["5:7"]);
}

#[tokio::test]
async fn an_end_that_cannot_be_read_is_delivered_if_the_inbox_brought_it() {
    let range = Range { hole: true, ..read((5, 1), (5, 6), &[(5, 4), (5, 5)]) };
    assert_eq!(told(range, holding(&[(5, 6), (5, 7)])).0, ["5:4", "5:5", "5:6", "5:7"]);
}

#[tokio::test]
async fn what_is_held_of_a_history_that_was_replaced_before_the_read_is_a_loss() {
    let reborn = || read((7, 1), (7, 2), &[(7, 1), (7, 2)]);
    let reset = ["EPOCH_RESET from 5:3 to 7:0", "7:1", "7:2"];
    assert_eq!(told(reborn(), holding(&[(5, 6)])).0, reset);
    // So is what a read before has shown, and what was held and dropped.
    assert_eq!(told(reborn(), Fill { unread: true, ..Fill::default() }).0, reset);
    assert_eq!(told(reborn(), Fill { dropped: true, ..Fill::default() }).0, reset);
    // Whoever was there for all of the former one has lost nothing.
    assert_eq!(told(reborn(), holding(&[(7, 1), (7, 2)])).0, ["7:1", "7:2"]);
}

#[tokio::test]
async fn what_is_held_in_doubt_that_came_after_the_read_is_read_for_again() {
    let mut actor = following();
    actor.doubts = 1;
    let slot = actor.slots.get_mut(&channel()).unwrap();
    (slot.doubtful, slot.fill) = (true, Some(holding(&[(7, 1)])));
    let (sink, told) = listening(&actor);
    actor.interest.insert(&Target::Channel(channel()), sink);
    actor.finish_fill(&channel(), LAST, 0, Ok(read((5, 1), (5, 3), &[])));
    assert!(told.lock().unwrap().is_empty(), "{told:?}");
    assert_eq!(actor.slots[&channel()].fill.as_ref().map(|fill| fill.held.len()), Some(1));
}

/// An actor that stood at 6:9, and reads that one by one bring the parts of a history that lost this epoch, longer than
/// one read: what is told of each, and where delivery goes on.
fn told_by_parts(last: At, parts: &[&[At]], fill: Fill) -> (Vec<Vec<String>>, Position) {
    let mut actor = actor();
    actor.slots.insert(channel(), Slot { fill: Some(fill), ..Slot::new(Some(at((6, 9)))) });
    let (sink, told) = listening(&actor);
    actor.interest.insert(&Target::Channel(channel()), sink);
    let mut told_of_parts = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let slot = &actor.slots[&channel()];
        let cursor = slot.fill.as_ref().unwrap().cursor(slot.last.unwrap());
        let end_of_cursor_epoch = match cursor.epoch {
            5 => Some(8),
            6 => None,
            _ => Some(last.1),
        };
        let more = number + 1 < parts.len();
        finish(&mut actor, Range { end_of_cursor_epoch, more, ..read((5, 1), last, part) });
        told_of_parts.push(texts(&told));
    }
    assert!(actor.slots[&channel()].fill.is_none());
    (told_of_parts, actor.slots[&channel()].last.unwrap())
}

const LEFT: [&[At]; 2] = [&[(5, 1), (5, 2), (5, 3), (5, 4)], &[(5, 5), (5, 6), (5, 7), (5, 8)]];

#[tokio::test]
async fn what_is_left_of_a_history_that_is_longer_than_one_read_is_not_delivered_again() {
    let (told, last) = told_by_parts((5, 8), &LEFT, Fill::default());
    assert_eq!(told, [vec![], vec!["EPOCH_RESET from 6:9 to 5:8".to_owned()]]);
    assert_eq!(last, at((5, 8)));
}

#[tokio::test]
async fn a_loss_that_a_read_has_found_is_told_before_the_first_one_of_an_epoch_that_began_meanwhile() {
    let parts = [LEFT[0], LEFT[1], &[(7, 9), (7, 10)], &[(7, 11)]];
    let (told, last) = told_by_parts((7, 11), &parts, holding(&[(7, 11), (7, 12)]));
    let expected: [&[&str]; 4] =
        [&[], &[], &["EPOCH_RESET from 6:9 to 7:8", "7:9", "7:10"], &["7:11", "7:12"]];
    assert_eq!(told, expected);
    assert_eq!(last, at((7, 12)));
}

#[tokio::test]
async fn a_loss_that_a_read_has_found_is_told_though_the_history_is_born_again_meanwhile() {
    let (told, _) = told_by_parts((7, 2), &[LEFT[0], &[(7, 1), (7, 2)]], Fill::default());
    assert_eq!(told[1], ["EPOCH_RESET from 6:9 to 7:0", "7:1", "7:2"]);
}

#[tokio::test]
async fn what_was_delivered_is_not_moved_back_by_a_page_that_was_read_after_a_rollback() {
    let entries = [(5, 4), (5, 5), (5, 3), (5, 4), (6, 5), (6, 6)];
    let (told, last) = told(Range { hole: true, ..read((5, 1), (6, 6), &entries) }, Fill::default());
    assert_eq!(told, ["5:4", "5:5", "EPOCH_RESET from 5:5 to 6:4", "6:5", "6:6"]);
    assert_eq!(last, at((6, 6)));
}

#[tokio::test]
async fn what_was_read_and_then_lost_is_told_though_nothing_follows_it() {
    let range = Range { hole: true, ..read((5, 1), (5, 4), &[(5, 4), (5, 5)]) };
    let (told, last) = told(range, Fill::default());
    assert_eq!(told, ["5:4", "5:5", "EPOCH_RESET from 5:5 to 5:4"]);
    assert_eq!(last, at((5, 4)));
}
