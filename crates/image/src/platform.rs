//! Which entry of an index fits a machine.
//!
//! A variant is a level: a machine runs its own and the ones before it. Where none is
//! written, arm means v7, arm64 v8 and amd64 v1.

use capsa_oci::{Descriptor, Platform};

/// Docker's mark on manifests that describe another one.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// What an index has for a platform.
pub(crate) enum Choice<'a> {
    Found(&'a Descriptor),
    /// Only these, as text.
    Others(String),
}

/// The best of `entries`; of equal ones the first.
pub(crate) fn choose<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Choice<'a> {
    let mut best: Option<(u32, &Descriptor)> = None;
    let mut others = Vec::new();
    for entry in entries.iter().filter(|entry| is_image(entry)) {
        // Without a platform it is for anyone, if nobody else is.
        let fit = entry.platform.as_ref().map_or(Some(0), |found| rank(found, wanted));
        match (fit, &best) {
            (Some(fit), Some((known, _))) if fit <= *known => {}
            (Some(fit), _) => best = Some((fit, entry)),
            (None, _) => others.extend(entry.platform.as_ref().map(show)),
        }
    }
    match best {
        Some((_, found)) => Choice::Found(found),
        None if others.is_empty() => Choice::Others("none at all".to_owned()),
        None => Choice::Others(others.join(", ")),
    }
}

/// Whether an entry is an image rather than a note about one.
pub(crate) fn is_image(entry: &Descriptor) -> bool {
    let unknown = entry.platform.as_ref().is_some_and(|p| p.os == "unknown");
    !entry.annotations.contains_key(REFERENCE_TYPE) && !unknown
}

/// How well `found` fits `wanted`: not at all, or the higher the better.
pub(crate) fn rank(found: &Platform, wanted: &Platform) -> Option<u32> {
    if found.os != wanted.os || found.architecture != wanted.architecture {
        return None;
    }
    match (level(found), level(wanted)) {
        (Some(found), Some(wanted)) => (found <= wanted).then_some(found + 1),
        _ => (found.variant == wanted.variant).then_some(1),
    }
}

/// `os/architecture[/variant]`.
pub(crate) fn show(platform: &Platform) -> String {
    let variant = platform.variant.as_deref().map(|v| format!("/{v}")).unwrap_or_default();
    format!("{}/{}{variant}", platform.os, platform.architecture)
}

fn level(platform: &Platform) -> Option<u32> {
    match platform.variant.as_deref().filter(|variant| !variant.is_empty()) {
        Some(variant) => variant.strip_prefix('v')?.split('.').next()?.parse().ok(),
        None => Some(match platform.architecture.as_str() {
            "arm" => 7,
            "arm64" => 8,
            _ => 1,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capsa_oci::Digest;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let os = parts.next().unwrap();
        let architecture = parts.next().unwrap();
        Platform { os, architecture, variant: parts.next(), os_version: None }
    }

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let entry = |text: &&str| Descriptor {
            media_type: String::new(),
            digest: Digest::sha256(text.as_bytes()),
            size: 1,
            urls: Vec::new(),
            annotations: Default::default(),
            platform: Some(platform(text)),
        };
        platforms.iter().map(entry).collect()
    }

    fn chosen(entries: &[&str], wanted: &str) -> Result<String, String> {
        match choose(&index(entries), &platform(wanted)) {
            Choice::Found(found) => Ok(show(found.platform.as_ref().unwrap())),
            Choice::Others(others) => Err(others),
        }
    }

    #[test]
    fn the_highest_variant_that_runs_is_taken() {
        let arms =
            ["linux/amd64", "linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64/v8"];
        assert_eq!(chosen(&arms, "linux/arm/v7").unwrap(), "linux/arm/v7");
        assert_eq!(chosen(&arms, "linux/arm").unwrap(), "linux/arm/v7");
        assert_eq!(chosen(&arms, "linux/arm/v6").unwrap(), "linux/arm/v6");
        assert_eq!(chosen(&["linux/arm/v5"], "linux/arm/v7").unwrap(), "linux/arm/v5");
        assert_eq!(chosen(&arms, "linux/arm64").unwrap(), "linux/arm64/v8");
        assert_eq!(
            chosen(&["linux/amd64/v3", "linux/amd64"], "linux/amd64").unwrap(),
            "linux/amd64"
        );
    }

    #[test]
    fn what_does_not_run_is_named() {
        let error = chosen(&["linux/arm/v7", "windows/amd64", "unknown/unknown"], "linux/amd64");
        assert_eq!(error.unwrap_err(), "linux/arm/v7, windows/amd64");
        assert!(chosen(&["linux/arm/v7"], "linux/arm/v6").is_err());
    }
}
