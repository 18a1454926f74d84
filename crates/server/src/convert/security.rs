//! Isolation and privilege: capabilities, security options, namespaces, devices.

use capsa_api::types::HostConfig;
use capsa_engine::spec::{DeviceSpec, NamespaceMode, SeccompSpec, SecuritySpec};

use crate::error::{ApiError, Result};

/// Every capability of Linux 6.x without `CAP_` (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Reads everything that confines.
pub(crate) fn security(host: &HostConfig) -> Result<SecuritySpec> {
    let mut security = SecuritySpec {
        privileged: host.privileged,
        cap_add: capabilities(host.cap_add.as_deref(), "CapAdd")?,
        cap_drop: capabilities(host.cap_drop.as_deref(), "CapDrop")?,
        read_only_rootfs: host.readonly_rootfs,
        masked_paths: host.masked_paths.clone(),
        read_only_paths: host.readonly_paths.clone(),
        pid: shared_namespace(&host.pid_mode, "PID mode", &[])?,
        ipc: shared_namespace(&host.ipc_mode, "IPC mode", &["none", "private", "shareable"])?,
        uts: host_namespace(&host.uts_mode, "UTS mode", &[])?,
        user: host_namespace(&host.userns_mode, "userns mode", &["private"])?,
        cgroup: host_namespace(&host.cgroupns_mode, "cgroup namespace mode", &["private"])?,
        ..SecuritySpec::default()
    };
    for option in host.security_opt.iter().flatten() {
        apply_option(&mut security, option)?;
    }
    Ok(security)
}

/// Reads the devices; device requests (GPUs) have no driver here.
pub(crate) fn devices(host: &HostConfig) -> Result<Vec<DeviceSpec>> {
    if let Some(request) = host.device_requests.iter().flatten().next() {
        let capabilities: Vec<String> = request
            .capabilities
            .iter()
            .flatten()
            .map(|all| format!("[{}]", all.join(" ")))
            .collect();
        return Err(ApiError::bad_request(format!(
            "could not select device driver {:?} with capabilities: [{}]",
            request.driver,
            capabilities.join(" ")
        )));
    }
    host.devices
        .iter()
        .map(|device| {
            let or = |text: &str, other: &str| {
                if text.is_empty() { other.to_owned() } else { text.to_owned() }
            };
            let permissions = or(&device.cgroup_permissions, "rwm");
            if device.path_on_host.is_empty() || !permissions.bytes().all(|b| b"rwm".contains(&b)) {
                return Err(ApiError::bad_request(format!(
                    "invalid device specification: {:?}, permissions {permissions:?}",
                    device.path_on_host
                )));
            }
            let container_path = or(&device.path_in_container, &device.path_on_host);
            Ok(DeviceSpec { host_path: device.path_on_host.clone(), container_path, permissions })
        })
        .collect()
}

/// Checks `c 10:200 rwm` lines.
pub(crate) fn device_rules(host: &HostConfig) -> Result<Vec<String>> {
    let number = |t: &str| t == "*" || t.parse::<u32>().is_ok();
    let valid = |rule: &str| {
        let fields: Vec<&str> = rule.split(' ').collect();
        let [kind, numbers, access] = fields.as_slice() else { return false };
        matches!(*kind, "a" | "b" | "c")
            && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
            && (1..=3).contains(&access.len())
            && access.bytes().all(|b| b"rwm".contains(&b))
    };
    let rules = host.device_cgroup_rules.clone().unwrap_or_default();
    match rules.iter().find(|rule| !valid(rule)) {
        Some(rule) => {
            Err(ApiError::bad_request(format!("invalid device cgroup rule format: '{rule}'")))
        }
        None => Ok(rules),
    }
}

fn capabilities(list: Option<&[String]>, field: &str) -> Result<Vec<String>> {
    list.unwrap_or_default()
        .iter()
        .map(|text| {
            let upper = text.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if name == "ALL" || CAPABILITIES.contains(&name) {
                Ok(name.to_owned())
            } else {
                Err(ApiError::bad_request(format!("invalid {field}: unknown capability: {text:?}")))
            }
        })
        .collect()
}

fn apply_option(security: &mut SecuritySpec, option: &str) -> Result<()> {
    let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
        Some(pair) => pair,
        None if option == "no-new-privileges" => (option, "true"),
        None if option == "disable" => return Ok(()),
        None => return Err(ApiError::bad_request(format!("invalid --security-opt 1: {option:?}"))),
    };
    match key {
        // SELinux is not there; Docker, too, ignores labels then.
        "label" => {}
        "apparmor" => security.apparmor = Some(value.to_owned()).filter(|v| !v.is_empty()),
        "seccomp" => security.seccomp = seccomp(value)?,
        "no-new-privileges" => {
            security.no_new_privileges = value.parse().map_err(|_| {
                ApiError::bad_request(format!("invalid --security-opt 2: {option:?}"))
            })?;
        }
        "systempaths" if value == "unconfined" => {
            security.masked_paths = Some(Vec::new());
            security.read_only_paths = Some(Vec::new());
        }
        _ => return Err(ApiError::bad_request(format!("invalid --security-opt 2: {option:?}"))),
    }
    Ok(())
}

fn seccomp(value: &str) -> Result<SeccompSpec> {
    match value {
        "unconfined" => Ok(SeccompSpec::Unconfined),
        "" | "builtin" => Ok(SeccompSpec::Default),
        profile => match serde_json::from_str::<serde_json::Map<_, _>>(profile) {
            Ok(_) => Ok(SeccompSpec::Profile(profile.to_owned())),
            Err(error) => {
                Err(ApiError::bad_request(format!("decoding seccomp profile failed: {error}")))
            }
        },
    }
}

/// The host's namespace or a private one.
fn host_namespace(text: &str, what: &str, private: &[&str]) -> Result<NamespaceMode> {
    match text {
        "" => Ok(NamespaceMode::Private),
        "host" => Ok(NamespaceMode::Host),
        other if private.contains(&other) => Ok(NamespaceMode::Private),
        other => Err(ApiError::bad_request(format!("invalid {what}: {other}"))),
    }
}

/// The same, or another container's.
fn shared_namespace(text: &str, what: &str, private: &[&str]) -> Result<NamespaceMode> {
    match text.strip_prefix("container:") {
        Some("") => Err(ApiError::bad_request(format!("invalid {what}: {text}"))),
        Some(container) => Ok(NamespaceMode::Container(container.to_owned())),
        None => host_namespace(text, what, private),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_options(options: &[&str]) -> Result<SecuritySpec> {
        let list = options.iter().map(ToString::to_string).collect();
        security(&HostConfig { security_opt: Some(list), ..HostConfig::default() })
    }

    #[test]
    fn security_options_are_read_in_both_spellings() {
        let spec =
            with_options(&["no-new-privileges:true", "apparmor=x", "label=disable"]).unwrap();
        assert!(spec.no_new_privileges);
        assert_eq!(spec.apparmor.as_deref(), Some("x"));
        assert!(!with_options(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        let open = with_options(&["seccomp=unconfined", "systempaths=unconfined"]).unwrap();
        assert!(matches!(open.seccomp, SeccompSpec::Unconfined));
        assert_eq!(open.masked_paths, Some(Vec::new()));
        let profile = with_options(&[r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#]).unwrap();
        assert!(matches!(profile.seccomp, SeccompSpec::Profile(text) if text.starts_with('{')));
        for bad in ["x", "x=y", "no-new-privileges=perhaps", "seccomp=/a/file"] {
            assert!(with_options(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn capabilities_lose_their_prefix_and_must_exist() {
        let list = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        let host = HostConfig { cap_add: list(&["cap_net_admin", "ALL"]), ..HostConfig::default() };
        assert_eq!(security(&host).unwrap().cap_add, ["NET_ADMIN", "ALL"]);
        let host = HostConfig { cap_drop: list(&["CAP_X"]), ..HostConfig::default() };
        let message = security(&host).unwrap_err().message;
        assert_eq!(message, "invalid CapDrop: unknown capability: \"CAP_X\"");
    }

    #[test]
    fn namespaces_are_private_shared_or_anothers() {
        let pid = |mode: &str| {
            security(&HostConfig { pid_mode: mode.into(), ..HostConfig::default() }).map(|s| s.pid)
        };
        assert_eq!(pid(""), Ok(NamespaceMode::Private));
        assert_eq!(pid("host"), Ok(NamespaceMode::Host));
        assert_eq!(pid("container:x"), Ok(NamespaceMode::Container("x".into())));
        assert!(pid("container:").is_err() && pid("private").is_err());
    }

    #[test]
    fn device_rules_have_three_fields() {
        let rules = |rule: &str| {
            let list = Some(vec![rule.to_owned()]);
            device_rules(&HostConfig { device_cgroup_rules: list, ..HostConfig::default() })
        };
        assert!(rules("c 10:* rwm").is_ok());
        for bad in ["c 10:200", "x 1:1 r", "c 1 r", "c 1:1 x"] {
            assert!(rules(bad).is_err(), "{bad}");
        }
    }
}
