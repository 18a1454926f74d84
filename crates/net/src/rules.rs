//! The packet filter rules of one instance, as data: what is in the table for
//! which bridges and ports, and back from the kernel's elements. Pure.
//!
//! The rules never change; bridges and ports are elements of sets and maps, so
//! that a packet costs the same with one port as with a thousand. Table `ip`:
//!
//! | chain          | hook, priority    | says |
//! |----------------|-------------------|------|
//! | guard          | prerouting, -300  | nobody but the host itself speaks to or as 127.0.0.0/8 |
//! | redirect       | prerouting, -100  | a published port leads to its container |
//! | redirect_local | output, -100      | the same for the host's own clients, 127.0.0.1 too |
//! | forward        | forward, 0        | into a bridge: only answers, its own containers, published ports |
//! | leave          | postrouting, 100  | hide the source where the answer would miss us otherwise |
//!
//! `guard` matters because bridges have `route_localnet` (or 127.0.0.1 couldn't
//! lead to a container), and because a redirect comes before routing drops
//! packets to 127.0.0.1 that came from outside (the class of CVE-2020-8558).
//!
//! Every chain has policy accept and drops only what goes to our bridges, so
//! that other tables keep their say over everything else.

use std::net::{Ipv4Addr, SocketAddrV4};

use capsa_sys::nftables::{
    Base, BaseChain, Batch, ChainKind, Comparison, CtKey, Element, Expression, Family, Field, Hook,
    MetaKey, Register, Set, Verdict,
};
use ipnet::Ipv4Net;

use crate::plan::{BridgeSpec, PortMap, Protocol};

pub(crate) const FAMILY: Family = Family::Ip;
pub(crate) const BRIDGES: &str = "bridges";
pub(crate) const PORTS: &str = "ports";
pub(crate) const PORTS_AT: &str = "ports_at";
/// Exists if forwarding was off before we came.
pub(crate) const FORWARDING_WAS_OFF: &str = "forwarding_was_off";
const MASQUERADED: &str = "masqueraded";
const INTERNAL: &str = "internal";
const TALKING: &str = "talking";
const HOME: &str = "home";

const R0: Register = Register(0);
const R1: Register = Register(1);
const R2: Register = Register(2);
const R4: Register = Register(4);
const LOOPBACK_NAME: [u8; 16] = *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const ADDRESS_LOCAL: u32 = 2;
const STATE_ESTABLISHED_RELATED: u32 = 2 | 4;
const STATUS_REDIRECTED: u32 = 1 << 5;

/// All that varies in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) bridges: Vec<BridgeRules>,
    pub(crate) ports: Vec<PortMap>,
    pub(crate) forwarding_was_off: bool,
}

/// What the rules know of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    pub(crate) name: String,
    pub(crate) subnet: Ipv4Net,
    internal: bool,
    masquerade: bool,
    icc: bool,
}

impl Ruleset {
    /// The batch that makes the table say exactly this, whatever it said.
    pub(crate) fn replace(&self, table: &str) -> Batch {
        let mut batch = Batch::new(FAMILY, table);
        batch.add_table("made by capsa");
        batch.delete_table();
        batch.add_table("made by capsa");
        add_sets(&mut batch);
        if self.forwarding_was_off {
            batch.add_set(&set(FORWARDING_WAS_OFF, &[Field::Interface]));
        }
        add_chains(&mut batch);
        add_rules(&mut batch);
        add_bridges(&mut batch, &self.bridges);
        let (everywhere, somewhere) = port_elements(&self.ports);
        batch.add_elements(PORTS, &everywhere);
        batch.add_elements(PORTS_AT, &somewhere);
        batch
    }

    /// What elements of `bridges` and of both port maps say. An element that
    /// isn't ours to understand is left out.
    pub(crate) fn read(bridges: &[Element], ports: &[Element], ports_at: &[Element]) -> Self {
        Self {
            bridges: bridges.iter().filter_map(read_bridge).collect(),
            ports: ports.iter().chain(ports_at).filter_map(read_port).collect(),
            forwarding_was_off: false,
        }
    }
}

impl From<&BridgeSpec> for BridgeRules {
    fn from(spec: &BridgeSpec) -> Self {
        Self {
            name: spec.name.clone(),
            subnet: spec.subnet.trunc(),
            internal: spec.internal,
            masquerade: spec.masquerade && !spec.internal,
            icc: spec.icc,
        }
    }
}

/// The elements of `ports` and of `ports_at` for these ports.
pub(crate) fn port_elements(ports: &[PortMap]) -> (Vec<Element>, Vec<Element>) {
    let mut everywhere = Vec::new();
    let mut somewhere = Vec::new();
    for port in ports {
        let service = [port.protocol as u8, 0, 0, 0].into_iter().chain(padded(port.host_port));
        let data = port.to.ip().octets().into_iter().chain(padded(port.to.port())).collect();
        let element =
            |key| Element { key, key_end: None, data: Some(data), comment: port.owner.clone() };
        match port.address() {
            None => everywhere.push(element(service.collect())),
            Some(address) => {
                somewhere.push(element(address.octets().into_iter().chain(service).collect()));
            }
        }
    }
    (everywhere, somewhere)
}

fn add_sets(batch: &mut Batch) {
    use Field::{Interface, Ipv4, Port, Protocol};
    for name in [BRIDGES, MASQUERADED, INTERNAL] {
        batch.add_set(&set(name, &[Interface]));
    }
    batch.add_set(&set(TALKING, &[Interface, Interface]));
    batch.add_set(&Set { ranges: true, ..set(HOME, &[Ipv4, Interface]) });
    let target = &[Ipv4, Port];
    batch.add_set(&Set { data: target, ..set(PORTS, &[Protocol, Port]) });
    batch.add_set(&Set { data: target, ..set(PORTS_AT, &[Ipv4, Protocol, Port]) });
}

fn set<'a>(name: &'a str, key: &'a [Field]) -> Set<'a> {
    Set { name, key, data: &[], ranges: false }
}

fn add_chains(batch: &mut Batch) {
    for (name, kind, hook, priority) in [
        ("guard", ChainKind::Filter, Hook::Prerouting, -300),
        ("redirect", ChainKind::Nat, Hook::Prerouting, -100),
        ("redirect_local", ChainKind::Nat, Hook::Output, -100),
        ("forward", ChainKind::Filter, Hook::Forward, 0),
        ("leave", ChainKind::Nat, Hook::Postrouting, 100),
    ] {
        batch.add_chain(&BaseChain { name, kind, hook, priority });
    }
}

fn add_rules(batch: &mut Batch) {
    add_guard_rules(batch);
    for chain in ["redirect", "redirect_local"] {
        add_redirect_rules(batch, chain);
    }
    add_forward_rules(batch);
    add_leave_rules(batch);
}

fn add_guard_rules(batch: &mut Batch) {
    for (offset, what) in [(DESTINATION, "nothing from outside to loopback"), (SOURCE, "nor as it")]
    {
        let mut rule = vec![
            Expression::Meta(MetaKey::InputName, R0),
            Expression::Compare(R0, Comparison::NotEqual, &LOOPBACK_NAME),
        ];
        rule.extend(address_is_loopback(offset));
        rule.extend([Expression::Counter, Expression::Verdict(Verdict::Drop)]);
        batch.add_rule("guard", &rule, what);
    }
}

fn add_redirect_rules(batch: &mut Batch, chain: &str) {
    let redirect = Expression::DestinationNat { address: R0, port: R1 };
    batch.add_rule(
        chain,
        &[
            address(DESTINATION, R0),
            Expression::Meta(MetaKey::TransportProtocol, R1),
            DESTINATION_PORT_TO_R2,
            Expression::Map { map: PORTS_AT, key: R0, to: R0 },
            redirect.clone(),
        ],
        "ports published on one address",
    );
    batch.add_rule(
        chain,
        &[
            Expression::DestinationType(R0),
            Expression::Compare(R0, Comparison::Equal, &ADDRESS_LOCAL.to_ne_bytes()),
            Expression::Meta(MetaKey::TransportProtocol, R1),
            DESTINATION_PORT_TO_R2,
            Expression::Map { map: PORTS, key: R1, to: R0 },
            redirect,
        ],
        "ports published on every address",
    );
}

fn add_forward_rules(batch: &mut Batch) {
    let accept = || Expression::Verdict(Verdict::Accept);
    let state = STATE_ESTABLISHED_RELATED.to_ne_bytes();
    let status = STATUS_REDIRECTED.to_ne_bytes();
    let answers = any_bit(CtKey::State, &state).into_iter().chain([accept()]).collect::<Vec<_>>();
    batch.add_rule("forward", &answers, "answers");
    let both_ends = [
        Expression::Meta(MetaKey::InputName, R0),
        Expression::Meta(MetaKey::OutputName, R4),
        Expression::Member { set: TALKING, key: R0, inverted: false },
        accept(),
    ];
    batch.add_rule("forward", &both_ends, "containers of one network");
    for key in [MetaKey::InputName, MetaKey::OutputName] {
        batch.add_rule("forward", &dropped(key, INTERNAL), "internal networks stay inside");
    }
    let mut published = vec![
        Expression::Meta(MetaKey::OutputName, R0),
        Expression::Member { set: BRIDGES, key: R0, inverted: false },
    ];
    published.extend(any_bit(CtKey::Status, &status));
    published.push(accept());
    batch.add_rule("forward", &published, "published ports");
    let rest = dropped(MetaKey::OutputName, BRIDGES);
    batch.add_rule("forward", &rest, "everything else into a network");
}

fn add_leave_rules(batch: &mut Batch) {
    let status = STATUS_REDIRECTED.to_ne_bytes();
    let mut hairpin = any_bit(CtKey::Status, &status).to_vec();
    hairpin.extend([
        address(SOURCE, R0),
        Expression::Meta(MetaKey::OutputName, R1),
        Expression::Member { set: HOME, key: R0, inverted: false },
        Expression::Masquerade,
    ]);
    batch.add_rule("leave", &hairpin, "through a published port back into the same network");
    let mut loopback = vec![
        Expression::Meta(MetaKey::OutputName, R0),
        Expression::Member { set: BRIDGES, key: R0, inverted: false },
    ];
    loopback.extend(address_is_loopback(SOURCE));
    loopback.push(Expression::Masquerade);
    batch.add_rule("leave", &loopback, "clients on 127.0.0.1");
    let outgoing = [
        Expression::Meta(MetaKey::OutputName, R0),
        Expression::Member { set: BRIDGES, key: R0, inverted: true },
        Expression::Meta(MetaKey::InputName, R0),
        Expression::Member { set: MASQUERADED, key: R0, inverted: false },
        Expression::Masquerade,
    ];
    batch.add_rule("leave", &outgoing, "from a network to the world");
}

const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const DESTINATION_PORT_TO_R2: Expression<'static> =
    Expression::Payload { base: Base::Transport, offset: 2, length: 2, to: R2 };

fn address(offset: u32, to: Register) -> Expression<'static> {
    Expression::Payload { base: Base::Network, offset, length: 4, to }
}

fn address_is_loopback(offset: u32) -> [Expression<'static>; 2] {
    [
        Expression::Payload { base: Base::Network, offset, length: 1, to: R0 },
        Expression::Compare(R0, Comparison::Equal, &[127]),
    ]
}

fn any_bit(key: CtKey, bits: &[u8; 4]) -> [Expression<'_>; 3] {
    [
        Expression::Ct(key, R0),
        Expression::Mask(R0, bits),
        Expression::Compare(R0, Comparison::NotEqual, &[0; 4]),
    ]
}

fn dropped(key: MetaKey, set: &str) -> [Expression<'_>; 4] {
    [
        Expression::Meta(key, R0),
        Expression::Member { set, key: R0, inverted: false },
        Expression::Counter,
        Expression::Verdict(Verdict::Drop),
    ]
}

fn add_bridges(batch: &mut Batch, bridges: &[BridgeRules]) {
    let named = |wanted: fn(&BridgeRules) -> bool| {
        let wanted = bridges.iter().filter(|bridge| wanted(bridge));
        wanted.map(|bridge| plain(interface(&bridge.name))).collect::<Vec<_>>()
    };
    batch.add_elements(BRIDGES, &bridges.iter().map(bridge_element).collect::<Vec<_>>());
    batch.add_elements(MASQUERADED, &named(|bridge| bridge.masquerade));
    batch.add_elements(INTERNAL, &named(|bridge| bridge.internal));
    let talking = bridges.iter().filter(|bridge| bridge.icc);
    let both =
        talking.map(|bridge| plain([interface(&bridge.name), interface(&bridge.name)].concat()));
    batch.add_elements(TALKING, &both.collect::<Vec<_>>());
    batch.add_elements(HOME, &bridges.iter().map(home_element).collect::<Vec<_>>());
}

/// The remark of the element is what `read_bridge` reads the rest from.
fn bridge_element(bridge: &BridgeRules) -> Element {
    let mut comment = bridge.subnet.to_string();
    for (holds, word) in
        [(bridge.internal, " internal"), (bridge.masquerade, " masquerade"), (bridge.icc, " icc")]
    {
        comment.push_str(if holds { word } else { "" });
    }
    Element { comment, ..plain(interface(&bridge.name)) }
}

fn home_element(bridge: &BridgeRules) -> Element {
    let key = |address: Ipv4Addr| [&address.octets()[..], &interface(&bridge.name)].concat();
    let end = key(bridge.subnet.broadcast());
    Element { key_end: Some(end), ..plain(key(bridge.subnet.network())) }
}

fn plain(key: Vec<u8>) -> Element {
    Element { key, ..Element::default() }
}

fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn read_bridge(element: &Element) -> Option<BridgeRules> {
    let name = element.key.split(|&byte| byte == 0).next()?;
    let mut words = element.comment.split(' ');
    let subnet = words.next()?.parse().ok()?;
    let words: Vec<_> = words.collect();
    Some(BridgeRules {
        name: String::from_utf8(name.to_vec()).ok()?,
        subnet,
        internal: words.contains(&"internal"),
        masquerade: words.contains(&"masquerade"),
        icc: words.contains(&"icc"),
    })
}

fn read_port(element: &Element) -> Option<PortMap> {
    let (host_ip, service) = match element.key.as_slice() {
        [a, b, c, d, service @ ..] if service.len() == 8 => {
            (Some(Ipv4Addr::new(*a, *b, *c, *d)), service)
        }
        service => (None, service),
    };
    let [protocol, _, _, _, high, low, _, _] = *service else {
        return None;
    };
    let [a, b, c, d, to_high, to_low, ..] = *element.data.as_deref()? else {
        return None;
    };
    Some(PortMap {
        protocol: Protocol::from_number(protocol)?,
        host_ip,
        host_port: u16::from_be_bytes([high, low]),
        to: SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([to_high, to_low])),
        owner: element.comment.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_back_as_they_were_written() {
        let port = |host_ip, protocol| PortMap {
            protocol,
            host_ip,
            host_port: 8080,
            to: SocketAddrV4::new(Ipv4Addr::new(172, 17, 0, 2), 80),
            owner: "c0ffee".into(),
        };
        let bridge = BridgeRules {
            name: "capsa0".into(),
            subnet: Ipv4Net::new_assert(Ipv4Addr::new(172, 17, 0, 0), 16),
            internal: false,
            masquerade: true,
            icc: true,
        };
        let rules = Ruleset {
            bridges: vec![bridge],
            ports: vec![port(None, Protocol::Tcp), port(Some(Ipv4Addr::LOCALHOST), Protocol::Udp)],
            forwarding_was_off: false,
        };
        let bridges: Vec<_> = rules.bridges.iter().map(bridge_element).collect();
        let (everywhere, somewhere) = port_elements(&rules.ports);
        assert_eq!(Ruleset::read(&bridges, &everywhere, &somewhere), rules);
    }

    #[test]
    fn strange_elements_are_left_out() {
        let strange = Element { key: vec![1, 2, 3], ..Element::default() };
        let all = [strange];
        assert_eq!(Ruleset::read(&all, &all, &all), Ruleset::default());
    }
}
