//! How bytes and JSON documents are bent.

use serde_json::{Value, json};

use crate::random::Random;

const WORDS: &[&str] = &[
    "",
    "sha256:",
    "sha512:0123",
    "../../etc/passwd",
    "linux",
    "windows",
    "unknown",
    "amd64",
    "arm64",
    "v7",
    "v99999999999",
    "vnd.docker.reference.type",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "docker.io/library/x:1",
    "x@sha256:0",
    "manifests",
    "layers",
    "config",
    "mediaType",
    "\u{0}",
    "é\u{202e}",
];

/// Changes some bytes, cuts, doubles or moves a part.
pub(crate) fn bend(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len());
    let len = random.below((bytes.len() - at).min(64) + 1);
    match random.below(7) {
        0 => bytes.truncate(at),
        1 => {
            let part = bytes[at..at + len].to_vec();
            bytes.splice(at..at, part);
        }
        2 => drop(bytes.drain(at..at + len)),
        3 => {
            let word = random.pick(WORDS).bytes();
            bytes.splice(at..at + len, word);
        }
        4 => {
            let nested = random.pick(&["[", "{\"a\":", "9", "\"", "\\u"]).repeat(random.below(300));
            bytes.splice(at..at, nested.into_bytes());
        }
        _ => {
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if random.once_in(2) { random.byte() } else { *byte ^ 1 };
                }
            }
        }
    }
}

/// A document with some of its values replaced, and sometimes its text bent.
pub(crate) fn document(random: &mut Random, mut value: Value) -> Vec<u8> {
    for _ in 0..random.below(4) {
        let mut left = random.below(count(&value));
        visit(&mut value, &mut left, &mut |found| change(random, found));
    }
    let mut bytes = value.to_string().into_bytes();
    if random.once_in(8) {
        bend(random, &mut bytes);
    }
    bytes
}

fn change(random: &mut Random, found: &mut Value) {
    match (found, random.below(3)) {
        (Value::Array(items), 0) if !items.is_empty() => {
            let item = random.pick(items).clone();
            let times = if random.once_in(10) { 300 } else { 1 };
            items.extend(std::iter::repeat_n(item, times));
        }
        (Value::Array(items), 1) => drop(items.pop()),
        (Value::Object(fields), 0) => {
            let key = fields.keys().nth(random.below(fields.len())).cloned().unwrap_or_default();
            fields.remove(&key);
        }
        (Value::Object(fields), 1) => {
            fields.insert((*random.pick(WORDS)).to_owned(), scalar(random));
        }
        (found, _) => *found = scalar(random),
    }
}

fn scalar(random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => json!(random.number()),
        2 => json!(-1),
        3 => json!(1.5e300),
        4 => json!([]),
        5 => json!({}),
        6 => json!(true),
        7 if random.once_in(10) => json!("x".repeat(random.below(70_000))),
        _ => json!(random.pick(WORDS)),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Calls `act` with the value that has `left` others before it.
fn visit(value: &mut Value, left: &mut usize, act: &mut dyn FnMut(&mut Value)) {
    let here = *left == 0;
    // Once done it counts down from the top and never arrives.
    *left = left.wrapping_sub(1);
    if here {
        return act(value);
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, left, act)),
        Value::Object(fields) => fields.values_mut().for_each(|field| visit(field, left, act)),
        _ => {}
    }
}
