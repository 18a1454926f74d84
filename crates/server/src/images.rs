//! Images: list, inspect, move in and out, tag, remove, commit.

use std::future::Future;

use capsa_api::types::{
    ErrorDetail, HistoryItem, IdResponse, ImageDeleted, ImagesPruned, JsonMessage,
};
use capsa_engine::image_ops::Removed;
use capsa_engine::options::{CommitOptions, RegistryOptions};
use capsa_engine::view::{ImageView, Progress};
use capsa_oci::{Digest, Reference};
use hyper::StatusCode;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::containers::gone_before;
use crate::convert::image;
use crate::convert::registry::{credentials, platform};
use crate::error::{ApiError, Result};
use crate::filter::boolean;
use crate::filter::images::{ImageFilter, KEYS};
use crate::filter::prune::PruneFilter;
use crate::reply::{self, Reply, ReplyBody};
use crate::request::{Call, DRY_RUN};
use crate::router::routes;

const TAR: &str = "application/x-tar";
const NS: i64 = 1_000_000_000;

routes! {
    GET "images" "json" => list;
    POST "images" "create" => create;
    POST "images" "load" => load;
    POST "images" "prune" => prune survives;
    GET "images" "search" => search;
    GET "images" "get" => save_many;
    GET "images" "{*}" "json" => show;
    GET "images" "{*}" "history" => history;
    GET "images" "{*}" "get" => save_one;
    POST "images" "{*}" "tag" => tag survives;
    POST "images" "{*}" "push" => push;
    DELETE "images" "{*}" => remove survives;
    POST "commit" => commit survives;
}

async fn list(call: Call) -> Result<Reply> {
    let images = call.engine.images();
    let created = |key: String| async move { Ok(image::created_s(&images.inspect(&key).await?)) };
    let filter = ImageFilter::new(call.filters(KEYS)?, created).await?;
    let usage = match call.flag("shared-size") {
        true => Some(images.usage().await?),
        false => None,
    };
    let mut lines = Vec::new();
    for mut view in images.list().await? {
        if filter.passes(&view) && filter.choose_names(&mut view) {
            let mut line = image::summary(&view, call.version);
            if let Some(usage) = &usage {
                line.shared_size = image::shared_size(usage, &view);
            }
            lines.push(line);
        }
    }
    Ok(reply::ok(&lines))
}

async fn show(call: Call) -> Result<Reply> {
    let view = call.engine.images().inspect(&call.name).await?;
    Ok(reply::ok(&image::inspect(&view, call.version)))
}

async fn history(call: Call) -> Result<Reply> {
    let steps = call.engine.images().history(&call.name).await?;
    Ok(reply::ok(&steps.iter().map(image::history).collect::<Vec<HistoryItem>>()))
}

/// Pull or import; which one is said by the query.
async fn create(call: Call) -> Result<Reply> {
    match (call.query("fromImage"), call.query("fromSrc")) {
        ("", "") => Err(ApiError::bad_request("either fromImage or fromSrc must be given")),
        ("", "-") => import(call).await,
        ("", _) => Err(ApiError::not_implemented(
            "importing from an address is not supported; send the archive instead",
        )),
        (name, _) => {
            let options = RegistryOptions {
                reference: reference(name, call.query("tag"))?,
                platform: platform(call.query("platform"))?,
                credentials: credentials(&call),
            };
            let engine = call.engine.clone();
            moving(move |progress| async move { engine.images().pull(options, progress).await })
                .await
        }
    }
}

async fn import(call: Call) -> Result<Reply> {
    let name = match call.query("repo") {
        "" => None,
        repo => Some(reference(repo, call.query("tag"))?.with_default_tag()),
    };
    let changes: Vec<String> = call.all("changes").map(str::to_owned).collect();
    let message = call.query("message").to_owned();
    let engine = call.engine.clone();
    let id = engine.images().import(call.upload(), name, changes, message).await?;
    Ok(reply::ok(&JsonMessage { status: id.to_string(), ..JsonMessage::default() }))
}

async fn load(call: Call) -> Result<Reply> {
    let (engine, quiet) = (call.engine.clone(), call.flag("quiet"));
    let archive = call.upload();
    moving(move |progress| async move {
        if !quiet {
            return engine.images().load(archive, progress).await;
        }
        let (all, mut received) = unbounded_channel::<Progress>();
        let loading = engine.images().load(archive, all);
        let choosing = async {
            while let Some(line) = received.recv().await {
                if line.stream.is_some() {
                    let _ = progress.send(line);
                }
            }
        };
        tokio::join!(loading, choosing).0
    })
    .await
}

async fn save_many(call: Call) -> Result<Reply> {
    let names: Vec<String> =
        call.all("names").flat_map(|n| n.split(',')).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(ApiError::bad_request("no image named: names is empty"));
    }
    Ok(reply::stream(TAR, ReplyBody::Stream(call.engine.images().save(names).await?)))
}

async fn save_one(call: Call) -> Result<Reply> {
    let tar = call.engine.images().save(vec![call.name.clone()]).await?;
    Ok(reply::stream(TAR, ReplyBody::Stream(tar)))
}

async fn tag(call: Call) -> Result<Reply> {
    let reference = reference(call.query("repo"), call.query("tag"))?.with_default_tag();
    if reference.digest().is_some() {
        return Err(ApiError::bad_request("refusing to create a tag with a digest reference"));
    }
    call.engine.images().tag(&call.name, &reference).await?;
    Ok(reply::empty(StatusCode::CREATED))
}

async fn remove(call: Call) -> Result<Reply> {
    let (force, prune) = (call.flag("force"), !call.flag("noprune"));
    if call.flag(DRY_RUN) {
        let images = call.engine.images();
        let (steps, bytes) = images.rehearse_removal(&call.name, force, prune).await?;
        return Ok(reply::ok(&pruned(steps, bytes)));
    }
    let removed = call.engine.images().remove(&call.name, force, prune).await?;
    Ok(reply::ok(&shown(removed)))
}

async fn prune(call: Call) -> Result<Reply> {
    let filters = call.filters(&["label", "label!", "until", "dangling"])?;
    let all = boolean(&filters, "dangling")? == Some(false);
    let filter = PruneFilter::new(filters)?;
    let choose = move |view: &ImageView| {
        let labels = view.config.config.as_ref().and_then(|c| c.labels.clone()).unwrap_or_default();
        filter.takes(&labels, image::created_s(view).saturating_mul(NS))
    };
    let images = call.engine.images();
    let (removed, gone) = match call.flag(DRY_RUN) {
        true => images.rehearse_prune(all, choose, &gone_before(&call)?).await?,
        false => images.prune(all, choose).await?,
    };
    Ok(reply::ok(&pruned(removed, gone.bytes)))
}

fn pruned(removed: Vec<Removed>, bytes: u64) -> ImagesPruned {
    let images_deleted = (!removed.is_empty()).then(|| shown(removed));
    ImagesPruned { images_deleted, space_reclaimed: bytes }
}

async fn commit(call: Call) -> Result<Reply> {
    let container = call.query("container").to_owned();
    if container.is_empty() {
        return Err(ApiError::bad_request("no container named: container is empty"));
    }
    let name = match call.query("repo") {
        "" => None,
        repo => Some(reference(repo, call.query("tag"))?.with_default_tag().familiar()),
    };
    let options = CommitOptions {
        reference: name,
        author: call.query("author").to_owned(),
        message: call.query("comment").to_owned(),
        changes: call.all("changes").flat_map(str::lines).map(str::to_owned).collect(),
        pause: call.flag_or("pause", true),
    };
    let id: Digest = call.engine.images().commit(&container, options).await?;
    Ok(reply::json(StatusCode::CREATED, &IdResponse { id: id.to_string() }))
}

async fn search(_call: Call) -> Result<Reply> {
    Err(ApiError::not_implemented("searching registries is not supported"))
}

async fn push(call: Call) -> Result<Reply> {
    let reference = reference(&call.name, call.query("tag"))?;
    let options = RegistryOptions {
        reference,
        platform: platform(call.query("platform"))?,
        credentials: credentials(&call),
    };
    let engine = call.engine.clone();
    moving(move |progress| async move { engine.images().push(options, progress).await }).await
}

/// A name and a tag, which may be a digest, as one reference.
fn reference(name: &str, tag: &str) -> Result<Reference> {
    let text = match tag {
        "" => name.to_owned(),
        tag if tag.contains(':') => format!("{name}@{tag}"),
        tag => format!("{}:{tag}", name_without_tag(name)),
    };
    Reference::parse(&text).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// Where both name and tag have a tag, the tag's own parameter wins.
fn name_without_tag(name: &str) -> &str {
    let start = name.rfind('/').map_or(0, |at| at + 1);
    name[start..].find(':').map_or(name, |at| &name[..start + at])
}

fn shown(removed: Vec<Removed>) -> Vec<ImageDeleted> {
    removed.into_iter().map(image::removed).collect()
}

/// Runs something that reports progress. What fails before the first line is an
/// ordinary error; after it, a line.
async fn moving<F, Work>(start: F) -> Result<Reply>
where
    F: FnOnce(UnboundedSender<Progress>) -> Work,
    Work: Future<Output = capsa_engine::Result<()>> + Send + 'static,
{
    let (progress, mut received) = unbounded_channel();
    let mut work = Box::pin(start(progress));
    let mut outcome = None;
    let first = tokio::select! {
        biased;
        // Nobody is left to report when the work is done.
        Some(line) = received.recv() => Some(line),
        done = &mut work => {
            done?;
            outcome = Some(Ok(()));
            received.recv().await
        }
    };
    let (lines, body) = unbounded_channel();
    if let Some(first) = first {
        send(&lines, &image::progress(first));
    }
    tokio::spawn(async move {
        let finished = tokio::select! {
            finished = report(work, outcome, received, &lines) => finished,
            () = lines.closed() => return,
        };
        if let Err(error) = finished {
            let message = error.to_string();
            let error_detail = Some(ErrorDetail { code: 0, message: message.clone() });
            send(&lines, &JsonMessage { error_detail, error: message, ..JsonMessage::default() });
        }
    });
    Ok(reply::stream("application/json", ReplyBody::Lines(body)))
}

async fn report(
    mut work: std::pin::Pin<Box<impl Future<Output = capsa_engine::Result<()>>>>,
    mut outcome: Option<capsa_engine::Result<()>>,
    mut received: UnboundedReceiver<Progress>,
    lines: &UnboundedSender<bytes::Bytes>,
) -> capsa_engine::Result<()> {
    loop {
        tokio::select! {
            biased;
            line = received.recv() => match line {
                Some(line) => send(lines, &image::progress(line)),
                None => return match outcome {
                    Some(outcome) => outcome,
                    None => work.await,
                },
            },
            done = &mut work, if outcome.is_none() => outcome = Some(done),
        }
    }
}

fn send(lines: &UnboundedSender<bytes::Bytes>, message: &JsonMessage) {
    if let Ok(mut line) = serde_json::to_vec(message) {
        line.extend_from_slice(b"\r\n");
        // A client that left ends the work, not this line.
        let _ = lines.send(line.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_parameter_may_be_a_tag_or_a_digest() {
        let digest = Digest::sha256(b"x");
        let text = |name: &str, tag: &str| reference(name, tag).unwrap().familiar();
        assert_eq!(text("busybox", "1"), "busybox:1");
        assert_eq!(text("host:5000/a:old", "new"), "host:5000/a:new");
        assert_eq!(text("a", digest.as_str()), format!("a@{digest}"));
        assert_eq!(text("a:1", ""), "a:1");
        assert_eq!(reference("A", "").unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
