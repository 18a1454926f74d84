//! Random ids and the names made up for nameless containers.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::{Error, Result};

const LEFT: [&str; 48] = [
    "able", "agile", "amber", "ample", "apt", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "cheery", "clever", "cosy", "crisp", "daring", "deft", "eager", "fair", "fleet",
    "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "jolly",
    "keen", "kind", "lively", "lucid", "mellow", "merry", "nimble", "noble", "proud", "quick",
    "quiet", "sunny", "swift", "tidy", "vivid", "warm", "witty",
];

const RIGHT: [&str; 48] = [
    "acorn", "alder", "anchor", "aspen", "badger", "beech", "birch", "brook", "cedar", "clover",
    "comet", "coral", "crane", "delta", "dune", "ember", "falcon", "fern", "finch", "fjord",
    "forest", "grove", "harbor", "hazel", "heron", "island", "jasper", "kestrel", "lagoon", "lark",
    "linden", "lynx", "maple", "marten", "meadow", "otter", "pebble", "pine", "plover", "quartz",
    "raven", "reef", "river", "robin", "sparrow", "thicket", "walnut", "willow",
];

/// 64 random hex digits. As in Docker, an id whose short form is all digits is not given out,
/// because the short id is the default host name.
///
/// # Errors
/// When the kernel has no randomness.
pub fn random_id() -> Result<String> {
    loop {
        let id = hex(&random::<32>()?);
        if id[..12].bytes().any(|b| !b.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// A made-up name; `attempt` above 2 adds a number so that names never run out.
///
/// # Errors
/// When the kernel has no randomness.
pub fn random_name(attempt: u32) -> Result<String> {
    let [left, right, number, _] = random::<4>()?;
    let (left, right) = (pick(&LEFT, left), pick(&RIGHT, right));
    Ok(if attempt > 2 { format!("{left}_{right}{number}") } else { format!("{left}_{right}") })
}

fn pick<'a>(words: &[&'a str; 48], byte: u8) -> &'a str {
    words[usize::from(byte) % words.len()]
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom(&mut bytes[..], GetRandomFlags::empty())
        .map_err(|errno| Error::kernel(format!("no random bytes: {errno}")))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_hex_digits_and_differ() {
        let (a, b) = (random_id().unwrap(), random_id().unwrap());
        assert_eq!(a.len(), 64);
        assert!(a.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(a, b);
    }

    #[test]
    fn later_attempts_add_a_number() {
        assert!(random_name(0).unwrap().bytes().all(|b| b == b'_' || b.is_ascii_lowercase()));
        assert!(random_name(3).unwrap().bytes().any(|b| b.is_ascii_digit()));
    }
}
