//! `spec`: a `config.json` to begin with.

use std::process::ExitCode;

use capsa_oci::runtime::{IdMapping, Namespace, NamespaceKind, RuntimeSpec};
use capsa_sys::atomic::{self, Durability};

use super::args::{flag, value};
use super::{Globals, args};
use crate::{Error, Result};

const TEMPLATE: &str = include_str!("template.json");

/// `spec`: writes it into the bundle.
pub(super) fn spec(_: &Globals, args: &[String]) -> Result<ExitCode> {
    let parsed = args::parse(args, &[value("bundle").or('b'), flag("rootless")])?;
    let bundle = parsed.path("bundle")?.unwrap_or_else(|| ".".into());
    if bundle.join("config.json").exists() {
        let file = bundle.join("config.json");
        return Err(Error::invalid(file.display().to_string(), "it exists; remove it first"));
    }
    let mut spec = template()?;
    if parsed.has("rootless") {
        for_user(&mut spec);
    }
    let text = serde_json::to_vec_pretty(&spec).map_err(|e| Error::Message(e.to_string()))?;
    atomic::write_mode(&bundle, "config.json", &text, 0o644, Durability::Process)?;
    Ok(ExitCode::SUCCESS)
}

fn template() -> Result<RuntimeSpec> {
    serde_json::from_str(TEMPLATE).map_err(|e| Error::Message(e.to_string()))
}

/// Changes it so that who isn't root can run it: the caller becomes root inside.
fn for_user(spec: &mut RuntimeSpec) {
    let Some(linux) = &mut spec.linux else { return };
    linux.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
    let map = |host_id| vec![IdMapping { container_id: 0, host_id, size: 1 }];
    linux.uid_mappings = map(rustix::process::geteuid().as_raw());
    linux.gid_mappings = map(rustix::process::getegid().as_raw());
    linux.resources = None;
    for mount in &mut spec.mounts {
        // Only one group is mapped, and without an own network there is no own /sys.
        mount.options.retain(|option| option != "gid=5");
        if mount.destination == "/sys" {
            mount.kind = Some("none".to_owned());
            mount.source = Some("/sys".to_owned());
            mount.options.insert(0, "rbind".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_whole() {
        let spec = template().unwrap();
        assert_eq!(spec.process.as_ref().unwrap().args, ["sh"]);
        let linux = spec.linux.as_ref().unwrap();
        assert!(linux.masked_paths.iter().any(|path| path == "/proc/kcore"));
        assert!(linux.namespaces.iter().all(|namespace| namespace.kind != NamespaceKind::User));
    }

    #[test]
    fn rootless_maps_the_caller() {
        let mut spec = template().unwrap();
        for_user(&mut spec);
        let linux = spec.linux.unwrap();
        assert_eq!(linux.uid_mappings[0].size, 1);
        assert!(linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::User));
        assert!(linux.namespaces.iter().all(|namespace| namespace.kind != NamespaceKind::Network));
    }
}
