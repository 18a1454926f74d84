//! The names of the host's nft tables, asked of the kernel directly.
//!
//! A dump by netlink, 60 lines: `nft` may not be installed, and the engine's
//! own code must not be the witness of what the engine left.

use std::collections::BTreeSet;
use std::io;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFTA_TABLE_NAME: u16 = 1;
/// include/uapi/linux/netlink.h.
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
/// `struct nfgenmsg`: family, version, resource id.
const GENERIC_BYTES: usize = 4;

/// Every table of this network namespace, of whatever family.
///
/// # Errors
/// What the kernel said. A kernel without nftables has no tables, and no error.
pub(super) fn tables() -> io::Result<BTreeSet<String>> {
    let protocol = Some(netlink::NETFILTER);
    let flags = SocketFlags::CLOEXEC;
    let socket =
        match rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol) {
            Err(rustix::io::Errno::PROTONOSUPPORT) => return Ok(BTreeSet::new()),
            other => other?,
        };
    rustix::net::sendto(&socket, &request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut names = BTreeSet::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if read_messages(&buffer[..length], &mut names)? {
            return Ok(names);
        }
    }
}

fn request() -> Vec<u8> {
    let length = (HEADER_BYTES + GENERIC_BYTES) as u32;
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.resize(HEADER_BYTES + GENERIC_BYTES, 0);
    bytes
}

/// Adds the names of one datagram; whether the dump is over.
fn read_messages(mut bytes: &[u8], names: &mut BTreeSet<String>) -> io::Result<bool> {
    while bytes.len() >= HEADER_BYTES {
        let length = (number(bytes, 0) | number(bytes, 2) << 16) as usize;
        let length = length.clamp(HEADER_BYTES, bytes.len());
        let (message, rest) = bytes.split_at(length);
        match number(message, 4) as u16 {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(error_of(message)),
            kind if kind == NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE => {
                names.extend(table_name(message.get(HEADER_BYTES + GENERIC_BYTES..)));
            }
            _ => {}
        }
        bytes = rest.get(aligned(length) - length..).unwrap_or_default();
    }
    Ok(false)
}

fn error_of(message: &[u8]) -> io::Error {
    let negative = message.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|raw| raw.try_into().ok());
    io::Error::from_raw_os_error(-i32::from_ne_bytes(negative.unwrap_or_default()))
}

fn table_name(attributes: Option<&[u8]>) -> Option<String> {
    let mut rest = attributes?;
    while rest.len() >= 4 {
        let length = (number(rest, 0) as usize).clamp(4, rest.len());
        if number(rest, 2) as u16 == NFTA_TABLE_NAME {
            let name = rest[4..length].split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(name).into_owned());
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    None
}

/// The 16-bit number at `at`, which must be inside.
fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_message(name: &str) -> Vec<u8> {
        let mut message = vec![0; HEADER_BYTES + GENERIC_BYTES];
        let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE;
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend([8, 0, 2, 0, 0, 0, 0, 0]); // NFTA_TABLE_FLAGS
        message.extend((name.len() as u16 + 5).to_ne_bytes());
        message.extend(NFTA_TABLE_NAME.to_ne_bytes());
        message.extend(name.as_bytes());
        message.push(0);
        let length = message.len() as u32;
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message.resize(aligned(message.len()), 0);
        message
    }

    #[test]
    fn names_are_read_until_the_dump_is_done() {
        let mut done = vec![0; HEADER_BYTES];
        done[0] = HEADER_BYTES as u8;
        done[4] = NLMSG_DONE as u8;
        let bytes = [table_message("capsa0"), table_message("filter"), done].concat();
        let mut names = BTreeSet::new();
        assert!(read_messages(&bytes, &mut names).unwrap());
        assert_eq!(Vec::from_iter(names), ["capsa0", "filter"]);
    }

    #[test]
    fn a_cut_message_ends_the_reading() {
        let message = table_message("capsa0");
        for length in 0..message.len() {
            let mut names = BTreeSet::new();
            assert!(!read_messages(&message[..length], &mut names).unwrap());
        }
    }
}
