//! Image references: what is parsed and shown is parsed again to the same, in the short
//! form and in the full one.

use anyhow::{Context as _, ensure};
use capsa_oci::{Digest, Reference};

use super::Target;
use crate::random::Random;
use crate::text;

const PARTS: &[&str] = &[
    "docker.io",
    "index.docker.io",
    "library",
    "localhost",
    "localhost:5000",
    "host",
    "a.b",
    "[::1]",
    "[::1]:5000",
    "[fe80::A]",
    "Host",
    "busybox",
    "me",
    "x_y",
    "x__y",
    "x---y",
    "a",
    "0",
    "5000",
    "latest",
    "..",
    "_",
    "",
    "é",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
];

pub(crate) struct References;

impl Target for References {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn run(&mut self, random: &mut Random) -> anyhow::Result<bool> {
        let text = compose(random);
        let Ok(reference) = Reference::parse(&text) else { return Ok(false) };
        for shown in [reference.to_string(), reference.familiar(), reference.canonical()] {
            let again = Reference::parse(&shown)
                .with_context(|| format!("{text:?} is shown as {shown:?}, which is refused"))?;
            ensure!(again == reference, "{text:?} is shown as {shown:?}, which is {again:?}");
        }
        let tagged = reference.clone().with_default_tag();
        ensure!(tagged.tag().is_some() || tagged.digest().is_some(), "{text:?} has no tag");
        ensure!(tagged.path() == reference.path(), "{text:?} changed with its tag");
        Ok(true)
    }
}

fn compose(random: &mut Random) -> String {
    let count = 1 + random.below(4);
    let parts: Vec<&str> = (0..count).map(|_| *random.pick(PARTS)).collect();
    let mut text = parts.join("/");
    if random.once_in(3) {
        text += &format!(":{}", random.pick(PARTS));
    }
    if random.once_in(4) {
        text += &format!("@{}", Digest::sha256(&[random.byte()]));
    }
    if random.once_in(40) {
        text += &"/a".repeat(random.below(150));
    }
    let mut bytes = text.into_bytes();
    if random.once_in(2) {
        text::bend(random, &mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
