//! Forgetting tracked connections (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Only UDP needs it: a client that never stops sending keeps its entry alive,
//! and an entry keeps the way that was right when its first packet came.

use std::cell::RefCell;

use super::message::{Attribute, DUMP, Messages, Reply};
use super::{NetlinkSocket, Result};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const ZONE: u16 = 18;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
const HEAD: usize = 4;
const IPV4: [u8; HEAD] = [2, 0, 0, 0];
const UDP: u8 = 17;

impl NetlinkSocket {
    /// Forgets the IPv4 UDP connections to these ports, on an nfnetlink socket.
    ///
    /// # Errors
    /// The kernel's refusal; without connection tracking that is `EINVAL`.
    pub fn forget_udp(&mut self, ports: &[u16]) -> Result<()> {
        let mut request = Messages::new();
        request.message((GET, DUMP), ("list", "connections"), &IPV4, |_| {});
        let stale = RefCell::new(Messages::new());
        self.dump(&mut request, &mut || *stale.borrow_mut() = Messages::new(), &mut |reply| {
            forget_if_matching(&mut stale.borrow_mut(), &reply, ports)
        })?;
        let mut stale = stale.into_inner();
        match self.execute(&mut stale) {
            // Gone by itself since it was listed.
            Err(error) if error.errno == rustix::io::Errno::NOENT => Ok(()),
            done => done,
        }
    }
}

fn forget_if_matching(stale: &mut Messages, reply: &Reply<'_>, ports: &[u16]) {
    let tuple = reply.attributes(HEAD).find(TUPLE_ORIGINAL);
    let Some(tuple) = tuple.filter(|tuple| reply.kind == NEW && leads_to(tuple, ports)) else {
        return;
    };
    stale.message((DELETE, 0), ("forget", "connection"), &IPV4, |m| {
        m.bytes(TUPLE_ORIGINAL | 1 << 15, tuple.value);
        if let Some(zone) = reply.attributes(HEAD).find(ZONE) {
            m.bytes(ZONE, zone.value);
        }
    });
}

fn leads_to(tuple: &Attribute<'_>, ports: &[u16]) -> bool {
    let Some(protocol) = tuple.nested().find(TUPLE_PROTOCOL) else {
        return false;
    };
    let is_udp = protocol.nested().find(PROTOCOL_NUMBER).map(|a| a.value) == Some(&[UDP]);
    let port = protocol.nested().find(DESTINATION_PORT).and_then(|a| a.value.try_into().ok());
    is_udp && port.is_some_and(|port| ports.contains(&u16::from_be_bytes(port)))
}
