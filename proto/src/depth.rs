//! The nesting of JSON text, measured before a parser sees it.
//!
//! A parser that skips unknown fields does not count their nesting, so the limit is checked
//! here, on the bytes: no recursion, no allocation, whatever the input.

/// True if arrays and objects nest deeper than `limit` anywhere in `text`.
///
/// `text` need not be valid JSON; brackets in strings do not count. Text that is not valid can
/// only be over-counted where the parser would refuse it anyway.
pub(crate) fn deeper_than(limit: usize, text: &[u8]) -> bool {
    // Most text has too few brackets to go so deep, and counting them is several times cheaper than reading.
    if text.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::deeper_than;

    #[test]
    fn counts_arrays_and_objects_alike() {
        assert!(!deeper_than(4, b"[{\"a\":[{}]}]"));
        assert!(deeper_than(3, b"[{\"a\":[{}]}]"));
    }

    #[test]
    fn siblings_do_not_add_up() {
        assert!(!deeper_than(2, b"[[],[],[],[]]"));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        assert!(!deeper_than(1, br#"["[[[[\"[[[[\\"]"#));
        assert!(deeper_than(1, br#"["\\",[]]"#));
    }
}
