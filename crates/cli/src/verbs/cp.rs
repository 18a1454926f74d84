//! `cp`: files into a container and out of it.
//!
//! Both directions are one archive. Where the copy lands follows cp(1) as Docker
//! understands it: into a directory that exists, else under the new name; a source
//! that ends in `/.` means what is in it.

use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capsa_api::encoding::{encode, with_query};
use capsa_api::types::PathStat;
use capsa_api::{Client, Payload};
use hyper::Method;
use hyper::header::HeaderMap;
use tar::{Archive, Builder, EntryType};

use super::Outcome;
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::units::human_size;
use crate::output::{note, out};
use crate::session::Session;

/// `capsa cp`.
pub(crate) static CP: Command = Command {
    names: &["container cp", "cp"],
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-  or  SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files between a container and the host",
    flags: &[&[
        Flag::switch("archive", "Keep user and group ids").short('a'),
        Flag::switch("follow-link", "Follow a symbolic link at the source").short('L'),
        Flag::switch("quiet", "Don't say what was copied").short('q'),
    ]],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(cp(session, matches)),
};

/// Go's `FileMode` bits, which the API uses.
const GO_DIRECTORY: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;

async fn cp(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let (source, target) = (split(matches.arg(0)), split(matches.arg(1)));
    let options = Options {
        archive: matches.flag("archive"),
        follow: matches.flag("follow-link"),
        quiet: matches.flag("quiet"),
    };
    match (source, target) {
        ((Some(container), path), (None, local)) => {
            let copy = Copy { client: session.client()?, container, options };
            copy.fetch(path, local).await
        }
        ((None, local), (Some(container), path)) => {
            let client = session.answering_client().await?;
            Copy { client, container, options }.send(local, path).await
        }
        ((Some(_), _), (Some(_), _)) => {
            Err(Failure::said("copying between containers is not supported"))
        }
        _ => Err(Failure::said("must specify at least one container source")),
    }
}

/// `container:path`, or a local path: one that begins with `.` or `/`, or has no colon.
fn split(text: &str) -> (Option<&str>, &str) {
    if text.starts_with(['.', '/']) {
        return (None, text);
    }
    match text.split_once(':') {
        Some((container, path)) if !container.is_empty() => (Some(container), path),
        _ => (None, text),
    }
}

struct Options {
    archive: bool,
    follow: bool,
    quiet: bool,
}

struct Copy<'a> {
    client: &'a Client,
    container: &'a str,
    options: Options,
}

impl Copy<'_> {
    fn path(&self, path: &str, more: &[(&str, &str)]) -> String {
        let mut query = vec![("path", path)];
        query.extend(more);
        with_query(&format!("/containers/{}/archive", encode(self.container)), &query)
    }

    async fn stat(&self, path: &str) -> Result<Option<PathStat>> {
        match self.client.stream(Method::HEAD, &self.path(path, &[]), Payload::Empty).await {
            Ok(answer) => stat_of(&answer.headers).map(Some),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn fetch(&self, path: &str, local: &str) -> Outcome {
        let mut path = path.to_owned();
        if self.options.follow
            && let Some(stat) = self.stat(&path).await?
            && stat.mode & GO_SYMLINK != 0
        {
            path = beside(&path, &stat.link_target);
        }
        let answer =
            self.client.stream(Method::GET, &self.path(&path, &[]), Payload::Empty).await?;
        let stat = stat_of(&answer.headers)?;
        let mut body = answer.body;
        if local == "-" {
            while let Some(chunk) = body.chunk().await? {
                out(&chunk);
            }
            return Ok(0);
        }
        let is_directory = stat.mode & GO_DIRECTORY != 0;
        let landing = landing(&path, is_directory, local)?;
        let (reader, mut writer) = io::pipe()?;
        let work = std::thread::spawn(move || unpack(reader, &landing));
        let mut size = 0;
        while let Some(chunk) = body.chunk().await? {
            size += chunk.len();
            if writer.write_all(&chunk).is_err() {
                break;
            }
        }
        drop(writer);
        finish(work)?;
        self.report(size, &absolute(local));
        Ok(0)
    }

    async fn send(&self, local: &str, path: &str) -> Outcome {
        let mut target = path.to_owned();
        let mut stat = self.stat(&target).await?;
        if let Some(link) = stat.as_ref().filter(|stat| stat.mode & GO_SYMLINK != 0) {
            target = beside(&target, &link.link_target);
            stat = self.stat(&target).await?;
        }
        let target_is_directory = stat.as_ref().map(|stat| stat.mode & GO_DIRECTORY != 0);
        let mut more = vec![("noOverwriteDirNonDir", "true")];
        if self.options.archive {
            more.push(("copyUIDGID", "true"));
        }
        if local == "-" {
            if target_is_directory != Some(true) {
                return Err(Failure::said(format!(
                    "destination \"{}:{path}\" must be a directory",
                    self.container
                )));
            }
            let upload = Payload::tar(io::stdin());
            self.client.act(Method::PUT, &self.path(&target, &more), upload).await?;
            return Ok(0);
        }
        let (folder, name) = self.place(local, &target, target_is_directory)?;
        let (reader, writer) = io::pipe()?;
        let (local_path, follow) = (PathBuf::from(local), self.options.follow);
        let work = std::thread::spawn(move || pack(&local_path, name.as_deref(), follow, writer));
        let upload = Payload::tar(reader);
        let sent = self.client.act(Method::PUT, &self.path(&folder, &more), upload).await;
        // Why packing failed says more than the broken upload that follows from it.
        match (finish(work), sent) {
            (Ok(size), Ok(_)) => self.report(size, &format!("{}:{path}", self.container)),
            (Ok(_), Err(error)) => return Err(error.into()),
            (Err(failure), _) => return Err(failure),
        }
        Ok(0)
    }

    /// The directory in the container to unpack in, and the name to unpack as; none
    /// for what is in a directory.
    fn place(
        &self,
        local: &str,
        target: &str,
        exists: Option<bool>,
    ) -> Result<(String, Option<String>)> {
        let meta = match self.options.follow {
            true => fs::metadata(local),
            false => fs::symlink_metadata(local),
        }
        .map_err(|error| Failure::io("lstat", local, &error))?;
        let contents = names_contents(local);
        match exists {
            Some(true) if contents => Ok((target.to_owned(), None)),
            Some(true) => {
                let name = base(&absolute(local));
                Ok((target.to_owned(), Some(name)))
            }
            Some(false) if meta.is_dir() => Err(Failure::said("cannot copy directory")),
            None if target.ends_with('/') && !meta.is_dir() => {
                Err(Failure::said(format!("no such directory: {}:{target}", self.container)))
            }
            _ => {
                let clean = target.trim_end_matches('/');
                Ok((parent(clean), Some(base(clean))))
            }
        }
    }

    fn report(&self, size: usize, to: &str) {
        if !self.options.quiet {
            note(&format!("Successfully copied {} to {to}", human_size(size as f64, 3)));
        }
    }
}

fn finish<T>(work: JoinHandle<io::Result<T>>) -> Result<T> {
    match work.join() {
        Ok(done) => done.map_err(|error| Failure::said(error.to_string())),
        Err(_) => Err(Failure::said("copying ended unexpectedly")),
    }
}

/// What the daemon says of a path.
fn stat_of(headers: &HeaderMap) -> Result<PathStat> {
    headers
        .get("x-docker-container-path-stat")
        .and_then(|value| STANDARD.decode(value).ok())
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| Failure::said("unable to get resource stat from response"))
}

/// How the archive's first name becomes a place on the host.
#[derive(Debug, PartialEq, Eq)]
struct Landing {
    /// Unpack here; exists.
    folder: PathBuf,
    /// Name instead of the archive's first one: none leaves it, empty drops it.
    name: Option<String>,
}

fn landing(path: &str, is_directory: bool, local: &str) -> Result<Landing> {
    let target = Path::new(local);
    let meta = fs::metadata(target).ok();
    match meta {
        Some(meta) if meta.is_dir() => {
            let name = names_contents(path).then(String::new);
            Ok(Landing { folder: target.to_owned(), name })
        }
        Some(_) if is_directory => Err(Failure::said("cannot copy directory")),
        None if local.ends_with('/') && !is_directory => {
            Err(Failure::said(format!("no such directory: {local}")))
        }
        _ => {
            let whole = absolute(local);
            let folder = PathBuf::from(parent(&whole));
            if !folder.is_dir() {
                return Err(Failure::said(format!(
                    "invalid output path: directory {:?} does not exist",
                    folder.display().to_string()
                )));
            }
            Ok(Landing { folder, name: Some(base(&whole)) })
        }
    }
}

/// Unpacks inside the folder and nowhere else, whatever names and links come.
fn unpack(reader: PipeReader, landing: &Landing) -> io::Result<()> {
    let Some(name) = landing.name.clone() else {
        return unpack_in(reader, &landing.folder);
    };
    let (renamed, writer) = io::pipe()?;
    let renaming = std::thread::spawn(move || rename(reader, &name, writer));
    let unpacked = unpack_in(renamed, &landing.folder);
    match renaming.join() {
        Ok(done) => unpacked.and(done),
        Err(_) => Err(io::Error::other("copying ended unexpectedly")),
    }
}

fn unpack_in(reader: impl Read, folder: &Path) -> io::Result<()> {
    let mut archive = Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_overwrite(true);
    archive.unpack(folder)
}

/// Copies an archive with another first name; an empty one drops it.
fn rename(reader: impl Read, name: &str, writer: impl Write) -> io::Result<()> {
    let mut archive = Archive::new(reader);
    let mut builder = Builder::new(writer);
    let moved = |path: &Path| -> PathBuf {
        let rest: PathBuf = path.components().skip(1).collect();
        let whole = Path::new(name).join(rest);
        if whole.as_os_str().is_empty() { PathBuf::from(".") } else { whole }
    };
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = moved(&entry.path()?);
        let mut header = entry.header().clone();
        match header.entry_type() {
            EntryType::Link | EntryType::Symlink => {
                let target =
                    entry.link_name()?.map(|target| target.into_owned()).unwrap_or_default();
                let hard = header.entry_type() == EntryType::Link;
                let target = if hard { moved(&target) } else { target };
                builder.append_link(&mut header, path, target)?;
            }
            _ => builder.append_data(&mut header, path, &mut entry)?,
        }
    }
    builder.finish()
}

/// Writes a local file or directory as an archive under `name`; bytes written come back.
fn pack(local: &Path, name: Option<&str>, follow: bool, writer: impl Write) -> io::Result<usize> {
    let mut builder = Builder::new(Counted { writer, size: 0 });
    builder.follow_symlinks(false);
    let source = if follow { fs::canonicalize(local)? } else { local.to_owned() };
    let meta = fs::symlink_metadata(&source)?;
    let at = Path::new(name.unwrap_or("."));
    if meta.is_dir() {
        builder.append_dir_all(at, &source)?;
    } else if meta.is_file() {
        builder.append_file(at, &mut File::open(&source)?)?;
    } else {
        builder.append_path_with_name(&source, at)?;
    }
    Ok(builder.into_inner()?.size)
}

/// What is in a local folder, as an archive that is written while it is read.
pub(super) fn folder_archive(folder: &str) -> Result<PipeReader> {
    if !Path::new(folder).is_dir() {
        return Err(Failure::said(format!("unable to prepare context: path {folder:?} not found")));
    }
    let (reader, writer) = io::pipe()?;
    let folder = PathBuf::from(folder);
    std::thread::spawn(move || pack(&folder, None, false, writer));
    Ok(reader)
}

struct Counted<W> {
    writer: W,
    size: usize,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.size += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// `dir/.` means what is in `dir`.
fn names_contents(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

fn parent(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
    }
}

fn base(path: &str) -> String {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
}

/// The target of a link at `path`.
fn beside(path: &str, link_target: &str) -> String {
    match link_target.starts_with('/') {
        true => link_target.to_owned(),
        false => format!("{}/{link_target}", parent(path.trim_end_matches('/'))),
    }
}

fn absolute(local: &str) -> String {
    std::path::absolute(local).unwrap_or_else(|_| local.into()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_names_a_container_unless_the_path_is_local() {
        assert_eq!(split("web:/etc"), (Some("web"), "/etc"));
        assert_eq!(split("./a:b"), (None, "./a:b"));
        assert_eq!(split("/a:b"), (None, "/a:b"));
        assert_eq!(split("-"), (None, "-"));
        assert!(names_contents("/etc/.") && !names_contents("/etc/.x"));
        assert_eq!((parent("/a"), base("/a/")), ("/".to_owned(), "a".to_owned()));
        assert_eq!(beside("/a/l", "../x"), "/a/../x");
    }

    #[test]
    fn an_archive_gets_another_first_name() {
        let mut builder = Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o640);
        builder.append_data(&mut header.clone(), "old/deep/file", &b"hi"[..]).unwrap();
        header.set_entry_type(EntryType::Link);
        header.set_size(0);
        builder.append_link(&mut header, "old/link", "old/deep/file").unwrap();
        let bytes = builder.into_inner().unwrap();
        for (name, want) in [("new", ["new/deep/file", "new/link"]), ("", ["deep/file", "link"])] {
            let mut renamed = Vec::new();
            rename(&bytes[..], name, &mut renamed).unwrap();
            let mut archive = Archive::new(&renamed[..]);
            let entries: Vec<(String, String)> = archive
                .entries()
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    let link = entry.link_name().unwrap().map(|link| link.display().to_string());
                    (entry.path().unwrap().display().to_string(), link.unwrap_or_default())
                })
                .collect();
            assert_eq!(entries[0].0, want[0]);
            assert_eq!(entries[1], (want[1].to_owned(), want[0].to_owned()));
        }
    }
}
