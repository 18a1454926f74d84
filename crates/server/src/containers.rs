//! Containers: create, list, inspect and the verbs that change one.

use std::collections::HashSet;

use capsa_api::json;
use capsa_api::types::{
    Change, ContainersPruned, CreateRequest, CreateResponse, HostConfig, TopResponse,
    UpdateResponse,
};
use capsa_engine::options::WaitCondition;
use capsa_engine::view::{ChangeKind, ContainerView};
use hyper::StatusCode;
use serde_json::Value;

use crate::convert::{create, inspect, resources, signal, summary};
use crate::error::{ApiError, Result};
use crate::filter::containers::{ContainerFilter, KEYS};
use crate::filter::prune::{self, PruneFilter};
use crate::reply::{self, Reply};
use crate::request::{AFTER, Call, DRY_RUN};
use crate::router::routes;
use crate::time;

const SIGKILL: i32 = 9;

routes! {
    GET "containers" "json" => list;
    POST "containers" "create" => create survives;
    POST "containers" "prune" => prune survives;
    GET "containers" "{}" "json" => show;
    POST "containers" "{}" "start" => start survives;
    POST "containers" "{}" "stop" => stop survives;
    POST "containers" "{}" "restart" => restart survives;
    POST "containers" "{}" "kill" => kill survives;
    POST "containers" "{}" "wait" => wait;
    POST "containers" "{}" "resize" => resize survives;
    POST "containers" "{}" "update" => update survives;
    POST "containers" "{}" "rename" => rename survives;
    POST "containers" "{}" "pause" => pause survives;
    POST "containers" "{}" "unpause" => unpause survives;
    GET "containers" "{}" "top" => top;
    GET "containers" "{}" "changes" => changes;
    DELETE "containers" "{}" => remove survives;
}

async fn list(call: Call) -> Result<Reply> {
    let filters = call.filters(KEYS)?;
    let limit = call.number("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let all = call.flag("all") || limit.is_some() || ContainerFilter::wants_all(&filters);
    let containers = call.engine.containers();
    let created =
        |key: String| async move { Ok(containers.inspect(&key, false).await?.created_ns) };
    let filter = ContainerFilter::new(filters, created).await?;
    let now = time::now_ns();
    let mut lines = Vec::new();
    for mut view in containers.list(all) {
        if lines.len() == limit.unwrap_or(usize::MAX) {
            break;
        }
        if !filter.passes(&view) {
            continue;
        }
        if call.flag("size") {
            match containers.inspect(&view.id, true).await {
                Ok(sized) => view = sized,
                Err(_gone) => continue,
            }
        }
        lines.push(summary::summary(&view, call.version, now));
    }
    Ok(reply::ok(&lines))
}

async fn create(call: Call) -> Result<Reply> {
    let (engine, cpus, name) = (call.engine.clone(), call.cpus, call.query("name").to_owned());
    let platform = call.query("platform").to_owned();
    let body = call.json_bytes().await?;
    let request = CreateRequest::from_slice(&body).map_err(|error| {
        if body.trim_ascii().is_empty() {
            ApiError::bad_request("invalid JSON: got EOF while reading request body")
        } else {
            ApiError::invalid_json(&error)
        }
    })?;
    check_platform(&platform)?;
    let plan = create::plan(&request, &name, cpus)?;
    let mut created = engine.containers().create(plan.spec).await?;
    for (network, join) in plan.joins {
        if let Err(error) = engine.networks().connect(&network, &created.id, join).await {
            // The container is of no use without its networks; what failed is what is told.
            let _ = engine.containers().remove(&created.id, true, true).await;
            return Err(error.into());
        }
    }
    created.warnings.extend(plan.warnings);
    let created = CreateResponse { id: created.id, warnings: created.warnings };
    Ok(reply::json(StatusCode::CREATED, &created))
}

/// Refuses a platform that this host can't run; nothing is emulated.
fn check_platform(text: &str) -> Result<()> {
    let mut parts = text.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next());
    let host = capsa_oci::Platform::host();
    let machine = match architecture {
        Some("x86_64" | "x86-64") => Some("amd64"),
        Some("aarch64") => Some("arm64"),
        other => other,
    };
    let fits = text.is_empty()
        || (os == host.os && machine.is_none_or(|m| m == host.architecture))
        || (machine.is_none() && os == host.architecture);
    if fits {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "no matching manifest for {text}: this host runs {}/{}",
        host.os, host.architecture
    )))
}

async fn show(call: Call) -> Result<Reply> {
    let view = call.engine.containers().inspect(&call.name, call.flag("size")).await?;
    Ok(reply::ok(&inspect::inspect(&view, call.version)))
}

async fn start(call: Call) -> Result<Reply> {
    if call.has("checkpoint") && !call.query("checkpoint").is_empty() {
        return Err(ApiError::not_implemented("checkpoints are not supported"));
    }
    Ok(reply::changed(call.engine.containers().start(&call.name).await?))
}

async fn stop(call: Call) -> Result<Reply> {
    let (signal, timeout) = (signal::optional(call.query("signal"))?, call.number("t")?);
    Ok(reply::changed(call.engine.containers().stop(&call.name, signal, timeout).await?))
}

async fn restart(call: Call) -> Result<Reply> {
    let (signal, timeout) = (signal::optional(call.query("signal"))?, call.number("t")?);
    call.engine.containers().restart(&call.name, signal, timeout).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn kill(call: Call) -> Result<Reply> {
    let signal = signal::optional(call.query("signal"))?.unwrap_or(SIGKILL);
    call.engine.containers().kill(&call.name, signal).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// The headers go out as soon as the wait is registered: a client starts the
/// container only then, and can't miss its end.
async fn wait(call: Call) -> Result<Reply> {
    let condition = match call.query("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::bad_request(format!("invalid condition: {other:?}"))),
    };
    let over = call.engine.containers().wait(&call.name, condition).await?;
    Ok(reply::later(async move {
        let exit = over.await;
        let error = exit.error.map(|message| capsa_api::types::WaitError { message });
        let answer = capsa_api::types::WaitResponse { status_code: i64::from(exit.code), error };
        let mut line = serde_json::to_vec(&answer).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }))
}

async fn resize(call: Call) -> Result<Reply> {
    let (rows, columns) = size_of(&call)?;
    call.engine.containers().resize(&call.name, rows, columns).await?;
    Ok(reply::empty(StatusCode::OK))
}

/// The `h` and `w` of a resize.
pub(crate) fn size_of(call: &Call) -> Result<(u16, u16)> {
    let number = |key: &str| match call.number(key)? {
        Some(n) => u16::try_from(n)
            .map_err(|_| ApiError::bad_request(format!("invalid resize: {key} is out of range"))),
        None => Err(ApiError::bad_request(format!("invalid resize: {key} is missing"))),
    };
    Ok((number("h")?, number("w")?))
}

async fn update(call: Call) -> Result<Reply> {
    let (engine, name, cpus) = (call.engine.clone(), call.name.clone(), call.cpus);
    let body: Value = call.json().await?;
    let host: HostConfig =
        json::from_value(body).map_err(|error| ApiError::invalid_json(&error))?;
    let limits = resources::changes(&host, cpus)?;
    let policy = match host.restart_policy.name.as_str() {
        "" => None,
        _ => Some(resources::restart_policy(&host.restart_policy)?),
    };
    let warnings = engine.containers().update(&name, limits, policy).await?;
    Ok(reply::ok(&UpdateResponse { warnings }))
}

async fn rename(call: Call) -> Result<Reply> {
    let Some(name) = create::checked_name(call.query("name"))? else {
        return Err(ApiError::bad_request("Neither old nor new names may be empty"));
    };
    call.engine.containers().rename(&call.name, &name).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn pause(call: Call) -> Result<Reply> {
    call.engine.containers().pause(&call.name).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn unpause(call: Call) -> Result<Reply> {
    call.engine.containers().unpause(&call.name).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn top(call: Call) -> Result<Reply> {
    let arguments = match call.query("ps_args") {
        "" => "-ef",
        text => text,
    };
    let (titles, processes) = call.engine.containers().top(&call.name, arguments).await?;
    Ok(reply::ok(&TopResponse { titles, processes }))
}

async fn changes(call: Call) -> Result<Reply> {
    let changes = call.engine.containers().changes(&call.name).await?;
    let lines: Vec<Change> = changes
        .into_iter()
        .map(|(kind, path)| {
            let kind = match kind {
                ChangeKind::Modified => 0,
                ChangeKind::Added => 1,
                ChangeKind::Deleted => 2,
            };
            Change { kind, path }
        })
        .collect();
    Ok(if lines.is_empty() { reply::ok(&Value::Null) } else { reply::ok(&lines) })
}

async fn remove(call: Call) -> Result<Reply> {
    if call.flag("link") {
        return Err(ApiError::bad_request("links between containers are not supported"));
    }
    call.engine.containers().remove(&call.name, call.flag("force"), call.flag("v")).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// The containers that a rehearsal takes for gone, by the filters of its own request.
pub(crate) fn gone_before(call: &Call) -> Result<HashSet<String>> {
    if call.query(AFTER) != "containers" {
        return Ok(HashSet::new());
    }
    let filter = PruneFilter::new(call.filters(&["label", "label!", "until", "dangling", "all"])?)?;
    let gone = call.engine.containers().rehearse_prune(|view| pruned_by(&filter, view))?;
    Ok(gone.removed.into_iter().collect())
}

fn pruned_by(filter: &PruneFilter, view: &ContainerView) -> bool {
    filter.takes(&view.resolved.labels, view.created_ns)
}

async fn prune(call: Call) -> Result<Reply> {
    let filter = PruneFilter::new(call.filters(prune::KEYS)?)?;
    let choose = move |view: &ContainerView| pruned_by(&filter, view);
    let containers = call.engine.containers();
    let pruned = match call.flag(DRY_RUN) {
        true => containers.rehearse_prune(choose)?,
        false => containers.prune(choose).await?,
    };
    let containers_deleted = (!pruned.removed.is_empty()).then_some(pruned.removed);
    Ok(reply::ok(&ContainersPruned { containers_deleted, space_reclaimed: pruned.bytes }))
}
