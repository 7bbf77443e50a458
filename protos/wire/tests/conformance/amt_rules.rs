//! The rules of RFC 7450 §5.1 that concern octets, of RFC 9601, and what real peers do instead.

use castgate_wire::amt::{
    ANYCAST_V4, ANYCAST_V6, Nonce, PORT, ParseError, QueryFlags, Repr, RequestFlags, ResponseMac,
};
use castgate_wire::membership::{self, Message, Query};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const MAC: ResponseMac = ResponseMac([1, 2, 3, 4, 5, 6]);
const NONCE: Nonce = Nonce(0xcafe_babe);

fn gateway(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

fn general_query(source: &str) -> Vec<u8> {
    let source: IpAddr = source.parse().expect("an address");
    let query = Query {
        version: if source.is_ipv4() { 3 } else { 2 },
        group: None,
        max_response: Duration::from_millis(100),
        suppress: false,
        robustness: 2,
        interval: Duration::from_secs(125),
        sources: Vec::new(),
    };
    membership::emit(&Message::Query(query), source).remove(0)
}

#[test]
fn relays_listen_at_the_port_and_the_anycast_addresses_of_the_registry() {
    assert_eq!(PORT, 2268);
    assert_eq!((ANYCAST_V4.to_string(), ANYCAST_V6.to_string()), ("192.52.193.1".into(), "2001:3::1".into()));
}

#[test]
fn the_length_of_an_advertisement_alone_tells_its_family() {
    for len in 8..40 {
        let datagram = [&[2, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef][..], &vec![9; len - 8]].concat();
        let relay = match Repr::parse(&datagram) {
            Ok(Repr::Advertisement { relay, .. }) => Ok(relay),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
        match len {
            12 => assert_eq!(relay, Ok("9.9.9.9".parse().unwrap())),
            24 => assert_eq!(relay, Ok("909:909:909:909:909:909:909:909".parse().unwrap())),
            _ => assert_eq!(relay, Err(ParseError::AdvertisementLength(len))),
        }
    }
}

#[test]
fn a_request_of_nine_octets_is_a_request() {
    let request = Repr::Request { nonce: NONCE, flags: RequestFlags::IGMP };
    assert_eq!(Repr::parse(b"\x03\0\0\0\xca\xfe\xba\xbe\0"), Ok(request));
}

/// RFC 7450 §5.1.4.9: found from the end, without a look at the packet.
#[test]
fn the_gateway_address_is_the_last_eighteen_octets_whatever_stands_before_them() {
    for packet in [&b""[..], b"no packet", &general_query("0.0.0.0"), &general_query("fe80::1")] {
        for address in ["198.51.100.9:40000", "[2001:db8::9]:1"] {
            let query = Repr::Query {
                mac: MAC,
                nonce: NONCE,
                flags: QueryFlags::GATEWAY_ADDRESS,
                gateway: Some(gateway(address)),
                packet,
            };
            assert_eq!(Repr::parse(&query.to_vec()), Ok(query));
        }
    }
}

#[test]
fn a_general_query_in_a_membership_query_is_read_with_what_follows_it() {
    for source in ["0.0.0.0", "192.0.2.7", "::", "fe80::1"] {
        let padded = [&general_query(source)[..], b"padding"].concat();
        for gateway in [None, Some(gateway("198.51.100.9:40000"))] {
            let flags = QueryFlags::NONE;
            let datagram = Repr::Query { mac: MAC, nonce: NONCE, flags, gateway, packet: &padded }.to_vec();
            let Ok(Repr::Query { packet, gateway: read, .. }) = Repr::parse(&datagram) else { panic!("a query") };
            assert_eq!(read, gateway);
            let Message::Query(query) = membership::parse(packet).expect("a packet").message else { panic!("a query") };
            assert_eq!((query.robustness, query.interval), (2, Duration::from_secs(125)));
        }
    }
}

/// The kernel's `amt_header_request` and `amt_header_membership_query` are bit fields, which a little-endian compiler fills
/// from the low end: P is the last of the octet there, and so are L and G.
#[test]
fn flags_of_the_linux_kernel_are_understood_and_kept() {
    let Ok(Repr::Request { flags, .. }) = Repr::parse(b"\x03\x80\0\0\xca\xfe\xba\xbe") else { panic!("a request") };
    assert!(flags.mld() && flags.is_linux() && !flags.ecn());
    let packet = general_query("0.0.0.0");
    for (octet, limit, has_address) in
        [(0x00, false, false), (0x40, true, false), (0x80, false, true), (0xc0, true, true)]
    {
        let gateway = has_address.then(|| gateway("198.51.100.9:40000"));
        let query = Repr::Query { mac: MAC, nonce: NONCE, flags: QueryFlags(octet), gateway, packet: &packet };
        let datagram = query.to_vec();
        assert_eq!((datagram[1], datagram.len()), (octet, 12 + 36 + if has_address { 18 } else { 0 }));
        let Ok(Repr::Query { flags, gateway: read, .. }) = Repr::parse(&datagram) else { panic!("a query") };
        assert_eq!((flags.limit(), read, flags.is_linux()), (limit, gateway, octet != 0));
    }
}

/// RFC 9601 §6.1.4: bit 14 of the message, beside P.
#[test]
fn the_ecn_flag_of_a_request_is_apart_from_the_p_flag() {
    for (octet, ecn, mld) in [(0, false, false), (1, false, true), (2, true, false), (3, true, true)] {
        let datagram = [3, octet, 0, 0, 0xca, 0xfe, 0xba, 0xbe];
        let Ok(Repr::Request { flags, .. }) = Repr::parse(&datagram) else { panic!("a request") };
        assert_eq!((flags.ecn(), flags.mld(), flags.is_linux()), (ecn, mld, false));
        assert_eq!(Repr::Request { nonce: NONCE, flags }.to_vec(), datagram);
    }
}

#[test]
fn multicast_data_carries_a_packet_or_a_fragment_as_it_is() {
    for packet in [&b""[..], b"\x45", b"\x60 anything at all"] {
        let datagram = Repr::Data { packet }.to_vec();
        assert_eq!((&datagram[..2], &datagram[2..]), (&b"\x06\0"[..], packet));
        assert_eq!(Repr::parse(&datagram), Ok(Repr::Data { packet }));
    }
}
