//! Which user namespace a container runs in, decided from what it was asked to share.
//!
//! Pure. A container has its own, with its own id range, unless it shares
//! something of the host that a foreign user namespace has no right to.

use crate::spec::{ContainerSpec, NamespaceMode, NetworkMode};

/// The user namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserNamespace {
    /// Its own, over its own id range.
    Own,
    /// The host's: root inside is root outside.
    Host,
    /// That of another container, by key.
    Join(String),
}

/// Decides.
pub(crate) fn user_namespace(spec: &ContainerSpec) -> UserNamespace {
    let security = &spec.security;
    let shared = [&security.pid, &security.ipc, &security.uts, &security.user];
    let host = security.privileged
        || spec.network.mode == NetworkMode::Host
        || shared.contains(&&NamespaceMode::Host);
    if host {
        return UserNamespace::Host;
    }
    if let NetworkMode::Container(key) = &spec.network.mode {
        return UserNamespace::Join(key.clone());
    }
    let joined = shared.into_iter().find_map(|mode| match mode {
        NamespaceMode::Container(key) => Some(key.clone()),
        NamespaceMode::Private | NamespaceMode::Host => None,
    });
    joined.map_or(UserNamespace::Own, UserNamespace::Join)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharing_with_the_host_or_another_container_decides_the_user_namespace() {
        let plain = ContainerSpec::default();
        assert_eq!(user_namespace(&plain), UserNamespace::Own);
        let mut privileged = plain.clone();
        privileged.security.privileged = true;
        assert_eq!(user_namespace(&privileged), UserNamespace::Host);
        let mut joined = plain.clone();
        joined.security.ipc = NamespaceMode::Container("x".into());
        assert_eq!(user_namespace(&joined), UserNamespace::Join("x".into()));
        joined.network.mode = NetworkMode::Host;
        assert_eq!(user_namespace(&joined), UserNamespace::Host);
    }
}
