//! Versions of the Docker Engine API: `1.<minor>`, and the range this engine serves.
//!
//! The newest is the last one whose shapes are honoured; a client that asks for
//! more negotiates down by itself, a client below the oldest is refused.

use std::fmt;
use std::str::FromStr;

/// The minor number of an API version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u16);

/// A string that is no `1.<minor>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid API version {0:?}")]
pub struct VersionError(String);

impl Version {
    /// The newest version served, and the one assumed when a path has none.
    pub const MAX: Self = Self(51);
    /// [`Version::MAX`] as text.
    pub const MAX_TEXT: &str = "1.51";
    /// The oldest version served.
    pub const MIN: Self = Self(24);

    /// The version `1.<minor>`.
    pub const fn minor(minor: u16) -> Self {
        Self(minor)
    }

    /// Whether shapes and defaults of `1.<minor>` hold.
    pub const fn at_least(self, minor: u16) -> bool {
        self.0 >= minor
    }
}

impl FromStr for Version {
    type Err = VersionError;

    /// `1.<minor>`; any other major is above or below every version there is.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let bad = || VersionError(text.to_owned());
        let (major, minor) = text.split_once('.').ok_or_else(bad)?;
        let minor = minor.split('.').next().unwrap_or(minor);
        match (major.parse::<u16>(), minor.parse::<u16>()) {
            (Ok(0), Ok(_)) => Ok(Self(0)),
            (Ok(1), Ok(minor)) => Ok(Self(minor)),
            (Ok(_), Ok(_)) => Ok(Self(u16::MAX)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_not_by_text() {
        let parse = |text: &str| text.parse::<Version>().unwrap();
        assert!(parse("1.9") < parse("1.24"));
        assert!(parse("2.0") > Version::MAX);
        assert!(parse("0.99") < Version::MIN);
        assert_eq!(parse("1.41").to_string(), "1.41");
        assert_eq!(parse(Version::MAX_TEXT), Version::MAX);
        for bad in ["", "1", "1.", "a.b", "1.-1", ".5"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
