//! Which address and which subnet comes next. Pure.
//!
//! Addresses are given in order behind the one that was given last, so that a
//! removed container's address isn't another's a moment later.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::plan::Mac;

/// The first free host address of `net`, or `None` if all are taken. Network
/// address, broadcast address and gateway are never given.
pub fn next_free(
    net: Ipv4Net,
    gateway: Ipv4Addr,
    taken: impl Fn(Ipv4Addr) -> bool,
) -> Option<Ipv4Addr> {
    net.hosts().find(|&address| address != gateway && !taken(address))
}

/// The first free host address behind `last`, going round once.
pub fn next_after(
    net: Ipv4Net,
    gateway: Ipv4Addr,
    last: Ipv4Addr,
    taken: impl Fn(Ipv4Addr) -> bool,
) -> Option<Ipv4Addr> {
    let free = |&address: &Ipv4Addr| address != gateway && !taken(address);
    let behind = net.hosts().skip_while(|&address| address <= last).find(free);
    behind.or_else(|| net.hosts().take_while(|&address| address <= last).find(free))
}

/// The first host address of a subnet: where its gateway is by custom.
pub fn gateway_of(net: Ipv4Net) -> Option<Ipv4Addr> {
    net.hosts().next()
}

/// The MAC that goes with an address: `02:42` and its four bytes, so that a
/// neighbour's cache stays right when an address gets a new container.
pub fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x42, a, b, c, d])
}

/// The subnets for networks that name none, in order: 172.17 to 172.31 as /16,
/// then 192.168 in /20, then 10.128/9 in /24 (32,768 of them).
pub fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let net = |a, b, c, prefix| Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), prefix);
    let large = (17..32).map(move |b| net(172, b, 0, 16));
    let medium = (0..16_u8).map(move |c| net(192, 168, c * 16, 20));
    let small = (128..=255_u8).flat_map(move |b| (0..=255_u8).map(move |c| net(10, b, c, 24)));
    large.chain(medium).chain(small)
}

/// The first candidate that overlaps none of `taken`.
pub fn choose_subnet(
    candidates: impl IntoIterator<Item = Ipv4Net>,
    taken: &[Ipv4Net],
) -> Option<Ipv4Net> {
    candidates.into_iter().find(|candidate| !taken.iter().any(|other| overlap(candidate, other)))
}

/// Whether two subnets share an address.
pub fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().expect("a subnet")
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_are_given_in_order_and_run_out() {
        let small = net("10.0.0.0/30");
        assert_eq!(next_free(small, ip("10.0.0.1"), |_| false), Some(ip("10.0.0.2")));
        assert_eq!(next_free(small, ip("10.0.0.1"), |a| a == ip("10.0.0.2")), None);
        assert_eq!(next_free(net("10.0.0.0/31"), ip("10.0.0.0"), |_| false), Some(ip("10.0.0.1")));
    }

    #[test]
    fn the_next_address_goes_round() {
        let subnet = net("10.0.0.0/29");
        let gateway = ip("10.0.0.1");
        assert_eq!(next_after(subnet, gateway, ip("10.0.0.3"), |_| false), Some(ip("10.0.0.4")));
        assert_eq!(next_after(subnet, gateway, ip("10.0.0.6"), |_| false), Some(ip("10.0.0.2")));
        let all_but_five = |a: Ipv4Addr| a != ip("10.0.0.5");
        assert_eq!(next_after(subnet, gateway, ip("10.0.0.5"), all_but_five), Some(ip("10.0.0.5")));
    }

    #[test]
    fn a_subnet_is_avoided_if_it_holds_or_lies_in_a_taken_one() {
        let taken = [net("172.17.0.0/24"), net("172.18.0.0/15")];
        assert_eq!(choose_subnet(candidates(), &taken), Some(net("172.20.0.0/16")));
        let vpn = [net("172.16.0.0/12"), net("192.168.0.0/16")];
        assert_eq!(choose_subnet(candidates(), &vpn), Some(net("10.128.0.0/24")));
    }

    #[test]
    fn thousands_of_networks_find_room() {
        assert!(candidates().count() > 30_000);
    }

    #[test]
    fn the_mac_follows_the_address() {
        assert_eq!(mac_of(ip("172.17.0.2")).to_string(), "02:42:ac:11:00:02");
    }
}
