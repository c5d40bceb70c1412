//! Durations and sizes as people write them.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// A duration: `300s`, `5m`, `250ms`, `1h`, also `1m30s` and `1.5s`; units h, m, s, ms, us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub Duration);

/// A size in bytes: `65536`, `64KiB`, `1MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub u64);

/// Nanoseconds of a unit; the longer names first.
const TIME_UNITS: [(&str, u64); 6] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Span {
    /// Reads a duration; the error is fit for an operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a duration: write a number with a unit, as in 250ms, 30s, 5m, 1h");
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut nanos = 0u64;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(end);
            let (unit, scale) =
                TIME_UNITS.into_iter().find(|(unit, _)| tail.starts_with(unit)).ok_or_else(wrong)?;
            let part = scaled(number, scale).ok_or_else(wrong)?;
            nanos = nanos.checked_add(part).ok_or_else(wrong)?;
            rest = &tail[unit.len()..];
        }
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

/// `number`, with or without decimals, times `scale`; none if it is no number or too large.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let mut value = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let mut place = scale;
    for digit in decimals.chars() {
        place /= 10;
        value = value.checked_add(place * u64::from(digit.to_digit(10)?))?;
    }
    Some(value)
}

impl Size {
    /// Reads a size; the error is fit for an operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a size: write bytes, or a number with KiB, MiB or GiB, as in 64KiB");
        let text = text.trim();
        let (number, scale) = SIZE_UNITS
            .into_iter()
            .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.trim_end(), scale)))
            .unwrap_or((text, 1));
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(scale).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0s"),
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1_000) => write!(f, "{}s", ms / 1_000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, scale) in SIZE_UNITS {
            if scale > 1 && self.0 >= scale && self.0.is_multiple_of(scale) {
                return write!(f, "{}{unit}", self.0 / scale);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Reads the text of a scalar; a bare number reaches `parse` as its digits.
macro_rules! from_text {
    ($type:ident, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).map_err(E::custom)
                    }

                    fn visit_u64<E: Error>(self, number: u64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}

from_text!(Span, "a duration such as 250ms, 30s, 5m or 1h");
from_text!(Size, "a size such as 65536, 64KiB or 1MiB");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        for (text, ms) in [
            ("300s", 300_000),
            ("5m", 300_000),
            ("250ms", 250),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("1.5s", 1_500),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(Span::parse(text), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "5", "5 m", "m", "-1s", "1d", "1e3s", "1.2.3s", "99999999999999h", "s5"] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_as_written() {
        for (text, bytes) in
            [("65536", 65_536), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2 GiB", 2 << 30), ("0", 0), ("7B", 7)]
        {
            assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "KiB", "64KB", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for ms in [0, 250, 1_000, 90_000, 300_000, 7_200_000] {
            let span = Span(Duration::from_millis(ms));
            assert_eq!(Span::parse(&span.to_string()), Ok(span));
        }
        for bytes in [0, 1, 1_000, 1_024, 65_536, 1 << 30] {
            assert_eq!(Size::parse(&Size(bytes).to_string()), Ok(Size(bytes)));
        }
    }
}
