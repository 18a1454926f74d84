//! Lines of progress in Docker's words.

use crate::view::Progress;

/// Between two reports of a layer, in bytes.
pub(super) const STEP: u64 = 1 << 20;

/// Gets lines, from several threads.
pub type OnLine<'a> = dyn Fn(Progress) + Sync + 'a;

/// What happens to a layer.
pub(super) fn layer_line(id: &str, status: &str) -> Progress {
    Progress { id: id.to_owned(), status: status.to_owned(), ..Progress::default() }
}

/// How far a layer is.
pub(super) fn counted(id: &str, status: &str, done: u64, total: u64) -> Progress {
    Progress { counted: Some((done, total)), ..layer_line(id, status) }
}

/// About the whole.
pub(super) fn plain(status: &str) -> Progress {
    layer_line("", status)
}

/// A line of text as it shall be printed.
pub(super) fn line(text: String) -> Progress {
    Progress { stream: Some(text + "\n"), ..Progress::default() }
}
