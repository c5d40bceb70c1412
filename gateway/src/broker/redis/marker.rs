//! The marker of a pattern subscription: the highest epoch of each partition at that time.
//!
//! Opaque to clients: the epochs in base 36, in the order of the partitions, joined by dots.

/// Writes the marker.
#[must_use]
pub fn encode(tops: &[u64]) -> String {
    let texts: Vec<String> = tops.iter().map(|top| base36(*top)).collect();
    texts.join(".")
}

/// Reads a marker of a deployment with so many partitions; `None` if it is none.
#[must_use]
pub fn decode(marker: &str, partitions: usize) -> Option<Vec<u64>> {
    let tops: Option<Vec<u64>> = marker.split('.').map(|text| u64::from_str_radix(text, 36).ok()).collect();
    tops.filter(|tops| tops.len() == partitions)
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).unwrap_or(0);
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_back() {
        let tops = [0, 35, 36, 1_767_225_600_000, u64::MAX];
        assert_eq!(decode(&encode(&tops), 5).unwrap(), tops);
    }

    #[test]
    fn what_is_no_marker_of_this_deployment_is_refused() {
        for marker in ["", "x.y", "a.b.c.d", "a..b", "-1.2.3", "zzzzzzzzzzzzzzzz.1.2"] {
            assert_eq!(decode(marker, 3), None, "{marker}");
        }
    }
}
