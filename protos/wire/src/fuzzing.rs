//! What must hold for any bytes at all, one function per format.
//!
//! The fuzz targets in `fuzz/` call these functions and nothing else, and `tests/corpus.rs` calls them with every committed
//! input, so that an ordinary test run sees what the fuzzer saw. Each panics when a format breaks its promise: `parse` never
//! panics, and `parse` of what `emit` wrote gives the same value.

use crate::{amt, amtrelay, ecn, icmp, igmp, ip, ipv4, ipv6, membership, mld, pattern, registry, rtp, udp, umtp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One target: its name, which is also the name of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 19] = [
    ("umtp", umtp),
    ("umtp_options", umtp_options),
    ("amt", amt),
    ("amtrelay", amtrelay),
    ("amtrelay_text", amtrelay_text),
    ("membership", membership),
    ("igmp", igmp),
    ("mld", mld),
    ("ip", ip),
    ("ipv4", ipv4),
    ("ipv4_fragment", ipv4_fragment),
    ("ipv6", ipv6),
    ("icmp", icmp),
    ("udp", udp),
    ("registry_query", registry_query),
    ("registry_xml_servers", registry_xml_servers),
    ("registry_xml_transfer", registry_xml_transfer),
    ("pattern", pattern),
    ("rtp", rtp),
];

/// A byte that no emission may leave behind by chance.
const DIRT: u8 = 0xa5;

/// UMTP datagrams: view and value agree, and emission gives the same octets (but the S flag of `FLOW_DATA`).
///
/// # Panics
/// When they do not.
pub fn umtp(bytes: &[u8]) {
    let packet = umtp::Packet::new_checked(bytes);
    let repr = umtp::Repr::parse(bytes);
    assert_eq!(packet.as_ref().map(umtp::Packet::repr), repr.as_ref().copied());
    let (Ok(packet), Ok(repr)) = (packet, repr) else { return };
    let mut emitted = vec![DIRT; repr.buffer_len()];
    repr.emit(&mut emitted);
    let mut expected = bytes.to_vec();
    match repr {
        umtp::Repr::Command { trailer, head } => {
            assert_eq!((packet.trailer(), packet.head(), packet.ttl()), (Some(trailer), head, trailer.ttl));
            assert_eq!(packet.options().is_ok(), repr.options().is_ok());
        }
        umtp::Repr::Flow { flow, ttl, payload } => {
            assert_eq!((packet.flow_id(), packet.head(), packet.ttl()), (Some(flow), payload, ttl));
            *expected.last_mut().expect("parsed") &= 0x7f;
        }
    }
    assert_eq!(emitted, expected);
}

/// Options before a trailer: what was read is written and read again the same.
///
/// # Panics
/// When it is not.
pub fn umtp_options(bytes: &[u8]) {
    use umtp::option::{Options, emit_list};
    let Ok(options) = Options::new_checked(bytes) else { return };
    let list: Vec<_> = options.iter().collect();
    let mut emitted = Vec::new();
    emit_list(&list, &mut emitted);
    let again = Options::new_checked(&emitted).expect("what we wrote is well-formed");
    assert!(again.iter().eq(list.iter().copied()));
    assert!(list.iter().all(|option| options.find(option.code()).is_some()));
    let _ = format!("{options:?}");
}

/// AMT datagrams: what was read is written and read again the same, and nothing but reserved octets changes on the way.
///
/// # Panics
/// When it is not.
pub fn amt(bytes: &[u8]) {
    let Ok(repr) = amt::Repr::parse(bytes) else { return };
    let mut emitted = vec![DIRT; repr.buffer_len()];
    repr.emit(&mut emitted);
    assert_eq!(amt::Repr::parse(&emitted), Ok(repr));
    assert_eq!(amt::MessageType::of(bytes), Ok(repr.message_type()));
    match repr {
        amt::Repr::Data { packet } | amt::Repr::Update { packet, .. } => {
            assert_eq!((emitted.len(), emitted.ends_with(packet)), (bytes.len(), true));
        }
        amt::Repr::Query { gateway, flags, .. } => {
            assert_eq!((flags.gateway_address(), emitted.len()), (gateway.is_some(), bytes.len()));
        }
        amt::Repr::Request { flags, .. } => assert_eq!(emitted[1], flags.0),
        amt::Repr::Discovery { .. } | amt::Repr::Advertisement { .. } | amt::Repr::Teardown { .. } => {}
    }
}

/// Data of AMTRELAY records: what was read is written and read again the same, as octets and in both forms of text.
///
/// # Panics
/// When it is not.
pub fn amtrelay(bytes: &[u8]) {
    let Ok(record) = amtrelay::Record::parse(bytes) else { return };
    assert_eq!(amtrelay::Record::parse(&record.to_vec()).as_ref(), Ok(&record));
    for text in [record.to_string(), record.to_generic()] {
        assert!(!text.contains('\n'));
        // The form for unknown types counts to 65535.
        if u16::try_from(bytes.len()).is_ok() {
            assert_eq!(text.parse().as_ref(), Ok(&record));
        }
    }
}

/// Texts of AMTRELAY records: what was read is written and read again the same; refusals are one line.
///
/// # Panics
/// When it is not.
pub fn amtrelay_text(bytes: &[u8]) {
    match String::from_utf8_lossy(bytes).parse::<amtrelay::Record>() {
        Ok(record) => {
            assert_eq!(record.to_string().parse().as_ref(), Ok(&record));
            assert_eq!(amtrelay::Record::parse(&record.to_vec()), Ok(record));
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}

/// Whole packets about membership: what was read is written and read again the same, in as many packets as it takes.
///
/// # Panics
/// When it is not.
pub fn membership(bytes: &[u8]) {
    let Ok(received) = membership::parse(bytes) else { return };
    let packets = membership::emit(&received.message, received.source);
    assert!(!packets.is_empty() && packets.iter().all(|packet| packet.len() <= membership::PACKET_LEN_MAX));
    let messages: Vec<_> = packets
        .iter()
        .map(|packet| {
            let again = membership::parse(packet).expect("what we wrote is well-formed");
            assert_eq!((again.source, again.hop_limit, again.router_alert), (received.source, 1, true));
            again.message
        })
        .collect();
    if let [message] = &messages[..] {
        assert!(*message == received.message || bytes.len() > membership::PACKET_LEN_MAX);
    }
}

/// IGMP messages: what was read is written and read again the same.
///
/// # Panics
/// When it is not.
pub fn igmp(bytes: &[u8]) {
    let Ok(message) = igmp::parse(bytes) else { return };
    let mut emitted = Vec::new();
    igmp::append(&message, &mut emitted);
    assert!(emitted.len() <= bytes.len());
    assert_eq!(igmp::parse(&emitted), Ok(message));
}

/// MLD messages between two addresses of which nothing depends: what was read is written and read again the same.
///
/// # Panics
/// When it is not.
pub fn mld(bytes: &[u8]) {
    let (source, destination) = (Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    let Ok(message) = mld::parse(bytes, source, destination) else { return };
    let mut emitted = Vec::new();
    mld::append(&message, source, destination, &mut emitted);
    assert!(emitted.len() <= bytes.len());
    assert_eq!(mld::parse(&emitted, source, destination), Ok(message));
}

/// Packets of either version: setting ECN and hops sets nothing else, and a checksum stays as right or wrong as it was.
///
/// # Panics
/// When it does.
pub fn ip(bytes: &[u8]) {
    let Ok(packet) = ip::Packet::new_checked(bytes) else { return };
    let headers_len = packet.octets().len() - packet.payload().len();
    assert!(headers_len <= packet.total_len() && packet.total_len() <= bytes.len());
    let mut changed = ip::Packet::new_checked(bytes.to_vec()).expect("the same octets");
    for ecn in ecn::Ecn::ALL {
        changed.set_ecn(ecn);
        changed.set_hop_limit(packet.hop_limit().wrapping_add(ecn.bits()));
        assert_eq!((changed.ecn(), changed.hop_limit()), (ecn, packet.hop_limit().wrapping_add(ecn.bits())));
        assert_eq!(changed.verify_checksum(), packet.verify_checksum());
        assert_eq!((changed.source(), changed.destination()), (packet.source(), packet.destination()));
        assert_eq!((changed.protocol(), changed.payload()), (packet.protocol(), packet.payload()));
        assert_eq!((changed.fragment(), changed.router_alert()), (packet.fragment(), packet.router_alert()));
    }
}

/// IPv4 packets behind two octets of MTU: fragments put together are the packet.
///
/// # Panics
/// When they are not.
pub fn ipv4_fragment(bytes: &[u8]) {
    let Some((mtu, bytes)) = bytes.split_first_chunk::<2>() else { return };
    let mtu = usize::from(u16::from_be_bytes(*mtu));
    let Ok(parts) = ipv4::fragment(bytes, mtu) else { return };
    let packet = ipv4::Packet::new_checked(bytes).expect("was cut");
    let mut together = Vec::new();
    let mut more = true;
    for part in parts {
        assert!(more && part.buffer_len() <= mtu);
        let mut emitted = vec![DIRT; part.buffer_len()];
        part.emit(&mut emitted);
        let part = ipv4::Repr::parse(&emitted).expect("what we wrote is well-formed");
        assert_eq!(part.fragment.offset_bytes(), packet.fragment().offset_bytes() + together.len());
        assert_eq!((part.source, part.destination), (packet.source(), packet.destination()));
        together.extend_from_slice(part.payload);
        more = together.len() < packet.payload().len();
        assert_eq!(part.fragment.more, more || packet.fragment().more);
    }
    assert_eq!(together, packet.payload());
}

/// IPv6 packets: what was read is written the same but for what follows it, and the walk over extension headers ends inside.
///
/// # Panics
/// When it is not.
pub fn ipv6(bytes: &[u8]) {
    let Ok(packet) = ipv6::Packet::new_checked(bytes) else { return };
    assert_eq!(packet.upper_offset() + packet.upper_payload().len(), packet.total_len());
    let repr = ipv6::Repr::parse(bytes).expect("the same octets");
    let mut emitted = vec![DIRT; repr.buffer_len()];
    repr.emit(&mut emitted);
    assert_eq!(emitted, packet.octets());
}

/// Packets that are too long: what their source is told is a packet, no longer than allowed, and is never answered itself.
///
/// # Panics
/// When it is not.
pub fn icmp(bytes: &[u8]) {
    let Ok(packet) = ip::Packet::new_checked(bytes) else { return };
    for source in [IpAddr::from(Ipv4Addr::new(192, 0, 2, 7)), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).into()] {
        let Some(answer) = icmp::too_big(&packet, 1400, source) else { continue };
        let answer = ip::Packet::new_checked(answer).expect("what we wrote is well-formed");
        assert!(answer.verify_checksum() && answer.total_len() <= icmp::ERROR_LEN_MAX_V6);
        assert_eq!((answer.source(), answer.destination()), (source, packet.source()));
        assert!(packet.octets().starts_with(&answer.payload()[8..]));
        assert_eq!(icmp::too_big(&answer, 1400, packet.source()), None);
    }
}

/// IPv4 packets: what was read is written and read again the same.
///
/// # Panics
/// When it is not.
pub fn ipv4(bytes: &[u8]) {
    if let Ok(packet) = ipv4::Packet::new_checked(bytes) {
        assert_eq!(packet.header_len() + packet.payload().len(), packet.total_len());
        let mut packet = ipv4::Packet::new_checked(bytes.to_vec()).expect("the same octets");
        packet.set_ttl(1);
        assert!(packet.verify_checksum());
    }
    let Ok(repr) = ipv4::Repr::parse(bytes) else { return };
    let mut emitted = vec![DIRT; repr.buffer_len()];
    repr.emit(&mut emitted);
    assert_eq!(ipv4::Repr::parse(&emitted), Ok(repr));
}

/// UDP datagrams behind the eight octets of their addresses: what was read is written and read again the same.
///
/// # Panics
/// When it is not.
pub fn udp(bytes: &[u8]) {
    let Some(([s0, s1, s2, s3, d0, d1, d2, d3], datagram)) = bytes.split_first_chunk::<8>() else { return };
    let (source, destination) = (Ipv4Addr::new(*s0, *s1, *s2, *s3), Ipv4Addr::new(*d0, *d1, *d2, *d3));
    let Ok(repr) = udp::Repr::parse(datagram, source, destination) else { return };
    let mut emitted = vec![DIRT; repr.buffer_len()];
    repr.emit(&mut emitted, source, destination);
    assert_eq!(udp::Repr::parse(&emitted, source, destination), Ok(repr));
}

/// Requests to a registry: what was read is written and read again the same; refusals are one line.
///
/// # Panics
/// When it is not.
pub fn registry_query(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = registry::path_is_ours(&text);
    match registry::Request::parse(&text) {
        Ok((request, _)) => assert_eq!(registry::Request::parse(&request.emit()), Ok((request, None))),
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}

/// Answers to QUERY: what was read is written and read again the same.
///
/// # Panics
/// When it is not.
pub fn registry_xml_servers(bytes: &[u8]) {
    let Ok(servers) = registry::xml::parse_servers(bytes) else { return };
    let document = registry::xml::emit_servers(&servers);
    // Escapes are longer than what they stand for.
    if document.len() <= registry::xml::LEN_MAX {
        assert_eq!(registry::xml::parse_servers(document.as_bytes()), Ok(servers));
    }
}

/// Answers to TRANSFER: what was read is written and read again the same.
///
/// # Panics
/// When it is not.
pub fn registry_xml_transfer(bytes: &[u8]) {
    let Ok(entries) = registry::xml::parse_transfer(bytes) else { return };
    let document = registry::xml::emit_transfer(&entries);
    if document.len() <= registry::xml::LEN_MAX {
        assert_eq!(registry::xml::parse_transfer(document.as_bytes()), Ok(entries));
    }
}

/// Pattern payloads: only what we would have written ourselves is one.
///
/// # Panics
/// When something else is.
pub fn pattern(bytes: &[u8]) {
    let Some(repr) = pattern::Repr::parse(bytes) else { return };
    let mut emitted = vec![DIRT; bytes.len()];
    repr.emit(&mut emitted);
    assert_eq!(emitted, bytes);
}

/// RTP: what is recognised has version 2 and the numbers that stand there.
///
/// # Panics
/// When it has not.
pub fn rtp(bytes: &[u8]) {
    let Some(repr) = rtp::Repr::parse(bytes) else { return };
    assert_eq!(bytes[0] >> 6, 2);
    assert_eq!(bytes[2..4], repr.sequence.to_be_bytes());
    assert_eq!(bytes[8..12], repr.ssrc.to_be_bytes());
    assert!(rtp::media(bytes).is_some_and(|media| media.len() <= bytes.len() - rtp::HEADER_LEN));
}
