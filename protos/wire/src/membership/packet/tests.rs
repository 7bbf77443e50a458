//! Each packet there and back, and what is no packet.

use super::super::RecordType;
use super::*;
use proptest::prelude::*;
use std::time::Duration;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => "232.1.2.3".parse().unwrap(),
        Family::V6 => "ff3e::8000:1".parse().unwrap(),
    }
}

fn sources(family: Family, count: u32) -> Vec<IpAddr> {
    let one = |index: u32| match family {
        Family::V4 => IpAddr::from(Ipv4Addr::from(0x0a00_0000 + index)),
        Family::V6 => Ipv6Addr::from((0x2001_0db8_u128 << 96) + u128::from(index)).into(),
    };
    (1..=count).map(one).collect()
}

fn unspecified(family: Family) -> IpAddr {
    if family == Family::V4 { V4 } else { V6 }
}

/// The records of all packets of a report, in order.
fn told(records: &[Record], family: Family) -> Vec<Vec<Record>> {
    let packets = emit(&Message::Report(records.to_vec()), unspecified(family));
    let read = |packet: &Vec<u8>| {
        assert!(packet.len() <= PACKET_LEN_MAX);
        match parse(packet).expect("what we wrote").message {
            Message::Report(records) => records,
            other => panic!("{other:?}"),
        }
    };
    packets.iter().map(read).collect()
}

#[test]
fn a_long_report_is_split_between_its_records() {
    for (family, per_packet) in [(Family::V4, (1400 - 24 - 8) / 8), (Family::V6, (1400 - 48 - 8) / 20)] {
        let record = Record { kind: RecordType::ModeIsExclude, group: group(family), sources: Vec::new() };
        let reports = told(&vec![record.clone(); 400], family);
        assert_eq!(reports[0].len(), per_packet);
        assert_eq!(reports.len(), 400_usize.div_ceil(per_packet));
        assert_eq!(reports.concat(), vec![record; 400]);
    }
}

#[test]
fn a_long_record_that_includes_is_split_into_records_of_its_type_in_packets_of_their_own() {
    use RecordType::{AllowNewSources, BlockOldSources, ChangeToInclude, ModeIsInclude, Unknown};
    for kind in [ModeIsInclude, ChangeToInclude, AllowNewSources, BlockOldSources, Unknown(9)] {
        for (family, sources_max) in [(Family::V4, (1400 - 24 - 16) / 4), (Family::V6, (1400 - 48 - 28) / 16)] {
            let sources = sources(family, 1000);
            let reports = told(&[Record { kind, group: group(family), sources: sources.clone() }], family);
            assert!(reports.iter().all(|records| records.len() == 1 && records[0].kind == kind));
            let lens: Vec<_> = reports.iter().map(|records| records[0].sources.len()).collect();
            assert_eq!(lens[..lens.len() - 1], vec![sources_max; lens.len() - 1]);
            let union: Vec<_> = reports.into_iter().flatten().flat_map(|record| record.sources).collect();
            assert_eq!(union, sources);
        }
    }
}

#[test]
fn of_a_long_record_that_excludes_the_same_sources_are_told_every_time() {
    for kind in [RecordType::ModeIsExclude, RecordType::ChangeToExclude] {
        for (family, sources_max) in [(Family::V4, (1400 - 24 - 16) / 4), (Family::V6, (1400 - 48 - 28) / 16)] {
            let record = Record { kind, group: group(family), sources: sources(family, 1000) };
            let reports = told(std::slice::from_ref(&record), family);
            assert_eq!(reports.len(), 1);
            assert_eq!(reports[0][0].sources, record.sources[..sources_max]);
            assert_eq!(told(&[record], family), reports);
        }
    }
}

#[test]
fn a_long_query_is_split_between_its_sources() {
    for family in Family::ALL {
        let query = Query {
            version: if family == Family::V4 { 3 } else { 2 },
            group: Some(group(family)),
            max_response: Duration::from_secs(1),
            suppress: true,
            robustness: 2,
            interval: Duration::from_secs(125),
            sources: sources(family, 1000),
        };
        let mut union = Vec::new();
        for packet in emit(&Message::Query(query.clone()), unspecified(family)) {
            assert!(packet.len() <= PACKET_LEN_MAX);
            let Message::Query(part) = parse(&packet).unwrap().message else { panic!("a query") };
            union.extend(part.sources.clone());
            assert_eq!(part, Query { sources: part.sources.clone(), ..query.clone() });
        }
        assert_eq!(union, query.sources);
    }
}

#[test]
fn neither_router_alert_nor_hops_nor_a_certain_source_are_demanded() {
    let message = Message::OldReport { version: 2, group: group(Family::V4) };
    let mut payload = Vec::new();
    igmp::append(&message, &mut payload);
    let repr = ipv4::Repr {
        tos: 0,
        identification: 1,
        fragment: ipv4::Fragment::default(),
        ttl: 64,
        protocol: 2,
        source: Ipv4Addr::new(203, 0, 113, 9),
        destination: Ipv4Addr::new(203, 0, 113, 1),
        options: &[],
        payload: &payload,
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut packet);
    let received = parse(&packet).unwrap();
    assert_eq!((received.router_alert, received.hop_limit, received.message), (false, 64, message));
    let part = ipv4::Fragment { more: true, ..ipv4::Fragment::default() };
    ipv4::Repr { fragment: part, ..repr }.emit(&mut packet);
    assert_eq!(parse(&packet), Err(ParseError::Fragment));
    ipv4::Repr { protocol: 17, ..repr }.emit(&mut packet);
    assert_eq!(parse(&packet), Err(ParseError::Protocol(17)));
    packet[8] ^= 1;
    assert_eq!(parse(&packet), Err(ParseError::HeaderChecksum));
}

#[test]
fn octets_behind_a_packet_are_ignored_and_a_packet_cut_at_any_octet_is_refused() {
    for family in Family::ALL {
        let message = Message::OldLeave { group: group(family) };
        let [packet] = &emit(&message, unspecified(family))[..] else { panic!("one") };
        let longer = [&packet[..], b"trailing"].concat();
        assert_eq!(parse(&longer).unwrap().message, message);
        for len in 0..packet.len() {
            assert!(parse(&packet[..len]).is_err(), "{len}");
        }
    }
}

#[test]
fn a_time_above_zero_is_never_sent_as_zero() {
    let query = |version, millis| Query {
        version,
        group: None,
        max_response: Duration::from_millis(millis),
        suppress: false,
        robustness: 9,
        interval: Duration::from_secs(127),
        sources: Vec::new(),
    };
    let read = |source, query| match &emit(&Message::Query(query), source)[..] {
        [packet] => match parse(packet).unwrap().message {
            Message::Query(query) => query,
            other => panic!("{other:?}"),
        },
        _ => panic!("one packet"),
    };
    assert_eq!(read(V4, query(2, 0)).max_response, Duration::from_millis(100));
    assert_eq!(read(V4, query(2, 99)).version, 2);
    assert_eq!(read(V4, query(2, 99_999)).max_response, Duration::from_millis(25_500));
    assert_eq!(read(V4, query(3, 0)).max_response, Duration::ZERO);
    assert_eq!(read(V4, query(3, 1)).max_response, Duration::from_millis(100));
    assert_eq!(read(V4, query(1, 1)).max_response, igmp::MAX_RESPONSE_V1);
    assert_eq!(read(V6, query(1, 99_999)).max_response, Duration::from_millis(65_535));
    let micros = Query { max_response: Duration::from_micros(1), ..query(2, 0) };
    assert_eq!(read(V6, micros).max_response, Duration::from_millis(1));
    // Above 7 a robustness cannot be said (RFC 3376 §4.1.6).
    assert_eq!(read(V4, query(3, 1)).robustness, 0);
}

fn any_address(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => any::<[u8; 4]>().prop_map(IpAddr::from).boxed(),
        Family::V6 => any::<[u8; 16]>().prop_map(IpAddr::from).boxed(),
    }
}

fn any_message(family: Family) -> impl Strategy<Value = Message> {
    let addresses = proptest::collection::vec(any_address(family), 0..10);
    let record = (any::<u8>(), any_address(family), addresses.clone()).prop_map(|(kind, group, sources)| Record {
        kind: RecordType::from_code(kind),
        group,
        sources,
    });
    // Times that have codes.
    let (version, unit) = if family == Family::V4 { (3, 100) } else { (2, 1) };
    let query = (any_address(family), 0_u64..128, any::<bool>(), 0_u8..8, 0_u64..128, addresses).prop_map(
        move |(group, time, suppress, robustness, interval, sources)| Query {
            version,
            group: (!group.is_unspecified()).then_some(group),
            max_response: Duration::from_millis(time * unit),
            suppress,
            robustness,
            interval: Duration::from_secs(interval),
            sources,
        },
    );
    let versions = if family == Family::V4 { 1_u8..3 } else { 1..2 };
    prop_oneof![
        query.prop_map(Message::Query),
        proptest::collection::vec(record, 0..10).prop_map(Message::Report),
        (versions, any_address(family)).prop_map(|(version, group)| Message::OldReport { version, group }),
        any_address(family).prop_map(|group| Message::OldLeave { group }),
    ]
}

proptest! {
    #[test]
    fn what_is_emitted_parses(
        (source, message) in proptest::sample::select(Family::ALL.to_vec())
            .prop_flat_map(|family| (any_address(family), any_message(family))),
    ) {
        let packets = emit(&message, source);
        let read: Vec<_> = packets.iter().map(|packet| parse(packet).expect("what we wrote")).collect();
        prop_assert!(read.iter().all(|received| received.source == source && received.router_alert));
        let parts: Vec<_> = read.into_iter().map(|received| received.message).collect();
        match message {
            Message::Report(records) => {
                let all = parts.into_iter().flat_map(|part| match part {
                    Message::Report(records) => records,
                    other => panic!("{other:?}"),
                });
                prop_assert!(all.eq(records));
            }
            other => prop_assert_eq!(parts, [other]),
        }
    }

    #[test]
    fn any_octets_are_a_message_or_a_refusal(
        first in prop_oneof![Just(0x45_u8), Just(0x46), Just(0x60)],
        rest in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let _ = parse(&[&[first][..], &rest].concat());
        let _ = igmp::parse(&rest);
        let _ = mld::parse(&rest, Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    }
}
