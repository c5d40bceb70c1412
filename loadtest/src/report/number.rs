//! Numbers as people read them: thousands separated, three digits that say something, a unit of the right size.

/// A whole number: `1,234,567`.
pub fn count(number: u64) -> String {
    separated(&number.to_string())
}

/// Any number, with as many decimals as its size deserves: `1,234`, `123.4`, `12.34`, `0.0123`.
pub fn value(number: f64) -> String {
    let size = number.abs();
    if !size.is_finite() {
        return "-".to_owned();
    }
    let decimals = if size.fract() == 0.0 || size >= 1_000.0 {
        0
    } else if size >= 100.0 {
        1
    } else if size >= 1.0 {
        2
    } else {
        // Greater than 0, as it has a fraction: the logarithm is finite and negative.
        (2 - size.log10().floor() as i32).min(9) as usize
    };
    let text = format!("{size:.decimals$}");
    let text = match text.split_once('.') {
        Some((whole, fraction)) => format!("{}.{fraction}", separated(whole)),
        None => separated(&text),
    };
    if number < 0.0 { format!("-{text}") } else { text }
}

/// A value with its unit; `-` for one that could not be measured.
pub fn with_unit(number: Option<f64>, unit: &str) -> String {
    match number {
        None => "-".to_owned(),
        Some(number) if unit.is_empty() => value(number),
        Some(number) => format!("{} {}", value(number), self::unit(unit)),
    }
}

/// A unit as it is shown: results write `us`.
pub fn unit(unit: &str) -> &str {
    if unit == "us" { "µs" } else { unit }
}

/// A time that is given in microseconds: `12.3 µs`, `1.23 ms`, `2.50 s`.
pub fn micros(micros: f64) -> String {
    let (scaled, unit) = match micros.abs() {
        // Three digits of 999.6 are 1,000 already.
        size if size < 999.5 => (micros, "µs"),
        size if size < 999_500.0 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    let decimals = match scaled.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        0.0 => 0,
        _ => 2,
    };
    format!("{scaled:.decimals$} {unit}")
}

/// CPU time that is given in seconds.
pub fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

/// Memory that is given in KiB; `-` for 0, which is not known.
pub fn memory(kib: u64) -> String {
    if kib == 0 { "-".to_owned() } else { format!("{} MiB", count_with_decimal(kib as f64 / 1024.0)) }
}

/// A ratio: `0.88 x`; `-` if there is none.
pub fn ratio(ratio: Option<f64>) -> String {
    match ratio {
        Some(ratio) if ratio >= 100.0 => format!("{} x", value(ratio.round())),
        Some(ratio) => format!("{ratio:.2} x"),
        None => "-".to_owned(),
    }
}

/// `part / whole`, unless that says nothing.
pub fn quotient(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    let quotient = part? / whole?;
    quotient.is_finite().then_some(quotient)
}

/// One decimal below 100, none above, so that a column of sizes lines up.
fn count_with_decimal(number: f64) -> String {
    if number < 99.95 { format!("{number:.1}") } else { separated(&format!("{number:.0}")) }
}

/// Puts a comma between groups of three digits.
fn separated(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn decimals_follow_the_size() {
        let shown = [0.0, 42.0, 1_234_567.8, 123.44, 9.876, -0.012_345, f64::NAN].map(value);
        assert_eq!(shown, ["0", "42", "1,234,568", "123.4", "9.88", "-0.0123", "-"]);
    }

    #[test]
    fn times_get_a_unit_of_their_size() {
        let shown = [0.0, 1.5, 12.34, 999.4, 999.6, 1_234.0, 45_600.0, 999_600.0, 2.5e6].map(micros);
        assert_eq!(
            shown,
            ["0 µs", "1.50 µs", "12.3 µs", "999 µs", "1.00 ms", "1.23 ms", "45.6 ms", "1.00 s", "2.50 s"]
        );
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        assert_eq!((memory(0), ratio(None), with_unit(None, "1/s")), ("-".into(), "-".into(), "-".into()));
        assert_eq!(quotient(Some(1.0), Some(0.0)), None);
    }

    #[test]
    fn memory_and_units_are_readable() {
        assert_eq!((memory(1_536), memory(4_096_000)), ("1.5 MiB".into(), "4,000 MiB".into()));
        assert_eq!(with_unit(Some(15.0), "us"), "15 µs");
        assert_eq!(ratio(Some(0.876)), "0.88 x");
    }
}
