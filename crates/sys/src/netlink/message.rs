//! Netlink messages: writing many into one buffer, and reading what comes back
//! (netlink(7), `linux/netlink.h`).
//!
//! Invariant: whatever is written ends on a 4-byte boundary, and every message
//! and nested attribute carries its true length when its closure returns.
//! Reading never panics: a kernel reply that doesn't fit its own lengths ends
//! the iteration.
//!
//! Not here: sockets (`mod`), and what the attributes of a family mean.

use std::ffi::CStr;

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = !(NESTED | 1 << 14);

/// The message is a request.
pub const REQUEST: u16 = 1;
/// The kernel shall acknowledge it.
pub const ACK: u16 = 4;
/// Return all entries.
pub const DUMP: u16 = 0x300;
/// Replace what exists.
pub const REPLACE: u16 = 0x100;
/// Fail if it exists.
pub const EXCL: u16 = 0x200;
/// Create if it doesn't exist.
pub const CREATE: u16 = 0x400;
/// Add behind what exists.
pub const APPEND: u16 = 0x800;

/// Messages for one `send`, each remembered by what it does and to what, so
/// that a refusal can be told in words.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    buffer: Vec<u8>,
    labels: Vec<Label>,
}

/// What one message was for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Label {
    pub(crate) call: &'static str,
    pub(crate) object: String,
    at: usize,
}

/// One message of a reply.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The message type (`RTM_…`, or subsystem and message of nfnetlink).
    pub kind: u16,
    /// `NLM_F_…`.
    pub flags: u16,
    /// The sequence number of the request it answers.
    pub sequence: u32,
    /// Everything behind the netlink header.
    pub body: &'a [u8],
}

/// Messages in one received buffer.
#[derive(Clone, Debug)]
pub struct Replies<'a>(pub(crate) &'a [u8]);

/// Attributes in a message's body, behind its fixed header.
#[derive(Clone, Debug)]
pub struct Attributes<'a>(&'a [u8]);

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// The type, without the nested and byte-order flags.
    pub kind: u16,
    /// The value, unpadded.
    pub value: &'a [u8],
}

impl Messages {
    /// No messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one message: its fixed part `head`, then what `body` writes.
    /// `call` and `object` name it in errors.
    pub fn message(
        &mut self,
        (kind, flags): (u16, u16),
        (call, object): (&'static str, &str),
        head: &[u8],
        body: impl FnOnce(&mut Self),
    ) {
        let at = self.buffer.len();
        self.labels.push(Label { call, object: object.to_owned(), at });
        self.buffer.extend_from_slice(&0_u32.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.buffer.extend_from_slice(&[0; 8]);
        self.buffer.extend_from_slice(head);
        self.pad();
        body(self);
        let length = (self.buffer.len() - at) as u32;
        self.buffer[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds an attribute with these bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        self.pad();
    }

    /// Adds an attribute that is a NUL-terminated string.
    pub fn string(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// Adds an attribute in host byte order.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Adds an attribute in network byte order, as nfnetlink wants.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Adds an attribute that holds the attributes which `body` writes.
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.nested_behind(kind, &[], body);
    }

    /// The same with a fixed part in front, as `VETH_INFO_PEER` has.
    pub fn nested_behind(&mut self, kind: u16, head: &[u8], body: impl FnOnce(&mut Self)) {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        self.buffer.extend_from_slice(head);
        self.pad();
        body(self);
        let length = (self.buffer.len() - at) as u16;
        self.buffer[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The length in bytes.
    pub fn byte_len(&self) -> usize {
        self.buffer.len()
    }

    /// Numbers the messages from `first` on, asks for an acknowledgement of
    /// `acked` (an index) and gives the bytes to send.
    pub(crate) fn seal(&mut self, first: u32, acked: Option<usize>) -> &[u8] {
        for (index, label) in self.labels.iter().enumerate() {
            let header = &mut self.buffer[label.at..label.at + HEADER];
            header[8..12].copy_from_slice(&first.wrapping_add(index as u32).to_ne_bytes());
            if acked == Some(index) {
                let flags = read_u16(&header[6..]).unwrap_or(REQUEST) | ACK;
                header[6..8].copy_from_slice(&flags.to_ne_bytes());
            }
        }
        &self.buffer
    }

    pub(crate) fn label(&self, index: usize) -> Option<&Label> {
        self.labels.get(index)
    }

    fn pad(&mut self) {
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }
}

impl<'a> Reply<'a> {
    /// The attributes behind a fixed part of `head` bytes.
    pub fn attributes(&self, head: usize) -> Attributes<'a> {
        Attributes(self.body.get(head..).unwrap_or_default())
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        let length = read_u32(self.0)? as usize;
        let message = self.0.get(..length).filter(|_| length >= HEADER)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Reply {
            kind: read_u16(&message[4..])?,
            flags: read_u16(&message[6..])?,
            sequence: read_u32(&message[8..])?,
            body: &message[HEADER..],
        })
    }
}

impl<'a> Attributes<'a> {
    /// The first attribute of this type.
    pub fn find(self, kind: u16) -> Option<Attribute<'a>> {
        let mut all = self;
        Iterator::find(&mut all, |attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let length = usize::from(read_u16(self.0)?);
        let whole = self.0.get(..length).filter(|_| length >= ATTRIBUTE_HEADER)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute {
            kind: read_u16(&whole[2..])? & TYPE_MASK,
            value: &whole[ATTRIBUTE_HEADER..],
        })
    }
}

impl<'a> Attribute<'a> {
    /// The attributes inside.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes(self.value)
    }

    /// The value as a host-order number.
    pub fn u32(&self) -> Option<u32> {
        read_u32(self.value)
    }

    /// The value as a network-order number.
    pub fn be32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.get(..4)?.try_into().ok()?))
    }

    /// The value as text, with or without its NUL.
    pub fn text(&self) -> Option<&'a str> {
        match CStr::from_bytes_until_nul(self.value) {
            Ok(text) => text.to_str().ok(),
            Err(_) => std::str::from_utf8(self.value).ok(),
        }
    }
}

pub(crate) fn read_u16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

pub(crate) fn read_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut messages = Messages::new();
        messages.message((16, EXCL), ("one", "x"), &[1, 2, 3, 4, 5], |m| {
            m.string(3, "eth0");
            m.nested(18, |m| m.u32(1, 7));
        });
        messages.message((17, 0), ("two", "y"), &[], |m| m.be32(9, 0x0102_0304));
        let bytes = messages.seal(100, Some(1)).to_vec();
        assert_eq!(bytes.len() % 4, 0);

        let replies: Vec<_> = Replies(&bytes).collect();
        assert_eq!(replies.len(), 2);
        assert_eq!((replies[0].kind, replies[0].sequence), (16, 100));
        assert_eq!(replies[0].flags & ACK, 0);
        assert_eq!(replies[1].flags & ACK, ACK);
        let name = replies[0].attributes(8).find(3).and_then(|a| a.text());
        assert_eq!(name, Some("eth0"));
        let inner = replies[0].attributes(8).find(18).and_then(|a| a.nested().find(1));
        assert_eq!(inner.and_then(|a| a.u32()), Some(7));
        assert_eq!(replies[1].attributes(0).find(9).and_then(|a| a.be32()), Some(0x0102_0304));
    }

    #[test]
    fn a_reply_that_lies_about_its_length_ends_the_reading() {
        for bytes in [&[3, 0, 0, 0, 0, 0, 0, 0][..], &[255, 255, 255, 255], &[1], &[16, 0, 0, 0, 1]]
        {
            assert_eq!(Replies(bytes).count(), 0, "{bytes:?}");
            assert!(Attributes(bytes).count() <= 1, "{bytes:?}");
        }
    }
}
