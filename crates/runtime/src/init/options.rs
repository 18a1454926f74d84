//! The fstab-style options of a mount, sorted by who acts on them.
//!
//! Pure. What is not known as an attribute, a propagation or a flag of ours goes to
//! the file system as it is.

use capsa_oci::runtime::Mount;
use capsa_sys::mount::{Attrs, Propagation};

/// The options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// A bind mount, and whether of the whole tree.
    pub(crate) bind: Option<Depth>,
    /// Attributes of the one mount to set.
    pub(crate) set: Attrs,
    /// Attributes of the one mount to clear.
    pub(crate) clear: Attrs,
    /// Attributes of it and all below it to set.
    pub(crate) set_all: Attrs,
    /// Attributes of it and all below it to clear.
    pub(crate) clear_all: Attrs,
    /// Propagation, and whether of the whole tree.
    pub(crate) propagation: Option<(Propagation, Depth)>,
    /// Show the owners through the container's mapping.
    pub(crate) idmap: Option<Depth>,
    /// Fill a new tmpfs with what it covers.
    pub(crate) copy_up: bool,
    /// For the file system: flags, and keys with a value.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// One mount, or it and all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Only it.
    One,
    /// Also those below.
    All,
}

impl Depth {
    pub(crate) fn is_all(self) -> bool {
        self == Self::All
    }
}

impl MountOptions {
    /// Reads the options of `mount`.
    pub(crate) fn of(mount: &Mount) -> Self {
        let mut options = Self::default();
        for option in &mount.options {
            options.take(option);
        }
        if options.bind.is_none() && matches!(mount.kind.as_deref(), Some("bind")) {
            options.bind = Some(Depth::One);
        }
        options
    }

    fn take(&mut self, option: &str) {
        if let Some((set, clear)) = attrs(option) {
            self.set = (self.set - clear) | set;
            self.clear = (self.clear - set) | clear;
        } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attrs) {
            self.set_all = (self.set_all - clear) | set;
            self.clear_all = (self.clear_all - set) | clear;
        } else if let Some(propagation) = propagation(option) {
            self.propagation = Some(propagation);
        } else {
            self.take_other(option);
        }
    }

    fn take_other(&mut self, option: &str) {
        match option {
            "bind" => self.bind = Some(self.bind.unwrap_or(Depth::One)),
            "rbind" => self.bind = Some(Depth::All),
            "idmap" => self.idmap = Some(Depth::One),
            "ridmap" => self.idmap = Some(Depth::All),
            "tmpcopyup" => self.copy_up = true,
            // The default of every mount, and what only a remount or fstab has.
            "" | "defaults" | "async" | "rw_remount" | "remount" | "nomand" | "loud" => {}
            "mand" | "silent" | "iversion" | "noiversion" => {}
            data => {
                let (key, value) = match data.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (data, None),
                };
                self.data.push((key.to_owned(), value));
            }
        }
    }
}

/// What an option sets and clears on one mount.
fn attrs(option: &str) -> Option<(Attrs, Attrs)> {
    let none = Attrs::empty();
    Some(match option {
        "ro" => (Attrs::RDONLY, none),
        "rw" => (none, Attrs::RDONLY),
        "nosuid" => (Attrs::NOSUID, none),
        "suid" => (none, Attrs::NOSUID),
        "nodev" => (Attrs::NODEV, none),
        "dev" => (none, Attrs::NODEV),
        "noexec" => (Attrs::NOEXEC, none),
        "exec" => (none, Attrs::NOEXEC),
        "nosymfollow" => (Attrs::NOSYMFOLLOW, none),
        "symfollow" => (none, Attrs::NOSYMFOLLOW),
        "noatime" => (Attrs::NOATIME, Attrs::ATIME),
        "strictatime" => (Attrs::STRICTATIME, Attrs::ATIME),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (none, Attrs::ATIME),
        "nodiratime" => (Attrs::NODIRATIME, none),
        "diratime" => (none, Attrs::NODIRATIME),
        _ => return None,
    })
}

/// `private`, `rslave` … as mounts and `rootfsPropagation` name them.
pub(crate) fn propagation(option: &str) -> Option<(Propagation, Depth)> {
    let (name, depth) = match option.strip_prefix('r') {
        Some(name) => (name, Depth::All),
        None => (option, Depth::One),
    };
    let propagation = match name {
        "private" => Propagation::Private,
        "slave" => Propagation::Slave,
        "shared" => Propagation::Shared,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    };
    Some((propagation, depth))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, options: &[&str]) -> MountOptions {
        let options = options.iter().map(|&o| o.to_owned()).collect();
        MountOptions::of(&Mount { kind: Some(kind.into()), options, ..Mount::default() })
    }

    #[test]
    fn each_option_goes_to_the_one_who_acts_on_it() {
        let options = parse("tmpfs", &["nosuid", "noexec", "size=64m", "mode=755", "ro", "sync"]);
        assert_eq!(options.set, Attrs::NOSUID | Attrs::NOEXEC | Attrs::RDONLY);
        assert_eq!(
            options.data,
            [
                ("size".into(), Some("64m".into())),
                ("mode".into(), Some("755".into())),
                ("sync".into(), None)
            ]
        );
        assert_eq!(options.bind, None);
    }

    #[test]
    fn the_later_of_two_contrary_options_holds() {
        let options = parse("bind", &["ro", "rw", "noatime", "relatime"]);
        assert_eq!((options.set, options.clear), (Attrs::empty(), Attrs::RDONLY | Attrs::ATIME));
        assert_eq!(parse("bind", &["relatime", "noatime"]).set, Attrs::NOATIME);
    }

    #[test]
    fn an_r_makes_it_recursive() {
        let options = parse("none", &["rbind", "rro", "rslave", "ridmap"]);
        assert_eq!(options.bind, Some(Depth::All));
        assert_eq!((options.set, options.set_all), (Attrs::empty(), Attrs::RDONLY));
        assert_eq!(options.propagation, Some((Propagation::Slave, Depth::All)));
        assert_eq!(options.idmap, Some(Depth::All));
        assert_eq!(
            parse("bind", &["private"]).propagation,
            Some((Propagation::Private, Depth::One))
        );
    }

    #[test]
    fn relatime_is_not_a_recursive_elatime() {
        let options = parse("proc", &["rw", "relatime"]);
        assert_eq!(options.clear_all, Attrs::empty());
        assert!(options.data.is_empty());
    }
}
