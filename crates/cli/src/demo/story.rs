//! The story itself, step by step; each ends with something seen from outside.

use anyhow::ensure;

use super::report::{Memory, Report};
use super::server::Site;
use super::stage::Stage;
use super::{host, http, image};

const EDITED_REPOSITORY: &str = "capsa/site";
const EDITED_TAG: &str = "edited";

/// Plays all steps up to three running sites on two servers.
pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    println!("capsa demo in {}\n", stage.directory().display());
    let (first, second) = two_sites(stage).await?;
    let page = edit(stage, &first, &second).await?;
    let tar = pack(stage, &first).await?;
    let moved = move_to_new_server(stage, &tar, &page).await?;
    for site in [first, second, moved] {
        stage.report.note_memory(memory(&site));
    }
    Ok(())
}

/// Two sites on port 80, each in its own container, both answering.
async fn two_sites(stage: &mut Stage) -> anyhow::Result<(Site, Site)> {
    let started = Report::start();
    let server = stage.start_server("old server").await?;
    let archive = image::archive()?;
    stage.report.done(&started, "an engine started on the old server", None);

    let started = Report::start();
    let size = archive.len() as u64;
    stage.server(server).load(std::io::Cursor::new(archive)).await?;
    stage.report.done(&started, format!("image {} loaded", image::NAME), Some(size));

    let mut sites = Vec::new();
    for name in ["red", "blue"] {
        let started = Report::start();
        let site = stage.server(server).run(name, image::NAME).await?;
        expect_page(&site, image::PAGE).await?;
        let what = format!("site {name} answers at http://{}/", site.address);
        stage.report.done(&started, what, None);
        sites.push(site);
    }
    show_facts(&sites[0]).await?;
    let [first, second] = <[Site; 2]>::try_from(sites)
        .map_err(|sites| anyhow::anyhow!("{} sites instead of two", sites.len()))?;
    Ok((first, second))
}

/// Edits the page of one site from inside; the other's must stay.
async fn edit(stage: &mut Stage, first: &Site, second: &Site) -> anyhow::Result<String> {
    let started = Report::start();
    let page = image::PAGE.replace("It runs", "It runs, and it was edited in its container");
    let command = [image::PROGRAM, "write", image::PAGE_FILE, &page];
    stage.server(0).exec(&first.name, &command).await?;
    expect_page(first, &page).await?;
    expect_page(second, image::PAGE).await?;
    stage.report.done(&started, format!("page of {} edited by exec", first.name), None);
    Ok(page)
}

/// Commits a site to an image and saves that to a file.
async fn pack(stage: &mut Stage, site: &Site) -> anyhow::Result<std::path::PathBuf> {
    let started = Report::start();
    stage.server(0).commit(&site.name, EDITED_REPOSITORY, EDITED_TAG).await?;
    let what = format!("{} committed to {EDITED_REPOSITORY}:{EDITED_TAG}", site.name);
    stage.report.done(&started, what, None);

    let started = Report::start();
    let file = stage.directory().join("site.tar");
    let image = format!("{EDITED_REPOSITORY}:{EDITED_TAG}");
    let size = stage.server(0).save(&image, &file).await?;
    stage.report.done(&started, "saved to a tar file", Some(size));
    Ok(file)
}

/// A second engine loads the file and runs it: the page is as edited.
async fn move_to_new_server(
    stage: &mut Stage,
    tar: &std::path::Path,
    page: &str,
) -> anyhow::Result<Site> {
    let started = Report::start();
    let server = stage.start_server("new server").await?;
    stage.report.done(&started, "an engine started on the new server", None);

    let started = Report::start();
    let size = std::fs::metadata(tar)?.len();
    stage.server(server).load(std::fs::File::open(tar)?).await?;
    stage.report.done(&started, "tar file loaded there", Some(size));

    let started = Report::start();
    let image = format!("{EDITED_REPOSITORY}:{EDITED_TAG}");
    let site = stage.server(server).run("red", &image).await?;
    expect_page(&site, page).await?;
    let what = format!("the edited page answers at http://{}/", site.address);
    stage.report.done(&started, what, None);
    Ok(Site { name: "red, moved".to_owned(), ..site })
}

async fn expect_page(site: &Site, page: &str) -> anyhow::Result<()> {
    let answer = http::get(site.address, "/").await?;
    ensure!(answer == page, "site {} serves another page:\n{answer}", site.name);
    Ok(())
}

/// Prints what a site sees of its world: little, and no host.
async fn show_facts(site: &Site) -> anyhow::Result<()> {
    let text = http::get(site.address, "/facts").await?;
    let facts: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)?;
    println!("  {} sees:", site.name);
    for (name, value) in facts {
        let shown = match &value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        println!("    {name:<14}{shown}");
    }
    Ok(())
}

fn memory(site: &Site) -> Memory {
    let monitor_kib = host::parent(site.pid).map(host::pss_kib).unwrap_or_default();
    Memory { name: site.name.clone(), program_kib: host::pss_kib(site.pid), monitor_kib }
}
