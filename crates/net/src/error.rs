//! What can go wrong with networks, a variant per failing step.

use std::net::Ipv4Addr;

use crate::{Holder, Protocol};

/// The result of every function here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error("{step}: {source}")]
    Kernel {
        /// What was attempted, on which object.
        step: String,
        /// The call and the kernel's answer.
        #[source]
        source: capsa_sys::Error,
    },
    /// A file below /proc/sys couldn't be written.
    #[error("set {key} to {value}: {source}")]
    Sysctl {
        /// The path.
        key: String,
        /// What was to be written.
        value: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// Someone else has the port.
    #[error("port {}:{port}/{protocol} is already in use{}", shown(.address), by(.holder))]
    PortTaken {
        /// The transport protocol.
        protocol: Protocol,
        /// The host address, `None` for all.
        address: Option<Ipv4Addr>,
        /// The port.
        port: u16,
        /// Who holds it, if that could be found out.
        holder: Option<Holder>,
    },
    /// The address to publish on isn't one of this host's.
    #[error("cannot publish on {address}: it is not an address of this host")]
    NoSuchAddress {
        /// The address that was asked for.
        address: Ipv4Addr,
    },
    /// A name that can't be an interface's.
    #[error("invalid interface name {name:?}: want 1 to 15 characters without '/', ':' or blanks")]
    InterfaceName {
        /// The name.
        name: String,
    },
    /// A link of that name exists and is no bridge.
    #[error("{name} exists and is a {kind}, not a bridge")]
    NotABridge {
        /// The name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// A socket inside a container's network couldn't be made.
    #[error("{step}: {source}")]
    Socket {
        /// What was attempted, on which address.
        step: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Names the step that a kernel error belongs to.
    pub(crate) fn kernel(step: impl Into<String>) -> impl FnOnce(capsa_sys::Error) -> Self {
        let step = step.into();
        move |source| Self::Kernel { step, source }
    }
}

fn shown(address: &Option<Ipv4Addr>) -> Ipv4Addr {
    address.unwrap_or(Ipv4Addr::UNSPECIFIED)
}

fn by(holder: &Option<Holder>) -> String {
    holder
        .as_ref()
        .map_or(String::new(), |holder| format!(" by {} (pid {})", holder.command, holder.pid))
}
