//! The prune verbs: remove what nothing uses.

use std::io::{BufRead, Write};
use std::rc::Rc;

use capsa_api::encoding::with_query;
use capsa_api::types::{
    ContainersPruned, ImageDeleted, ImagesPruned, NetworksPruned, VolumesPruned,
};
use capsa_api::{Client, Filters};

use super::Outcome;
use crate::failure::Result;
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::units::human_size;
use crate::output::{line, out};
use crate::session::Session;

const FORCE: Flag = Flag::switch("force", "Don't ask").short('f');
const DRY_RUN: Flag = Flag::switch("dry-run", "Only show what would go");
const FILTER: Flag = Flag::filter("Only what KEY=VALUE holds for, such as until=24h").no_short();

/// `capsa container prune`.
pub(crate) static CONTAINERS: Command = Command {
    names: &["container prune"],
    usage: "[OPTIONS]",
    about: "Remove every stopped container",
    flags: &[&[DRY_RUN, FORCE, FILTER]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(one(session, matches, Part::Containers)),
};

/// `capsa image prune`.
pub(crate) static IMAGES: Command = Command {
    names: &["image prune"],
    usage: "[OPTIONS]",
    about: "Remove images that nothing uses",
    flags: &[&[Flag::switch("all", "Those with a name too").short('a'), DRY_RUN, FORCE, FILTER]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(one(session, matches, Part::Images)),
};

/// `capsa volume prune`.
pub(crate) static VOLUMES: Command = Command {
    names: &["volume prune"],
    usage: "[OPTIONS]",
    about: "Remove volumes that nothing uses",
    flags: &[&[Flag::switch("all", "Those with a name too").short('a'), DRY_RUN, FORCE, FILTER]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(one(session, matches, Part::Volumes)),
};

/// `capsa network prune`.
pub(crate) static NETWORKS: Command = Command {
    names: &["network prune"],
    usage: "[OPTIONS]",
    about: "Remove networks that nothing uses",
    flags: &[&[DRY_RUN, FORCE, FILTER]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(one(session, matches, Part::Networks)),
};

/// `capsa system prune`.
pub(crate) static SYSTEM: Command = Command {
    names: &["system prune"],
    usage: "[OPTIONS]",
    about: "Remove everything that nothing uses",
    flags: &[&[
        Flag::switch("all", "Images with a name too").short('a'),
        DRY_RUN,
        FORCE,
        FILTER,
        Flag::switch("volumes", "Anonymous volumes too"),
    ]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(system(session, matches)),
};

/// What can be pruned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Containers,
    Networks,
    Volumes,
    Images,
}

impl Part {
    /// What is about to go, in words.
    fn warning(self, all: bool) -> &'static str {
        match (self, all) {
            (Self::Containers, _) => "all stopped containers",
            (Self::Networks, _) => "all networks not used by at least one container",
            (Self::Volumes, true) => "all volumes not used by at least one container",
            (Self::Volumes, false) => "anonymous local volumes not used by at least one container",
            (Self::Images, true) => "all images without at least one container associated to them",
            (Self::Images, false) => "all dangling images",
        }
    }

    /// Prunes; says what went, and returns the bytes. `more` is added to the query.
    async fn prune(
        self,
        client: &Client,
        matches: &Matches,
        all: bool,
        more: &[(&str, &str)],
    ) -> Result<u64> {
        let mut filters = Filters::default();
        for text in matches.list("filter") {
            if let Some((key, value)) = text.split_once('=') {
                filters.add(key, value);
            }
        }
        match self {
            Self::Images => filters.add("dangling", if all { "false" } else { "true" }),
            Self::Volumes if all => filters.add("all", "true"),
            _ => {}
        }
        let json = filters.to_json();
        let mut query = more.to_vec();
        if !filters.is_empty() {
            query.push(("filters", json.as_str()));
        }
        let dry = matches.flag(DRY_RUN.long);
        let path = |resource: &str| with_query(&format!("/{resource}/prune"), &query);
        let (title, gone, bytes) = match self {
            Self::Containers => {
                let done: ContainersPruned = client.post(&path("containers"), &()).await?;
                ("Containers", done.containers_deleted.unwrap_or_default(), done.space_reclaimed)
            }
            Self::Networks => {
                let done: NetworksPruned = client.post(&path("networks"), &()).await?;
                ("Networks", done.networks_deleted.unwrap_or_default(), 0)
            }
            Self::Volumes => {
                let done: VolumesPruned = client.post(&path("volumes"), &()).await?;
                ("Volumes", done.volumes_deleted.unwrap_or_default(), done.space_reclaimed)
            }
            Self::Images => {
                let done: ImagesPruned = client.post(&path("images"), &()).await?;
                let steps = done.images_deleted.unwrap_or_default().into_iter();
                ("Images", steps.flat_map(image_step).collect(), done.space_reclaimed)
            }
        };
        if !gone.is_empty() {
            let what = if dry { "Would Delete" } else { "Deleted" };
            line(&format!("{what} {title}:\n{}\n", gone.join("\n")));
        }
        Ok(bytes)
    }
}

fn image_step(step: ImageDeleted) -> impl Iterator<Item = String> {
    let untagged = step.untagged.map(|name| format!("untagged: {name}"));
    let deleted = step.deleted.map(|id| format!("deleted: {id}"));
    untagged.into_iter().chain(deleted)
}

async fn one(session: Rc<Session>, matches: Rc<Matches>, part: Part) -> Outcome {
    let all = matches.flag("all");
    let warning = format!("WARNING! This will remove {}.", part.warning(all));
    let dry = matches.flag(DRY_RUN.long);
    if !dry && !matches.flag("force") && !confirm(&warning)? {
        return Ok(0);
    }
    let more: &[_] = if dry { &[("dryrun", "1")] } else { &[] };
    let bytes = part.prune(session.client()?, &matches, all, more).await?;
    if part != Part::Networks {
        report(bytes, dry);
    }
    Ok(0)
}

async fn system(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let all = matches.flag("all");
    let mut parts = vec![Part::Containers, Part::Networks];
    if matches.flag("volumes") {
        parts.push(Part::Volumes);
    }
    parts.push(Part::Images);
    let lines: Vec<String> = parts
        .iter()
        .map(|part| format!("  - {}", part.warning(all && *part == Part::Images)))
        .collect();
    let warning = format!("WARNING! This will remove:\n{}\n", lines.join("\n"));
    let dry = matches.flag(DRY_RUN.long);
    if !dry && !matches.flag("force") && !confirm(&warning)? {
        return Ok(0);
    }
    let client = session.client()?;
    // What containers use now is free once they are gone.
    let more: &[_] = if dry { &[("dryrun", "1"), ("after", "containers")] } else { &[] };
    let mut bytes = 0;
    for part in parts {
        bytes += part.prune(client, &matches, all && part == Part::Images, more).await?;
    }
    report(bytes, dry);
    Ok(0)
}

fn report(bytes: u64, dry: bool) {
    let what = if dry { "Total reclaimable space" } else { "Total reclaimed space" };
    line(&format!("{what}: {}", human_size(bytes as f64, 4)));
}

/// Asks; anything but yes is no.
fn confirm(warning: &str) -> Result<bool> {
    out(format!("{warning}\nAre you sure you want to continue? [y/N] ").as_bytes());
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
