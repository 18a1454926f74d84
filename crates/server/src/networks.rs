//! Networks: create, list, inspect, connect, disconnect, remove, prune.

use capsa_api::types::{
    NetworkConnect, NetworkCreate, NetworkCreated, NetworkDisconnect, NetworksPruned,
};
use hyper::StatusCode;

use crate::containers::gone_before;
use crate::convert::network;
use crate::error::{ApiError, Result};
use crate::filter::networks::{KEYS, NetworkFilter, is_predefined};
use crate::filter::prune::{self, PruneFilter};
use crate::reply::{self, Reply};
use crate::request::{Call, DRY_RUN};
use crate::router::routes;

routes! {
    GET "networks" => list;
    POST "networks" "create" => create survives;
    POST "networks" "prune" => prune survives;
    GET "networks" "{}" => show;
    DELETE "networks" "{}" => remove survives;
    POST "networks" "{}" "connect" => connect survives;
    POST "networks" "{}" "disconnect" => disconnect survives;
}

async fn list(call: Call) -> Result<Reply> {
    let filter = NetworkFilter::new(call.filters(KEYS)?)?;
    let views = call.engine.networks().list()?;
    let shown: Vec<_> =
        views.iter().filter(|v| filter.passes(v)).map(|v| network::show(v, false)).collect();
    Ok(reply::ok(&shown))
}

async fn show(call: Call) -> Result<Reply> {
    if !matches!(call.query("scope"), "" | "local") {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            format!("network {} not found", call.name),
        ));
    }
    let view = call.engine.networks().inspect(&call.name)?;
    Ok(reply::ok(&network::show(&view, true)))
}

async fn create(call: Call) -> Result<Reply> {
    let engine = call.engine.clone();
    let request = network::create(call.json::<NetworkCreate>().await?)?;
    let id = engine.networks().create(request).await?;
    Ok(reply::json(StatusCode::CREATED, &NetworkCreated { id, warning: String::new() }))
}

async fn remove(call: Call) -> Result<Reply> {
    call.engine.networks().remove(&call.name).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn connect(call: Call) -> Result<Reply> {
    let (engine, name) = (call.engine.clone(), call.name.clone());
    let body: NetworkConnect = call.json().await?;
    let join = network::connect(&body.endpoint_config.unwrap_or_default())?;
    engine.networks().connect(&name, &body.container, join).await?;
    Ok(reply::empty(StatusCode::OK))
}

async fn disconnect(call: Call) -> Result<Reply> {
    let (engine, name) = (call.engine.clone(), call.name.clone());
    let body: NetworkDisconnect = call.json().await?;
    engine.networks().disconnect(&name, &body.container, body.force).await?;
    Ok(reply::empty(StatusCode::OK))
}

async fn prune(call: Call) -> Result<Reply> {
    let filter = PruneFilter::new(call.filters(prune::KEYS)?)?;
    let choose = move |view: &capsa_engine::view::NetworkView| {
        !is_predefined(view) && filter.takes(&view.labels, view.created_ns)
    };
    let networks = call.engine.networks();
    let pruned = match call.flag(DRY_RUN) {
        true => networks.rehearse_prune(choose, &gone_before(&call)?),
        false => networks.prune(choose).await?,
    };
    let networks_deleted = (!pruned.removed.is_empty()).then_some(pruned.removed);
    Ok(reply::ok(&NetworksPruned { networks_deleted }))
}
