//! What images are made of: their layers, and how two of them differ.

use std::rc::Rc;

use capsa_api::encoding::with_query;
use capsa_api::types::{ImageDifference, ImageTree, ImageTreeLayer, WastedPath};

use super::Outcome;
use super::images::image_path;
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format::{Format, Titles, row};
use crate::output::line;
use crate::output::units::{ellipsis, human_size, short_id};
use crate::session::Session;
use crate::template::Value;

/// Wasted paths shown below the layers.
const SHOWN: usize = 5;

/// `capsa image tree`.
pub(crate) static TREE: Command = Command {
    names: &["image tree"],
    usage: "[OPTIONS] IMAGE",
    about: "Show the layers of an image and what they waste",
    flags: &[&[
        Flag::text("format", "table, json, or a template such as '{{.Size}} {{.CreatedBy}}'"),
        Flag::switch("no-trunc", "Don't shorten"),
        Flag::switch("wasted", "Show the paths that waste most instead of the layers"),
    ]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(tree(session, matches)),
};

/// `capsa image diff`.
pub(crate) static DIFF: Command = Command {
    names: &["image diff"],
    usage: "[OPTIONS] IMAGE IMAGE",
    about: "Show which files differ between two images",
    flags: &[&[Flag::text("format", "table, json, or a template such as '{{.Kind}} {{.Path}}'")]],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(diff(session, matches)),
};

const LAYER_TITLES: Titles = &[
    ("ID", "LAYER"),
    ("Size", "SIZE"),
    ("Added", "ADDED"),
    ("Changed", "CHANGED"),
    ("Deleted", "DELETED"),
    ("Wasted", "WASTED"),
    ("CreatedBy", "CREATED BY"),
];
const WASTED_TITLES: Titles = &[("Size", "WASTED"), ("Times", "TIMES"), ("Path", "PATH")];
const DIFF_TITLES: Titles = &[
    ("Kind", "KIND"),
    ("Change", "CHANGE"),
    ("Before", "BEFORE"),
    ("After", "AFTER"),
    ("Path", "PATH"),
];

async fn tree(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let path = format!("/capsa/images/{}/tree", image_path(matches.arg(0)));
    let tree: ImageTree = session.client()?.get(&path).await?;
    let asked = matches.text("format").filter(|text| !text.is_empty());
    if matches.flag("wasted") {
        let rows: Vec<Value> = tree.largest.iter().map(wasted_row).collect();
        wasted_format(asked)?.print(WASTED_TITLES, &rows)?;
        return Ok(0);
    }
    let whole = matches.flag("no-trunc");
    let rows: Vec<Value> = tree.layers.iter().map(|layer| layer_row(layer, whole)).collect();
    let columns =
        "{{.ID}}\t{{.Size}}\t{{.Added}}\t{{.Changed}}\t{{.Deleted}}\t{{.Wasted}}\t{{.CreatedBy}}";
    Format::choose(asked, false, columns, "")?.print(LAYER_TITLES, &rows)?;
    if asked.is_some() {
        return Ok(0);
    }
    let (size, wasted) = (human_size(tree.size as f64, 4), human_size(tree.wasted as f64, 4));
    line(&format!("\nWasted: {wasted} of {size}"));
    let rows: Vec<Value> = tree.largest.iter().take(SHOWN).map(wasted_row).collect();
    if !rows.is_empty() {
        line("");
        wasted_format(None)?.print(WASTED_TITLES, &rows)?;
    }
    Ok(0)
}

fn wasted_format(asked: Option<&str>) -> crate::failure::Result<Format> {
    Format::choose(asked, false, "{{.Size}}\t{{.Times}}\t{{.Path}}", "")
}

fn layer_row(layer: &ImageTreeLayer, whole: bool) -> Value {
    let id = if whole { layer.diff_id.as_str() } else { short_id(&layer.diff_id) };
    let by = layer.created_by.replace(['\t', '\n'], " ");
    row(vec![
        ("Added", layer.added.to_string().into()),
        ("Changed", layer.changed.to_string().into()),
        ("CreatedBy", if whole { by } else { ellipsis(&by, 45) }.into()),
        ("Deleted", layer.deleted.to_string().into()),
        ("ID", id.into()),
        ("Size", human_size(layer.size as f64, 4).into()),
        ("SizeBytes", layer.size.to_string().into()),
        ("Wasted", human_size(layer.wasted as f64, 4).into()),
        ("WastedBytes", layer.wasted.to_string().into()),
    ])
}

fn wasted_row(wasted: &WastedPath) -> Value {
    row(vec![
        ("Path", wasted.path.as_str().into()),
        ("Size", human_size(wasted.size as f64, 4).into()),
        ("SizeBytes", wasted.size.to_string().into()),
        ("Times", wasted.times.to_string().into()),
    ])
}

async fn diff(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let path = format!("/capsa/images/{}/diff", image_path(matches.arg(0)));
    let path = with_query(&path, &[("with", matches.arg(1))]);
    let found: Vec<ImageDifference> = session.client()?.get(&path).await?;
    let rows: Vec<Value> = found.iter().map(difference_row).collect();
    let asked = matches.text("format").filter(|text| !text.is_empty());
    let plain = "{{.Kind}} {{.Path}}{{if .Change}} ({{.Change}}){{end}}";
    let columns = "{{.Kind}}\t{{.Change}}\t{{.Before}}\t{{.After}}\t{{.Path}}";
    Format::choose(asked.or(Some(plain)), false, columns, "")?.print(DIFF_TITLES, &rows)?;
    Ok(0)
}

fn difference_row(found: &ImageDifference) -> Value {
    let kind = match found.kind {
        0 => "C",
        1 => "A",
        _ => "D",
    };
    let size = |bytes: u64| human_size(bytes as f64, 4);
    let change = match (found.before, found.after) {
        (before, after) if after > before => format!("+{}", size(after - before)),
        (before, after) if before > after => format!("-{}", size(before - after)),
        _ => String::new(),
    };
    row(vec![
        ("After", found.after.to_string().into()),
        ("Before", found.before.to_string().into()),
        ("Change", change.into()),
        ("Kind", kind.into()),
        ("Path", found.path.as_str().into()),
    ])
}
