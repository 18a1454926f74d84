//! Who has a port: the kernel's socket lists and everyone's descriptors.

use std::fs;
use std::net::Ipv4Addr;

use crate::Protocol;

/// A process that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name, at most 15 bytes.
    pub command: String,
}

/// The process whose socket has this port in the calling thread's network
/// namespace; `address` `None` means any. `None` if it can't be found, which
/// isn't an error: it may be another namespace's.
pub fn held_by(protocol: Protocol, address: Option<Ipv4Addr>, port: u16) -> Option<Holder> {
    let name = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => return None,
    };
    ["", "6"].into_iter().find_map(|version| {
        let listed = fs::read_to_string(format!("/proc/thread-self/net/{name}{version}")).ok()?;
        listed.lines().filter_map(|line| inode_of(line, address, port)).find_map(owner_of)
    })
}

/// The inode in a line of /proc/net/tcp, if it is a socket of this port that
/// doesn't belong to an established connection.
fn inode_of(line: &str, address: Option<Ipv4Addr>, port: u16) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let remote = fields.next()?;
    let (ip, local_port) = local.rsplit_once(':')?;
    let clashes = address.is_none() || bound_to(ip).is_none_or(|bound| Some(bound) == address);
    let listens = remote.ends_with(":0000");
    if !clashes || !listens || u16::from_str_radix(local_port, 16).ok()? != port {
        return None;
    }
    fields.nth(6)?.parse().ok().filter(|&inode| inode != 0)
}

/// The IPv4 address a socket is bound to; `None` for all addresses and IPv6.
fn bound_to(hex: &str) -> Option<Ipv4Addr> {
    if hex.len() != 8 {
        return None;
    }
    let raw = u32::from_str_radix(hex, 16).ok()?;
    Some(Ipv4Addr::from(raw.to_ne_bytes())).filter(|address| !address.is_unspecified())
}

fn owner_of(inode: u64) -> Option<Holder> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| has_descriptor(*pid, &wanted)).map(|pid| Holder {
        pid,
        command: fs::read_to_string(format!("/proc/{pid}/comm"))
            .map_or(String::new(), |comm| comm.trim_end().to_owned()),
    })
}

fn has_descriptor(pid: u32, wanted: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENING: &str = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0";
    const EVERYWHERE: &str = "   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4343 1 0 100 0 0 10 0";
    const CONNECTED: &str = "   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4444 1 0 100 0 0 10 0";

    #[test]
    fn a_socket_is_found_by_port_and_clashing_address() {
        let lan = Some(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(inode_of(LISTENING, None, 8080), Some(4242));
        assert_eq!(inode_of(LISTENING, Some(Ipv4Addr::LOCALHOST), 8080), Some(4242));
        assert_eq!(inode_of(LISTENING, lan, 8080), None);
        assert_eq!(inode_of(EVERYWHERE, lan, 8080), Some(4343));
        assert_eq!(inode_of(LISTENING, None, 8081), None);
        assert_eq!(inode_of(CONNECTED, None, 8080), None);
        assert_eq!(inode_of("  sl  local_address rem_address", None, 8080), None);
    }
}
