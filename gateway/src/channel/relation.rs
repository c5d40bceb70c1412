//! How patterns relate to each other as sets of names.
//!
//! Exact over names of any length and any segments. Real names end at [`MAX_BYTES`](super::MAX_BYTES): of patterns so long
//! that this makes a difference, the answers are the careful ones for rights (not covered, not disjoint).

/// Whether every name that `inner` matches is matched by `outer`. Each is a checked pattern or name.
#[must_use]
pub fn covers(outer: &str, inner: &str) -> bool {
    covers_segments(outer.split('.'), inner.split('.'))
}

/// Whether there is a name that both match. Each is a checked pattern or name.
#[must_use]
pub fn overlaps(left: &str, right: &str) -> bool {
    overlaps_segments(left.split('.'), right.split('.'))
}

/// [`covers`] of patterns that are given by their segments.
pub fn covers_segments<'a, 'b>(
    outer: impl Iterator<Item = &'a str>,
    inner: impl Iterator<Item = &'b str>,
) -> bool {
    let mut inner = Normal::new(inner);
    for segment in outer {
        match (segment, inner.next()) {
            ("**", _) => return true,
            // The tail of `inner` may be empty, where `outer` needs one segment more.
            (_, Some("**") | None) => return false,
            ("*", Some(_)) => {}
            (literal, Some(other)) if literal == other => {}
            _ => return false,
        }
    }
    inner.next().is_none()
}

/// [`overlaps`] of patterns that are given by their segments.
pub fn overlaps_segments<'a, 'b>(
    mut left: impl Iterator<Item = &'a str>,
    mut right: impl Iterator<Item = &'b str>,
) -> bool {
    loop {
        match (left.next(), right.next()) {
            // What follows on the other side is a choice of the tail, or nothing at all.
            (Some("**"), _) | (_, Some("**")) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Segments of a pattern, `**` alone as `*.**`: a name has one segment at least.
struct Normal<I> {
    segments: I,
    first: bool,
    tail: bool,
}

impl<I> Normal<I> {
    fn new(segments: I) -> Self {
        Self { segments, first: true, tail: false }
    }
}

impl<'a, I: Iterator<Item = &'a str>> Iterator for Normal<I> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if std::mem::take(&mut self.tail) {
            return Some("**");
        }
        let segment = self.segments.next();
        if std::mem::take(&mut self.first) && segment == Some("**") {
            self.tail = true;
            return Some("*");
        }
        segment
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channel::glob;

    /// Longer than every pattern that is tried, so that no tail is cut off.
    const LONGEST: usize = 5;

    /// All names over two letters that patterns know and one that none of them says.
    fn names() -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut last = vec![String::new()];
        for _ in 0..LONGEST {
            last = last
                .iter()
                .flat_map(|prefix| {
                    ["a", "b", "other"].map(|segment| match prefix.as_str() {
                        "" => segment.to_owned(),
                        prefix => format!("{prefix}.{segment}"),
                    })
                })
                .collect();
            names.extend(last.iter().cloned());
        }
        names
    }

    /// All patterns and names of up to four segments over two letters.
    fn patterns() -> impl Strategy<Value = String> {
        let segment = prop_oneof![Just("a"), Just("b"), Just("*")];
        (prop::collection::vec(segment, 0..=4), any::<bool>()).prop_map(|(mut segments, tail)| {
            if tail || segments.is_empty() {
                segments.truncate(3);
                segments.push("**");
            }
            segments.join(".")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn covering_is_what_the_names_say(outer in patterns(), inner in patterns()) {
            let all = names().iter().all(|name| !glob(&inner, name) || glob(&outer, name));
            prop_assert_eq!(covers(&outer, &inner), all, "{} covers {}", outer, inner);
        }

        #[test]
        fn overlapping_is_what_the_names_say(left in patterns(), right in patterns()) {
            let any = names().iter().any(|name| glob(&left, name) && glob(&right, name));
            prop_assert_eq!(overlaps(&left, &right), any, "{} overlaps {}", left, right);
            prop_assert_eq!(overlaps(&right, &left), any, "{} overlaps {}", right, left);
        }

        #[test]
        fn a_name_is_covered_by_what_matches_it(pattern in patterns(), at in 0..363_usize) {
            let names = names();
            let name = &names[at % names.len()];
            prop_assert_eq!(covers(&pattern, name), glob(&pattern, name));
            prop_assert_eq!(overlaps(&pattern, name), glob(&pattern, name));
        }
    }

    #[test]
    fn the_cases_that_open_doors() {
        assert!(!covers("public.**", "**") && !covers("admin.*", "admin.**") && !covers("*", "**"));
        assert!(
            covers("**", "admin.**") && covers("*.**", "**") && covers("a.**", "a") && covers("a.*", "a.b")
        );
        assert!(!covers("a.*.**", "a.**"), "a itself is not matched");
        assert!(overlaps("**", "admin.**") && overlaps("*", "admin.**") && overlaps("*.x", "admin.**"));
        assert!(!overlaps("public.**", "admin.**") && !overlaps("*.*", "a.*.*") && !overlaps("a", "a.*"));
    }
}
