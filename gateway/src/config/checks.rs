//! Range checks that name the key, the value and what is allowed, and go on to the next.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    error::Problem,
    listen::ListenAddr,
    units::{Size, Span},
};

/// Collects what is wrong and what is merely odd.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Checks {
    pub fn wrong(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::of_key(key, message));
    }

    pub fn warn(&mut self, key: &str, message: impl Into<String>) {
        self.warnings.push(Problem::of_key(key, message));
    }

    /// A number within `range`, which must fit into `T`; `default` if absent or wrong.
    pub fn number<T: TryFrom<u64>>(
        &mut self,
        key: &str,
        value: Option<u64>,
        default: T,
        range: RangeInclusive<u64>,
    ) -> T {
        let Some(value) = value else { return default };
        match T::try_from(value) {
            Ok(fitting) if range.contains(&value) => fitting,
            _ => {
                self.out_of_range(key, value, range.start(), range.end());
                default
            }
        }
    }

    /// A size within `range`; `default` if absent or wrong.
    pub fn size(
        &mut self,
        key: &str,
        value: Option<Size>,
        default: usize,
        range: RangeInclusive<u64>,
    ) -> usize {
        let Some(Size(value)) = value else { return default };
        match usize::try_from(value) {
            Ok(fitting) if range.contains(&value) => fitting,
            _ => {
                self.out_of_range(key, Size(value), Size(*range.start()), Size(*range.end()));
                default
            }
        }
    }

    /// A duration within `range`, in milliseconds; `default` if absent or wrong.
    pub fn span(
        &mut self,
        key: &str,
        value: Option<Span>,
        default: Duration,
        range: RangeInclusive<u64>,
    ) -> Duration {
        let Some(Span(value)) = value else { return default };
        let ends = (Duration::from_millis(*range.start()), Duration::from_millis(*range.end()));
        if (ends.0..=ends.1).contains(&value) {
            return value;
        }
        self.out_of_range(key, Span(value), Span(ends.0), Span(ends.1));
        default
    }

    /// An address to listen on; `default` if absent or wrong.
    pub fn listen(&mut self, key: &str, value: Option<String>, default: ListenAddr) -> ListenAddr {
        match value.as_deref().map(ListenAddr::parse) {
            None => default,
            Some(Ok(addr)) => addr,
            Some(Err(message)) => {
                self.wrong(key, message);
                default
            }
        }
    }

    fn out_of_range<V: std::fmt::Display, E: std::fmt::Display>(
        &mut self,
        key: &str,
        value: V,
        low: E,
        high: E,
    ) {
        self.wrong(key, format!("{value} is out of range, allowed is {low} to {high}"));
    }
}
