//! What subscriptions name: channels, and patterns with `*` and `**` segments (PROTOCOL part A, "Behaviour").

/// Whether `target` is a pattern: `*` is legal nowhere else.
#[must_use]
pub fn is_pattern(target: &str) -> bool {
    target.contains('*')
}

/// Whether the channel or pattern `target` matches the channel `channel`: `*` matches exactly one segment, a last `**`
/// zero or more.
#[must_use]
pub fn matches(target: &str, channel: &str) -> bool {
    let mut names = channel.split('.');
    for segment in target.split('.') {
        match (segment, names.next()) {
            ("**", _) => return true,
            ("*", Some(_)) => {}
            (literal, Some(name)) if literal == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// Whether some channel is matched by both targets.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (Some("**"), _) | (_, Some("**")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_is_one_segment_two_are_any_number() {
        assert!(matches("a.*", "a.b") && !matches("a.*", "a") && !matches("a.*", "a.b.c"));
        assert!(matches("a.**", "a") && matches("a.**", "a.b") && matches("a.**", "a.b.c"));
        assert!(matches("a.*.c", "a.b.c") && !matches("a.*.c", "a.b.d") && matches("a", "a"));
        assert!(!matches("a.**", "b") && matches("**", "b.c"));
    }

    #[test]
    fn targets_overlap_if_a_channel_matches_both() {
        assert!(overlap("a.*", "*.b") && overlap("a.**", "a") && overlap("a.b", "a.*") && overlap("**", "x"));
        assert!(
            !overlap("a.*", "b.*")
                && !overlap("a.*", "a")
                && !overlap("a.b", "a.c")
                && !overlap("a", "a.*.b")
        );
    }
}
