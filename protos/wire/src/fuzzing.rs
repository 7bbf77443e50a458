//! What must hold for any bytes at all, one function per format.
//!
//! The fuzz targets in `fuzz/` call these functions and nothing else, and `tests/corpus.rs` calls them with every committed
//! input, so that an ordinary test run sees what the fuzzer saw. Each panics when a format breaks its promise: `parse` never
//! panics, and `parse` of what `emit` wrote gives the same value.

use crate::{ipv4, pattern, registry, rtp, udp, umtp};
use std::net::Ipv4Addr;

/// One target: its name, which is also the name of its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 9] = [
    ("umtp", umtp),
    ("umtp_options", umtp_options),
    ("ipv4", ipv4),
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
