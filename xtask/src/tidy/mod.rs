//! `cargo xtask tidy`: the rules of the tree that the compiler doesn't know.
//!
//! Each check is a function from the tree to problems; none stops at the
//! first, so one run shows everything. The rules with their reasons are in
//! STYLE.md, the table of edges in ARCHITECTURE.md.
//! Not here: what rustfmt and clippy already check.

mod documents;
mod edges;
mod masked;
mod ratchet;
mod rules;
mod shape;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::tree;
use masked::Masked;

/// One breach of a rule, printed as `path:line: message`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    path: PathBuf,
    line: usize,
    message: String,
}

impl Problem {
    fn new(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

/// A text file of the project.
pub(crate) struct SourceFile {
    path: PathBuf,
    text: String,
}

impl SourceFile {
    fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rs")
    }

    fn under(&self, directory: &str) -> bool {
        self.path.starts_with(directory)
    }

    fn named(&self, path: &str) -> bool {
        self.path == Path::new(path)
    }
}

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let root = tree::root()?;
    let files = read_text_files(&root)?;
    let mut problems = Vec::new();
    let mut shape = shape::Shape::default();
    let mut unsafe_blocks = 0;
    for file in &files {
        problems.extend(documents::whitespace(file));
        problems.extend(documents::workplace_paths(file));
        if file.is_rust() {
            let masked = Masked::new(&file.text);
            problems.extend(rules::check(file, &masked));
            problems.extend(shape.check(file, &masked));
            unsafe_blocks += rules::count_unsafe(&masked);
        }
    }
    problems.extend(edges::check(&files)?);
    problems.extend(documents::dependencies(&files)?);
    problems.extend(documents::changelog(&files));
    if arguments.iter().any(|argument| argument == "--ratchet") {
        ratchet::lower(&root, unsafe_blocks)?;
    } else {
        problems.extend(ratchet::check(&files, unsafe_blocks));
    }
    Ok(report(problems, &shape, unsafe_blocks))
}

fn report(mut problems: Vec<Problem>, shape: &shape::Shape, unsafe_blocks: usize) -> ExitCode {
    problems.sort();
    for problem in &problems {
        println!("{problem}");
    }
    println!("tidy: {shape}; {unsafe_blocks} unsafe; {} problems", problems.len());
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads every file that is UTF-8; anything else (a picture, a fixture) has
/// no lines to check.
fn read_text_files(root: &Path) -> anyhow::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for path in tree::files(root)? {
        let bytes = std::fs::read(root.join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(SourceFile { path, text });
        }
    }
    Ok(files)
}
