//! Tables for people.

use super::output;

/// A line for the names of the columns and one for each row; none without rows. What is empty is a dash, and nothing is left that
/// a terminal would act upon.
pub(super) fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Vec<String> {
    let mut rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(cell)).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    rows.insert(0, head.map(str::to_owned));
    let widths: [usize; N] = std::array::from_fn(|column| {
        // The last one needs no room.
        if column + 1 == N {
            return 0;
        }
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ")
        })
        .collect()
}

/// What stands in a column.
pub(super) fn cell(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { output::printable(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_harmless() {
        let row = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
        assert!(table(["A", "B"], []).is_empty());
        let lines = table(["NAME", "VALUE"], [row("ä", "1"), row("longer", ""), row("\u{1b}c", "3")]);
        assert_eq!(lines, ["NAME     VALUE", "ä        1", "longer   -", "\\u{1b}c  3"]);
    }
}
