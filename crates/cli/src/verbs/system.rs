//! `system df`: what is on the disk, and what of it could go.

use std::collections::BTreeSet;
use std::rc::Rc;

use capsa_api::types::{ContainerSummary, DiskUsage, ImageSummary, Volume};

use super::{Outcome, ps, volume};
use crate::failure::Result;
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format::{Format, Titles, row};
use crate::output::out;
use crate::output::units::human_size;
use crate::session::Session;
use crate::template::Value;

/// `capsa system df`.
pub(crate) static DF: Command = Command {
    names: &["system df"],
    usage: "[OPTIONS]",
    about: "Show what is on the disk",
    flags: &[&[
        Flag::text("format", "table, json, or a template such as '{{.Type}}: {{.Size}}'"),
        Flag::switch("verbose", "Show every object").short('v'),
    ]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(df(session, matches)),
};

const TITLES: Titles = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

async fn df(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let usage: DiskUsage = session.client()?.get("/system/df").await?;
    if matches.flag("verbose") {
        return details(&usage);
    }
    let rows = [images(&usage), containers(&usage), volumes(&usage), build_cache(&usage)];
    let columns = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
    Format::choose(matches.text("format"), false, columns, "")?.print(TITLES, &rows)?;
    Ok(0)
}

fn line_of(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64) -> Value {
    let mut free = human_size(reclaimable.max(0) as f64, 4);
    if size > 0 {
        free.push_str(&format!(" ({}%)", reclaimable.max(0) * 100 / size));
    }
    row(vec![
        ("Active", active.to_string().into()),
        ("Reclaimable", free.into()),
        ("Size", human_size(size.max(0) as f64, 4).into()),
        ("TotalCount", total.to_string().into()),
        ("Type", kind.into()),
    ])
}

fn images(usage: &DiskUsage) -> Value {
    let images: &[ImageSummary] = usage.images.as_deref().unwrap_or_default();
    let used: BTreeSet<&str> =
        images.iter().filter(|image| image.containers > 0).map(|image| image.id.as_str()).collect();
    let in_use: i64 = images
        .iter()
        .filter(|image| used.contains(image.id.as_str()))
        .map(|image| image.size - image.shared_size.max(0))
        .sum();
    line_of("Images", images.len(), used.len(), usage.layers_size, usage.layers_size - in_use)
}

fn containers(usage: &DiskUsage) -> Value {
    let containers: &[ContainerSummary] = usage.containers.as_deref().unwrap_or_default();
    let active = |container: &&ContainerSummary| {
        ["running", "paused", "restarting"].contains(&container.state.as_str())
    };
    let size: i64 = containers.iter().map(|container| container.size_rw).sum();
    let in_use: i64 = containers.iter().filter(active).map(|container| container.size_rw).sum();
    line_of(
        "Containers",
        containers.len(),
        containers.iter().filter(active).count(),
        size,
        size - in_use,
    )
}

fn volumes(usage: &DiskUsage) -> Value {
    let volumes: &[Volume] = usage.volumes.as_deref().unwrap_or_default();
    let data = |volume: &Volume| volume.usage_data.unwrap_or_default();
    let known = |volume: &&Volume| data(volume).size >= 0;
    let size: i64 = volumes.iter().filter(known).map(|volume| data(volume).size).sum();
    let used = |volume: &&Volume| data(volume).ref_count > 0;
    let in_use: i64 =
        volumes.iter().filter(known).filter(used).map(|volume| data(volume).size).sum();
    line_of(
        "Local Volumes",
        volumes.len(),
        volumes.iter().filter(used).count(),
        size,
        size - in_use,
    )
}

fn build_cache(usage: &DiskUsage) -> Value {
    let records = usage.build_cache.as_deref().unwrap_or_default();
    let size: i64 = records.iter().map(|record| record.size).sum();
    let in_use: i64 = records.iter().filter(|record| record.in_use).map(|record| record.size).sum();
    let active = records.iter().filter(|record| record.in_use).count();
    line_of("Build Cache", records.len(), active, size, size - in_use)
}

const IMAGE_TITLES: Titles = &[
    ("Repository", "REPOSITORY"),
    ("ID", "IMAGE ID"),
    ("Tag", "TAG"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
];
const CONTAINER_TITLES: Titles = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Size", "SIZE"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Names", "NAMES"),
];
const VOLUME_TITLES: Titles = &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];

fn details(usage: &DiskUsage) -> Outcome {
    let table = |title: &str, titles, columns: &str, rows: &[Value]| -> Result<String> {
        Ok(format!(
            "{title} space usage:\n\n{}\n",
            Format::choose(None, false, columns, "")?.render(titles, rows)?
        ))
    };
    let described = |image| super::images::describe(image, false, false);
    let images: Vec<Value> = usage.images.iter().flatten().flat_map(described).collect();
    let containers: Vec<Value> =
        usage.containers.iter().flatten().map(|container| ps::describe(container, false)).collect();
    let volumes: Vec<Value> = usage.volumes.iter().flatten().map(volume::describe).collect();
    let mut text = table(
        "Images",
        IMAGE_TITLES,
        "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
        &images,
    )?;
    text.push_str(&table(
        "Containers",
        CONTAINER_TITLES,
        "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
        &containers,
    )?);
    text.push_str(&table(
        "Local Volumes",
        VOLUME_TITLES,
        "{{.Name}}\t{{.Links}}\t{{.Size}}",
        &volumes,
    )?);
    out(text.as_bytes());
    Ok(0)
}
