//! Keeping the store under a size: the images that were not used for the longest time go,
//! as far as it takes.
//!
//! What a container uses never goes, nor what just came, nor what was used a short while
//! ago: whoever pulled it may be about to run it. So the store may stay above its mark;
//! it is looked at again after the next image that comes.

use std::sync::PoisonError;

use capsa_oci::Digest;

use super::Images;
use super::plan::Step;
use crate::image_ops::Removed;
use crate::options::ImageStoreMark;
use crate::{Result, clock};

impl Images {
    /// Removes the least recently used images, but for `keep`, until blobs and layers
    /// together are within the mark.
    ///
    /// # Errors
    /// When the store fails.
    pub fn trim(&self, mark: &ImageStoreMark, keep: &[Digest]) -> Result<Vec<Removed>> {
        // Two at once would both make room for the same bytes.
        let _alone = self.shared.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed = Vec::new();
        for step in self.plan_trim(mark, keep, clock::now_ns())? {
            self.apply(&step, &mut removed)?;
        }
        if !removed.is_empty() {
            self.sweep()?;
        }
        Ok(removed)
    }

    fn plan_trim(&self, mark: &ImageStoreMark, keep: &[Digest], now_ns: i64) -> Result<Vec<Step>> {
        let usage = self.store.disk_usage()?;
        let total = usage.blob_bytes + usage.layer_bytes;
        let mut steps = Vec::new();
        if total <= mark.max_bytes {
            return Ok(steps);
        }
        let newest_ns = now_ns.saturating_sub(mark.idle_ns);
        for (used_ns, id) in self.by_last_use()? {
            if total.saturating_sub(self.bytes_after(&steps)?) <= mark.max_bytes {
                break;
            }
            if used_ns <= newest_ns && !keep.contains(&id) {
                let names = self.store.tags_of(&id)?;
                steps.push(Step::Erase(id, names));
            }
        }
        Ok(steps)
    }

    /// Images that no container uses, the one whose last use is longest ago first.
    fn by_last_use(&self) -> Result<Vec<(i64, Digest)>> {
        let uses = self.store.image_uses()?;
        let unused = self.list()?.into_iter().filter(|view| view.containers == 0);
        let mut dated: Vec<(i64, Digest)> = unused
            .map(|view| {
                let used_ns = uses.get(&view.id).copied().unwrap_or(0);
                (used_ns.max(view.last_tagged_ns), view.id)
            })
            .collect();
        dated.sort_unstable_by(|a, b| (a.0, a.1.as_str()).cmp(&(b.0, b.1.as_str())));
        Ok(dated)
    }
}
