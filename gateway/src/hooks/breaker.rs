//! A circuit breaker: a backend that fails is left alone for a while, so that nobody waits for it in vain.
//!
//! A pure state machine; the time is an argument (milliseconds of a clock that never goes back). Closed: calls pass, and
//! are counted over a sliding window. When enough of enough calls have failed it opens: calls are refused at once. After a
//! while a few calls are let through on trial: if all of them are good it closes, with the first bad one it opens again.

use std::{collections::VecDeque, time::Duration};

/// Parts of the window that are forgotten one by one.
const SLICES: u64 = 10;

/// When to open, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerOptions {
    /// Share of failed calls, above 0 and up to 1, that opens it.
    pub failure_ratio: f64,
    /// Calls in the window below which it never opens.
    pub minimum_calls: u32,
    /// How long a call counts.
    pub window: Duration,
    /// How long it stays open.
    pub open_for: Duration,
    /// Calls on trial after that, all of which must be good.
    pub trial_calls: u32,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            failure_ratio: 0.5,
            minimum_calls: 20,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            trial_calls: 3,
        }
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The backend works.
    Good,
    /// It does not.
    Bad,
    /// The call was given up by whoever made it: it tells nothing.
    Unknown,
}

/// A call that may be made; goes back with its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Ticket(u64);

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// Some calls pass, to see.
    Trial,
}

#[derive(Debug)]
enum State {
    Closed(VecDeque<Slice>),
    Open { until_ms: u64 },
    Trial { under_way: u32, good: u32 },
}

/// Calls of a part of the window.
#[derive(Debug, Clone, Copy)]
struct Slice {
    /// Its number since the beginning of time.
    number: u64,
    calls: u32,
    bad: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
    /// Counts the changes of state: a call of a former state says nothing about this one.
    era: u64,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed(VecDeque::new()), era: 0 }
    }

    /// Whether a call may be made now: not before the backend has had its pause, nor while others are on trial.
    pub fn admit(&mut self, now_ms: u64) -> Option<Ticket> {
        if let State::Open { until_ms } = self.state
            && now_ms >= until_ms
        {
            self.enter(State::Trial { under_way: 0, good: 0 });
        }
        match &mut self.state {
            State::Closed(_) => Some(Ticket(self.era)),
            State::Open { .. } => None,
            State::Trial { under_way, good } if *under_way + *good < self.options.trial_calls => {
                *under_way += 1;
                Some(Ticket(self.era))
            }
            State::Trial { .. } => None,
        }
    }

    /// Takes what became of a call.
    pub fn record(&mut self, now_ms: u64, ticket: Ticket, verdict: Verdict) {
        if ticket.0 != self.era {
            return;
        }
        let slice_ms = (millis(self.options.window) / SLICES).max(1);
        match (&mut self.state, verdict) {
            (State::Closed(_), Verdict::Unknown) | (State::Open { .. }, _) => {}
            (State::Closed(slices), verdict) => {
                count(slices, now_ms / slice_ms, verdict == Verdict::Bad);
                if self.too_many_failed() {
                    self.open(now_ms);
                }
            }
            (State::Trial { .. }, Verdict::Bad) => self.open(now_ms),
            (State::Trial { under_way, good }, verdict) => {
                *under_way -= 1;
                *good += u32::from(verdict == Verdict::Good);
                if *good >= self.options.trial_calls {
                    self.enter(State::Closed(VecDeque::new()));
                }
            }
        }
    }

    /// How far it is. An open one stays so until the first call after its time.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Closed(_) => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::Trial { .. } => Phase::Trial,
        }
    }

    fn too_many_failed(&self) -> bool {
        let State::Closed(slices) = &self.state else { return false };
        let sum = |of: fn(&Slice) -> u32| slices.iter().map(of).fold(0u32, u32::saturating_add);
        let (calls, bad) = (sum(|slice| slice.calls), sum(|slice| slice.bad));
        calls >= self.options.minimum_calls && f64::from(bad) >= self.options.failure_ratio * f64::from(calls)
    }

    fn open(&mut self, now_ms: u64) {
        self.enter(State::Open { until_ms: now_ms.saturating_add(millis(self.options.open_for)) });
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }
}

/// Counts a call in the slice `number` and forgets those that have left the window.
fn count(slices: &mut VecDeque<Slice>, number: u64, bad: bool) {
    while slices.front().is_some_and(|slice| slice.number + SLICES <= number) {
        slices.pop_front();
    }
    let slice = match slices.back_mut() {
        Some(last) if last.number >= number => last,
        _ => {
            slices.push_back(Slice { number, calls: 0, bad: 0 });
            match slices.back_mut() {
                Some(slice) => slice,
                // One was just pushed.
                None => return,
            }
        }
    };
    slice.calls = slice.calls.saturating_add(1);
    slice.bad = slice.bad.saturating_add(u32::from(bad));
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerOptions::default())
    }

    fn calls(breaker: &mut Breaker, now_ms: u64, count: u32, verdict: Verdict) {
        for _ in 0..count {
            let ticket = breaker.admit(now_ms).unwrap();
            breaker.record(now_ms, ticket, verdict);
        }
    }

    #[test]
    fn half_of_twenty_failed_calls_open_it() {
        let mut breaker = breaker();
        calls(&mut breaker, 0, 10, Verdict::Good);
        calls(&mut breaker, 0, 9, Verdict::Bad);
        assert_eq!(breaker.phase(), Phase::Closed, "19 calls");
        calls(&mut breaker, 0, 1, Verdict::Bad);
        assert_eq!(breaker.phase(), Phase::Open);
        assert!(breaker.admit(4_999).is_none());
    }

    #[test]
    fn fewer_than_half_never_open_it_and_what_is_unknown_does_not_count() {
        let mut breaker = breaker();
        for _ in 0..50 {
            calls(&mut breaker, 0, 3, Verdict::Good);
            calls(&mut breaker, 0, 2, Verdict::Bad);
            calls(&mut breaker, 0, 9, Verdict::Unknown);
        }
        assert_eq!(breaker.phase(), Phase::Closed);
    }

    #[test]
    fn what_has_left_the_window_does_not_count() {
        let mut breaker = breaker();
        calls(&mut breaker, 0, 19, Verdict::Bad);
        calls(&mut breaker, 10_000, 19, Verdict::Bad);
        assert_eq!(breaker.phase(), Phase::Closed);
        calls(&mut breaker, 19_999, 1, Verdict::Bad);
        assert_eq!(breaker.phase(), Phase::Open);
    }

    #[test]
    fn three_good_trials_close_it_and_no_more_are_let_through() {
        let mut breaker = breaker();
        calls(&mut breaker, 0, 20, Verdict::Bad);
        let trials: Vec<_> = (0..3).map(|_| breaker.admit(5_000).unwrap()).collect();
        assert!(breaker.admit(5_000).is_none(), "a fourth");
        for (at, ticket) in trials.into_iter().enumerate() {
            assert_eq!(breaker.phase(), Phase::Trial, "{at}");
            breaker.record(5_001, ticket, Verdict::Good);
        }
        assert_eq!(breaker.phase(), Phase::Closed);
        calls(&mut breaker, 5_002, 19, Verdict::Bad);
        assert_eq!(breaker.phase(), Phase::Closed, "the calls of before are forgotten");
    }

    #[test]
    fn a_bad_trial_opens_it_again_and_the_others_of_that_time_say_nothing() {
        let mut breaker = breaker();
        calls(&mut breaker, 0, 20, Verdict::Bad);
        let (first, second) = (breaker.admit(5_000).unwrap(), breaker.admit(5_000).unwrap());
        breaker.record(6_000, first, Verdict::Bad);
        breaker.record(6_000, second, Verdict::Good);
        assert_eq!(breaker.phase(), Phase::Open);
        assert!(breaker.admit(10_999).is_none());
        assert!(breaker.admit(11_000).is_some());
    }

    #[test]
    fn a_trial_that_is_given_up_makes_room_for_another() {
        let mut breaker = breaker();
        calls(&mut breaker, 0, 20, Verdict::Bad);
        for _ in 0..10 {
            calls(&mut breaker, 5_000, 1, Verdict::Unknown);
        }
        assert_eq!(breaker.phase(), Phase::Trial);
        calls(&mut breaker, 5_000, 3, Verdict::Good);
        assert_eq!(breaker.phase(), Phase::Closed);
    }

    #[test]
    fn calls_of_before_the_opening_say_nothing_afterwards() {
        let mut breaker = breaker();
        let late = breaker.admit(0).unwrap();
        calls(&mut breaker, 0, 20, Verdict::Bad);
        let trial = breaker.admit(5_000).unwrap();
        breaker.record(5_001, late, Verdict::Bad);
        assert_eq!(breaker.phase(), Phase::Trial);
        breaker.record(5_002, trial, Verdict::Good);
        assert_eq!(breaker.phase(), Phase::Trial);
    }
}
