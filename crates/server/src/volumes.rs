//! Volumes: create, list, inspect, remove, prune.

use capsa_api::types::{VolumeList, VolumesPruned};
use hyper::StatusCode;

use crate::containers::gone_before;
use crate::convert::volume;
use crate::error::{ApiError, Result};
use crate::filter::boolean;
use crate::filter::prune::PruneFilter;
use crate::filter::volumes::{KEYS, VolumeFilter};
use crate::reply::{self, Reply};
use crate::request::{Call, DRY_RUN};
use crate::router::routes;

routes! {
    GET "volumes" => list;
    POST "volumes" "create" => create survives;
    POST "volumes" "prune" => prune survives;
    GET "volumes" "{}" => show;
    DELETE "volumes" "{}" => remove survives;
    PUT "volumes" "{}" => update;
}

async fn list(call: Call) -> Result<Reply> {
    let filter = VolumeFilter::new(call.filters(KEYS)?)?;
    let volumes = call.engine.volumes();
    let shown = volumes
        .list()?
        .iter()
        .filter(|view| filter.passes(view, || !volumes.users(&view.name).is_empty()))
        .map(volume::show)
        .collect();
    Ok(reply::ok(&VolumeList { volumes: shown, warnings: None }))
}

async fn create(call: Call) -> Result<Reply> {
    let engine = call.engine.clone();
    let request = volume::create(call.json_or_default().await?)?;
    let view = engine.volumes().create(request).await?;
    Ok(reply::json(StatusCode::CREATED, &volume::show(&view)))
}

async fn show(call: Call) -> Result<Reply> {
    Ok(reply::ok(&volume::show(&call.engine.volumes().inspect(&call.name)?)))
}

async fn remove(call: Call) -> Result<Reply> {
    call.engine.volumes().remove(&call.name, call.flag("force")).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Since 1.42 only anonymous volumes go, unless `all` is asked for.
async fn prune(call: Call) -> Result<Reply> {
    let filters = call.filters(&["label", "label!", "all"])?;
    let all = boolean(&filters, "all")?.unwrap_or(!call.version.at_least(42));
    let filter = PruneFilter::new(filters)?;
    let choose = move |view: &capsa_engine::view::VolumeView| {
        (all || view.anonymous) && filter.takes(&view.labels, view.created_ns)
    };
    let volumes = call.engine.volumes();
    let pruned = match call.flag(DRY_RUN) {
        true => volumes.rehearse_prune(choose, &gone_before(&call)?)?,
        false => volumes.prune(choose).await?,
    };
    let volumes_deleted = (!pruned.removed.is_empty()).then_some(pruned.removed);
    Ok(reply::ok(&VolumesPruned { volumes_deleted, space_reclaimed: pruned.bytes }))
}

async fn update(_call: Call) -> Result<Reply> {
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, crate::error::NO_SWARM))
}
