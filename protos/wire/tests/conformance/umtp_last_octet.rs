//! The last octet decides about everything: all 256 values, at every length at which something changes.

use castgate_wire::umtp::{Channel, Command, Cookie, FlowId, Packet, ParseError, Repr, Trailer};
use proptest::prelude::*;
use std::net::Ipv4Addr;

const SOURCE_FLAG: u8 = 0x80;
/// draft-finlayson-umtp-09 §3, and `JOIN_ACK` and `JOIN_NACK`.
const MAY_CARRY_SOURCE: [u8; 7] = [1, 2, 3, 8, 9, 10, 11];
const FLOW_DATA: u8 = 12;

/// Twenty octets that are all different, and a last one.
fn datagram(len: usize, last: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0x30..).take(20).collect();
    bytes[19] = last;
    bytes.split_off(20 - len)
}

/// What a datagram with this last octet is, by the words of the draft.
fn expected_trailer_len(last: u8) -> Result<usize, ParseError> {
    let (source, version, command) = (last & SOURCE_FLAG != 0, last >> 4 & 7, last & 15);
    if version != 0 {
        Err(ParseError::Version(version))
    } else if command == FLOW_DATA {
        Ok(4)
    } else if !source {
        Ok(12)
    } else if MAY_CARRY_SOURCE.contains(&command) {
        Ok(16)
    } else {
        Err(ParseError::SourceNotAllowed(Command::from_code(command)))
    }
}

fn head_len(repr: &Repr<'_>) -> usize {
    match repr {
        Repr::Command { head, .. } => head.len(),
        Repr::Flow { payload, .. } => payload.len(),
    }
}

#[test]
fn every_last_octet_selects_the_trailer_that_the_draft_says() {
    for last in 0..=255_u8 {
        for len in 1..=20 {
            let bytes = datagram(len, last);
            let expected = match expected_trailer_len(last) {
                Ok(trailer_len) if len >= trailer_len => Ok(len - trailer_len),
                Ok(_) => Err(ParseError::Truncated(len)),
                Err(error) => Err(error),
            };
            assert_eq!(Repr::parse(&bytes).map(|repr| head_len(&repr)), expected, "{last:#04x}, {len} octets");
            let view = Packet::new_checked(&bytes).map(|packet| packet.head().len());
            assert_eq!(view, expected, "{last:#04x}, {len} octets");
        }
    }
}

#[test]
fn every_last_octet_that_parses_comes_back_but_for_the_flag_of_flow_data() {
    for last in 0..=255_u8 {
        let bytes = datagram(20, last);
        if let Ok(repr) = Repr::parse(&bytes) {
            let mut dirty = vec![0xff; repr.buffer_len()];
            repr.emit(&mut dirty);
            let kept = if repr.command() == Command::FlowData { last & !SOURCE_FLAG } else { last };
            assert_eq!(dirty, datagram(20, kept), "{last:#04x}");
        }
    }
}

#[test]
fn nothing_at_all_is_truncated() {
    assert_eq!(Repr::parse(b""), Err(ParseError::Truncated(0)));
    assert_eq!(Packet::new_checked(b"").map(|_| ()), Err(ParseError::Truncated(0)));
}

#[test]
fn the_version_is_looked_at_before_the_length() {
    assert_eq!(Repr::parse(b"\x15"), Err(ParseError::Version(1)));
    assert_eq!(Repr::parse(b"\x75"), Err(ParseError::Version(7)));
}

#[test]
fn unknown_commands_are_kept_with_their_code() {
    for code in [0, 14, 15] {
        let bytes = datagram(12, code);
        assert_eq!(Repr::parse(&bytes).map(|repr| repr.command()), Ok(Command::Unknown(code)));
    }
}

#[test]
fn the_flag_does_not_lengthen_flow_data() {
    let expected = Repr::Flow { flow: FlowId(0x4a21), ttl: 126, payload: b"hi" };
    assert_eq!(Repr::parse(b"hi\x4a\x21\x7e\x8c"), Ok(expected));
}

#[test]
fn flow_data_has_no_trailer_of_the_other_kind() {
    assert_eq!(Trailer::parse(&datagram(20, FLOW_DATA)), Err(ParseError::FlowData));
    assert_eq!(Packet::new_checked(datagram(20, FLOW_DATA)).expect("parses").trailer(), None);
}

#[test]
fn only_probes_joins_and_their_answers_have_options() {
    // A first option that runs into the trailer: wrong where options stand, of no interest elsewhere.
    for code in 0..16 {
        let bytes = [&b"\0\x01\xff\xff"[..], &datagram(12, code)].concat();
        let malformed = [2, 5, 6, 7, 8, 10, 11].contains(&code);
        assert_eq!(Repr::parse(&bytes).expect("parses").options().is_err(), malformed, "{code}");
        assert_eq!(Packet::new_checked(&bytes).expect("parses").options().is_err(), malformed, "{code}");
    }
}

#[test]
fn refusals_have_a_label_and_a_sentence() {
    let refusals = [
        ParseError::Truncated(3),
        ParseError::Version(1),
        ParseError::SourceNotAllowed(Command::Probe),
        ParseError::FlowData,
    ];
    let labels: std::collections::BTreeSet<_> = refusals.iter().map(ParseError::label).collect();
    assert_eq!(labels.len(), refusals.len());
    assert_eq!(refusals[2].to_string(), "command PROBE cannot carry a source address");
}

prop_compose! {
    fn any_trailer()(
        source_cookie: u16,
        destination_cookie: u16,
        group: [u8; 4],
        source in proptest::option::of(any::<[u8; 4]>()),
        port: u16,
        ttl: u8,
        code in (0_u8..16).prop_filter("FLOW_DATA has a trailer of its own", |code| *code != FLOW_DATA),
    ) -> Trailer {
        let command = Command::from_code(code);
        // A source that cannot go to the wire cannot come back.
        let source = source.filter(|_| command.may_carry_source()).map(Ipv4Addr::from);
        Trailer {
            source_cookie: Cookie(source_cookie),
            destination_cookie: Cookie(destination_cookie),
            channel: Channel { group: group.into(), source, port },
            ttl,
            command,
        }
    }
}

proptest! {
    #[test]
    fn any_command_comes_back_as_it_was_written(
        trailer in any_trailer(),
        head in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let repr = Repr::Command { trailer, head: &head };
        let mut dirty = vec![0xff; repr.buffer_len()];
        repr.emit(&mut dirty);
        prop_assert_eq!(Repr::parse(&dirty), Ok(repr));
        prop_assert_eq!(Trailer::parse(&dirty), Ok((&head[..], trailer)));
        prop_assert_eq!(trailer.to_octets().len(), trailer.buffer_len());
    }

    #[test]
    fn any_flow_comes_back_as_it_was_written(
        flow: u16,
        ttl: u8,
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let repr = Repr::Flow { flow: FlowId(flow), ttl, payload: &payload };
        let mut dirty = vec![0xff; repr.buffer_len()];
        repr.emit(&mut dirty);
        prop_assert_eq!(Repr::parse(&dirty), Ok(repr));
        prop_assert_eq!(Packet::new_checked(&dirty).expect("parses").flow_id(), Some(FlowId(flow)));
    }

    #[test]
    fn any_octets_are_a_datagram_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        castgate_wire::fuzzing::umtp(&bytes);
    }
}
