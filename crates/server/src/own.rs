//! What only this engine has, under `/capsa`, where no path of Docker's can ever be.

use capsa_api::types::{ImageDifference, ImageTree, ImageTreeLayer, WastedPath};
use capsa_engine::image_ops::{ChangeKind, Difference, TreeLayer, TreeView};

use crate::error::{ApiError, Result};
use crate::reply::{self, Reply};
use crate::request::Call;
use crate::router::routes;

routes! {
    GET "capsa" "images" "{*}" "tree" => tree;
    GET "capsa" "images" "{*}" "diff" => diff;
}

async fn tree(call: Call) -> Result<Reply> {
    let view = call.engine.images().tree(&call.name).await?;
    Ok(reply::ok(&shown(&view)))
}

async fn diff(call: Call) -> Result<Reply> {
    let with = call.query("with");
    if with.is_empty() {
        return Err(ApiError::bad_request("no image to compare with: with is empty"));
    }
    let found = call.engine.images().differences(&call.name, with).await?;
    Ok(reply::ok(&found.iter().map(difference).collect::<Vec<_>>()))
}

fn shown(view: &TreeView) -> ImageTree {
    let wasted = view.largest.iter().map(|hidden| WastedPath {
        path: hidden.path.to_string_lossy().into_owned(),
        size: hidden.bytes,
        times: hidden.times,
    });
    ImageTree {
        id: view.id.to_string(),
        size: view.size,
        wasted: view.wasted,
        layers: view.layers.iter().map(layer).collect(),
        largest: wasted.collect(),
    }
}

fn layer(layer: &TreeLayer) -> ImageTreeLayer {
    ImageTreeLayer {
        diff_id: layer.diff_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        size: layer.size,
        created_by: layer.created_by.clone(),
        added: layer.effect.added,
        changed: layer.effect.changed,
        deleted: layer.effect.deleted,
        wasted: layer.effect.hidden_bytes,
    }
}

fn difference(found: &Difference) -> ImageDifference {
    ImageDifference {
        path: found.path.to_string_lossy().into_owned(),
        kind: match found.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        },
        before: found.before,
        after: found.after,
    }
}
