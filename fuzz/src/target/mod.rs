//! What is fuzzed, and what must hold for it.

mod archive;
mod images;
mod manifest;
mod reference;
mod registry;
mod shelf;
mod tar;

use crate::random::Random;

/// A parser with the properties that it keeps for every input.
pub(crate) trait Target {
    /// As on the command line.
    fn name(&self) -> &'static str;

    /// Makes one input and gives it to the parser; whether it was accepted. An error is a
    /// property that doesn't hold.
    fn run(&mut self, random: &mut Random) -> anyhow::Result<bool>;
}

/// Every target.
pub(crate) fn all() -> anyhow::Result<Vec<Box<dyn Target>>> {
    Ok(vec![
        Box::new(tar::Tar::new()?),
        Box::new(manifest::Manifest),
        Box::new(reference::References),
        Box::new(archive::Archives),
        Box::new(registry::Registry::new()?),
    ])
}
