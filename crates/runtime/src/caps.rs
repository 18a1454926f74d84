//! Capability lists of a spec as sets.

use capsa_sys::caps::CapSet;

/// The named capabilities; a name that is not known is one that this kernel lacks.
pub fn set_of(names: &[String]) -> CapSet {
    names.iter().filter_map(|name| CapSet::parse(name)).fold(CapSet::EMPTY, CapSet::union)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_give_nothing() {
        let names = ["CAP_CHOWN", "CAP_TELEPORT", "CAP_KILL", "CAP_CHOWN"].map(str::to_owned);
        assert_eq!(set_of(&names).names(), ["CAP_CHOWN", "CAP_KILL"]);
        assert!(set_of(&[]).is_empty());
    }
}
