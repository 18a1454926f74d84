//! Answering one question. Pure.
//!
//! For a name of ours every type is answered here, with nothing if there is
//! nothing, and never forwarded: an `AAAA` that came back from outside as "no
//! such name" would make the `A` invisible too.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::{OPT, PTR, RData};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

/// Seconds for which an answer may be remembered.
const TTL: u32 = 600;
const DATAGRAM_BYTES: usize = 512;
const HEADER_BYTES: usize = 12;
const OUR_EDNS_BYTES: u16 = 1232;

/// What to do with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send this back.
    Reply(Vec<u8>),
    /// It isn't ours: ask upstream, with the question as it came.
    Forward,
}

/// Answers `query` if it is about a name or an address of ours. `lookup` gets
/// the name in lower case without a final dot and gives its addresses
/// (`Some(vec![])` for a name without any); `reverse` gives the full name of an
/// address. Several addresses take turns being first.
pub fn answer(
    query: &[u8],
    lookup: &dyn Fn(&str) -> Option<Vec<IpAddr>>,
    reverse: &dyn Fn(IpAddr) -> Option<String>,
) -> Answer {
    let Ok(packet) = Packet::parse(query) else {
        return Answer::Forward;
    };
    let [question] = packet.questions.as_slice() else {
        return Answer::Forward;
    };
    if packet.opcode() != OPCODE::StandardQuery || packet.has_flags(PacketFlag::RESPONSE) {
        return Answer::Forward;
    }
    let name = question.qname.to_string().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let records = match pointed_at(name) {
        Some(address) => reverse(address).map(|name| pointer(question, &name)),
        None => lookup(name).map(|mut addresses| {
            let turn = usize::from(packet.id()) % addresses.len().max(1);
            addresses.rotate_left(turn);
            addresses.iter().filter_map(|address| record(question, *address)).collect()
        }),
    };
    match records {
        Some(records) => {
            reply(&packet, RCODE::NoError, records).map_or(Answer::Forward, Answer::Reply)
        }
        None => Answer::Forward,
    }
}

/// The reply that there is no such name; empty if `query` is no question.
pub fn refuse(query: &[u8]) -> Vec<u8> {
    without_records(query, RCODE::NameError)
}

/// The reply that nobody could be asked (`SERVFAIL`); empty if `query` is no
/// question.
pub fn failure(query: &[u8]) -> Vec<u8> {
    without_records(query, RCODE::ServerFailure)
}

/// `reply` if it fits a datagram to whoever sent `query`, else the reply that
/// makes them ask again over TCP.
pub fn for_datagram(query: &[u8], reply: Vec<u8>) -> Vec<u8> {
    let asked = Packet::parse(query).ok();
    let room = asked
        .as_ref()
        .and_then(|packet| packet.opt())
        .map_or(DATAGRAM_BYTES, |opt| usize::from(opt.udp_packet_size).max(DATAGRAM_BYTES));
    if reply.len() <= room {
        return reply;
    }
    let mut short = without_records(query, RCODE::NoError);
    if short.len() >= HEADER_BYTES {
        short[2] |= (PacketFlag::TRUNCATION.bits() >> 8) as u8;
    }
    short
}

fn without_records(query: &[u8], code: RCODE) -> Vec<u8> {
    Packet::parse(query)
        .ok()
        .and_then(|packet| reply(&packet, code, Vec::new()))
        .unwrap_or_default()
}

fn reply(query: &Packet<'_>, code: RCODE, records: Vec<ResourceRecord<'_>>) -> Option<Vec<u8>> {
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *reply.opcode_mut() = query.opcode();
    *reply.rcode_mut() = code;
    reply.questions = query.questions.clone();
    reply.answers = records;
    if query.opt().is_some() {
        let opt = OPT { opt_codes: Vec::new(), udp_packet_size: OUR_EDNS_BYTES, version: 0 };
        *reply.opt_mut() = Some(opt);
    }
    reply.build_bytes_vec_compressed().ok()
}

fn record<'a>(question: &Question<'a>, address: IpAddr) -> Option<ResourceRecord<'a>> {
    let data = match address {
        IpAddr::V4(address) if wants(question, TYPE::A) => RData::A(address.into()),
        IpAddr::V6(address) if wants(question, TYPE::AAAA) => RData::AAAA(address.into()),
        _ => return None,
    };
    Some(ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data))
}

fn pointer<'a>(question: &Question<'a>, name: &str) -> Vec<ResourceRecord<'a>> {
    let target = Name::new(name).ok().map(Name::into_owned);
    let records = target.filter(|_| wants(question, TYPE::PTR)).map(|target| {
        let data = RData::PTR(PTR(target));
        ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data)
    });
    records.into_iter().collect()
}

fn wants(question: &Question<'_>, kind: TYPE) -> bool {
    question.qtype == QTYPE::ANY || question.qtype == QTYPE::TYPE(kind)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn pointed_at(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let reversed: Vec<_> = labels.rsplit('.').map(Cow::Borrowed).collect();
        return reversed.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let digits: String = labels.rsplit('.').filter(|label| label.len() == 1).collect();
    let bits = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    Some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new_unchecked(name);
        packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
        packet.build_bytes_vec().expect("a packet")
    }

    fn web(name: &str) -> Option<Vec<IpAddr>> {
        match name {
            "web" => Some(vec![IpAddr::from([172, 17, 0, 2])]),
            "many" => Some((0..100).map(|last| IpAddr::from([10, 0, 0, last])).collect()),
            _ => None,
        }
    }

    fn back(address: IpAddr) -> Option<String> {
        (address == IpAddr::from([172, 17, 0, 2])).then(|| "web.net1".to_owned())
    }

    fn records(query: &[u8]) -> Vec<String> {
        let Answer::Reply(bytes) = answer(query, &web, &back) else {
            panic!("forwarded");
        };
        let packet = Packet::parse(&bytes).expect("a packet");
        assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        assert_eq!((packet.id(), packet.questions.len()), (7, 1));
        packet.answers.iter().map(|record| format!("{:?}", record.rdata)).collect()
    }

    #[test]
    fn own_names_are_answered_in_any_case_and_type() {
        assert_eq!(records(&query("WeB", TYPE::A)), ["A(A { address: 2886795266 })"]);
        assert_eq!(records(&query("web", TYPE::AAAA)).len(), 0);
        assert_eq!(records(&query("web", TYPE::MX)).len(), 0);
        let pointer = records(&query("2.0.17.172.in-addr.arpa", TYPE::PTR));
        assert!(pointer[0].contains("web.net1"), "{pointer:?}");
    }

    #[test]
    fn everything_else_is_forwarded() {
        for (name, kind) in [("example.org", TYPE::A), ("9.9.9.9.in-addr.arpa", TYPE::PTR)] {
            assert_eq!(answer(&query(name, kind), &web, &back), Answer::Forward, "{name}");
        }
        assert_eq!(answer(b"noise", &web, &back), Answer::Forward);
        assert_eq!(answer(&[], &web, &back), Answer::Forward);
    }

    #[test]
    fn a_reply_too_long_for_a_datagram_says_so() {
        let asked = query("many", TYPE::A);
        let Answer::Reply(long) = answer(&asked, &web, &back) else {
            panic!("forwarded");
        };
        let short = for_datagram(&asked, long.clone());
        let packet = Packet::parse(&short).expect("a packet");
        assert!(packet.has_flags(PacketFlag::TRUNCATION | PacketFlag::RESPONSE));
        assert!(short.len() <= DATAGRAM_BYTES && long.len() > DATAGRAM_BYTES);
        let fitting = failure(&asked);
        assert_eq!(for_datagram(&asked, fitting.clone()), fitting);
    }

    #[test]
    fn failures_carry_their_code() {
        let code = |bytes: Vec<u8>| Packet::parse(&bytes).expect("a packet").rcode();
        assert_eq!(code(refuse(&query("x", TYPE::A))), RCODE::NameError);
        assert_eq!(code(failure(&query("x", TYPE::A))), RCODE::ServerFailure);
        assert!(refuse(b"noise").is_empty());
    }

    #[test]
    fn addresses_are_read_from_both_reverse_trees() {
        let v6 = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(pointed_at(v6), "2001:db8::567:89ab".parse().ok());
        assert_eq!(pointed_at("1.2.3.in-addr.arpa"), None);
    }
}
