//! Packets by hand, and what is no packet.

use super::*;
use proptest::prelude::*;

/// The header is a widely printed example of the checksum (0xb1e6).
const GOLDEN: &[u8] = b"\x45\x00\x00\x3c\x1c\x46\x40\x00\x40\x06\xb1\xe6\xac\x10\x0a\x63\xac\x10\x0a\x0c\
        0123456789012345678901234567890123456789";

fn golden() -> Repr<'static> {
    Repr {
        tos: 0,
        identification: 0x1c46,
        fragment: Fragment { dont_fragment: true, ..Fragment::default() },
        ttl: 64,
        protocol: 6,
        source: Ipv4Addr::new(172, 16, 10, 99),
        destination: Ipv4Addr::new(172, 16, 10, 12),
        options: b"",
        payload: b"0123456789012345678901234567890123456789",
    }
}

fn emitted(repr: &Repr<'_>) -> Vec<u8> {
    let mut dirty = vec![0xff; repr.buffer_len()];
    repr.emit(&mut dirty);
    dirty
}

#[test]
fn the_golden_packet_holds_in_both_directions() {
    assert_eq!(Repr::parse(GOLDEN), Ok(golden()));
    assert_eq!(emitted(&golden()), GOLDEN);
}

#[test]
fn options_are_kept_and_what_follows_the_packet_is_not_looked_at() {
    let repr = Repr { options: b"\x94\x04\x00\x00", ..golden() };
    let mut bytes = emitted(&repr);
    assert_eq!(bytes[0], 0x46);
    bytes.extend_from_slice(b"padding of the frame");
    assert_eq!(Repr::parse(&bytes), Ok(repr));
}

#[test]
fn fragments_are_told_from_whole_datagrams() {
    let part = Fragment { dont_fragment: false, more: true, offset_units: 185 };
    let bytes = emitted(&Repr { fragment: part, ..golden() });
    let packet = Packet::new_checked(&bytes).unwrap();
    assert_eq!(packet.fragment(), part);
    assert_eq!(part.offset_bytes(), 1480);
    assert!(part.is_part() && Fragment { more: false, ..part }.is_part());
    assert!(!golden().fragment.is_part());
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let changed = |at: usize, octet: u8| {
        let mut bytes = GOLDEN.to_vec();
        bytes[at] = octet;
        Packet::new_checked(bytes).map(|_| ())
    };
    assert_eq!(changed(0, 0x65), Err(ParseError::Version(6)));
    assert_eq!(changed(0, 0x44), Err(ParseError::HeaderLength(16)));
    assert_eq!(changed(3, 19), Err(ParseError::HeaderLength(20)));
    assert_eq!(changed(3, 61), Err(ParseError::Truncated(60)));
    for len in 0..GOLDEN.len() {
        assert_eq!(Packet::new_checked(&GOLDEN[..len]), Err(ParseError::Truncated(len)));
    }
}

#[test]
fn a_change_of_any_bit_of_the_header_is_noticed() {
    for bit in 0..HEADER_LEN * 8 {
        let mut bytes = GOLDEN.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Repr::parse(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn setting_the_ttl_changes_nothing_but_ttl_and_checksum() {
    let mut packet = Packet::new_checked(GOLDEN.to_vec()).unwrap();
    packet.set_ttl(7);
    assert_eq!(Repr::parse(&packet.into_inner()), Ok(Repr { ttl: 7, ..golden() }));
}

proptest! {
    #[test]
    fn what_parses_emits_the_same_octets(
        mut bytes in proptest::collection::vec(any::<u8>(), HEADER_LEN..100),
        words in 5_u8..8,
    ) {
        bytes[0] = 0x40 | words;
        bytes[6] &= 0x7f;
        let total_len = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
        let header_len = usize::from(words) * 4;
        if bytes.len() >= header_len {
            fill_checksum(&mut bytes[..header_len]);
            let repr = Repr::parse(&bytes).expect("made to fit");
            prop_assert_eq!(emitted(&repr), bytes.clone());
        }
    }

    #[test]
    fn any_octets_are_a_packet_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(packet) = Packet::new_checked(&bytes) {
            let _ = (packet.options(), packet.payload(), packet.verify_checksum(), packet.fragment());
        }
        let _ = Repr::parse(&bytes);
    }
}
