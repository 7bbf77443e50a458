//! The rules of RFC 3810 §5 and §8.1, with golden packets of both versions. Checksums were computed by another program.

use crate::hex::{self, octets};
use castgate_wire::membership::{self, Message, ParseError, Query, Record, RecordType};
use castgate_wire::{ipv6, mld};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

const SOURCE: &str = "fe80::1";
const GROUP: &str = "ff3e::8000:1";
/// IPv6 header from [`SOURCE`] and hop-by-hop options before a message of so many octets, in hexadecimal.
const FROM: &str = "0001 fe80000000000000 0000000000000001";
const GROUP_HEX: &str = "ff3e0000 00000000 00000000 80000001";
const ALERT: &str = "3a000502 00000100";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn general(version: u8) -> Query {
    Query {
        version,
        group: None,
        max_response: Duration::from_secs(10),
        suppress: false,
        robustness: 0,
        interval: Duration::ZERO,
        sources: Vec::new(),
    }
}

/// A message in both directions, in its packet to `destination`.
#[track_caller]
fn holds(hex: &str, source: &str, message: &Message, destination: &str) {
    let bytes = octets(hex);
    assert_eq!(membership::emit(message, address(source)), std::slice::from_ref(&bytes));
    let received = membership::parse(&bytes).expect("golden");
    assert_eq!((&received.message, received.router_alert, received.hop_limit), (message, true, 1));
    assert_eq!((received.source, received.destination), (address(source), address(destination)));
    let packet = ipv6::Packet::new_checked(&bytes).expect("golden");
    assert_eq!((packet.hop_limit(), packet.router_alert(), packet.upper_protocol()), (1, Some(0), 58));
}

/// A message with its checksum made right, between two unspecified addresses.
fn parse_octets(message: &[u8]) -> Result<Message, ParseError> {
    let ends = Ipv6Addr::UNSPECIFIED;
    let pseudo_header = 58 + u32::try_from(message.len()).expect("short");
    mld::parse(&hex::summed(message.to_vec(), pseudo_header), ends, ends)
}

fn parse_summed(hex: &str) -> Result<Message, ParseError> {
    parse_octets(&octets(hex))
}

#[test]
fn queries_of_both_mld_versions() {
    let all = "ff020000 00000000 00000000 00000001";
    let zeros = "00000000 00000000 00000000 00000000";
    let hex = format!("6c000000 0020{FROM} {all} {ALERT} 82005917 27100000 {zeros}");
    holds(&hex, SOURCE, &Message::Query(general(1)), "ff02::1");

    let one_second = Query { group: Some(address(GROUP)), max_response: Duration::from_secs(1), ..general(1) };
    let hex = format!("6c000000 0020{FROM} {GROUP_HEX} {ALERT} 82007cc2 03e80000 {GROUP_HEX}");
    holds(&hex, SOURCE, &Message::Query(one_second), GROUP);

    let newest = Query { robustness: 2, interval: Duration::from_secs(125), ..general(2) };
    let hex = format!("6c000000 0024{FROM} {all} {ALERT} 82005696 27100000 {zeros} 027d0000");
    holds(&hex, SOURCE, &Message::Query(newest), "ff02::1");

    // Both codes are floating-point: 32776 ms and 248 s.
    let specific = Query {
        group: Some(address(GROUP)),
        max_response: Duration::from_millis(32_776),
        suppress: true,
        robustness: 2,
        interval: Duration::from_secs(248),
        sources: vec![address("2001:db8::10")],
        ..general(2)
    };
    let source = "20010db8 00000000 00000000 00000010";
    let hex = format!("6c000000 0034{FROM} {GROUP_HEX} {ALERT} 8200c83b 80010000 {GROUP_HEX} 0a8f0001 {source}");
    holds(&hex, SOURCE, &Message::Query(specific), GROUP);
}

#[test]
fn reports_and_dones_of_the_older_mld_version() {
    let group = address(GROUP);
    let hex = format!("6c000000 0020{FROM} {GROUP_HEX} {ALERT} 83007faa 00000000 {GROUP_HEX}");
    holds(&hex, SOURCE, &Message::OldReport { version: 1, group }, GROUP);
    let routers = "ff020000 00000000 00000000 00000002";
    let hex = format!("6c000000 0020{FROM} {routers} {ALERT} 8400fee5 00000000 {GROUP_HEX}");
    holds(&hex, SOURCE, &Message::OldLeave { group }, "ff02::2");
}

#[test]
fn reports_of_the_newer_mld_version_also_from_the_unspecified_address() {
    let routers = "ff020000 00000000 00000000 00000016";
    let exclude = Record { kind: RecordType::ChangeToExclude, group: address("ff0e::1"), sources: Vec::new() };
    let allow =
        Record { kind: RecordType::AllowNewSources, group: address(GROUP), sources: vec![address("2001:db8::10")] };
    let hex = format!(
        "6c000000 0048{FROM} {routers} {ALERT} 8f00bdcd 00000002 05000001 {GROUP_HEX} 20010db8 00000000 00000000 00000010
         04000000 ff0e0000 00000000 00000000 00000001"
    );
    holds(&hex, SOURCE, &Message::Report(vec![allow, exclude.clone()]), "ff02::16");
    let nobody = "0001 0000000000000000 0000000000000000";
    let hex = format!(
        "6c000000 0024{nobody} {routers} {ALERT} 8f006e7f 00000001 04000000 ff0e0000 00000000 00000000 00000001"
    );
    holds(&hex, "::", &Message::Report(vec![exclude]), "ff02::16");
}

/// RFC 3810 §8.1.
#[test]
fn the_length_of_an_mld_query_tells_its_version() {
    let version = |len: usize| match parse_summed(&format!("82000000 {}", "00".repeat(len - 4))) {
        Ok(Message::Query(query)) => Ok(query.version),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    for len in 8..24 {
        assert_eq!(version(len), Err(ParseError::Truncated(len)));
    }
    assert_eq!(version(24), Ok(1));
    for len in 25..28 {
        assert_eq!(version(len), Err(ParseError::QueryLength(len)));
    }
    assert_eq!((version(28), version(29)), (Ok(2), Ok(2)));
}

#[test]
fn an_mldv1_query_counts_its_time_without_floating_point() {
    let zeros = "00".repeat(16);
    let Ok(Message::Query(old)) = parse_summed(&format!("82000000 ffff0000 {zeros}")) else { panic!("a query") };
    assert_eq!(old.max_response, Duration::from_millis(65_535));
    let Ok(Message::Query(new)) = parse_summed(&format!("82000000 ffff0000 {zeros} 00ff0000")) else {
        panic!("a query")
    };
    assert_eq!((new.max_response, new.interval), (Duration::from_millis(8_387_584), Duration::from_secs(31_744)));
}

#[test]
fn octets_behind_an_mld_message_count_for_the_checksum_and_nothing_else() {
    let message = format!("83000000 00000000 {GROUP_HEX}");
    assert_eq!(parse_summed(&format!("{message} deadbe")), parse_summed(&message));
    let report = format!("8f000000 00000001 02000000 {GROUP_HEX}");
    assert_eq!(parse_summed(&format!("{report} deadbe")), parse_summed(&report));
    assert!(parse_summed(&report).is_ok());
}

#[test]
fn auxiliary_data_code_and_reserved_octets_of_an_mld_message_are_ignored() {
    let plain = parse_summed(&format!("8f000000 00000001 02000000 {GROUP_HEX}"));
    assert_eq!(parse_summed(&format!("8fff0000 ffff0001 02010000 {GROUP_HEX} aaaaaaaa")), plain);
    let plain = parse_summed(&format!("83000000 00000000 {GROUP_HEX}"));
    assert_eq!(parse_summed(&format!("83ff0000 ffffffff {GROUP_HEX}")), plain);
}

#[test]
fn an_icmpv6_message_that_is_not_mld_has_an_error_of_its_own() {
    for kind in [0, 1, 128, 133, 135, 142, 144, 255] {
        let zeros = "00".repeat(24);
        assert_eq!(parse_summed(&format!("{kind:02x}000000 {zeros}")), Err(ParseError::UnknownType(kind)));
    }
}

#[test]
fn a_change_of_any_bit_of_an_mld_message_or_its_addresses_is_noticed() {
    let routers = "ff020000 00000000 00000000 00000002";
    let bytes = octets(&format!("6c000000 0020{FROM} {routers} {ALERT} 8400fee5 00000000 {GROUP_HEX}"));
    for bit in (8 * 8..40 * 8).chain(48 * 8..bytes.len() * 8) {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(membership::parse(&changed), Err(ParseError::Checksum), "bit {bit}");
    }
}

#[test]
fn an_mld_message_that_ends_before_its_lists_is_refused() {
    let report = format!("8f000000 00000001 02010001 {GROUP_HEX} {GROUP_HEX} aaaaaaaa");
    let whole = octets(&report);
    for len in 8..whole.len() {
        assert_eq!(parse_octets(&whole[..len]), Err(ParseError::Truncated(len)));
    }
    assert_eq!(parse_summed("8f000000 0000ffff"), Err(ParseError::Truncated(8)));
}
