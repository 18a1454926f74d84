//! What was measured, against what was promised.

use std::fmt::Write as _;

/// The medians of one piece of work, engine by engine, ours first.
pub(crate) type Medians = Vec<(&'static str, f64)>;

/// The engines whose times promises are about; others are shown beside them.
const JUDGES: &[&str] = &["docker", "crun"];

/// Rows of the closing table.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    work: String,
    ours: String,
    theirs: String,
    ratio: String,
    target: String,
    kept: Option<bool>,
}

impl Table {
    /// Adds a row per other engine; `factor` is how much faster than a judge
    /// we promise to be.
    pub(crate) fn compare(&mut self, work: &str, factor: f64, medians: Medians) {
        let Some(((_, ours), others)) = medians.split_first() else { return };
        if others.is_empty() {
            self.rows.push(Row::alone(
                work,
                milliseconds(*ours),
                format!("1/{factor} of another's"),
            ));
        }
        for (name, theirs) in others {
            let ratio = theirs / ours;
            let judged = JUDGES.contains(name);
            self.rows.push(Row {
                work: work.to_owned(),
                ours: milliseconds(*ours),
                theirs: format!("{name} {}", milliseconds(*theirs)),
                ratio: format!("1/{ratio:.1}"),
                target: if judged { format!("1/{factor}") } else { String::new() },
                kept: judged.then_some(ratio >= factor),
            });
        }
    }

    /// Adds a row for memory in KiB, with another engine's for comparison.
    pub(crate) fn memory(&mut self, work: &str, ours: u64, most: u64, theirs: Option<(&str, u64)>) {
        let mut row = Row::alone(work, format!("{ours} KiB"), format!("{most} KiB"));
        row.kept = Some(ours <= most);
        if let Some((name, theirs)) = theirs {
            row.theirs = format!("{name} {theirs} KiB");
            row.ratio = format!("1/{:.1}", theirs as f64 / ours.max(1) as f64);
        }
        self.rows.push(row);
    }

    /// Whether every promise that could be judged was kept.
    pub(crate) fn all_kept(&self) -> bool {
        self.rows.iter().all(|row| row.kept != Some(false))
    }

    pub(crate) fn print(&self, runs: usize) {
        if self.rows.is_empty() {
            return;
        }
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        println!("\nmedians of {runs}, load {}\n", load.split(' ').next().unwrap_or("?"));
        let mut text = String::from(
            "| work | capsa | other | ratio | target | kept |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let kept = row.kept.map_or("", |kept| if kept { "yes" } else { "NO" });
            let Row { work, ours, theirs, ratio, target, .. } = row;
            // Writing to a String can't fail.
            let _ = writeln!(text, "| {work} | {ours} | {theirs} | {ratio} | {target} | {kept} |");
        }
        println!("{text}");
    }
}

impl Row {
    fn alone(work: &str, ours: String, target: String) -> Self {
        let work = work.to_owned();
        Self { work, ours, theirs: String::new(), ratio: String::new(), target, kept: None }
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1000.0)
}
