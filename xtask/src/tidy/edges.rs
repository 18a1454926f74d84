//! Which crate may use which: Cargo.toml files against ARCHITECTURE.md.
//!
//! The table is the fenced block marked `edges`: one line per crate,
//! `name -> name name`. A crate that isn't in it, or an edge that isn't, is a
//! problem; an allowed edge that nobody uses is not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;

use super::{Problem, SourceFile};

const TABLE: &str = "ARCHITECTURE.md";
const PREFIX: &str = "capsa-";

pub(crate) fn check(files: &[SourceFile]) -> anyhow::Result<Vec<Problem>> {
    let architecture = files
        .iter()
        .find(|file| file.named(TABLE))
        .with_context(|| format!("there is no {TABLE}"))?;
    let allowed = parse_table(&architecture.text);
    let mut problems = Vec::new();
    if allowed.is_empty() {
        problems.push(Problem::new(Path::new(TABLE), 1, "no fenced block `edges`"));
    }
    let manifests =
        files.iter().filter(|file| file.path.ends_with("Cargo.toml") && !file.named("Cargo.toml"));
    for manifest in manifests {
        problems.extend(check_manifest(manifest, &allowed));
    }
    Ok(problems)
}

type Edges = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn parse_table(text: &str) -> Edges {
    let rows = text
        .lines()
        .skip_while(|line| line.trim() != "```edges")
        .skip(1)
        .take_while(|line| !line.starts_with("```"));
    rows.filter_map(|row| {
        let (from, to) = row.split_once("->")?;
        Some((from.trim().to_owned(), to.split_whitespace().map(str::to_owned).collect()))
    })
    .collect()
}

fn check_manifest(manifest: &SourceFile, allowed: &Edges) -> Vec<Problem> {
    let folder = manifest.path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let name = folder.unwrap_or_default();
    let Some(targets) = allowed.get(name) else {
        return vec![Problem::new(
            &manifest.path,
            1,
            format!("crate {name} is not in {TABLE}'s edges"),
        )];
    };
    let unlinted = (!manifest.text.contains("[lints]\nworkspace = true\n"))
        .then(|| Problem::new(&manifest.path, 1, "the workspace's lints are not switched on"));
    let edges = dependencies(&manifest.text).filter_map(|(line, dependency)| {
        let target = dependency.strip_prefix(PREFIX)?;
        let message = format!("edge {name} -> {target} is not allowed by {TABLE}");
        (target != name && !targets.contains(target))
            .then(|| Problem::new(&manifest.path, line, message))
    });
    unlinted.into_iter().chain(edges).collect()
}

/// Every dependency of a manifest, of whatever kind, with its line.
pub(crate) fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    manifest.lines().enumerate().filter_map(move |(at, line)| {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').ends_with("dependencies");
            return None;
        }
        let end = line.find(['.', ' ', '=']).unwrap_or(line.len());
        (inside && end > 0 && !line.starts_with('#')).then(|| (at + 1, &line[..end]))
    })
}
