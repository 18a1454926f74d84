//! Who is called what on which network: what the embedded name server answers from.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Names by network; shared by all name servers of an engine.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_network: Mutex<HashMap<String, HashMap<String, Vec<Entry>>>>,
}

#[derive(Debug)]
struct Entry {
    container: String,
    address: Ipv4Addr,
}

impl Names {
    /// Makes `names` of `container` known on `network`.
    pub(crate) fn add(&self, network: &str, container: &str, names: &[String], address: Ipv4Addr) {
        let mut maps = self.lock();
        let names_of = maps.entry(network.to_owned()).or_default();
        for name in names {
            let entries = names_of.entry(name.to_ascii_lowercase()).or_default();
            if !entries.iter().any(|entry| entry.container == container) {
                entries.push(Entry { container: container.to_owned(), address });
            }
        }
    }

    /// Forgets every name of `container` on `network`.
    pub(crate) fn remove(&self, network: &str, container: &str) {
        let mut maps = self.lock();
        let Some(names_of) = maps.get_mut(network) else { return };
        names_of.retain(|_, entries| {
            entries.retain(|entry| entry.container != container);
            !entries.is_empty()
        });
        if names_of.is_empty() {
            maps.remove(network);
        }
    }

    /// The addresses of `name` on any of `networks`; `None` when nobody is called that.
    pub(crate) fn find(&self, networks: &[String], name: &str) -> Option<Vec<IpAddr>> {
        let maps = self.lock();
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let found: Vec<IpAddr> = networks
            .iter()
            .filter_map(|network| maps.get(network)?.get(&name))
            .flatten()
            .map(|entry| IpAddr::V4(entry.address))
            .collect();
        (!found.is_empty()).then_some(found)
    }

    /// The first name of the container that has `address` on any of `networks`.
    pub(crate) fn reverse(&self, networks: &[String], address: IpAddr) -> Option<String> {
        let maps = self.lock();
        let has =
            |entries: &[Entry]| entries.iter().any(|entry| IpAddr::V4(entry.address) == address);
        networks
            .iter()
            .filter_map(|network| maps.get(network))
            .flatten()
            .filter(|(_, entries)| has(entries))
            .map(|(name, _)| name.clone())
            .max_by_key(String::len)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, Vec<Entry>>>> {
        self.by_network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_on_shared_networks_only_and_go_with_their_container() {
        let names = Names::default();
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3));
        names.add("n1", "c1", &["Web".into(), "app".into()], a);
        names.add("n1", "c2", &["app".into()], b);
        let n1 = ["n1".to_owned()];
        assert_eq!(names.find(&n1, "web."), Some(vec![a.into()]));
        assert_eq!(names.find(&n1, "APP"), Some(vec![a.into(), b.into()]));
        assert_eq!(names.find(&["n2".to_owned()], "web"), None);
        names.remove("n1", "c1");
        assert_eq!(names.find(&n1, "web"), None);
        assert_eq!(names.find(&n1, "app"), Some(vec![b.into()]));
    }
}
