//! New images: of a container's changes, or of a file system tar.

use std::io;
use std::path::Path;

use capsa_image::{Image, Sink, archive};
use capsa_oci::{
    Digest, ExecConfig, History, ImageConfig, Platform, Reference, RootFs, media_type,
};
use capsa_store::Durability;
use capsa_sys::root::RootDir;
use jiff::Timestamp;

use super::transfer::StoreEnd;
use super::{Images, changes};
use crate::container::record::Record;
use crate::options::CommitOptions;
use crate::view::ByteSource;
use crate::{Error, Result};

impl Images {
    /// Makes an image of what the container `record` changed in `upper`.
    pub(crate) fn commit(
        &self,
        record: &Record,
        upper: &Path,
        options: &CommitOptions,
    ) -> Result<Digest> {
        let base = self.stored(&record.image)?;
        let end = StoreEnd::new(&self.store, Some(record.image.clone()));
        let upper = RootDir::open(upper)?;
        let mut ingest = self.store.ingest()?;
        capsa_image::diff(&upper, &mut ingest).map_err(|error| Error::kernel(error.to_string()))?;
        let (diff_id, size) = ingest.commit_as(None, Durability::Process)?;
        let mut config = base.parsed.clone();
        let mut exec = as_run(record, config.config.take().unwrap_or_default());
        for change in &options.changes {
            changes::apply(&mut exec, change)?;
        }
        config.config = Some(exec);
        config.author = Some(options.author.clone()).filter(|author| !author.is_empty());
        let command = std::iter::once(&record.resolved.path).chain(&record.resolved.args);
        let created_by = command.map(String::as_str).collect::<Vec<_>>().join(" ");
        let mut layers: Vec<_> = base.layers.iter().map(|layer| layer.blob.clone()).collect();
        layers.push(archive::descriptor(media_type::OCI_LAYER, diff_id.clone(), size));
        let step = step(created_by, &options.author, &options.message);
        finish_config(&mut config, diff_id, step);
        let name = options.reference.as_deref().map(Reference::parse).transpose();
        let name = name.map_err(|error| Error::invalid(error.to_string()))?;
        self.put(&end, &config, layers, name.as_ref())
    }

    /// Makes an image of one layer: a tar, compressed or not.
    pub(crate) fn import(
        &self,
        tar: ByteSource,
        reference: Option<&Reference>,
        instructions: &[String],
        message: &str,
    ) -> Result<Digest> {
        let end = StoreEnd::new(&self.store, None);
        let limits = capsa_image::Limits::default();
        let (_, mut plain) = capsa_image::decompress(tar, &limits).map_err(|e| end.explain(e))?;
        let (diff_id, size) = end.keep(&mut *plain)?;
        let mut exec = ExecConfig::default();
        for instruction in instructions {
            changes::apply(&mut exec, instruction)?;
        }
        let platform = Platform::host();
        let mut config = ImageConfig {
            architecture: platform.architecture,
            os: platform.os,
            config: Some(exec),
            rootfs: RootFs::default(),
            ..ImageConfig::default()
        };
        let layers = vec![archive::descriptor(media_type::OCI_LAYER, diff_id.clone(), size)];
        let message = if message.is_empty() { "Imported from -" } else { message };
        finish_config(&mut config, diff_id, step(String::new(), "", message));
        self.put(&end, &config, layers, reference)
    }

    /// Unpacks the layers that are new and stores the image.
    fn put(
        &self,
        end: &StoreEnd<'_>,
        config: &ImageConfig,
        layers: Vec<capsa_oci::Descriptor>,
        name: Option<&Reference>,
    ) -> Result<Digest> {
        let config = serde_json::to_vec(config)
            .map_err(|error| Error::kernel(format!("image config: {error}")))?;
        let manifest = archive::manifest(&config, layers).map_err(|error| end.explain(error))?;
        let names = name.map(|name| name.clone().with_default_tag()).into_iter().collect();
        let image = Image::new(config, manifest, names).map_err(|error| end.explain(error))?;
        for layer in &image.layers {
            if !end.has_layer(layer).map_err(|error| end.explain(error))? {
                end.layer(layer, Box::new(io::empty())).map_err(|error| end.explain(error))?;
            }
        }
        end.store_image(&image)?;
        self.forget(&image.id);
        Ok(image.id)
    }
}

/// The image's config with what the container was run with, as Docker's commit has it.
fn as_run(record: &Record, image: ExecConfig) -> ExecConfig {
    let resolved = &record.resolved;
    let set = |ports: &[crate::spec::Port]| {
        ports.iter().map(|port| (port.to_string(), capsa_oci::Empty {})).collect()
    };
    ExecConfig {
        user: Some(resolved.user.clone()).filter(|user| !user.is_empty()),
        exposed_ports: (!resolved.exposed.is_empty()).then(|| set(&resolved.exposed)),
        env: Some(resolved.env.clone()),
        entrypoint: resolved.entrypoint.clone(),
        cmd: resolved.cmd.clone(),
        working_dir: Some(resolved.working_dir.clone()).filter(|dir| dir != "/"),
        labels: (!resolved.labels.is_empty()).then(|| resolved.labels.clone()),
        ..image
    }
}

fn step(created_by: String, author: &str, comment: &str) -> History {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    History {
        created: Some(Timestamp::now().to_string()),
        created_by: text(&created_by),
        author: text(author),
        comment: text(comment),
        empty_layer: false,
    }
}

fn finish_config(config: &mut ImageConfig, diff_id: Digest, step: History) {
    config.created.clone_from(&step.created);
    config.rootfs.diff_ids.push(diff_id);
    config.history.push(step);
}
