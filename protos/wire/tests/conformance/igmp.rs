//! The rules of RFC 3376 §4 and §7.1, with golden octets of all three versions. Checksums were computed by another program.

use crate::hex::{self, octets};
use castgate_wire::membership::{self, Message, ParseError, Query, Record, RecordType};
use castgate_wire::{igmp, ipv4};
use std::net::IpAddr;
use std::time::Duration;

const SOURCE: &str = "192.0.2.1";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| address(text)).collect()
}

fn query(version: u8, group: Option<&str>, tenths: u64) -> Query {
    Query {
        version,
        group: group.map(address),
        max_response: Duration::from_millis(tenths * 100),
        suppress: false,
        robustness: 0,
        interval: Duration::ZERO,
        sources: Vec::new(),
    }
}

fn record(kind: RecordType, group: &str, sources: &[&str]) -> Record {
    Record { kind, group: address(group), sources: addresses(sources) }
}

/// A message in both directions, alone and in its packet to `destination`.
#[track_caller]
fn holds(hex: &str, message: &Message, destination: &str) {
    let bytes = octets(hex);
    assert_eq!(igmp::parse(&bytes).as_ref(), Ok(message));
    let mut emitted = b"before".to_vec();
    igmp::append(message, &mut emitted);
    assert_eq!(emitted[6..], bytes);

    let packets = membership::emit(message, address(SOURCE));
    let [packet] = &packets[..] else { panic!("one packet, not {}", packets.len()) };
    let header = ipv4::Repr::parse(packet).expect("an IPv4 packet");
    assert_eq!((header.ttl, header.tos, header.protocol), (1, 0xc0, 2));
    assert_eq!(header.options, [0x94, 4, 0, 0]);
    assert_eq!(
        (IpAddr::from(header.source), header.destination.to_string()),
        (address(SOURCE), destination.to_owned())
    );
    assert_eq!(header.payload, bytes);
    let received = membership::parse(packet).expect("what we wrote");
    assert_eq!((&received.message, received.router_alert, received.hop_limit), (message, true, 1));
    assert_eq!((received.source, received.destination), (address(SOURCE), address(destination)));
}

/// With the checksum made right.
fn summed(hex: &str) -> Vec<u8> {
    hex::summed(octets(hex), 0)
}

#[test]
fn queries_of_all_igmp_versions() {
    holds("1100eeff 00000000", &Message::Query(query(1, None, 100)), "224.0.0.1");
    holds("1164ee9b 00000000", &Message::Query(query(2, None, 100)), "224.0.0.1");
    holds("110afdf0 ef010203", &Message::Query(query(2, Some("239.1.2.3"), 10)), "239.1.2.3");
    // Both codes are floating-point: 208 tenths and 248 s.
    let specific = Query {
        suppress: true,
        robustness: 2,
        interval: Duration::from_secs(248),
        sources: addresses(&["192.0.2.10", "192.0.2.11"]),
        ..query(3, Some("232.1.2.3"), 208)
    };
    holds("118a75c9 e8010203 0a8f0002 c000020a c000020b", &Message::Query(specific), "232.1.2.3");
}

#[test]
fn reports_and_leaves_of_older_igmp_versions() {
    let group = address("239.1.2.3");
    holds("1200fcfa ef010203", &Message::OldReport { version: 1, group }, "239.1.2.3");
    holds("1600f8fa ef010203", &Message::OldReport { version: 2, group }, "239.1.2.3");
    holds("1700f7fa ef010203", &Message::OldLeave { group }, "224.0.0.2");
}

#[test]
fn igmp_records_of_every_type_and_unknown_ones_are_kept() {
    let records = vec![
        record(RecordType::ModeIsInclude, "232.1.2.3", &["192.0.2.10"]),
        record(RecordType::ModeIsExclude, "239.1.2.3", &[]),
        record(RecordType::ChangeToInclude, "232.1.2.4", &[]),
        record(RecordType::ChangeToExclude, "239.1.2.4", &["192.0.2.11"]),
        record(RecordType::AllowNewSources, "232.1.2.5", &["192.0.2.10", "192.0.2.11"]),
        record(RecordType::BlockOldSources, "232.1.2.6", &["192.0.2.12"]),
        record(RecordType::Unknown(7), "232.1.2.7", &[]),
    ];
    let hex =
        "2200838c 00000007 01000001 e8010203 c000020a 02000000 ef010203 03000000 e8010204 04000001 ef010204 c000020b
        05000002 e8010205 c000020a c000020b 06000001 e8010206 c000020c 07000000 e8010207";
    holds(hex, &Message::Report(records), "224.0.0.22");
}

/// RFC 3376 §7.1.
#[test]
fn length_and_code_of_an_igmp_query_tell_its_version() {
    let version = |hex: &str| match igmp::parse(&summed(hex)) {
        Ok(Message::Query(query)) => Ok(query.version),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(version("11000000 00000000"), Ok(1));
    assert_eq!(version("11010000 00000000"), Ok(2));
    assert_eq!(version("11ff0000 00000000"), Ok(2));
    for len in [9, 10, 11] {
        let hex = format!("11640000 00000000 {}", "00".repeat(len - 8));
        assert_eq!(version(&hex), Err(ParseError::QueryLength(len)));
    }
    assert_eq!(version("11000000 00000000 00000000"), Ok(3));
    assert_eq!(version("11640000 00000000 00000000 ff"), Ok(3));
}

#[test]
fn an_igmpv2_query_counts_its_time_without_floating_point() {
    let Ok(Message::Query(old)) = igmp::parse(&summed("11ff0000 00000000")) else { panic!("a query") };
    assert_eq!(old.max_response, Duration::from_millis(25_500));
    let Ok(Message::Query(new)) = igmp::parse(&summed("11ff0000 00000000 00ff0000")) else { panic!("a query") };
    assert_eq!((new.max_response, new.interval), (Duration::from_millis(3_174_400), Duration::from_secs(31_744)));
}

#[test]
fn octets_behind_an_igmp_message_count_for_the_checksum_and_nothing_else() {
    for hex in [
        "118a0000 e8010203 0a8f0001 c000020a",
        "22000000 00000001 05000001 e8010203 c000020a",
        "16000000 ef010203",
        "17000000 ef010203",
    ] {
        let longer = summed(&format!("{hex} deadbe"));
        assert_eq!(igmp::parse(&longer), igmp::parse(&summed(hex)));
        assert!(igmp::parse(&longer).is_ok());
        assert_eq!(igmp::parse(&longer[..longer.len() - 1]), Err(ParseError::Checksum));
    }
}

#[test]
fn auxiliary_data_of_an_igmp_record_is_ignored_and_never_sent() {
    let with = summed("22000000 00000002 05020001 e8010203 c000020a aaaaaaaa aaaaaaaa 02000000 ef010203");
    let message = igmp::parse(&with).expect("well-formed");
    let expected = vec![
        record(RecordType::AllowNewSources, "232.1.2.3", &["192.0.2.10"]),
        record(RecordType::ModeIsExclude, "239.1.2.3", &[]),
    ];
    assert_eq!(message, Message::Report(expected));
    let mut emitted = Vec::new();
    igmp::append(&message, &mut emitted);
    assert_eq!(emitted, summed("22000000 00000002 05000001 e8010203 c000020a 02000000 ef010203"));
}

#[test]
fn reserved_octets_of_an_igmp_message_are_ignored() {
    assert_eq!(igmp::parse(&summed("22ff0000 ffff0000")), Ok(Message::Report(Vec::new())));
    let Ok(Message::Query(query)) = igmp::parse(&summed("11640000 00000000 f27d0000")) else { panic!("a query") };
    assert!(!query.suppress && query.robustness == 2);
}

#[test]
fn an_igmp_message_of_unknown_type_has_an_error_of_its_own() {
    for kind in (0..=255_u8).filter(|kind| ![0x11, 0x12, 0x16, 0x17, 0x22].contains(kind)) {
        let bytes = summed(&format!("{kind:02x}000000 00000000"));
        assert_eq!(igmp::parse(&bytes), Err(ParseError::UnknownType(kind)));
    }
}

#[test]
fn a_change_of_any_bit_of_an_igmp_message_is_noticed() {
    let bytes = octets("118a75c9 e8010203 0a8f0002 c000020a c000020b");
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(igmp::parse(&changed), Err(ParseError::Checksum), "bit {bit}");
    }
}

#[test]
fn an_igmp_message_that_ends_before_its_lists_is_refused() {
    for hex in ["118a0000 e8010203 0a8f0002 c000020a c000020b", "22000000 00000001 05010001 e8010203 c000020a aaaaaaaa"]
    {
        let whole = octets(hex);
        for len in 12..whole.len() {
            let cut = hex::summed(whole[..len].to_vec(), 0);
            assert_eq!(igmp::parse(&cut), Err(ParseError::Truncated(len)), "{len} octets of {hex}");
        }
    }
    for len in 0..8 {
        assert_eq!(igmp::parse(&[0; 8][..len]), Err(ParseError::Truncated(len)));
    }
    // Counts that no datagram could bear out.
    assert_eq!(igmp::parse(&summed("22000000 0000ffff")), Err(ParseError::Truncated(8)));
    assert_eq!(igmp::parse(&summed("11640000 00000000 0000ffff")), Err(ParseError::Truncated(12)));
}
