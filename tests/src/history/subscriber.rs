//! Rules about what one subscriber saw: everything, once, in order, unaltered, or told that it is missing.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    canon::Canon,
    log::{History, Place, Seen, Subscriber},
    violation::{Rule, Violation},
};

/// Events of the same channel shown before and after a violation.
const NEIGHBOURS: usize = 4;

/// What a stretch of continuity knows of one channel.
#[derive(Default)]
struct Course {
    /// Where the next publication must go on.
    last: Option<Place>,
    /// Or there: a gap was told that ends before what was seen, which was lost.
    back: Option<Place>,
    /// The highest position seen.
    highest: Option<Place>,
    /// Of this stretch.
    first: Option<Place>,
    seen: HashSet<Place>,
    /// What may be missing.
    told: Vec<Told>,
    /// Holes in a replay whose recovery has not ended yet.
    pending: Vec<Pending>,
    /// A gap without position was told: whatever comes next, it goes on from there.
    loose: Option<Excuse>,
    /// Nobody can tell any more whether what was seen last is what stood there: see [`Walk::untraceable`].
    untraceable: bool,
}

/// What a gap that was told covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excuse {
    /// Everything.
    All,
    /// What was lost, by `EPOCH_RESET`: what stands in the new history is owed.
    Lost,
}

impl Excuse {
    fn of(reason: &str) -> Self {
        if reason == "EPOCH_RESET" { Self::Lost } else { Self::All }
    }
}

/// A gap that was told.
struct Told {
    /// Exclusive; `None` if nothing was seen before.
    from: Option<Place>,
    /// Inclusive.
    to: Place,
    excuse: Excuse,
}

/// A hole in a replay: its recovery may still tell it.
struct Pending {
    /// The event behind the hole.
    index: usize,
    from: Place,
    to: Place,
    /// It goes on in a history that began anew: that alone is no hole.
    born_again: bool,
}

struct Walk<'a> {
    history: &'a History,
    canon: &'a Canon<'a>,
    name: &'a str,
    subscriber: &'a Subscriber,
    /// When the present stretch began; `None` between two.
    since: Option<Duration>,
    courses: HashMap<&'a str, Course>,
    violations: &'a mut Vec<Violation>,
}

pub(super) fn check_subscriber(
    history: &History,
    canon: &Canon<'_>,
    name: &str,
    subscriber: &Subscriber,
    violations: &mut Vec<Violation>,
) {
    let courses = HashMap::new();
    let mut walk = Walk { history, canon, name, subscriber, since: None, courses, violations };
    for (index, seen) in subscriber.seen.iter().enumerate() {
        walk.step(index, seen);
    }
    walk.end_stretch();
    walk.find_missing();
}

impl<'a> Walk<'a> {
    fn step(&mut self, index: usize, seen: &'a Seen) {
        match seen {
            Seen::Subscribed { at } => {
                self.end_stretch();
                self.courses.clear();
                self.since = Some(*at);
            }
            Seen::Publication { channel, place, id, digest, replay, .. } => {
                self.published_so(index, channel, *place, id, *digest);
                self.continues(index, channel, *place, *replay);
            }
            Seen::Gap { channel, place, reason, at } => {
                if self.untraceable(channel, *place, reason, *at) {
                    self.courses.entry(channel).or_default().untraceable = true;
                } else {
                    self.founded(index, Some(channel), reason, *at);
                    if !self.concerned(index, channel, *place) {
                        self.lost_something(index, channel, reason);
                    }
                }
                let course = self.courses.entry(channel).or_default();
                course.pending_told(Excuse::of(reason));
                course.jump(*place, Excuse::of(reason));
            }
            Seen::Recovered { place, gap, at } => {
                if let Some(reason) = gap {
                    let target = &self.subscriber.target;
                    self.founded(index, (!target.contains('*')).then_some(target), reason, *at);
                }
                self.recovered(*place, gap.as_deref().map(Excuse::of));
            }
            Seen::Unsubscribed => {
                self.end_stretch();
                self.courses.clear();
                self.since = None;
            }
            Seen::Ended { error } => {
                let target = &self.subscriber.target;
                self.report(Rule::Ended, target, None, index, format!("{target} ended: {error}"));
            }
        }
    }

    /// It is what somebody published there.
    fn published_so(&mut self, index: usize, channel: &str, place: Place, id: &str, digest: u64) {
        let Some(publish) = self.history.publishes.get(id) else {
            return self.report(
                Rule::Foreign,
                channel,
                Some(place),
                index,
                format!("{id} was never published"),
            );
        };
        if publish.acks.is_empty() && !publish.open && publish.refused {
            let what = format!("{id} was refused, and is seen all the same");
            self.report(Rule::Foreign, channel, Some(place), index, what);
        }
        if publish.channel != channel || publish.digest != digest {
            let what = format!("{id} was published to {} with other data", publish.channel);
            self.report(Rule::Altered, channel, Some(place), index, what);
        }
    }

    fn continues(&mut self, index: usize, channel: &'a str, place: Place, replay: bool) {
        let removed = self.history.cuts.get(channel).is_some_and(|cut| cut.removed.is_some());
        let course = self.courses.entry(channel).or_default();
        if !course.seen.insert(place) {
            return self.report(Rule::Twice, channel, Some(place), index, "seen before".to_owned());
        }
        if let Some(highest) = course.highest.filter(|highest| *highest > place) {
            let what = format!("comes after {highest}");
            return self.report(Rule::OutOfOrder, channel, Some(place), index, what);
        }
        course.highest = Some(place);
        course.first.get_or_insert(place);
        let loose = std::mem::take(&mut course.loose);
        let Some(last) = course.last.replace(place) else { return };
        let back = course.back.take();
        if [Some(last), back]
            .into_iter()
            .flatten()
            .any(|before| before.offset.checked_add(1) == Some(place.offset))
        {
            return;
        }
        let born_again = removed && place.offset == 1 && place.epoch > last.epoch;
        if let Some(excuse) = loose {
            course.told.push(Told { from: Some(last), to: place, excuse });
        } else if replay {
            course.pending.push(Pending { index, from: last, to: place, born_again });
        } else if !born_again {
            let what = format!("nothing was seen, and no gap told, between {last} and this");
            self.report(Rule::Hole, channel, Some(place), index, what);
        }
    }

    /// Nobody may cry wolf.
    fn founded(&mut self, index: usize, channel: Option<&str>, reason: &str, at: Duration) {
        let past = |time: Option<Duration>| time.is_some_and(|time| time <= at);
        let mut cuts =
            self.history.cuts.iter().filter(|(name, _)| channel.is_none_or(|channel| channel == *name));
        let cut = cuts.any(|(_, cut)| past(cut.removed) || (reason != "EPOCH_RESET" && past(cut.trimmed)));
        let lost = self.history.restarts.iter().any(|loss| loss.from <= at);
        let much = self.history.truncation && reason == "TRUNCATED";
        let told = reason == "EPOCH_RESET"
            && self
                .courses
                .iter()
                .any(|(name, course)| course.untraceable && channel.is_none_or(|channel| channel == *name));
        if !(cut || lost || much || told) {
            let channel = channel.unwrap_or(&self.subscriber.target).to_owned();
            let what = format!("{reason} was told, and nothing can have been lost");
            self.report(Rule::UnfoundedGap, &channel, None, index, what);
        }
    }

    /// Whether the trim of a channel left nothing of the epoch in which this subscriber saw the last publication, and all
    /// that came after it: whether anything was lost in between cannot be known then, and a reset must be told (DESIGN,
    /// section 5, positions).
    fn untraceable(&self, channel: &str, place: Option<Place>, reason: &str, at: Duration) -> bool {
        let trimmed =
            self.history.cuts.get(channel).and_then(|cut| cut.trimmed).is_some_and(|time| time <= at);
        let last = self.courses.get(channel).and_then(|course| course.last);
        let (Some(last), Some(place)) = (last, place) else { return false };
        reason == "EPOCH_RESET" && trimmed && place.epoch > last.epoch && place.offset == last.offset
    }

    /// A reset is told to those only who had seen something that was lost.
    fn lost_something(&mut self, index: usize, channel: &str, reason: &str) {
        let removed = self.history.cuts.get(channel).is_some_and(|cut| cut.removed.is_some());
        let highest = self.courses.get(channel).and_then(|course| course.highest);
        let Some(highest) = highest.filter(|_| reason == "EPOCH_RESET" && !removed) else { return };
        if self.canon.is_kept(channel, highest) {
            let what = format!("{reason} was told, and everything up to {highest} is still there");
            self.report(Rule::UnfoundedGap, channel, Some(highest), index, what);
        }
    }

    /// A gap that ends before what this subscriber has concerns it only if that was lost: otherwise it came, or recovered,
    /// past the loss, and was told then what it missed. Whether it was such a gap.
    fn concerned(&mut self, index: usize, channel: &'a str, place: Option<Place>) -> bool {
        let last = self.courses.get(channel).and_then(|course| course.last);
        // Offset 0 stands for no history: one of before may come back.
        let Some(last) = last.filter(|last| last.offset > 0) else { return false };
        let removed = self.history.cuts.get(channel).is_some_and(|cut| cut.removed.is_some());
        let stale =
            place.is_some_and(|place| place < last) && !removed && !self.canon.is_superseded(channel, last);
        if stale {
            let what = format!("a gap was told that ends before {last}, which was never lost");
            self.report(Rule::StaleGap, channel, place, index, what);
        }
        stale
    }
    fn recovered(&mut self, place: Option<Place>, gap: Option<Excuse>) {
        let Some(excuse) = gap else { return self.holes_not_told() };
        let exact = !self.subscriber.target.contains('*');
        if exact {
            let course = self.courses.entry(&self.subscriber.target).or_default();
            course.pending_told(excuse);
            course.jump(place, excuse);
            return;
        }
        // Each channel's gap was told by itself: before its replay or, where the end was left out, behind it.
        self.courses.values_mut().for_each(|course| course.pending_told(excuse));
    }

    /// A recovery ended, or the stretch, and nothing was said of its holes.
    fn holes_not_told(&mut self) {
        let pending: Vec<_> = self
            .courses
            .iter_mut()
            .flat_map(|(channel, course)| course.pending.drain(..).map(|hole| (*channel, hole)))
            .collect();
        for (channel, Pending { index, from, to, .. }) in
            pending.into_iter().filter(|(_, hole)| !hole.born_again)
        {
            let what = format!("the replay has nothing between {from} and this, and its end told no gap");
            self.report(Rule::Hole, channel, Some(to), index, what);
        }
    }

    fn end_stretch(&mut self) {
        self.holes_not_told();
    }

    /// Whoever is still there in the end has everything that was acknowledged since it came.
    fn find_missing(&mut self) {
        let Some(since) = self.since else { return };
        let target = self.subscriber.target.as_str();
        let canon = self.canon;
        let mut missing = Vec::new();
        let nothing = Course::default();
        for (name, channel) in canon.channels().filter(|(name, _)| streamgate_client::matches(target, name)) {
            let course = self.courses.get(name).unwrap_or(&nothing);
            for (place, ids) in &channel.at {
                let Some((id, publish)) =
                    ids.iter().find_map(|id| Some((*id, self.history.publishes.get(*id)?)))
                else {
                    continue;
                };
                let owed = publish.sent_at >= since || course.first.is_some_and(|first| first < *place);
                let acked = publish.acks.iter().any(|ack| ack.place == *place);
                let stands = !canon.is_superseded(name, *place) && !self.history.cuts.contains_key(name);
                let excused = course.has(*place, stands) || self.may_be_lost(name, *place, publish.sent_at);
                if acked && owed && !excused {
                    missing.push((
                        name,
                        *place,
                        format!("{id}, sent at {:.3?}, was acked and is not seen", publish.sent_at),
                    ));
                }
            }
        }
        for (channel, place, what) in missing {
            let index = self.index_of_place(channel, place);
            self.report(Rule::Missing, channel, Some(place), index, what);
        }
    }

    /// A declared restart lost it before this subscriber saw it.
    fn may_be_lost(&self, channel: &str, place: Place, sent_at: Duration) -> bool {
        self.history.may_lose(sent_at) && self.canon.is_superseded(channel, place)
    }

    /// Where among the events it should be.
    fn index_of_place(&self, channel: &str, wanted: Place) -> usize {
        let behind = |seen: &Seen| matches!(seen, Seen::Publication { channel: c, place, .. } if **c == *channel && *place > wanted);
        self.subscriber.seen.iter().position(behind).unwrap_or(self.subscriber.seen.len())
    }

    fn report(&mut self, rule: Rule, channel: &str, place: Option<Place>, index: usize, what: String) {
        self.violations.push(Violation {
            rule,
            channel: channel.to_owned(),
            subscriber: Some(self.name.to_owned()),
            place,
            what,
            around: neighbours(&self.subscriber.seen, index, channel),
        });
    }
}

impl Course {
    fn pending_told(&mut self, excuse: Excuse) {
        let told = |hole: Pending| Told { from: Some(hole.from), to: hole.to, excuse };
        self.told.extend(self.pending.drain(..).map(told));
    }

    /// What is missing up to `place` is excused.
    fn jump(&mut self, place: Option<Place>, excuse: Excuse) {
        match place {
            Some(place) if self.last.is_some_and(|last| place < last) => self.back = Some(place),
            Some(place) => {
                self.told.push(Told { from: self.last, to: place, excuse });
                self.last = Some(place);
            }
            None => self.loose = Some(excuse),
        }
    }

    /// It was seen, or told to be missing; `stands`: it was not lost.
    fn has(&self, place: Place, stands: bool) -> bool {
        let told = |told: &Told| {
            let within = told.from.is_none_or(|from| from < place) && place <= told.to;
            within && !(stands && told.excuse == Excuse::Lost)
        };
        self.seen.contains(&place) || self.told.iter().any(told)
    }
}

/// What was seen of `channel`, or of all, around the event `index`.
fn neighbours(seen: &[Seen], index: usize, channel: &str) -> Vec<String> {
    let of_channel = |seen: &&Seen| match seen {
        Seen::Publication { channel: c, .. } | Seen::Gap { channel: c, .. } => **c == *channel,
        _ => true,
    };
    let (before, after) = seen.split_at(index.min(seen.len()));
    let mut lines: Vec<String> =
        before.iter().rev().filter(of_channel).take(NEIGHBOURS).map(ToString::to_string).collect();
    lines.reverse();
    let after = after.iter().filter(of_channel).take(NEIGHBOURS);
    lines.extend(after.enumerate().map(|(at, seen)| format!("{}{seen}", if at == 0 { "-> " } else { "" })));
    lines
}
