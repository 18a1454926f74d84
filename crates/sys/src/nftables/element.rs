//! Elements of sets and maps: writing and reading them.

use super::{HEAD, NEWSETELEM};
use crate::netlink::message::{Attribute, Messages, Reply};

pub(super) const LIST_TABLE: u16 = 1;
pub(super) const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
const ELEM_KEY: u16 = 1;
const ELEM_DATA: u16 = 2;
const ELEM_USERDATA: u16 = 6;
const ELEM_KEY_END: u16 = 10;
const DATA_VALUE: u16 = 1;

/// nft's mark of a comment in user data.
const USERDATA_COMMENT: u8 = 0;
const COMMENT_MAX: usize = 200;

/// An element. Keys and data are raw: parts of a concatenation each padded
/// with zeros to 4 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// The key, or the first key of a range.
    pub key: Vec<u8>,
    /// The last key of a range.
    pub key_end: Option<Vec<u8>>,
    /// What the key leads to, in a map.
    pub data: Option<Vec<u8>>,
    /// A remark, at most 200 bytes; `nft list` shows it.
    pub comment: String,
}

pub(super) fn write(messages: &mut Messages, table: &str, set: &str, elements: &[Element]) {
    messages.string(LIST_TABLE, table);
    messages.string(LIST_SET, set);
    messages.nested(LIST_ELEMENTS, |m| {
        for element in elements {
            m.nested(LIST_ELEM, |m| write_one(m, element));
        }
    });
}

pub(super) fn decode(reply: &Reply<'_>) -> Vec<Element> {
    if reply.kind != NEWSETELEM {
        return Vec::new();
    }
    let list = reply.attributes(HEAD).find(LIST_ELEMENTS);
    list.iter().flat_map(|list| list.nested()).filter_map(|element| decode_one(&element)).collect()
}

/// User data that nft shows as a comment.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let mut end = text.len().min(COMMENT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = vec![USERDATA_COMMENT, end as u8 + 1];
    bytes.extend_from_slice(&text.as_bytes()[..end]);
    bytes.push(0);
    bytes
}

fn write_one(messages: &mut Messages, element: &Element) {
    let value =
        |m: &mut Messages, kind, bytes: &[u8]| m.nested(kind, |m| m.bytes(DATA_VALUE, bytes));
    value(messages, ELEM_KEY, &element.key);
    if let Some(end) = &element.key_end {
        value(messages, ELEM_KEY_END, end);
    }
    if let Some(data) = &element.data {
        value(messages, ELEM_DATA, data);
    }
    if !element.comment.is_empty() {
        messages.bytes(ELEM_USERDATA, &comment(&element.comment));
    }
}

fn decode_one(element: &Attribute<'_>) -> Option<Element> {
    let value = |kind| {
        let data = element.nested().find(kind)?.nested().find(DATA_VALUE)?;
        Some(data.value.to_vec())
    };
    let remark = element.nested().find(ELEM_USERDATA).and_then(|data| comment_of(data.value));
    Some(Element {
        key: value(ELEM_KEY)?,
        key_end: value(ELEM_KEY_END),
        data: value(ELEM_DATA),
        comment: remark.unwrap_or_default(),
    })
}

fn comment_of(userdata: &[u8]) -> Option<String> {
    let [USERDATA_COMMENT, length, rest @ ..] = userdata else {
        return None;
    };
    let text = rest.get(..usize::from(*length))?.strip_suffix(&[0])?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_survives_and_a_long_one_is_cut_between_characters() {
        assert_eq!(comment_of(&comment("web")), Some("web".to_owned()));
        let cut = comment_of(&comment(&"é".repeat(200))).expect("valid");
        assert_eq!(cut, "é".repeat(100));
        assert_eq!(comment_of(&[0, 9, b'x']), None);
    }
}
