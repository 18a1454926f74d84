//! Volumes: make, list, remove.

use std::rc::Rc;

use capsa_api::encoding::{encode, with_query};
use capsa_api::types::{Volume, VolumeCreate, VolumeList};

use super::ps::{join_labels, lookup};
use super::{Outcome, each_argument, filters};
use crate::create::map;
use crate::failure::Failure;
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format::{Format, Titles, row};
use crate::output::line;
use crate::output::units::human_size;
use crate::session::Session;
use crate::template::Value;

/// `capsa volume create`.
pub(crate) static CREATE: Command = Command {
    names: &["volume create"],
    usage: "[OPTIONS] [VOLUME]",
    about: "Make a volume",
    flags: &[&[
        Flag::text("driver", "Driver (default local)").short('d'),
        Flag::list("label", "Label, KEY=VALUE"),
        Flag::text("name", "Name of the volume").hide(),
        Flag::map("opt", "Option of the driver, KEY=VALUE").short('o'),
    ]],
    arity: Arity::AtMost(1),
    interspersed: true,
    run: |session, matches| Box::pin(create(session, matches)),
};

/// `capsa volume ls`.
pub(crate) static LS: Command = Command {
    names: &["volume ls", "volume list"],
    usage: "[OPTIONS]",
    about: "List volumes",
    flags: &[&[
        Flag::switch("cluster", "Swarm's volumes, of which there are none").hide(),
        Flag::filter("Show only those for which KEY=VALUE holds"),
        Flag::text("format", "table, json, or a template such as '{{.Name}}'"),
        Flag::switch("quiet", "Show only names").short('q'),
    ]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(ls(session, matches)),
};

/// `capsa volume rm`.
pub(crate) static RM: Command = Command {
    names: &["volume rm", "volume remove"],
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove volumes",
    flags: &[&[Flag::switch("force", "Don't fail when there is no such volume").short('f')]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(rm(session, matches)),
};

const TITLES: Titles = &[
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Label", "LABEL"),
    ("Status", "STATUS"),
    ("Availability", "AVAILABILITY"),
    ("Group", "GROUP"),
];

async fn create(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let name = match (matches.args.first(), matches.text("name")) {
        (Some(_), Some(_)) => {
            return Err(Failure::said(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
            ));
        }
        (Some(name), None) => name.as_str(),
        (None, name) => name.unwrap_or_default(),
    };
    let request = VolumeCreate {
        name: name.to_owned(),
        driver: matches.text("driver").unwrap_or("local").to_owned(),
        driver_opts: map(&matches.list("opt")),
        labels: map(&matches.list("label")),
    };
    let made: Volume = session.client()?.post("/volumes/create", &request).await?;
    line(&made.name);
    Ok(0)
}

async fn ls(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let filter = filters(&matches);
    let query: Vec<_> = filter.as_deref().map(|filter| ("filters", filter)).into_iter().collect();
    let list: VolumeList = session.client()?.get(&with_query("/volumes", &query)).await?;
    let mut volumes = list.volumes;
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<Value> = volumes.iter().map(describe).collect();
    let asked = matches.text("format").or_else(|| session.config().format("volumesFormat"));
    let columns = "{{.Driver}}\t{{.Name}}";
    Format::choose(asked, matches.flag("quiet"), columns, "{{.Name}}")?.print(TITLES, &rows)?;
    Ok(0)
}

/// The named values of a volume.
pub(crate) fn describe(volume: &Volume) -> Value {
    let labels = volume.labels.clone().unwrap_or_default();
    let unknown = || "N/A".to_owned();
    let (links, size) = match volume.usage_data {
        Some(usage) => (usage.ref_count.to_string(), human_size(usage.size as f64, 3)),
        None => (unknown(), unknown()),
    };
    row(vec![
        ("Availability", unknown().into()),
        ("Driver", volume.driver.as_str().into()),
        ("Group", unknown().into()),
        ("Label", lookup(&labels)),
        ("Labels", join_labels(&labels).into()),
        ("Links", links.into()),
        ("Mountpoint", volume.mountpoint.as_str().into()),
        ("Name", volume.name.as_str().into()),
        ("Scope", volume.scope.as_str().into()),
        ("Size", size.into()),
        ("Status", unknown().into()),
    ])
}

async fn rm(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let client = session.client()?;
    let force = matches.flag("force");
    let suffix = if force { "?force=1" } else { "" };
    each_argument(&matches.args, 1, |name| async move {
        client.delete(&format!("/volumes/{}{suffix}", encode(name))).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
