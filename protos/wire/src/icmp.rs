//! What a relay tells the source of a packet that is too long for a tunnel: fragmentation needed (RFC 792, RFC 1191 §4) and
//! packet too big (RFC 4443 §3.2).
//!
//! ```text
//!   0      1      2          4        6               8
//!   | 3    | 4    | checksum | unused | next-hop MTU  | the packet, as much as fits into 576 octets in all  |     ICMPv4
//!   | 2    | 0    | checksum | MTU                    | the packet, as much as fits into 1280 octets in all |     ICMPv6
//! ```
//! Owns which packets are never answered, lest errors answer errors. How often one is answered is the caller's to limit.

use crate::checksum::Checksum;
use crate::ip::Packet;
use crate::{ipv4, ipv6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of the header of a message.
const HEADER_LEN: usize = 8;
/// The longest `ICMPv4` error with its IP header, in octets (RFC 1812 §4.3.2.3).
pub const ERROR_LEN_MAX_V4: usize = 576;
/// The longest `ICMPv6` error with its IP header, in octets: the minimum MTU (RFC 4443 §2.4 c).
pub const ERROR_LEN_MAX_V6: usize = 1280;
/// Every host sends with it.
const HOP_LIMIT: u8 = 64;
/// Internetwork control: the precedence of `ICMPv4` errors (RFC 1812 §4.3.2.5).
const TOS: u8 = 0xc0;

const DESTINATION_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;

/// A whole IP packet from `source` that tells the source of `offending` to send no more than `mtu` octets at once; `None`
/// when it is not to be told, or when `source` is of the other family.
///
/// RFC 1812 §4.3.2.7: errors about packets to a multicast destination are not sent. RFC 7450 §5.3.3.6.2.1 asks for this one,
/// for source-specific multicast: whether it is, the caller knows.
#[must_use]
pub fn too_big<T: AsRef<[u8]>>(offending: &Packet<T>, mtu: u32, source: IpAddr) -> Option<Vec<u8>> {
    match (offending, source) {
        (Packet::V4(offending), IpAddr::V4(source)) => fragmentation_needed(offending, mtu, source),
        (Packet::V6(offending), IpAddr::V6(source)) => packet_too_big(offending, mtu, source),
        (Packet::V4(_), IpAddr::V6(_)) | (Packet::V6(_), IpAddr::V4(_)) => None,
    }
}

fn fragmentation_needed<T: AsRef<[u8]>>(offending: &ipv4::Packet<T>, mtu: u32, source: Ipv4Addr) -> Option<Vec<u8>> {
    let destination = offending.source();
    // RFC 1812 §4.3.2.7: only the first fragment is answered, and only one host.
    let nobody = destination.is_unspecified()
        || destination.is_loopback()
        || destination.is_broadcast()
        || destination.is_multicast();
    if nobody || offending.fragment().offset_units != 0 || is_error_v4(offending) {
        return None;
    }
    let quote = offending.octets();
    let quote = &quote[..quote.len().min(ERROR_LEN_MAX_V4 - ipv4::HEADER_LEN - HEADER_LEN)];
    let [m0, m1] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
    let mut payload = vec![DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0, m0, m1];
    payload.extend_from_slice(quote);
    let checksum = Checksum::default().add(&payload).finish();
    payload[2..4].copy_from_slice(&checksum.to_be_bytes());
    let repr = ipv4::Repr {
        tos: TOS,
        identification: 0,
        fragment: ipv4::Fragment { dont_fragment: true, ..ipv4::Fragment::default() },
        ttl: HOP_LIMIT,
        protocol: ipv4::protocol::ICMP,
        source,
        destination,
        options: &[],
        payload: &payload,
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut packet);
    Some(packet)
}

/// Whether a packet is an `ICMPv4` error (RFC 1122 §3.2.2), or too short to tell.
fn is_error_v4<T: AsRef<[u8]>>(packet: &ipv4::Packet<T>) -> bool {
    packet.protocol() == ipv4::protocol::ICMP && matches!(packet.payload().first(), None | Some(3 | 4 | 5 | 11 | 12))
}

fn packet_too_big<T: AsRef<[u8]>>(offending: &ipv6::Packet<T>, mtu: u32, source: Ipv6Addr) -> Option<Vec<u8>> {
    let destination = offending.source();
    // RFC 4443 §2.4 e: only one node is answered.
    let nobody = destination.is_unspecified() || destination.is_loopback() || destination.is_multicast();
    if nobody || is_error_v6(offending) {
        return None;
    }
    let quote = offending.octets();
    let quote = &quote[..quote.len().min(ERROR_LEN_MAX_V6 - ipv6::HEADER_LEN - HEADER_LEN)];
    let [m0, m1, m2, m3] = mtu.to_be_bytes();
    let mut payload = vec![PACKET_TOO_BIG, 0, 0, 0, m0, m1, m2, m3];
    payload.extend_from_slice(quote);
    let checksum = Checksum::default()
        .pseudo_header(source.into(), destination.into(), ipv6::protocol::ICMPV6, payload.len())
        .add(&payload)
        .finish();
    payload[2..4].copy_from_slice(&checksum.to_be_bytes());
    let repr = ipv6::Repr {
        traffic_class: 0,
        flow_label: 0,
        next_header: ipv6::protocol::ICMPV6,
        hop_limit: HOP_LIMIT,
        source,
        destination,
        payload: &payload,
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut packet);
    Some(packet)
}

/// Whether a packet is an `ICMPv6` error (types 0 to 127) or a redirect (137), or too short to tell. A later fragment of
/// `ICMPv6` is taken for one: its type is elsewhere.
fn is_error_v6<T: AsRef<[u8]>>(packet: &ipv6::Packet<T>) -> bool {
    packet.upper_protocol() == ipv6::protocol::ICMPV6
        && (packet.fragment().offset_units != 0 || matches!(packet.upper_payload().first(), None | Some(0..=127 | 137)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RELAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const RELAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

    fn v4(protocol: u8, payload: &[u8]) -> ipv4::Repr<'_> {
        ipv4::Repr {
            tos: 0,
            identification: 7,
            fragment: ipv4::Fragment { dont_fragment: true, ..ipv4::Fragment::default() },
            ttl: 9,
            protocol,
            source: Ipv4Addr::new(192, 0, 2, 10),
            destination: Ipv4Addr::new(232, 1, 2, 3),
            options: b"",
            payload,
        }
    }

    fn v6(next_header: u8, payload: &[u8]) -> ipv6::Repr<'_> {
        ipv6::Repr {
            traffic_class: 0,
            flow_label: 0,
            next_header,
            hop_limit: 9,
            source: "2001:db8::10".parse().unwrap(),
            destination: "ff3e::8000:1".parse().unwrap(),
            payload,
        }
    }

    fn bytes_v4(repr: &ipv4::Repr<'_>) -> Vec<u8> {
        let mut bytes = vec![0xff; repr.buffer_len()];
        repr.emit(&mut bytes);
        bytes
    }

    fn bytes_v6(repr: &ipv6::Repr<'_>) -> Vec<u8> {
        let mut bytes = vec![0xff; repr.buffer_len()];
        repr.emit(&mut bytes);
        bytes
    }

    fn answer(offending: &[u8], mtu: u32, source: impl Into<IpAddr>) -> Option<Vec<u8>> {
        too_big(&Packet::new_checked(offending).expect("a packet"), mtu, source.into())
    }

    #[test]
    fn fragmentation_needed_holds_the_mtu_and_as_much_of_the_packet_as_fits() {
        let mut offending = bytes_v4(&v4(17, &[0xab; 1480]));
        let packet_len = offending.len();
        offending.extend_from_slice(b"padding of the frame");
        let answer = answer(&offending, 1470, RELAY).unwrap();
        assert_eq!(answer.len(), ERROR_LEN_MAX_V4);
        let repr = ipv4::Repr::parse(&answer).unwrap();
        assert_eq!((repr.source, repr.destination), (RELAY, Ipv4Addr::new(192, 0, 2, 10)));
        assert_eq!((repr.tos, repr.ttl, repr.protocol), (0xc0, 64, 1));
        assert_eq!(Checksum::default().add(repr.payload).finish(), 0);
        assert_eq!(repr.payload[..2], [3, 4]);
        assert_eq!(repr.payload[4..8], [0, 0, 0x05, 0xbe]);
        assert_eq!(repr.payload[8..], offending[..548]);
        assert!(packet_len > 548);
    }

    #[test]
    fn packet_too_big_holds_the_mtu_and_as_much_of_the_packet_as_fits() {
        let offending = bytes_v6(&v6(17, &[0xab; 1460]));
        let answer = answer(&offending, 1452, RELAY_V6).unwrap();
        assert_eq!(answer.len(), ERROR_LEN_MAX_V6);
        let repr = ipv6::Repr::parse(&answer).unwrap();
        assert_eq!((repr.source, repr.destination), (RELAY_V6, "2001:db8::10".parse().unwrap()));
        let sum =
            Checksum::default().pseudo_header(repr.source.into(), repr.destination.into(), 58, repr.payload.len());
        assert_eq!(sum.add(repr.payload).finish(), 0);
        assert_eq!(repr.payload[..2], [2, 0]);
        assert_eq!(repr.payload[4..8], [0, 0, 0x05, 0xac]);
        assert_eq!(repr.payload[8..], offending[..1232]);
    }

    #[test]
    fn a_short_packet_is_quoted_whole_and_without_what_follows_it() {
        let offending = [bytes_v4(&v4(17, b"short")), b"padding".to_vec()].concat();
        assert_eq!(answer(&offending, 68, RELAY).unwrap()[28..], offending[..25]);
        let offending = [bytes_v6(&v6(17, b"short")), b"padding".to_vec()].concat();
        assert_eq!(answer(&offending, 68, RELAY_V6).unwrap()[48..], offending[..45]);
    }

    #[test]
    fn errors_are_never_answered_with_errors() {
        for kind in 0..=255 {
            let is_error = matches!(kind, 3 | 4 | 5 | 11 | 12);
            assert_eq!(answer(&bytes_v4(&v4(1, &[kind, 0, 0, 0])), 1400, RELAY).is_none(), is_error, "type {kind}");
            let is_error = kind < 128 || kind == 137;
            assert_eq!(answer(&bytes_v6(&v6(58, &[kind, 0, 0, 0])), 1400, RELAY_V6).is_none(), is_error, "type {kind}");
        }
        // Behind destination options, and where the type is in another fragment.
        let hidden = b"\x3a\0\x01\x04\0\0\0\0\x01\0\0\0";
        assert_eq!(answer(&bytes_v6(&v6(60, hidden)), 1400, RELAY_V6), None);
        let later = b"\x3a\0\0\x08\0\0\0\x07\x80\0\0\0";
        assert_eq!(answer(&bytes_v6(&v6(44, later)), 1400, RELAY_V6), None);
    }

    #[test]
    fn of_an_ipv4_datagram_only_the_first_fragment_is_answered() {
        let part = |offset_units| ipv4::Fragment { dont_fragment: true, more: true, offset_units };
        let answered = |offset| {
            answer(&bytes_v4(&ipv4::Repr { fragment: part(offset), ..v4(17, &[1; 16]) }), 1400, RELAY).is_some()
        };
        assert!(answered(0) && !answered(1) && !answered(0x1fff));
    }

    #[test]
    fn nobody_but_a_single_host_is_answered() {
        for source in ["0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1"] {
            let packet = bytes_v4(&ipv4::Repr { source: source.parse().unwrap(), ..v4(17, b"") });
            assert_eq!(answer(&packet, 1400, RELAY), None, "{source}");
        }
        for source in ["::", "::1", "ff02::1"] {
            let packet = bytes_v6(&ipv6::Repr { source: source.parse().unwrap(), ..v6(17, b"") });
            assert_eq!(answer(&packet, 1400, RELAY_V6), None, "{source}");
        }
        assert_eq!(answer(&bytes_v4(&v4(17, b"")), 1400, RELAY_V6), None);
        assert_eq!(answer(&bytes_v6(&v6(17, b"")), 1400, RELAY), None);
    }

    proptest! {
        #[test]
        fn an_answer_to_anything_is_a_packet_that_is_not_answered(
            bytes in proptest::collection::vec(any::<u8>(), 0..1500),
            first in prop_oneof![Just(0x45_u8), Just(0x60)],
            mtu: u32,
        ) {
            let mut bytes = bytes;
            if let Some(octet) = bytes.first_mut() {
                *octet = first;
            }
            let Ok(packet) = Packet::new_checked(&bytes) else { return Ok(()) };
            for source in [IpAddr::from(RELAY), RELAY_V6.into()] {
                let Some(answer) = too_big(&packet, mtu, source) else { continue };
                let answer = Packet::new_checked(answer).expect("a packet");
                prop_assert_eq!((answer.source(), answer.destination()), (source, packet.source()));
                prop_assert!(too_big(&answer, mtu, packet.source()).is_none());
            }
        }
    }
}
