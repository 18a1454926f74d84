//! How an image came to be: one line for each step, newest first.

use capsa_oci::{Digest, chain_id};
use jiff::Timestamp;

use super::Images;
use crate::Result;
use crate::image_ops::HistoryView;

impl Images {
    /// The steps of an image.
    pub(crate) fn history(&self, key: &str) -> Result<Vec<HistoryView>> {
        let view = self.inspect(key)?;
        let diff_ids = &view.config.rootfs.diff_ids;
        let mut sizes = (1..=diff_ids.len()).map(|count| self.layer_size(&diff_ids[..count]));
        let mut steps = Vec::new();
        for step in &view.config.history {
            let size = if step.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
            let created = step.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
            steps.push(HistoryView {
                id: None,
                created_s: created.map_or(0, |time| time.as_second()),
                created_by: step.created_by.clone().unwrap_or_default(),
                tags: Vec::new(),
                size,
                comment: step.comment.clone().unwrap_or_default(),
            });
        }
        // Layers that no step tells of are shown too.
        for size in sizes {
            let (created_by, comment) = (String::new(), String::new());
            steps.push(HistoryView {
                id: None,
                created_s: 0,
                created_by,
                tags: Vec::new(),
                size,
                comment,
            });
        }
        steps.reverse();
        if let Some(newest) = steps.first_mut() {
            newest.id = Some(view.id);
            newest.tags = view.tags;
        }
        Ok(steps)
    }

    fn layer_size(&self, diff_ids: &[Digest]) -> u64 {
        let size =
            chain_id(diff_ids).and_then(|chain| self.store.layer_size(&chain).ok().flatten());
        size.unwrap_or(0)
    }
}
