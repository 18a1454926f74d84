//! Images: list, remove, tag, history, load, save.

use std::fs::File;
use std::io::{self, Write};
use std::rc::Rc;

use capsa_api::encoding::{encode, with_query};
use capsa_api::types::{HistoryItem, ImageDeleted, ImageSummary, ImagesPruned};
use capsa_api::{Client, Payload};
use capsa_oci::Reference;
use hyper::Method;

use super::progress::{Shown, follow};
use super::ps::lookup;
use super::{Outcome, each_argument, filters};
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format::{Format, Titles, row};
use crate::output::terminal;
use crate::output::time::{absolute, ago};
use crate::output::units::{ellipsis, human_size, short_id};
use crate::session::Session;
use crate::template::Value;

/// `capsa images`.
pub(crate) static LS: Command = Command {
    names: &["image ls", "image list", "images"],
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    flags: &[&[
        Flag::switch("all", "Show intermediate images too").short('a'),
        Flag::switch("digests", "Show digests"),
        Flag::filter("Show only those for which KEY=VALUE holds"),
        Flag::text("format", "table, json, or a template such as '{{.Repository}}'"),
        Flag::switch("no-trunc", "Don't shorten"),
        Flag::switch("quiet", "Show only ids").short('q'),
        Flag::switch("tree", "Accepted for compatibility; images have one platform here"),
    ]],
    arity: Arity::AtMost(1),
    interspersed: true,
    run: |session, matches| Box::pin(ls(session, matches)),
};

/// `capsa rmi`.
pub(crate) static RM: Command = Command {
    names: &["image rm", "image remove", "rmi"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove images",
    flags: &[&[
        Flag::switch("dry-run", "Only show what would go"),
        Flag::switch("force", "Also when containers use it or other tags name it").short('f'),
        Flag::switch("no-prune", "Keep parents that have no tag"),
        Flag::list("platform", "Only this platform of the image"),
    ]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(rm(session, matches)),
};

/// `capsa tag`.
pub(crate) static TAG: Command = Command {
    names: &["image tag", "tag"],
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Give an image a further name",
    flags: &[],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(tag(session, matches)),
};

/// `capsa history`.
pub(crate) static HISTORY: Command = Command {
    names: &["image history", "history"],
    usage: "[OPTIONS] IMAGE",
    about: "Show how an image was made",
    flags: &[&[
        Flag::text("format", "table, json, or a template such as '{{.CreatedBy}}'"),
        Flag::switch("human", "Sizes and times in words (default true)").short('H'),
        Flag::switch("no-trunc", "Don't shorten"),
        Flag::text("platform", "Platform of the image"),
        Flag::switch("quiet", "Show only ids").short('q'),
    ]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(history(session, matches)),
};

/// `capsa load`.
pub(crate) static LOAD: Command = Command {
    names: &["image load", "load"],
    usage: "[OPTIONS]",
    about: "Take images from an archive",
    flags: &[&[
        Flag::text("input", "Archive to read instead of STDIN").short('i'),
        Flag::text("platform", "Only this platform of the images"),
        Flag::switch("quiet", "Don't show progress").short('q'),
    ]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(load(session, matches)),
};

/// `capsa save`.
pub(crate) static SAVE: Command = Command {
    names: &["image save", "save"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Write images into one archive",
    flags: &[&[
        Flag::text("output", "Archive to write instead of STDOUT").short('o'),
        Flag::text("platform", "Only this platform of the images"),
    ]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(save(session, matches)),
};

const TITLES: Titles = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Label", "LABEL"),
];

async fn ls(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let mut matches_filter = filters(&matches);
    if let [wanted] = matches.args.as_slice() {
        let mut filter = capsa_api::Filters::parse(matches_filter.as_deref().unwrap_or_default())
            .unwrap_or_default();
        filter.add("reference", wanted);
        matches_filter = Some(filter.to_json());
    }
    let mut query = Vec::new();
    if matches.flag("all") {
        query.push(("all", "1"));
    }
    query.extend(matches_filter.as_deref().map(|filter| ("filters", filter)));
    let path = with_query("/images/json", &query);
    let images: Vec<ImageSummary> = session.client()?.get(&path).await?;
    let asked = matches.text("format").or_else(|| session.config().format("imagesFormat"));
    let digests = matches.flag("digests");
    let by_digest = digests || asked.is_some_and(|text| text.contains(".Digest"));
    let whole = matches.flag("no-trunc");
    let rows: Vec<Value> =
        images.iter().flat_map(|image| describe(image, whole, by_digest)).collect();
    let columns = match digests {
        true => "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
        false => "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    };
    Format::choose(asked, matches.flag("quiet"), columns, "{{.ID}}")?.print(TITLES, &rows)?;
    Ok(0)
}

/// One row for each name of an image, one with `<none>` when it has none.
pub(super) fn describe(image: &ImageSummary, whole: bool, by_digest: bool) -> Vec<Value> {
    let split = |text: &str| {
        let at = text.rfind(':').filter(|at| !text[*at..].contains('/'));
        at.map_or((text.to_owned(), "<none>".to_owned()), |at| {
            (text[..at].to_owned(), text[at + 1..].to_owned())
        })
    };
    let digest_of = |repository: &str| {
        image.repo_digests.iter().find_map(|text| {
            let (name, digest) = text.split_once('@')?;
            (name == repository).then(|| digest.to_owned())
        })
    };
    let none = || "<none>".to_owned();
    let mut names: Vec<(String, String, String)> = image
        .repo_tags
        .iter()
        .filter(|name| *name != "<none>:<none>")
        .map(|name| {
            let (repository, tag) = split(name);
            let digest = digest_of(&repository).unwrap_or_else(none);
            (repository, tag, digest)
        })
        .collect();
    if names.is_empty() {
        let known = image.repo_digests.iter().filter_map(|text| text.split_once('@'));
        names.extend(
            known
                .filter(|(name, _)| *name != "<none>")
                .map(|(name, digest)| (name.to_owned(), none(), digest.to_owned())),
        );
    }
    if names.is_empty() {
        names.push((none(), none(), none()));
    }
    names
        .into_iter()
        .map(|(repository, tag, digest)| {
            let digest = if by_digest { digest } else { none() };
            image_row(image, whole, repository, tag, digest)
        })
        .collect()
}

fn image_row(
    image: &ImageSummary,
    whole: bool,
    repository: String,
    tag: String,
    digest: String,
) -> Value {
    let id = if whole { image.id.as_str() } else { short_id(&image.id) };
    let unknown = || "N/A".to_owned();
    let shared =
        if image.shared_size < 0 { unknown() } else { human_size(image.shared_size as f64, 4) };
    let unique = match image.shared_size {
        i64::MIN..0 => unknown(),
        shared => human_size((image.size - shared) as f64, 4),
    };
    let containers = if image.containers < 0 { unknown() } else { image.containers.to_string() };
    let size = human_size(image.size as f64, 3);
    row(vec![
        ("Containers", containers.into()),
        ("CreatedAt", absolute(image.created).into()),
        (
            "CreatedSince",
            if image.created > 0 { ago(image.created) } else { "N/A".to_owned() }.into(),
        ),
        ("Digest", digest.into()),
        ("ID", id.into()),
        ("Label", lookup(&image.labels.clone().unwrap_or_default())),
        ("Repository", repository.into()),
        ("SharedSize", shared.into()),
        ("Size", size.clone().into()),
        ("Tag", tag.into()),
        ("UniqueSize", unique.into()),
        ("VirtualSize", size.into()),
    ])
}

async fn rm(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = session.client()?;
    let force = matches.flag("force");
    let mut query = Vec::new();
    if force {
        query.push(("force", "1"));
    }
    if matches.flag("no-prune") {
        query.push(("noprune", "1"));
    }
    if matches.flag("dry-run") {
        query.push(("dryrun", "1"));
        return rehearse(client, &matches.args, &query).await;
    }
    let query = &query;
    each_argument(&matches.args, 1, |name| async move {
        let path = with_query(&format!("/images/{}", image_path(name)), query);
        let done: Vec<ImageDeleted> = match client.call(Method::DELETE, &path, Payload::Empty).await
        {
            Ok(done) => done,
            Err(error) if force && error.status() == Some(404) => {
                crate::output::note(&format!("Error response from daemon: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        Ok(steps(done))
    })
    .await
}

/// Each image as if it alone were removed.
async fn rehearse(client: &Client, names: &[String], query: &[(&str, &str)]) -> Outcome {
    each_argument(names, 1, |name| async move {
        let path = with_query(&format!("/images/{}", image_path(name)), query);
        let done: ImagesPruned = client.call(Method::DELETE, &path, Payload::Empty).await?;
        let size = human_size(done.space_reclaimed as f64, 4);
        let steps = steps(done.images_deleted.unwrap_or_default());
        Ok(steps.map(|steps| format!("{steps}\nReclaimable: {size}")))
    })
    .await
}

/// What was done, a line each; nothing when there was nothing to do.
fn steps(done: Vec<ImageDeleted>) -> Option<String> {
    let steps = done.into_iter().flat_map(|step| {
        let untagged = step.untagged.map(|name| format!("Untagged: {name}"));
        let deleted = step.deleted.map(|id| format!("Deleted: {id}"));
        untagged.into_iter().chain(deleted)
    });
    let lines: Vec<String> = steps.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// An image's name in a path: slashes stay, everything odd is encoded.
pub(crate) fn image_path(name: &str) -> String {
    name.split('/').map(encode).collect::<Vec<_>>().join("/")
}

async fn tag(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let target = Reference::parse(matches.arg(1)).map_err(|error| {
        Failure::said(format!(
            "Error parsing reference: {:?} is not a valid repository/tag: {error}",
            matches.arg(1)
        ))
    })?;
    if target.digest().is_some() {
        return Err(Failure::said("refusing to create a tag with a digest reference"));
    }
    let target = target.with_default_tag();
    let repository = format!("{}/{}", target.domain(), target.path());
    let query = [("repo", repository.as_str()), ("tag", target.tag().unwrap_or("latest"))];
    let path = with_query(&format!("/images/{}/tag", image_path(matches.arg(0))), &query);
    session.client()?.post_empty(&path).await?;
    Ok(0)
}

const HISTORY_TITLES: Titles = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

async fn history(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let path = format!("/images/{}/history", image_path(matches.arg(0)));
    let steps: Vec<HistoryItem> = session.client()?.get(&path).await?;
    let whole = matches.flag("no-trunc");
    let human = matches.switch("human").unwrap_or(true);
    let rows: Vec<Value> = steps
        .iter()
        .map(|step| {
            let id = if whole { step.id.as_str() } else { short_id(&step.id) };
            let by = step.created_by.replace('\t', " ");
            let at = absolute(step.created);
            let since = if human { ago(step.created) } else { at.clone() };
            let size = if human { human_size(step.size as f64, 3) } else { step.size.to_string() };
            row(vec![
                ("Comment", step.comment.as_str().into()),
                ("CreatedAt", at.into()),
                ("CreatedBy", if whole { by } else { ellipsis(&by, 45) }.into()),
                ("CreatedSince", since.into()),
                ("ID", id.into()),
                ("Size", size.into()),
            ])
        })
        .collect();
    let columns = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
    Format::choose(matches.text("format"), matches.flag("quiet"), columns, "{{.ID}}")?
        .print(HISTORY_TITLES, &rows)?;
    Ok(0)
}

async fn load(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = session.answering_client().await?;
    let payload = match matches.text("input").filter(|path| !path.is_empty()) {
        Some(path) => {
            Payload::tar(File::open(path).map_err(|error| Failure::io("open", path, &error))?)
        }
        None if terminal::stdin_is() => {
            return Err(Failure::said("requested load from stdin, but stdin is empty"));
        }
        None => Payload::tar(io::stdin()),
    };
    let quiet = matches.flag("quiet") || !terminal::stdout_is();
    let path = with_query("/images/load", &[("quiet", if quiet { "1" } else { "0" })]);
    let answer = client.stream(Method::POST, &path, payload).await?;
    follow(answer.body, Shown::OnStdout).await?;
    Ok(0)
}

async fn save(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let query: Vec<_> = matches.args.iter().map(|name| ("names", name.as_str())).collect();
    let output = matches.text("output");
    refuse_terminal(output)?;
    let client = session.client()?;
    let path = with_query("/images/get", &query);
    let answer = client.stream(Method::GET, &path, Payload::Empty).await?;
    copy_to(answer.body, output).await?;
    Ok(0)
}

/// An archive on a terminal helps nobody.
pub(crate) fn refuse_terminal(output: Option<&str>) -> Result<()> {
    match output {
        None if terminal::stdout_is() => Err(Failure::said(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        )),
        _ => Ok(()),
    }
}

/// Writes a body to standard output, or into a file that appears only when it is complete.
pub(crate) async fn copy_to(
    mut body: capsa_api::client::BodyStream,
    output: Option<&str>,
) -> Result<()> {
    let Some(path) = output else {
        while let Some(chunk) = body.chunk().await? {
            crate::output::out(&chunk);
        }
        return Ok(());
    };
    let failed = |call: &'static str| move |error: io::Error| Failure::io(call, path, &error);
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        let mut file = File::options().write(true).open(path).map_err(failed("open"))?;
        while let Some(chunk) = body.chunk().await? {
            file.write_all(&chunk).map_err(failed("write"))?;
        }
        return Ok(());
    }
    let beside = format!("{path}.{}.part", std::process::id());
    let mut file = File::create(&beside).map_err(failed("open"))?;
    let written: Result<()> = async {
        while let Some(chunk) = body.chunk().await? {
            file.write_all(&chunk).map_err(failed("write"))?;
        }
        std::fs::rename(&beside, path).map_err(failed("rename"))
    }
    .await;
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}
