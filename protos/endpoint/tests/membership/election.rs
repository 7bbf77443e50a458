//! Who asks on a link, how often, and what the others take over from him (RFC 3376 §6.6.2, §7.3.1; RFC 3810 §7.6.2, §8.3.1).

use crate::bed::{JustBefore, Lan, Millis, group, neighbour, report};
use castgate_endpoint::membership::querier::{Config, Output, Querier};
use castgate_endpoint::membership::{Compatibility, router};
use castgate_wire::membership::{Family, Message, Query, RecordType};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

#[test]
fn a_router_begins_with_queries_a_quarter_apart_and_goes_on_with_the_query_interval() {
    let mut lan = Lan::new(Family::V4, 1);
    let router = lan.add_router(Config::default(), 1);
    lan.run_for(400_000.millis());
    let at: Vec<u64> = lan.routers[router].asked.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [0, 31_250, 156_250, 281_250]);
    let config = Config {
        startup_query_count: NonZeroU8::new(4),
        startup_query_interval: Some(1_000.millis()),
        ..Config::default()
    };
    let mut lan = Lan::new(Family::V6, 1);
    let router = lan.add_router(config, 1);
    lan.run_for(130_000.millis());
    let at: Vec<u64> = lan.routers[router].asked.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [0, 1_000, 2_000, 3_000, 128_000]);
}

#[test]
fn a_general_query_carries_the_times_of_its_querier() {
    for (family, version) in [(Family::V4, 3), (Family::V6, 2)] {
        let mut querier = Querier::new(Config::default(), neighbour(family, 1), Instant::now());
        let expected = Query {
            version,
            group: None,
            max_response: 10_000.millis(),
            suppress: false,
            robustness: 2,
            interval: 125_000.millis(),
            sources: vec![],
        };
        assert_eq!(querier.poll_output(), Some(Output::Query(expected)));
    }
    let router = router::Config { robustness: NonZeroU8::new(8).unwrap(), ..router::Config::default() };
    let config = Config { router, ..Config::default() };
    let mut querier = Querier::new(config, neighbour(Family::V4, 1), Instant::now());
    let Some(Output::Query(query)) = querier.poll_output() else { panic!("a query") };
    assert_eq!(query.robustness, 0, "more than seven does not fit");
}

#[test]
fn the_lowest_address_asks_and_the_others_fall_silent() {
    for family in Family::ALL {
        let mut lan = Lan::new(family, 1);
        for address in [7, 3, 9] {
            lan.add_router(Config::default(), address);
        }
        lan.run_for(600_000.millis());
        for router in &lan.routers {
            assert_eq!(router.querier.querier(), neighbour(family, 3));
            assert_eq!(router.querier.is_querier(), router.address == neighbour(family, 3));
            // Two have asked once, before they heard the others.
            assert_eq!(router.asked.len() == 1, !router.querier.is_querier());
        }
    }
}

#[test]
fn the_silence_of_the_querier_ends_his_part_to_the_nanosecond() {
    let start = Instant::now();
    let mut lab = Querier::new(Config::default(), neighbour(Family::V4, 5), start);
    drain(&mut lab);
    let ask = |lab: &mut Querier, at, number| {
        lab.handle_message(at, neighbour(Family::V4, number), &Message::Query(general(Family::V4)));
    };
    ask(&mut lab, start, 6);
    assert!(lab.is_querier(), "a higher address");
    ask(&mut lab, start, 4);
    assert_eq!(drain(&mut lab), [Output::Elected { querier: neighbour(Family::V4, 4) }]);
    ask(&mut lab, start + 100_000.millis(), 4);
    let end = start + 355_000.millis();
    assert_eq!(lab.next_timeout(), Some(end));
    lab.handle_timeout(end.just_before());
    assert!(!lab.is_querier() && drain(&mut lab).is_empty());
    lab.handle_timeout(end);
    let outputs = drain(&mut lab);
    assert_eq!(outputs[0], Output::Elected { querier: neighbour(Family::V4, 5) });
    assert!(matches!(&outputs[1..], [Output::Query(query)] if query.group.is_none()), "asks at once");
    assert_eq!(lab.next_timeout(), Some(end + 125_000.millis()));
    // And leaves are asked about again.
    for kind in [RecordType::ModeIsExclude, RecordType::ChangeToInclude] {
        lab.handle_message(end, neighbour(Family::V4, 9), &report(kind, group(Family::V4), vec![]));
    }
    let is_asked = |output: &Output| matches!(output, Output::Query(query) if query.group == Some(group(Family::V4)));
    assert!(drain(&mut lab).iter().any(is_asked));
}

#[test]
fn what_comes_from_nowhere_or_from_ourselves_elects_nobody() {
    let start = Instant::now();
    let mut v4 = Querier::new(Config::default(), neighbour(Family::V4, 5), start);
    for address in ["0.0.0.0", "10.0.0.5", "fe80::1"] {
        v4.handle_message(start, address.parse().unwrap(), &Message::Query(general(Family::V4)));
        assert!(v4.is_querier(), "{address}");
    }
    let mut v6 = Querier::new(Config::default(), neighbour(Family::V6, 5), start);
    for address in ["::", "2001:db8::1", "10.0.0.1"] {
        v6.handle_message(start, address.parse().unwrap(), &Message::Query(general(Family::V6)));
        assert!(v6.is_querier(), "{address}");
    }
}

#[test]
fn the_others_use_the_times_of_the_querier_and_their_own_when_they_ask_again() {
    let start = Instant::now();
    let mut lab = Querier::new(Config::default(), neighbour(Family::V4, 5), start);
    let query = Query { robustness: 3, interval: 10_000.millis(), ..general(Family::V4) };
    lab.handle_message(start, neighbour(Family::V4, 4), &Message::Query(query));
    assert_eq!(lab.router().config().membership_interval(), 40_000.millis());
    assert_eq!(lab.next_timeout(), Some(start + 35_000.millis()));
    let query = Query { robustness: 0, interval: Duration::ZERO, ..general(Family::V4) };
    lab.handle_message(start, neighbour(Family::V4, 4), &Message::Query(query.clone()));
    assert_eq!(lab.router().config().membership_interval(), 260_000.millis(), "what is not told is ours");
    let query = Query { robustness: 3, interval: 10_000.millis(), ..query };
    lab.handle_message(start, neighbour(Family::V4, 4), &Message::Query(query));
    lab.handle_timeout(start + 35_000.millis());
    assert!(lab.is_querier());
    assert_eq!(lab.router().config().membership_interval(), 260_000.millis());
}

#[test]
fn a_router_of_another_version_is_told_once_a_minute() {
    let start = Instant::now();
    for (family, other) in [(Family::V4, 2), (Family::V4, 1), (Family::V6, 1)] {
        let mut lab = Querier::new(Config::default(), neighbour(family, 5), start);
        let from = neighbour(family, 9);
        let mut told = 0;
        for second in 0..120 {
            let query = Query { version: other, ..general(family) };
            lab.handle_message(start + Duration::from_secs(second), from, &Message::Query(query));
            lab.handle_message(start + Duration::from_secs(second), from, &Message::Query(general(family)));
            told += drain(&mut lab)
                .into_iter()
                .filter(|output| *output == Output::OtherVersion { router: from, version: other })
                .count();
        }
        assert_eq!(told, 2);
    }
}

/// RFC 3376 §7.3.1 and RFC 3810 §8.3.1: the version is set by hand.
#[test]
fn a_router_that_is_set_to_an_older_version_asks_in_it_and_warns_of_newer_ones() {
    for (family, version) in [(Family::V4, 1), (Family::V4, 2), (Family::V6, 1)] {
        let set = Compatibility::of(family == Family::V4, version);
        let router = router::Config { version: set, ..router::Config::default() };
        let start = Instant::now();
        let mut lab = Querier::new(Config { router, ..Config::default() }, neighbour(family, 5), start);
        let outputs = drain(&mut lab);
        assert!(matches!(&outputs[..], [Output::Query(query)] if query.version == version));
        let from = neighbour(family, 9);
        lab.handle_message(start, from, &Message::Query(general(family)));
        assert_eq!(drain(&mut lab), [Output::OtherVersion { router: from, version: general(family).version }]);
        let group = group(family);
        lab.handle_message(start, from, &Message::OldReport { version, group });
        lab.handle_message(start, from, &Message::OldLeave { group });
        let asked = drain(&mut lab).into_iter().find_map(|output| match output {
            Output::Query(query) => Some((query.version, query.group, query.sources)),
            _ => None,
        });
        // IGMPv1 ignores leaves.
        assert_eq!(asked, (set != Compatibility::First).then_some((version, Some(group), vec![])));
    }
}

fn drain(querier: &mut Querier) -> Vec<Output> {
    std::iter::from_fn(|| querier.poll_output()).collect()
}

fn general(family: Family) -> Query {
    Query {
        version: if family == Family::V4 { 3 } else { 2 },
        group: None,
        max_response: 10_000.millis(),
        suppress: false,
        robustness: 2,
        interval: 125_000.millis(),
        sources: vec![],
    }
}
