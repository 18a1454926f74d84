//! Checks of text files that aren't about Rust.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;

use super::{Problem, SourceFile, edges};

/// Directories of whoever works here must not get into the project. Written
/// in halves, so that this file passes its own check.
const WORKPLACE: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/tmp/ta", "rget-"), concat!("/home", "/")];

const LISTED: &str = "docs/dependencies.md";

pub(crate) fn whitespace(file: &SourceFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    if is_data(file) {
        return problems;
    }
    for (at, line) in file.text.lines().enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            problems.push(Problem::new(&file.path, at + 1, "white space at the end of the line"));
        }
        if line.contains('\t') {
            problems.push(Problem::new(&file.path, at + 1, "tab: indent with spaces"));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        let last = file.text.lines().count();
        problems.push(Problem::new(&file.path, last, "no newline at the end of the file"));
    }
    problems
}

/// Fixtures and JSON tables are somebody else's bytes.
fn is_data(file: &SourceFile) -> bool {
    file.path.components().any(|part| part.as_os_str() == "fixtures")
        || file.path.extension().is_some_and(|extension| extension == "json")
}

pub(crate) fn workplace_paths(file: &SourceFile) -> Vec<Problem> {
    let lines = file.text.lines().enumerate();
    lines
        .filter_map(|(at, line)| {
            let found = WORKPLACE.iter().find(|path| begins_a_path(line, path))?;
            let message =
                format!("{found} is somebody's own: use a path of the project or a temporary one");
            Some(Problem::new(&file.path, at + 1, message))
        })
        .collect()
}

/// Whether `path` stands in `line` where an absolute path would begin.
fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| before.is_whitespace() || "\"'`(=:,".contains(before))
    })
}

/// Each crate of `[workspace.dependencies]` has a row that says its job and
/// why it was taken, each row has its crate, and each crate is used.
pub(crate) fn dependencies(files: &[SourceFile]) -> anyhow::Result<Vec<Problem>> {
    let text_of = |path: &str| {
        let file = files.iter().find(|file| file.named(path));
        file.map(|file| file.text.as_str()).with_context(|| format!("there is no {path}"))
    };
    let used = workspace_dependencies(text_of("Cargo.toml")?);
    let listed = listed_crates(text_of(LISTED)?);
    let missing = used.iter().filter(|(_, name)| !listed.iter().any(|(_, row)| row == name)).map(
        |(line, name)| {
            Problem::new(Path::new("Cargo.toml"), *line, format!("{name} has no row in {LISTED}"))
        },
    );
    let stale = listed.iter().filter(|(_, row)| !used.iter().any(|(_, name)| name == row)).map(
        |(line, row)| {
            Problem::new(Path::new(LISTED), *line, format!("{row} is no dependency any more"))
        },
    );
    let in_use: BTreeSet<&str> = files
        .iter()
        .filter(|file| file.path.ends_with("Cargo.toml") && !file.named("Cargo.toml"))
        .flat_map(|manifest| edges::dependencies(&manifest.text))
        .map(|(_, name)| name)
        .collect();
    let unused = used.iter().filter(|(_, name)| !in_use.contains(name)).map(|(line, name)| {
        Problem::new(Path::new("Cargo.toml"), *line, format!("no crate uses {name}: remove it"))
    });
    Ok(missing.chain(stale).chain(unused).collect())
}

fn workspace_dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let lines =
        manifest.lines().enumerate().skip_while(|(_, line)| *line != "[workspace.dependencies]");
    lines
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['))
        .filter_map(|(at, line)| {
            let (name, _) = line.split_once('=')?;
            let name = name.trim();
            (!name.starts_with("capsa-") && !name.starts_with('#')).then_some((at + 1, name))
        })
        .collect()
}

/// The names in the first column of the tables, written in backquotes.
fn listed_crates(page: &str) -> Vec<(usize, &str)> {
    page.lines()
        .enumerate()
        .filter_map(|(at, line)| {
            let name = line.strip_prefix("| `")?.split('`').next()?;
            Some((at + 1, name))
        })
        .collect()
}

pub(crate) fn changelog(files: &[SourceFile]) -> Option<Problem> {
    let path = "CHANGELOG.md";
    let file = files.iter().find(|file| file.named(path));
    let good = file.is_some_and(|file| file.text.lines().any(|line| line == "## [Unreleased]"));
    (!good).then(|| Problem::new(Path::new(path), 1, "there is no section `## [Unreleased]`"))
}
