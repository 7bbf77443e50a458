//! Each message there and back.

use super::*;
use proptest::prelude::*;

const MAC: ResponseMac = ResponseMac([1, 2, 3, 4, 5, 6]);
const NONCE: Nonce = Nonce(0xcafe_babe);

fn gateway() -> SocketAddr {
    "198.51.100.9:40000".parse().unwrap()
}

fn one_of_each() -> [Repr<'static>; 9] {
    let packet = b"packet";
    let flags = QueryFlags::GATEWAY_ADDRESS;
    [
        Repr::Discovery { nonce: NONCE },
        Repr::Advertisement { nonce: NONCE, relay: "192.0.2.7".parse().unwrap() },
        Repr::Advertisement { nonce: NONCE, relay: "2001:db8::7".parse().unwrap() },
        Repr::Request { nonce: NONCE, flags: RequestFlags::ECN },
        Repr::Query { mac: MAC, nonce: NONCE, flags: QueryFlags::LIMIT, gateway: None, packet },
        Repr::Query { mac: MAC, nonce: NONCE, flags, gateway: Some(gateway()), packet },
        Repr::Update { mac: MAC, nonce: NONCE, packet },
        Repr::Data { packet },
        Repr::Teardown { mac: MAC, nonce: NONCE, gateway: gateway() },
    ]
}

#[test]
fn every_first_octet_is_a_type_or_a_refusal() {
    for first in 0..=255_u8 {
        let expected = match (first >> 4, first & 0x0f) {
            (0, 1) => Ok(MessageType::Discovery),
            (0, 2) => Ok(MessageType::Advertisement),
            (0, 3) => Ok(MessageType::Request),
            (0, 4) => Ok(MessageType::Query),
            (0, 5) => Ok(MessageType::Update),
            (0, 6) => Ok(MessageType::Data),
            (0, 7) => Ok(MessageType::Teardown),
            (0, unknown) => Err(ParseError::UnknownType(unknown)),
            (version, _) => Err(ParseError::Version(version)),
        };
        assert_eq!(MessageType::of(&[first]), expected);
        let parsed = Repr::parse(&[&[first][..], &[0; 29]].concat()).map(|repr| repr.message_type());
        // An Advertisement of 30 octets has no family.
        assert_eq!(parsed, if first == 2 { Err(ParseError::AdvertisementLength(30)) } else { expected });
    }
    assert!(MessageType::ALL.iter().all(|kind| MessageType::from_code(kind.code()) == Some(*kind)));
}

#[test]
fn a_message_cut_at_any_octet_is_refused_or_has_less_of_its_packet() {
    for repr in one_of_each() {
        let datagram = repr.to_vec();
        assert_eq!(Repr::parse(&datagram), Ok(repr));
        for len in 0..datagram.len() {
            let (header_len, truncated) = match repr {
                Repr::Query { gateway: None, .. } | Repr::Update { .. } => (12, ParseError::Truncated(len)),
                // The address is taken from the end, wherever that is (RFC 7450 §5.1.4.9).
                Repr::Query { .. } => (30, ParseError::Truncated(len)),
                Repr::Data { .. } => (2, ParseError::Truncated(len)),
                Repr::Advertisement { .. } if len == ADVERTISEMENT_V4_LEN => (len, ParseError::Truncated(len)),
                Repr::Advertisement { .. } if len >= DISCOVERY_LEN => {
                    (datagram.len(), ParseError::AdvertisementLength(len))
                }
                _ => (datagram.len(), ParseError::Truncated(len)),
            };
            let expected = if len < header_len { Err(truncated) } else { Ok(repr.message_type()) };
            assert_eq!(Repr::parse(&datagram[..len]).map(|repr| repr.message_type()), expected, "{repr:?}, {len}");
        }
    }
}

#[test]
fn octets_behind_a_message_of_known_length_are_ignored() {
    for repr in one_of_each() {
        let longer = [&repr.to_vec()[..], b"\0"].concat();
        match repr {
            Repr::Discovery { .. } | Repr::Request { .. } | Repr::Teardown { .. } => {
                assert_eq!(Repr::parse(&longer), Ok(repr));
            }
            Repr::Advertisement { .. } => {
                assert_eq!(Repr::parse(&longer), Err(ParseError::AdvertisementLength(longer.len())));
            }
            // What follows the packet goes with it: its own length tells.
            Repr::Query { .. } | Repr::Update { .. } | Repr::Data { .. } => assert!(Repr::parse(&longer).is_ok()),
        }
    }
}

#[test]
fn reserved_octets_are_ignored_and_never_written() {
    let reserved = |repr: Repr<'_>| match repr {
        Repr::Discovery { .. } | Repr::Advertisement { .. } => 1..4,
        Repr::Request { .. } => 2..4,
        Repr::Update { .. } | Repr::Data { .. } | Repr::Teardown { .. } => 1..2,
        Repr::Query { .. } => 0..0,
    };
    for repr in one_of_each() {
        let mut datagram = repr.to_vec();
        assert!(datagram[reserved(repr)].iter().all(|octet| *octet == 0));
        datagram[reserved(repr)].fill(0xff);
        assert_eq!(Repr::parse(&datagram), Ok(repr));
    }
}

#[test]
fn a_query_tells_of_an_address_exactly_when_it_has_one() {
    let with = |flags, gateway| Repr::Query { mac: MAC, nonce: NONCE, flags: QueryFlags(flags), gateway, packet: b"" };
    assert_eq!(with(0x00, Some(gateway())).to_vec()[1], 0x01);
    assert_eq!(with(0x42, Some(gateway())).to_vec()[1], 0x43);
    assert_eq!(with(0x80, Some(gateway())).to_vec()[1], 0x80);
    assert_eq!(with(0xff, None).to_vec()[1], 0x7e);
}

proptest! {
    #[test]
    fn what_parses_is_written_and_read_again_the_same(
        first in 1_u8..8,
        rest in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let datagram = [&[first][..], &rest].concat();
        if let Ok(repr) = Repr::parse(&datagram) {
            let emitted = repr.to_vec();
            prop_assert_eq!(Repr::parse(&emitted), Ok(repr));
        }
    }

    #[test]
    fn any_octets_are_a_message_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = Repr::parse(&bytes);
    }
}
