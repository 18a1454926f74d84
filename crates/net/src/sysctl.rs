//! The kernel's switches below /proc/sys/net, of the calling thread's network
//! namespace.

use std::io::ErrorKind;

use crate::{Error, Result};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Switches IPv4 forwarding on. Says whether it was off.
pub(crate) fn enable_forwarding() -> Result<bool> {
    let before = std::fs::read(FORWARDING).map_err(|source| refused(FORWARDING, "1", source))?;
    if before.first() != Some(&b'0') {
        return Ok(false);
    }
    write(FORWARDING, "1")?;
    Ok(true)
}

/// Switches IPv4 forwarding off.
pub(crate) fn disable_forwarding() -> Result<()> {
    write(FORWARDING, "0")
}

/// Lets 127.0.0.1 lead into the bridge (the `guard` chain keeps the other way
/// shut) and keeps IPv6 off it, router advertisements of containers included.
pub(crate) fn prepare_bridge(name: &str) -> Result<()> {
    ensure(&format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1")?;
    without_ipv6(name)
}

/// Switches IPv6 off on a link; a kernel without IPv6 is fine.
pub(crate) fn without_ipv6(name: &str) -> Result<()> {
    match write(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1") {
        Err(Error::Sysctl { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn ensure(key: &str, value: &str) -> Result<()> {
    let before = std::fs::read(key).unwrap_or_default();
    if before.trim_ascii() == value.as_bytes() { Ok(()) } else { write(key, value) }
}

fn write(key: &str, value: &str) -> Result<()> {
    // Not std::fs::write: these files must be neither created nor truncated.
    let file = std::fs::OpenOptions::new().write(true).open(key);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|source| refused(key, value, source))
}

fn refused(key: &str, value: &str, source: std::io::Error) -> Error {
    Error::Sysctl { key: key.to_owned(), value: value.to_owned(), source }
}
