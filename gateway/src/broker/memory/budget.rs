//! Which histories shrink when memory is short.

/// The level down to which the largest of `sizes` must be cut so that `free` bytes come free; smaller ones keep all.
/// 0 if everything must go.
pub(super) fn level(mut sizes: Vec<usize>, free: usize) -> usize {
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut sum = 0;
    for (count, size) in (1..).zip(&sizes) {
        sum += size;
        let next = sizes.get(count).copied().unwrap_or(0);
        if sum - count * next >= free {
            return (sum - free) / count;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_cut_to_a_common_level() {
        assert_eq!(level(vec![100, 10, 50], 30), 70);
        assert_eq!(level(vec![100, 10, 50], 50), 50);
        assert_eq!(level(vec![100, 10, 50], 90), 30);
        assert_eq!(level(vec![100, 10, 50], 160), 0);
        assert_eq!(level(vec![100, 10, 50], 161), 0);
        assert_eq!(level(vec![], 1), 0);
    }
}
