//! How long functions and files are.
//!
//! Lengths are whole lines from `fn` to the closing brace, comments and all:
//! what a reader has to scroll. A file that is one table of data may be
//! longer, with the reason beside its name.

use std::fmt;

use super::masked::Masked;
use super::{Problem, SourceFile};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 700;

/// Files that may be longer, or hold a longer function, each with its reason.
const LONG: &[(&str, &str)] = &[];

/// The lengths of all functions seen so far.
#[derive(Default)]
pub(crate) struct Shape {
    functions: Vec<usize>,
    files: usize,
}

impl Shape {
    /// Measures one file and answers what is too long in it.
    pub(crate) fn check(&mut self, file: &SourceFile, masked: &Masked) -> Vec<Problem> {
        let exempt = LONG.iter().any(|(path, _)| file.named(path));
        let mut problems = Vec::new();
        let lines = file.text.lines().count();
        self.files += 1;
        if lines > FILE_LINES_MAX && !exempt {
            let message =
                format!("file has {lines} lines, at most {FILE_LINES_MAX}: split it by idea");
            problems.push(Problem::new(&file.path, lines, message));
        }
        for function in functions(masked) {
            self.functions.push(function.lines);
            if function.lines > FUNCTION_LINES_MAX && !exempt {
                let message = format!(
                    "function {} has {} lines, at most {FUNCTION_LINES_MAX}: move straight-line parts out",
                    function.name, function.lines
                );
                problems.push(Problem::new(&file.path, function.line, message));
            }
        }
        problems
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lengths = self.functions.clone();
        lengths.sort_unstable();
        let at = |percent: usize| lengths.get(lengths.len() * percent / 100).copied().unwrap_or(0);
        let longest = lengths.last().copied().unwrap_or(0);
        write!(
            f,
            "{} files, {} functions (median {}, p90 {}, longest {longest} lines)",
            self.files,
            lengths.len(),
            at(50),
            at(90),
        )
    }
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// Every function of a file that has a body, nested ones too.
pub(crate) fn functions(masked: &Masked) -> Vec<Function> {
    let words: Vec<(usize, &str)> = masked.words().collect();
    let names = words.windows(2).filter(|pair| pair[0].1 == "fn" && follows(masked, pair));
    names
        .filter_map(|pair| {
            let (start, name) = (pair[0].0, pair[1].1);
            let end = masked.block_after(pair[1].0)?;
            let line = masked.line_of(start);
            Some(Function { name: name.to_owned(), line, lines: masked.line_of(end) - line + 1 })
        })
        .collect()
}

/// Whether only white space lies between `fn` and the next word: a function
/// pointer type has a bracket there.
fn follows(masked: &Masked, pair: &[(usize, &str)]) -> bool {
    let between = &masked.code()[pair[0].0 + pair[0].1.len()..pair[1].0];
    between.chars().all(char::is_whitespace)
}
