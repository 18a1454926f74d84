//! Docker's profile format: the OCI one plus conditions on capabilities,
//! architectures and kernel, which are decided here.

use capsa_oci::runtime::{Arg, Seccomp, SeccompAction, SyscallRule};
use serde::Deserialize;

use crate::{Error, Result};

/// Docker's default profile.
const DEFAULT: &str = include_str!("default.json");

/// What a profile's conditions are about.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The container's bounding capabilities, `CAP_…`.
    pub caps: &'a [String],
    /// The machine's architecture as Docker calls it: `amd64`, `arm64`.
    pub arch: &'a str,
    /// Version of the running kernel.
    pub kernel: (u32, u32),
}

impl<'a> Facts<'a> {
    /// For a container with `caps` on this machine. uname(2).
    pub fn here(caps: &'a [String]) -> Self {
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy().into_owned();
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self { caps, arch, kernel: kernel_version(&release) }
    }
}

/// Docker's default profile under `facts`.
pub fn docker_default(facts: Facts<'_>) -> Result<Seccomp> {
    from_docker_json(DEFAULT, facts)
}

/// A profile in Docker's JSON form (what `--security-opt seccomp=…` takes) under `facts`.
pub fn from_docker_json(text: &str, facts: Facts<'_>) -> Result<Seccomp> {
    let invalid = |why: String| Error::invalid("seccomp profile", why);
    let profile: Profile = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(invalid("it has both architectures and archMap; one must go".into()));
    }
    let mut syscalls = Vec::with_capacity(profile.syscalls.len());
    for mut rule in profile.syscalls {
        if !rule.name.is_empty() {
            if !rule.names.is_empty() {
                return Err(invalid("a rule has both name and names; one must go".into()));
            }
            rule.names.push(std::mem::take(&mut rule.name));
        }
        if rule.applies(&facts)? {
            let SyscallForm { names, action, errno_ret, args, .. } = rule;
            syscalls.push(SyscallRule { names, action, errno_ret, args });
        }
    }
    let architectures = match profile.architectures.is_empty() {
        true => mapped(&profile.arch_map, facts.arch),
        false => profile.architectures,
    };
    Ok(Seccomp {
        default_action: profile.default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures,
        flags: profile.flags,
        listener_path: profile.listener_path,
        listener_metadata: profile.listener_metadata,
        syscalls,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: SeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arch_map: Vec<ArchForm>,
    #[serde(default, deserialize_with = "nullable")]
    flags: Vec<String>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    syscalls: Vec<SyscallForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchForm {
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SyscallForm {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    names: Vec<String>,
    action: SeccompAction,
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    args: Vec<Arg>,
    #[serde(default)]
    includes: Conditions,
    #[serde(default)]
    excludes: Conditions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Conditions {
    #[serde(deserialize_with = "nullable")]
    caps: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

impl SyscallForm {
    /// All of `includes` hold, and none of `excludes`.
    fn applies(&self, facts: &Facts<'_>) -> Result<bool> {
        let (with, without) = (&self.includes, &self.excludes);
        let has_cap = |cap: &String| facts.caps.contains(cap);
        let is_arch = |arch: &String| arch == facts.arch;
        let excluded = without.caps.iter().any(has_cap)
            || without.arches.iter().any(is_arch)
            || without
                .min_kernel
                .as_deref()
                .map(at_least)
                .transpose()?
                .is_some_and(|v| facts.kernel >= v);
        let included = with.caps.iter().all(has_cap)
            && (with.arches.is_empty() || with.arches.iter().any(is_arch))
            && with
                .min_kernel
                .as_deref()
                .map(at_least)
                .transpose()?
                .is_none_or(|v| facts.kernel >= v);
        Ok(included && !excluded)
    }
}

/// The architecture and those that its kernel also runs.
fn mapped(map: &[ArchForm], arch: &str) -> Vec<String> {
    let native = if arch == "arm64" { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
    let Some(found) = map.iter().find(|form| form.architecture == native) else {
        return Vec::new();
    };
    [&found.architecture].into_iter().chain(&found.sub_architectures).cloned().collect()
}

fn at_least(text: &str) -> Result<(u32, u32)> {
    let parsed = text.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parsed.ok_or_else(|| Error::invalid("seccomp profile", format!("minKernel {text:?}")))
}

/// The first two numbers of a release such as `6.18.44-cloud`; 0 for what is not there.
fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Takes `null` for an empty list, as Go writes it.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(caps: &[&str]) -> Vec<String> {
        let caps: Vec<String> = caps.iter().map(|cap| (*cap).to_owned()).collect();
        let facts = Facts { caps: &caps, arch: "amd64", kernel: (6, 1) };
        let profile = docker_default(facts).unwrap();
        profile.syscalls.into_iter().flat_map(|rule| rule.names).collect()
    }

    #[test]
    fn capabilities_open_groups_of_calls() {
        let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
        let none = names(&[]);
        assert!(!has(&none, "mount") && !has(&none, "chroot"));
        assert!(has(&none, "ptrace"), "kernels from 4.8 on");
        let admin = names(&["CAP_SYS_ADMIN"]);
        assert!(has(&admin, "mount") && !has(&admin, "chroot"));
        assert!(has(&names(&["CAP_SYS_CHROOT"]), "chroot"));
    }

    #[test]
    fn architectures_and_kernel_are_conditions_too() {
        let old = Facts { caps: &[], arch: "arm64", kernel: (4, 7) };
        let profile = docker_default(old).unwrap();
        let all: Vec<_> = profile.syscalls.iter().flat_map(|rule| &rule.names).collect();
        assert!(!all.iter().any(|name| *name == "ptrace" || *name == "arch_prctl"));
        assert!(all.iter().any(|name| *name == "cacheflush"));
        assert_eq!(profile.architectures, ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
        assert_eq!(kernel_version("6.18.44-cloud"), (6, 18));
        assert_eq!(kernel_version(""), (0, 0));
    }

    #[test]
    fn contradictory_forms_are_refused() {
        let facts = Facts { caps: &[], arch: "amd64", kernel: (6, 1) };
        for text in [
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
                "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":null}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW",
                "syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_PLEASE"}"#,
            r#"{}"#,
            "not json",
        ] {
            assert!(from_docker_json(text, facts).is_err(), "{text}");
        }
    }
}
