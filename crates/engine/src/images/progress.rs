//! Lines of progress in Docker's words.

use crate::view::Progress;

/// Between two reports of a layer, in bytes.
const STEP: u64 = 1 << 20;
/// A report is made when the first read after a step has come.
const READ: u64 = 64 * 1024;

/// Gets lines, from several threads.
pub type OnLine<'a> = dyn Fn(Progress) + Sync + 'a;

/// What happens to a layer.
pub(super) fn layer_line(id: &str, status: &str) -> Progress {
    Progress { id: id.to_owned(), status: status.to_owned(), ..Progress::default() }
}

/// Tells how far a layer is, when it is far enough from the last time.
pub(super) fn report(tell: &OnLine<'_>, id: &str, status: &str, done: u64, total: u64) {
    if done == total || done % STEP < READ {
        tell(Progress { counted: Some((done, total)), ..layer_line(id, status) });
    }
}

/// About the whole.
pub(super) fn plain(status: &str) -> Progress {
    layer_line("", status)
}

/// A line of text as it shall be printed.
pub(super) fn line(text: String) -> Progress {
    Progress { stream: Some(text + "\n"), ..Progress::default() }
}
