//! The expressions that rules are made of.
//!
//! Registers are 4 bytes wide and numbered from 0; a longer value takes the
//! following ones too. A concatenated key is loaded part by part into
//! neighbouring registers.

use crate::netlink::message::Messages;

const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_REGISTER: u32 = 0;
const FIRST_REGISTER: u32 = 8;
const FIB_BY_DESTINATION: u32 = 2;
const FIB_ADDRESS_TYPE: u32 = 3;
const NAT_DESTINATION: u32 = 1;
const LOOKUP_INVERTED: u32 = 1;

/// A 4-byte register, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

/// One step of a rule: it loads, or ends the rule unless something holds, or
/// does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression<'a> {
    /// Loads something known about the packet.
    Meta(MetaKey, Register),
    /// Loads bytes of the packet.
    Payload {
        /// From where.
        base: Base,
        /// How far behind it, in bytes.
        offset: u32,
        /// How many bytes.
        length: u32,
        /// Where to.
        to: Register,
    },
    /// Loads something of the connection.
    Ct(CtKey, Register),
    /// Loads the type of the destination address (`RTN_…`), 4 bytes.
    DestinationType(Register),
    /// Keeps only the bits of `mask`, in place.
    Mask(Register, &'a [u8]),
    /// Ends the rule unless the register compares so.
    Compare(Register, Comparison, &'a [u8]),
    /// Ends the rule unless the key is in the set, or is with `inverted`.
    Member {
        /// The set's name.
        set: &'a str,
        /// The first register of the key.
        key: Register,
        /// Ends the rule if the key is in the set.
        inverted: bool,
    },
    /// Loads what the map holds for the key; ends the rule if nothing.
    Map {
        /// The map's name.
        map: &'a str,
        /// The first register of the key.
        key: Register,
        /// The first register of the value.
        to: Register,
    },
    /// Redirects the connection to an IPv4 address and a port.
    DestinationNat {
        /// The register of the address.
        address: Register,
        /// The register of the port.
        port: Register,
    },
    /// Gives the connection the address of the interface it leaves by.
    Masquerade,
    /// Counts packets and bytes.
    Counter,
    /// Ends the chain.
    Verdict(Verdict),
    /// Loads a constant.
    Immediate(Register, &'a [u8]),
}

/// What is known about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MetaKey {
    /// The name of the interface it came by, 16 bytes.
    InputName = 6,
    /// The name of the interface it leaves by, 16 bytes.
    OutputName = 7,
    /// The transport protocol, 1 byte.
    TransportProtocol = 16,
}

/// What is known about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CtKey {
    /// A bit mask: 2 established, 4 related, 8 new; 4 bytes.
    State = 0,
    /// A bit mask: 32 redirected (`IPS_DST_NAT`); 4 bytes.
    Status = 2,
}

/// Where a payload's offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Base {
    /// The IP header.
    Network = 1,
    /// The TCP, UDP or SCTP header.
    Transport = 2,
}

/// How to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Comparison {
    /// Equal.
    Equal = 0,
    /// Not equal.
    NotEqual = 1,
}

/// What becomes of the packet, as far as this table is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// It is gone.
    Drop = 0,
    /// It goes on to the next base chain.
    Accept = 1,
}

impl Register {
    fn number(self) -> u32 {
        FIRST_REGISTER + u32::from(self.0)
    }
}

pub(super) fn write(expression: &Expression<'_>, messages: &mut Messages) {
    messages.string(EXPR_NAME, name(expression));
    messages.nested(EXPR_DATA, |m| match expression {
        Expression::Meta(key, to) => numbers(m, &[(1, to.number()), (2, *key as u32)]),
        Expression::Payload { base, offset, length, to } => {
            numbers(m, &[(1, to.number()), (2, *base as u32), (3, *offset), (4, *length)]);
        }
        Expression::Ct(key, to) => numbers(m, &[(1, to.number()), (2, *key as u32)]),
        Expression::DestinationType(to) => {
            numbers(m, &[(1, to.number()), (2, FIB_ADDRESS_TYPE), (3, FIB_BY_DESTINATION)]);
        }
        Expression::Mask(register, mask) => {
            let number = register.number();
            numbers(m, &[(1, number), (2, number), (3, mask.len() as u32)]);
            value(m, 4, mask);
            value(m, 5, &vec![0; mask.len()]);
        }
        Expression::Compare(register, how, wanted) => {
            numbers(m, &[(1, register.number()), (2, *how as u32)]);
            value(m, 3, wanted);
        }
        Expression::Member { set, key, inverted } => {
            m.string(1, set);
            numbers(m, &[(2, key.number())]);
            if *inverted {
                m.be32(5, LOOKUP_INVERTED);
            }
        }
        Expression::Map { map, key, to } => {
            m.string(1, map);
            numbers(m, &[(2, key.number()), (3, to.number())]);
        }
        Expression::DestinationNat { address, port } => {
            numbers(m, &[(1, NAT_DESTINATION), (2, 2), (3, address.number()), (5, port.number())]);
        }
        Expression::Masquerade | Expression::Counter => {}
        Expression::Verdict(verdict) => {
            m.be32(1, VERDICT_REGISTER);
            m.nested(2, |m| {
                m.nested(DATA_VERDICT, |m| m.be32(VERDICT_CODE, *verdict as u32));
            });
        }
        Expression::Immediate(to, bytes) => {
            m.be32(1, to.number());
            value(m, 2, bytes);
        }
    });
}

fn name(expression: &Expression<'_>) -> &'static str {
    match expression {
        Expression::Meta(..) => "meta",
        Expression::Payload { .. } => "payload",
        Expression::Ct(..) => "ct",
        Expression::DestinationType(_) => "fib",
        Expression::Mask(..) => "bitwise",
        Expression::Compare(..) => "cmp",
        Expression::Member { .. } | Expression::Map { .. } => "lookup",
        Expression::DestinationNat { .. } => "nat",
        Expression::Masquerade => "masq",
        Expression::Counter => "counter",
        Expression::Verdict(_) | Expression::Immediate(..) => "immediate",
    }
}

fn numbers(messages: &mut Messages, attributes: &[(u16, u32)]) {
    for &(kind, number) in attributes {
        messages.be32(kind, number);
    }
}

fn value(messages: &mut Messages, kind: u16, bytes: &[u8]) {
    messages.nested(kind, |m| m.bytes(DATA_VALUE, bytes));
}
