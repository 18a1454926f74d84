//! Columns as Go's tabwriter sets them for Docker: at least ten wide, three spaces
//! between, the last one as long as it is.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Sets lines of tab-separated cells in columns. A column's width holds for
/// neighbouring lines that have that column.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut out = String::with_capacity(text.len() * 2);
    let widths = widths(&lines);
    for (line, widths) in lines.iter().zip(&widths) {
        for (at, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < line.len() {
                let fill = widths[at].saturating_sub(cell.chars().count());
                out.extend(std::iter::repeat_n(' ', fill));
            }
        }
        out.push('\n');
    }
    out
}

/// For each line the widths of its cells but the last: a column is a run of lines
/// that all have a cell there which a tab ends.
fn widths(lines: &[Vec<&str>]) -> Vec<Vec<usize>> {
    let mut widths: Vec<Vec<usize>> =
        lines.iter().map(|line| vec![0; line.len().saturating_sub(1)]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut from = 0;
        while from < lines.len() {
            if widths[from].len() <= column {
                from += 1;
                continue;
            }
            let to =
                (from..lines.len()).find(|at| widths[*at].len() <= column).unwrap_or(lines.len());
            let longest =
                lines[from..to].iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            let width = if longest == 0 { 0 } else { (longest + PADDING).max(MIN_WIDTH) };
            for line in &mut widths[from..to] {
                line[column] = width;
            }
            from = to;
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        assert_eq!(
            align("ID\tNAMES\tX\nlonger-than-ten\té\tlast one\n"),
            "ID                NAMES     X\nlonger-than-ten   é         last one\n"
        );
        assert_eq!(align("a\tb\nonly\nc\td\n"), "a         b\nonly\nc         d\n");
    }
}
