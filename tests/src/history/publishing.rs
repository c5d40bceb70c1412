//! Rules about publishes: one position each, one publication at each position, nothing lost without a reason.

use super::{
    canon::Canon,
    log::{History, Place, Publish},
    violation::{Rule, Violation},
};

pub(super) fn check_publishing(history: &History, canon: &Canon<'_>, violations: &mut Vec<Violation>) {
    for (name, channel) in canon.channels() {
        for (place, ids) in channel.at.iter().filter(|(_, ids)| ids.len() > 1) {
            let what = format!("{} stand at one position", ids.join(" and "));
            violations.push(about(Rule::TwoAtOnePlace, name, Some(*place), what));
        }
    }
    let mut places = places_of_publishes(canon);
    places.sort_unstable();
    for group in places.chunk_by(|(one, ..), (other, ..)| one == other) {
        check_one_place(history, canon, group, violations);
    }
    for (id, publish) in &history.publishes {
        check_not_lost(history, canon, id, publish, violations);
    }
}

/// `(publish, channel, position)` for everything that stands somewhere.
fn places_of_publishes<'a>(canon: &Canon<'a>) -> Vec<(&'a str, &'a str, Place)> {
    let mut places = Vec::new();
    for (name, channel) in canon.channels() {
        for (place, ids) in &channel.at {
            places.extend(ids.iter().map(|id| (*id, name, *place)));
        }
    }
    places
}

/// All but the last position of a publish must have been lost by a restart that was declared, after it was sent: with
/// the entry its idempotency record is lost, so an attempt that got no answer is stored again.
fn check_one_place(
    history: &History,
    canon: &Canon<'_>,
    places: &[(&str, &str, Place)],
    violations: &mut Vec<Violation>,
) {
    for pair in places.windows(2) {
        let [(id, channel, place), (_, other, later)] = pair else { continue };
        let may_be_lost = history.publishes.get(*id).is_some_and(|publish| history.may_lose(publish.sent_at));
        let lost = canon.is_superseded(channel, *place) && may_be_lost;
        if !lost || channel != other {
            let what = format!("{id} stands here and at {later} of {other}");
            violations.push(about(Rule::TwoPlaces, channel, Some(*place), what));
        }
    }
}

/// An acked publication is only gone if a restart lost it or its history was removed.
fn check_not_lost(
    history: &History,
    canon: &Canon<'_>,
    id: &str,
    publish: &Publish,
    violations: &mut Vec<Violation>,
) {
    let removed = history.cuts.get(&publish.channel).and_then(|cut| cut.removed);
    for ack in &publish.acks {
        if !canon.is_superseded(&publish.channel, ack.place) || removed.is_some() {
            continue;
        }
        // What is acked after the restart may have been stored before it, if the ack came late.
        let sent = publish.sent_at;
        if !history.may_lose(sent) {
            let what = format!(
                "{id}, sent at {sent:.3?}, acked at {:.3?}, and its offset was given out again in a newer epoch",
                ack.at
            );
            violations.push(about(Rule::LostWrite, &publish.channel, Some(ack.place), what));
        }
    }
}

fn about(rule: Rule, channel: &str, place: Option<Place>, what: String) -> Violation {
    Violation { rule, channel: channel.to_owned(), subscriber: None, place, what, around: Vec::new() }
}
