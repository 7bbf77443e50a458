//! Whatever is said: nothing panics, no limit is exceeded, and what was learned is forgotten again in time.

use crate::bed::{Millis, group, neighbour, report};
use castgate_endpoint::membership::host::{self, Host};
use castgate_endpoint::membership::querier::{self, Querier};
use castgate_endpoint::membership::router::{Config, LeaveMode, Output, Refusal, Router};
use castgate_endpoint::membership::{Compatibility, Filter};
use castgate_wire::membership::{Family, Message, Query, Record, RecordType};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Few enough that they meet again, and some that cannot be.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        8 => (1..9_u8).prop_map(|low| IpAddr::from([192, 0, 2, low])),
        8 => (1..9_u16).prop_map(|low| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, low])),
        4 => (1..9_u16).prop_map(|low| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, low])),
        8 => (1..5_u8).prop_map(|low| IpAddr::from([232, 1, 1, low])),
        8 => (1..5_u16).prop_map(|low| IpAddr::from([0xff3e, 0, 0, 0, 0, 0, 0, low])),
        1 => any::<[u8; 4]>().prop_map(IpAddr::from),
        1 => any::<[u8; 16]>().prop_map(IpAddr::from),
        1 => Just(IpAddr::from([0; 4])),
        1 => Just(IpAddr::from([224, 0, 0, 1])),
        1 => Just(IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1])),
    ]
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0..20_000_u64).prop_map(Duration::from_millis),
        1 => any::<u64>().prop_map(Duration::from_nanos),
        1 => Just(Duration::MAX),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let sources = || prop::collection::vec(address(), 0..12);
    let record = (0..9_u8, address(), sources()).prop_map(|(code, group, sources)| Record {
        kind: RecordType::from_code(code),
        group,
        sources,
    });
    let query = (0..5_u8, prop::option::of(address()), duration(), any::<bool>(), any::<u8>(), duration(), sources())
        .prop_map(|(version, group, max_response, suppress, robustness, interval, sources)| Query {
            version,
            group,
            max_response,
            suppress,
            robustness,
            interval,
            sources,
        });
    prop_oneof![
        6 => prop::collection::vec(record, 0..6).prop_map(Message::Report),
        3 => query.prop_map(Message::Query),
        1 => (any::<u8>(), address()).prop_map(|(version, group)| Message::OldReport { version, group }),
        1 => address().prop_map(|group| Message::OldLeave { group }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<(IpAddr, Message, u64)>> {
    prop::collection::vec((address(), message(), prop_oneof![0..10_u64, 0..3_000_u64, 0..400_000_u64]), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_router_survives_anything_keeps_its_limits_and_its_driver_knows_what_it_knows(
        steps in steps(), is_endpoint: bool, limits in (1..4_usize, 1..6_usize),
        version in prop_oneof![Just(Compatibility::Current), Just(Compatibility::Second), Just(Compatibility::First)],
    ) {
        let (groups_max, sources_per_group_max) = limits;
        let leave_mode = if is_endpoint { LeaveMode::Immediate } else { LeaveMode::Queried };
        let config = Config { groups_max, sources_per_group_max, leave_mode, version, ..Config::default() };
        let (mut now, mut router) = (Instant::now(), Router::new(config));
        let mut filters: BTreeMap<IpAddr, Filter> = BTreeMap::new();
        let carry_out = |router: &mut Router, filters: &mut BTreeMap<IpAddr, Filter>, now: Instant| {
            while let Some(output) = router.poll_output() {
                match output {
                    Output::Changed { group, filter: Some(filter) } => {
                        assert!(group.is_multicast());
                        assert!(filter.sources().iter().all(|source| source.is_ipv4() == group.is_ipv4()));
                        filters.insert(group, filter);
                    }
                    Output::Changed { group, filter: None } => assert!(filters.remove(&group).is_some()),
                    Output::Query(query) => assert!(!is_endpoint && query.sources.len() <= sources_per_group_max),
                }
            }
            let reports: Vec<_> = router.groups(now).collect();
            assert!(reports.len() <= groups_max);
            assert!(reports.iter().all(|report| report.sources.len() <= sources_per_group_max));
            let known: BTreeMap<_, _> = reports.into_iter().map(|report| (report.group, report.filter)).collect();
            assert_eq!(known, *filters);
        };
        for (from, message, wait) in steps {
            router.handle_message(now, from, &message);
            if wait % 3 != 0 {
                carry_out(&mut router, &mut filters, now);
            }
            now += wait.millis();
            router.handle_timeout(now);
            prop_assert!(router.next_timeout().is_none_or(|next| next > now));
            carry_out(&mut router, &mut filters, now);
        }
        // Left alone, it forgets everything by itself.
        while let Some(next) = router.next_timeout() {
            prop_assert!(next <= now + 260_000.millis());
            router.handle_timeout(next);
            carry_out(&mut router, &mut filters, next);
        }
        prop_assert!(filters.is_empty() && router.is_empty());
    }

    #[test]
    fn a_host_survives_anything_and_says_only_what_it_wants(
        steps in steps(), is_v4: bool, is_tunnel: bool, wishes in prop::collection::vec((0..60_usize, 1..4_u8, 0..16_u8, any::<bool>()), 0..20),
    ) {
        let family = if is_v4 { Family::V4 } else { Family::V6 };
        let config = if is_tunnel { host::Config::tunnel() } else { host::Config::default() };
        let (mut now, mut host) = (Instant::now(), Host::new(config, family, [7; 16]));
        let mut ever = std::collections::BTreeSet::new();
        for (step, (from, message, wait)) in steps.into_iter().enumerate() {
            for (_, number, bits, is_exclude) in wishes.iter().filter(|(at, ..)| *at == step) {
                let group = crate::bed::numbered_group(family, *number);
                let sources = (0..4).filter(|bit| bits & (1 << bit) != 0).map(|number| crate::bed::source(family, number + 1));
                host.set(now, group, if *is_exclude { Filter::exclude(sources) } else { Filter::include(sources) }).unwrap();
                ever.insert(group);
            }
            host.handle_message(now, from, &message);
            now += wait.millis();
            host.handle_timeout(now);
            prop_assert!(host.next_timeout().is_none_or(|next| next > now));
            while let Some(message) = host.poll_output() {
                match message {
                    Message::Report(records) => {
                        prop_assert!(!records.is_empty() && records.iter().all(|record| ever.contains(&record.group)));
                        prop_assert!(records.iter().all(|record| record.sources.iter().all(|source| source.is_ipv4() == is_v4)));
                    }
                    Message::OldReport { group, .. } | Message::OldLeave { group } => prop_assert!(ever.contains(&group)),
                    Message::Query(_) => prop_assert!(false, "a host asks nothing"),
                }
            }
        }
    }

    #[test]
    fn a_querier_survives_anything_and_asks_again_in_time(steps in steps(), is_v4: bool) {
        let family = if is_v4 { Family::V4 } else { Family::V6 };
        let mut now = Instant::now();
        let mut querier = Querier::new(querier::Config::default(), neighbour(family, 5), now);
        for (from, message, wait) in steps {
            querier.handle_message(now, from, &message);
            now += wait.millis();
            querier.handle_timeout(now);
            prop_assert!(querier.next_timeout().is_some_and(|next| next > now));
            while querier.poll_output().is_some() {}
        }
        // The longest that a querier can promise: seven times the longest interval.
        now += Duration::from_secs(7 * 31_744 + 5);
        querier.handle_timeout(now);
        prop_assert!(querier.is_querier());
    }
}

#[test]
fn a_report_with_more_sources_than_a_packet_can_hold_fills_one_group_to_its_limit_and_counts_the_rest() {
    for leave_mode in [LeaveMode::Immediate, LeaveMode::Queried] {
        for kind in (1..7).map(RecordType::from_code) {
            let mut router = Router::new(Config { leave_mode, ..Config::default() });
            let now = Instant::now();
            let sources: Vec<IpAddr> =
                (0..100_000_u32).map(|number| IpAddr::from((0x0a00_0001 + number).to_be_bytes())).collect();
            router.handle_message(
                now,
                [10, 0, 0, 1].into(),
                &report(RecordType::ModeIsExclude, group(Family::V4), vec![]),
            );
            router.handle_message(now, [10, 0, 0, 1].into(), &report(kind, group(Family::V4), sources));
            let held: Vec<_> = router.groups(now).map(|report| report.sources.len()).collect();
            assert_eq!(held, [128], "{kind:?}");
            assert_eq!(router.counters().refusals.of(Refusal::SourcesMax), 100_000 - 128);
        }
    }
}

#[test]
fn more_groups_than_there_may_be_are_refused_and_counted_and_those_that_are_there_live_on() {
    let mut router = Router::new(Config { groups_max: 10, ..Config::default() });
    let now = Instant::now();
    let records = |kind| {
        (0..1000_u32).map(move |number| Record {
            kind,
            group: IpAddr::from((0xe801_0000 + number).to_be_bytes()),
            sources: vec![],
        })
    };
    router.handle_message(now, [10, 0, 0, 1].into(), &Message::Report(records(RecordType::ModeIsExclude).collect()));
    assert_eq!((router.len(), router.counters().refusals.of(Refusal::GroupsMax)), (10, 990));
    let later = now + 100_000.millis();
    router.handle_message(later, [10, 0, 0, 1].into(), &Message::Report(records(RecordType::ModeIsExclude).collect()));
    router.handle_timeout(now + 260_000.millis());
    assert_eq!(router.len(), 10);
    // Leaves of what is not there are neither groups nor refusals.
    let before = router.counters().refusals.of(Refusal::GroupsMax);
    router.handle_message(
        later,
        [10, 0, 0, 1].into(),
        &Message::Report(records(RecordType::ChangeToInclude).collect()),
    );
    assert_eq!(router.counters().refusals.of(Refusal::GroupsMax), before);
}

#[test]
fn records_without_a_meaning_are_ignored_and_the_rest_of_the_report_is_heard() {
    let mut router = Router::new(Config::default());
    let record = |kind, group: &str, sources: &[&str]| Record {
        kind,
        group: group.parse().unwrap(),
        sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
    };
    let records = vec![
        record(RecordType::Unknown(7), "239.1.1.1", &[]),
        record(RecordType::ModeIsExclude, "192.0.2.1", &[]),
        record(RecordType::ModeIsExclude, "224.0.0.251", &[]),
        record(RecordType::ModeIsInclude, "239.1.1.2", &["224.1.1.1", "0.0.0.0", "2001:db8::1", "192.0.2.1"]),
    ];
    let now = Instant::now();
    router.handle_message(now, [0, 0, 0, 0].into(), &Message::Report(records));
    let counters = router.counters();
    let refused =
        [Refusal::UnknownType, Refusal::UnfitGroup, Refusal::UnfitSource].map(|refusal| counters.refusals.of(refusal));
    assert_eq!((refused, counters.records), ([1, 2, 3], 4));
    assert_eq!(router.filter([239, 1, 1, 2].into()), Some(Filter::include([IpAddr::from([192, 0, 2, 1])])));
}

/// The largest gateway that the limits permit reports everything again and again.
#[test]
fn a_gateway_with_a_thousand_groups_of_128_sources_is_refreshed_in_less_than_a_second() {
    let mut router = Router::new(Config { leave_mode: LeaveMode::Immediate, ..Config::default() });
    let mut now = Instant::now();
    let records: Vec<Record> = (0..1000_u32)
        .map(|number| Record {
            kind: RecordType::ModeIsInclude,
            group: IpAddr::from((0xe801_0000 + number).to_be_bytes()),
            sources: (0..128).map(|low: u32| IpAddr::from((0x0a00_0000 + number * 256 + low).to_be_bytes())).collect(),
        })
        .collect();
    let records = Message::Report(records);
    let began = Instant::now();
    for _ in 0..10 {
        router.handle_message(now, [0, 0, 0, 0].into(), &records);
        while router.poll_output().is_some() {}
        now += 100_000.millis();
        router.handle_timeout(now);
    }
    let took = began.elapsed() / 10;
    println!("a refresh of 1000 groups with 128 sources took {took:?}");
    assert_eq!((router.len(), router.counters().changes), (1000, 1000));
    assert!(took < Duration::from_secs(1), "{took:?}");
}
