//! Packets by hand, and what is no packet.

use super::*;
use proptest::prelude::*;

/// Traffic class 0xb8, flow label 0x12345, six octets of UDP that nobody looks at here.
const GOLDEN: &[u8] = b"\x6b\x81\x23\x45\x00\x06\x11\x07\
        \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\xff\x3e\0\0\0\0\0\0\0\0\0\0\x80\0\0\x01packet";

fn golden() -> Repr<'static> {
    Repr {
        traffic_class: 0xb8,
        flow_label: 0x12345,
        next_header: protocol::UDP,
        hop_limit: 7,
        source: "2001:db8::1".parse().unwrap(),
        destination: "ff3e::8000:1".parse().unwrap(),
        payload: b"packet",
    }
}

fn emitted(repr: &Repr<'_>) -> Vec<u8> {
    let mut dirty = vec![0xff; repr.buffer_len()];
    repr.emit(&mut dirty);
    dirty
}

fn with(next_header: u8, payload: &[u8]) -> Result<Packet<Vec<u8>>, ParseError> {
    Packet::new_checked(emitted(&Repr { next_header, payload, ..golden() }))
}

#[test]
fn the_golden_packet_holds_in_both_directions() {
    assert_eq!(Repr::parse(GOLDEN), Ok(golden()));
    assert_eq!(emitted(&golden()), GOLDEN);
    let packet = Packet::new_checked(GOLDEN).unwrap();
    assert_eq!((packet.upper_protocol(), packet.upper_offset()), (protocol::UDP, HEADER_LEN));
    assert_eq!((packet.upper_payload(), packet.payload()), (&b"packet"[..], &b"packet"[..]));
    assert_eq!((packet.router_alert(), packet.identification()), (None, None));
}

#[test]
fn what_follows_the_packet_is_not_looked_at() {
    let bytes = [GOLDEN, b"padding of the frame"].concat();
    assert_eq!(Repr::parse(&bytes), Ok(golden()));
    assert_eq!(Packet::new_checked(&bytes).unwrap().octets(), GOLDEN);
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    for len in 0..GOLDEN.len() {
        assert_eq!(Packet::new_checked(&GOLDEN[..len]), Err(ParseError::Truncated(len)));
    }
    assert_eq!(Packet::new_checked(b"\x45"), Err(ParseError::Version(4)));
}

#[test]
fn extension_headers_of_all_kinds_are_walked_over() {
    let chain = [
        &b"\x2b\0\x05\x02\0\0\x01\0"[..],        // hop-by-hop: router alert
        b"\x3c\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0", // routing, two units
        b"\x2c\0\x01\x04\0\0\0\0",               // destination options: padding
        b"\x3c\0\0\x01\xde\xad\xbe\xef",         // first fragment
        b"\x11\0\0\0\0\0\0\0",                   // destination options again: single octets of padding
        b"upper",
    ]
    .concat();
    let packet = with(protocol::HOP_BY_HOP, &chain).unwrap();
    assert_eq!((packet.upper_protocol(), packet.upper_payload()), (protocol::UDP, &b"upper"[..]));
    assert_eq!(packet.fragment(), Fragment { dont_fragment: true, more: true, offset_units: 0 });
    assert_eq!((packet.identification(), packet.router_alert()), (Some(0xdead_beef), Some(0)));
}

#[test]
fn behind_the_header_of_a_later_fragment_nothing_is_taken_for_a_header() {
    let packet = with(protocol::FRAGMENT, b"\x3c\0\0\x08\0\0\0\x07\xff\xff\xff").unwrap();
    assert_eq!(packet.fragment(), Fragment { dont_fragment: true, more: false, offset_units: 1 });
    assert_eq!((packet.upper_protocol(), packet.upper_payload()), (60, &b"\xff\xff\xff"[..]));
}

#[test]
fn unknown_headers_and_none_at_all_are_the_upper_layer() {
    for next_header in [protocol::NONE, 50, 51, 135, 253, 255] {
        assert_eq!(with(next_header, b"\0").unwrap().upper_protocol(), next_header);
    }
}

#[test]
fn an_extension_header_over_the_end_is_refused() {
    for kind in [protocol::HOP_BY_HOP, protocol::ROUTING, protocol::FRAGMENT, protocol::DESTINATION_OPTIONS] {
        for len in 1..8 {
            assert_eq!(with(kind, &b"\x11\0\x01\x04\0\0\0\0"[..len]), Err(ParseError::Extension(40)));
        }
    }
    assert_eq!(with(60, b"\x11\x01\x01\x04\0\0\0\0"), Err(ParseError::Extension(40)));
    assert_eq!(with(60, b"\x2b\0\x01\x04\0\0\0\0\x11"), Err(ParseError::Extension(48)));
}

#[test]
fn jumbograms_are_refused() {
    assert_eq!(with(protocol::HOP_BY_HOP, b"\x11\0\xc2\x04\0\x01\0\0"), Err(ParseError::Jumbo));
    assert_eq!(with(protocol::HOP_BY_HOP, b""), Err(ParseError::Jumbo));
    // Among destination options the same number means nothing.
    assert!(with(protocol::DESTINATION_OPTIONS, b"\x11\0\xc2\x04\0\x01\0\0").is_ok());
}

#[test]
fn hop_by_hop_options_come_first_or_not_at_all() {
    assert_eq!(with(60, b"\0\0\x01\x04\0\0\0\0\x11\0\x01\x04\0\0\0\0"), Err(ParseError::HopByHop(48)));
}

#[test]
fn a_long_chain_is_refused() {
    let chain =
        |count: usize| [b"\x3c\0\x01\x04\0\0\0\0".repeat(count - 1), b"\x11\0\x01\x04\0\0\0\0".to_vec()].concat();
    assert_eq!(with(60, &chain(EXTENSIONS_MAX)).unwrap().upper_protocol(), protocol::UDP);
    assert_eq!(with(60, &chain(EXTENSIONS_MAX + 1)), Err(ParseError::TooManyExtensions));
}

#[test]
fn a_router_alert_is_found_among_other_options_and_only_in_hop_by_hop_options() {
    let alert = |next_header, options: &[u8]| with(next_header, options).unwrap().router_alert();
    assert_eq!(alert(0, b"\x3a\x01\0\x01\0\x1e\x01\x09\x05\x02\0\x02\0\0\0\0"), Some(2));
    assert_eq!(alert(0, b"\x3a\0\x1e\x05\x05\x02\0\0"), None);
    assert_eq!(alert(0, b"\x3a\0\x05\x01\0\0\0\0"), None);
    assert_eq!(alert(60, b"\x3a\0\x05\x02\0\0\x01\0"), None);
}

#[test]
fn setting_hops_and_class_changes_nothing_else() {
    let mut packet = Packet::new_checked(GOLDEN.to_vec()).unwrap();
    packet.set_hop_limit(1);
    packet.set_traffic_class(0x47);
    let expected = Repr { hop_limit: 1, traffic_class: 0x47, ..golden() };
    assert_eq!(Repr::parse(&packet.into_inner()), Ok(expected));
}

proptest! {
    #[test]
    fn what_parses_emits_the_same_octets(
        payload in proptest::collection::vec(any::<u8>(), 0..60),
        rest: [u8; 36],
        next_header in prop_oneof![Just(0_u8), Just(43), Just(44), Just(60), any::<u8>()],
    ) {
        let len = u8::try_from(payload.len()).unwrap();
        let mut bytes = [&[0x60, 1, 2, 3, 0, len, next_header, 9], &rest[..32], &payload].concat();
        bytes[0] |= rest[32] & 0x0f;
        if let Ok(repr) = Repr::parse(&bytes) {
            prop_assert_eq!(emitted(&repr), bytes.clone());
            let packet = Packet::new_checked(&bytes).unwrap();
            prop_assert_eq!(packet.upper_offset() + packet.upper_payload().len(), packet.total_len());
            let _ = (packet.router_alert(), packet.fragment());
        }
    }

    #[test]
    fn any_octets_are_a_packet_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = Repr::parse(&bytes);
    }
}
