//! One atomic change of one table.
//!
//! Invariant: what is sent is framed by the subsystem's begin and end messages,
//! and every operation in it names the batch's own table.

use super::element::{self, Element};
use super::expression::{self, Expression};
use super::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, DELSETELEM, DELTABLE, Family,
    HEAD, HOOK_NUMBER, HOOK_PRIORITY, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE, RULE_TABLE,
    SUBSYSTEM, TABLE_NAME, head,
};
use crate::netlink::message::{APPEND, CREATE, EXCL, Messages};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const TABLE_USERDATA: u16 = 6;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LEN: u16 = 7;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const DESC_CONCAT: u16 = 2;
const FIELD_LEN: u16 = 1;
const LIST_ELEM: u16 = 1;

const FLAG_INTERVAL: u32 = 4;
const FLAG_MAP: u32 = 8;
const FLAG_CONCAT: u32 = 0x80;

/// nft's note that keys are in host order: without it `nft list` shows no names.
const HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

/// A nested attribute holds less than 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 150;

/// Operations on one table, in order.
#[derive(Clone, Debug)]
pub struct Batch {
    messages: Messages,
    family: Family,
    table: String,
    sets: u32,
}

/// What a base chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept or drop.
    Filter,
    /// Rewrite addresses; sees the first packet of a connection only.
    Nat,
}

/// Where in the packet's way a base chain sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Before routing.
    Prerouting = 0,
    /// To the host itself.
    Input = 1,
    /// Through the host.
    Forward = 2,
    /// From the host itself.
    Output = 3,
    /// On the way out.
    Postrouting = 4,
}

/// A chain that the kernel calls, with policy accept.
#[derive(Clone, Copy, Debug)]
pub struct BaseChain<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is for.
    pub kind: ChainKind,
    /// Where it sits.
    pub hook: Hook,
    /// Its place among the chains of that hook; lower is earlier.
    pub priority: i32,
}

/// One part of a key or of a map's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// An IPv4 address.
    Ipv4,
    /// An interface name, NUL-padded to 16 bytes.
    Interface,
    /// An IP protocol number.
    Protocol,
    /// A port in network byte order.
    Port,
}

/// A named set, or a map if it has data.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// The parts of the key.
    pub key: &'a [Field],
    /// The parts of what a key leads to; empty for a set.
    pub data: &'a [Field],
    /// Whether elements are ranges. Needs at least two key fields (Linux 5.6).
    pub ranges: bool,
}

impl Batch {
    /// An empty batch for this table.
    pub fn new(family: Family, table: &str) -> Self {
        let mut messages = Messages::new();
        frame(&mut messages, BATCH_BEGIN);
        Self { messages, family, table: table.to_owned(), sets: 0 }
    }

    /// Makes the table unless it exists.
    pub fn add_table(&mut self, comment: &str) {
        let table = self.table.clone();
        self.operation((NEWTABLE, CREATE), ("add table", ""), |m| {
            m.string(TABLE_NAME, &table);
            m.bytes(TABLE_USERDATA, &element::comment(comment));
        });
    }

    /// Removes the table with everything in it.
    pub fn delete_table(&mut self) {
        let table = self.table.clone();
        self.operation((DELTABLE, 0), ("delete table", ""), |m| m.string(TABLE_NAME, &table));
    }

    /// Makes a base chain unless it exists.
    pub fn add_chain(&mut self, chain: &BaseChain<'_>) {
        let table = self.table.clone();
        self.operation((NEWCHAIN, CREATE), ("add chain", chain.name), |m| {
            m.string(CHAIN_TABLE, &table);
            m.string(CHAIN_NAME, chain.name);
            m.nested(CHAIN_HOOK, |m| {
                m.be32(HOOK_NUMBER, chain.hook as u32);
                m.be32(HOOK_PRIORITY, chain.priority as u32);
            });
            m.be32(CHAIN_POLICY, 1);
            m.string(
                CHAIN_TYPE,
                match chain.kind {
                    ChainKind::Filter => "filter",
                    ChainKind::Nat => "nat",
                },
            );
        });
    }

    /// Adds a rule at the end of a chain. `comment` may be empty.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expression<'_>], comment: &str) {
        let table = self.table.clone();
        self.operation((NEWRULE, CREATE | APPEND), ("add rule to", chain), |m| {
            m.string(RULE_TABLE, &table);
            m.string(RULE_CHAIN, chain);
            m.nested(RULE_EXPRESSIONS, |m| {
                for expression in expressions {
                    m.nested(LIST_ELEM, |m| expression::write(expression, m));
                }
            });
            if !comment.is_empty() {
                m.bytes(RULE_USERDATA, &element::comment(comment));
            }
        });
    }

    /// Makes a set or map unless it exists.
    pub fn add_set(&mut self, set: &Set<'_>) {
        self.sets += 1;
        let (table, id) = (self.table.clone(), self.sets);
        self.operation((NEWSET, CREATE), ("add set", set.name), |m| {
            m.string(SET_TABLE, &table);
            m.string(SET_NAME, set.name);
            m.be32(SET_FLAGS, flags(set));
            m.be32(SET_KEY_TYPE, type_of(set.key));
            m.be32(SET_KEY_LEN, length_of(set.key));
            if !set.data.is_empty() {
                m.be32(SET_DATA_TYPE, type_of(set.data));
                m.be32(SET_DATA_LEN, length_of(set.data));
            }
            m.be32(SET_ID, id);
            if set.key == [Field::Interface] {
                m.bytes(SET_USERDATA, &HOST_ORDER);
            }
            if set.key.len() > 1 {
                m.nested(SET_DESC, |m| m.nested(DESC_CONCAT, |m| fields(m, set.key)));
            }
        });
    }

    /// Adds elements; one with the same key and other data is refused
    /// (`EEXIST`), the same element again is not.
    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements((NEWSETELEM, CREATE), ("add to", set), elements);
    }

    /// Adds elements none of which may exist (`EEXIST`).
    pub fn add_new_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements((NEWSETELEM, CREATE | EXCL), ("add to", set), elements);
    }

    /// Removes elements by their keys; all must exist (`ENOENT`).
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements((DELSETELEM, 0), ("delete from", set), elements);
    }

    /// The messages to send and the index of the last operation, or `None` if
    /// there is no operation.
    pub(super) fn finish(mut self) -> Option<(Messages, usize)> {
        let last = self.messages.len() - 1;
        frame(&mut self.messages, BATCH_END);
        (last > 0).then_some((self.messages, last))
    }

    fn elements(&mut self, kind: (u16, u16), (call, set): (&'static str, &str), all: &[Element]) {
        let table = self.table.clone();
        for some in all.chunks(ELEMENTS_PER_MESSAGE) {
            self.operation(kind, (call, set), |m| element::write(m, &table, set, some));
        }
    }

    fn operation(
        &mut self,
        kind: (u16, u16),
        (call, object): (&'static str, &str),
        body: impl FnOnce(&mut Messages),
    ) {
        let object = format!("{} {object}", self.table);
        self.messages.message(kind, (call, object.trim_end()), &head(self.family as u8), body);
    }
}

fn frame(messages: &mut Messages, kind: u16) {
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    let head: [u8; HEAD] = [0, 0, high, low];
    messages.message((kind, 0), ("nf_tables", "batch"), &head, |_| {});
}

fn flags(set: &Set<'_>) -> u32 {
    let map = if set.data.is_empty() { 0 } else { FLAG_MAP };
    let concat = if set.key.len() > 1 { FLAG_CONCAT } else { 0 };
    let ranges = if set.ranges { FLAG_INTERVAL } else { 0 };
    map | concat | ranges
}

fn fields(messages: &mut Messages, fields: &[Field]) {
    for field in fields {
        messages.nested(LIST_ELEM, |m| m.be32(FIELD_LEN, field.length()));
    }
}

/// nft's number for a concatenation: six bits for each part.
fn type_of(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| number << 6 | field.number())
}

/// Each part but a lone one takes whole 4-byte registers.
fn length_of(fields: &[Field]) -> u32 {
    match fields {
        [one] => one.length(),
        many => many.iter().map(|field| field.length().next_multiple_of(4)).sum(),
    }
}

impl Field {
    /// nft's number of the data type, by which `nft list` knows how to print it.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Interface => 41,
        }
    }

    fn length(self) -> u32 {
        match self {
            Self::Ipv4 => 4,
            Self::Interface => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}
