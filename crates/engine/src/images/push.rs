//! Images to registries.

use capsa_image::registry::{Access, Sent};
use capsa_image::{Image, Layer, Source, copy};
use capsa_oci::{Digest, Reference};
use capsa_store::Durability;

use super::ends::Outgoing;
use super::progress::{OnLine, layer_line, plain, report};
use super::pull::explained;
use super::record::Record;
use super::{Images, no_such_image};
use crate::view::PushedView;
use crate::{Error, Result};

impl Images {
    /// Sends the image of each tag: of `reference` if it has one, else of all that its
    /// repository has here. `tell` gets lines in Docker's words.
    ///
    /// # Errors
    /// `NotFound` when there is no such tag here, or what the registry answers; what was
    /// sent before stays there.
    pub fn push(&self, reference: &Reference, access: &Access, tell: &OnLine<'_>) -> Result<()> {
        let chosen = self.chosen(reference)?;
        let repository = format!("{}/{}", reference.domain(), reference.path());
        tell(plain(&format!("The push refers to repository [{repository}]")));
        for tag in chosen {
            self.push_one(&tag, access, tell)?;
        }
        Ok(())
    }

    /// The tags that a push means.
    fn chosen(&self, reference: &Reference) -> Result<Vec<Reference>> {
        if reference.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let mut chosen = Vec::new();
        for (name, _) in self.store.tags()? {
            let Ok(name) = Reference::parse(&name) else { continue };
            let same = (name.domain(), name.path()) == (reference.domain(), reference.path());
            if same && (reference.tag().is_none() || reference.tag() == name.tag()) {
                chosen.push(name);
            }
        }
        if chosen.is_empty() {
            let name = reference.familiar();
            let text = format!("An image does not exist locally with the tag: {name}");
            return Err(Error::not_found(text));
        }
        Ok(chosen)
    }

    fn push_one(&self, tag: &Reference, access: &Access, tell: &OnLine<'_>) -> Result<()> {
        let id = self.store.tag(&tag.canonical())?.ok_or_else(|| no_such_image(&tag.familiar()))?;
        for layer in &self.image(&id, Vec::new())?.layers {
            tell(layer_line(layer.diff_id.short(), "Preparing"));
        }
        let image = self.packed(&id)?;
        let sent = |layer: &Layer, sent: &Sent| {
            let status = match sent {
                Sent::Present => "Layer already exists".to_owned(),
                Sent::Mounted(from) => format!("Mounted from {from}"),
                Sent::Pushed => "Pushed".to_owned(),
            };
            tell(layer_line(layer.diff_id.short(), &status));
        };
        let on_progress = |layer: &Layer, done: u64| {
            report(tell, layer.diff_id.short(), "Pushing", done, layer.blob.size);
        };
        let failed = |error| explained(error, &tag.familiar());
        let mounts = self.mounts(&id, tag)?;
        let sink = self.registries.push(tag, access, mounts, &sent).map_err(failed)?;
        let source = Outgoing { store: &self.store, images: vec![image] };
        let images = source.images()?;
        copy(&source, &images, &sink, &on_progress).map_err(failed)?;
        self.pushed(tag, &images[0], tell)
    }

    /// Repositories of the same registry that the image has been in.
    fn mounts(&self, id: &Digest, tag: &Reference) -> Result<Vec<String>> {
        let record = Record::of(id, &self.row(id)?)?;
        let known = record.repo_digests.iter().filter_map(|name| Reference::parse(name).ok());
        let mut paths: Vec<String> = known
            .filter(|name| name.domain() == tag.domain() && name.path() != tag.path())
            .map(|name| name.path().to_owned())
            .collect();
        paths.sort();
        paths.dedup();
        Ok(paths)
    }

    /// Remembers the digest that the image has there now, and tells it.
    fn pushed(&self, tag: &Reference, image: &Image, tell: &OnLine<'_>) -> Result<()> {
        let digest = &image.manifest_digest;
        let mut row = self.row(&image.id)?;
        let mut record = Record::of(&image.id, &row)?;
        let name = format!("{}@{digest}", tag.familiar_name());
        if !record.repo_digests.contains(&name) {
            record.repo_digests.push(name);
            row.body = record.body()?;
            if row.manifest.is_none() {
                self.store.write_blob(&image.manifest, Durability::Process)?;
                row.manifest = Some(digest.clone());
                row.blobs.push(digest.clone());
            }
            self.store.put_image(&image.id, &row)?;
        }
        let (tag, size) = (tag.tag().unwrap_or_default(), image.manifest.len() as u64);
        tell(plain(&format!("{tag}: digest: {digest} size: {size}")));
        let pushed = PushedView { tag: tag.to_owned(), digest: digest.clone(), size };
        tell(crate::view::Progress { pushed: Some(pushed), ..Default::default() });
        Ok(())
    }
}
