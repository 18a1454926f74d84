//! The number of `unsafe` in the tree may only fall by itself.
//!
//! It stands in a file, so that a change that needs one more says so in its
//! diff, where a reviewer sees it.

use std::path::Path;

use anyhow::Context as _;

use super::{Problem, SourceFile};

const FILE: &str = "xtask/unsafe.count";

pub(crate) fn check(files: &[SourceFile], count: usize) -> Option<Problem> {
    let recorded: Option<usize> =
        files.iter().find(|file| file.named(FILE)).and_then(|file| file.text.trim().parse().ok());
    let message = match recorded {
        Some(recorded) if recorded == count => return None,
        Some(recorded) if recorded > count => {
            format!(
                "{count} unsafe, {recorded} recorded: lower it with `cargo xtask tidy --ratchet`"
            )
        }
        Some(recorded) => format!(
            "{count} unsafe, {recorded} recorded: find a safe way, or raise the number and say why in the commit"
        ),
        None => "there is no number of unsafe blocks here".to_owned(),
    };
    Some(Problem::new(Path::new(FILE), 1, message))
}

/// Records `count`, unless that would raise the number.
pub(crate) fn lower(root: &Path, count: usize) -> anyhow::Result<()> {
    let path = root.join(FILE);
    let recorded = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    anyhow::ensure!(
        recorded.is_none_or(|recorded: usize| count <= recorded),
        "{count} unsafe is more than the {} recorded",
        recorded.unwrap_or_default()
    );
    std::fs::write(&path, format!("{count}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}
