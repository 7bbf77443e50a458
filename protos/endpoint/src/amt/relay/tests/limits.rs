//! What a stranger gets, and how much of everything there may be.

use super::*;
use std::num::NonZeroU32;

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
}

#[test]
fn a_source_gets_its_rate_of_answers_whatever_its_ports() {
    let config = Config { answers_per_source: rate(10, 4), ..Config::default() };
    let mut lab = Lab::with(config);
    for port in 1..=100 {
        let from = SocketAddr::from(([203, 0, 113, 1], port));
        lab.receive(from, &Repr::Request { nonce: Nonce(1), flags: RequestFlags::IGMP });
        lab.receive(from, &Repr::Discovery { nonce: Nonce(1) });
    }
    assert_eq!((lab.outputs().len(), lab.dropped(Reason::SourceRate)), (4, 196));
    assert_eq!(lab.ask(gateway(2)).flags, QueryFlags::GATEWAY_ADDRESS, "another source has its own");
}

#[test]
fn a_flood_of_strangers_does_not_keep_a_gateway_from_refreshing() {
    let config = Config { answers_total: rate(10, 4), ..Config::default() };
    let mut lab = Lab::with(config);
    lab.join(gateway(1));
    for number in 0..1000_u32 {
        let from = SocketAddr::from((number.to_be_bytes().map(|octet| octet | 1), 7));
        lab.receive(from, &Repr::Request { nonce: Nonce(1), flags: RequestFlags::IGMP });
    }
    assert!(lab.dropped(Reason::TotalRate) >= 990);
    let got = lab.ask(gateway(1));
    lab.update_with(gateway(1), &got, &allow(SSM, &[SOURCE]));
    assert_eq!(lab.relay.counters().updates, 2);
}

#[test]
fn every_limit_holds_and_is_counted_by_its_own_reason() {
    let config = Config {
        endpoints_max: 3,
        endpoints_per_address_max: 2,
        groups_per_endpoint_max: 2,
        sources_per_group_max: 2,
        groups_max: 3,
        ..Config::default()
    };
    let mut lab = Lab::with(config);
    let port = |port| SocketAddr::from(([203, 0, 113, 9], port));
    lab.join(port(1));
    lab.join(port(2));
    lab.join(port(3));
    assert_eq!((lab.relay.endpoints().len(), lab.dropped(Reason::EndpointsPerAddressMax)), (2, 1));
    lab.report(port(1), &allow(SSM, &[SOURCE, "192.0.2.11", "192.0.2.12", "192.0.2.13"]));
    assert_eq!(lab.groups(port(1)), [(ip(SSM), include(&[SOURCE, "192.0.2.11"]))]);
    assert_eq!(lab.dropped(Reason::SourcesPerGroupMax), 2);
    lab.report(port(1), &allow("232.1.2.4", &[SOURCE]));
    lab.report(port(1), &allow("232.1.2.5", &[SOURCE]));
    assert_eq!((lab.groups(port(1)).len(), lab.dropped(Reason::GroupsPerEndpointMax)), (2, 1));
    lab.join(gateway(1));
    lab.join(gateway(2));
    assert_eq!((lab.relay.endpoints().len(), lab.dropped(Reason::EndpointsMax)), (3, 1));
    lab.report(gateway(1), &allow("232.1.2.6", &[SOURCE]));
    lab.report(port(2), &allow("232.1.2.7", &[SOURCE]));
    assert_eq!((lab.relay.upstream().count(), lab.dropped(Reason::GroupsMax)), (3, 1));
    lab.report(port(2), &allow("232.1.2.6", &[SOURCE]));
    assert_eq!(lab.groups(port(2)).len(), 2, "a group that is there already is no new one");
}

#[test]
fn an_endpoint_with_all_it_may_have_is_still_refreshed_and_may_leave() {
    let mut lab = Lab::with(Config { groups_per_endpoint_max: 1, ..Config::default() });
    lab.join(gateway(1));
    lab.wait(Duration::from_secs(200));
    lab.report(gateway(1), &allow("232.1.2.4", &[SOURCE]));
    lab.report(gateway(1), &allow(SSM, &[SOURCE]));
    lab.wait(Duration::from_secs(200));
    assert_eq!(lab.groups(gateway(1)).len(), 1);
    lab.report(gateway(1), &Message::Report(vec![record(RecordType::BlockOldSources, SSM, &[SOURCE])]));
    assert_eq!(lab.relay.endpoints().len(), 0);
}

#[test]
fn a_hundred_thousand_claimed_sources_become_as_many_as_may_be() {
    let mut lab = Lab::new();
    for round in 0..100_u32 {
        let sources = (0..1000).map(|low| IpAddr::from((0x0a00_0000 + round * 1000 + low).to_be_bytes())).collect();
        for kind in [RecordType::AllowNewSources, RecordType::BlockOldSources, RecordType::ModeIsInclude] {
            let claim = Record { kind, group: ip(ASM), sources: Vec::clone(&sources) };
            lab.report(gateway(1), &Message::Report(vec![claim]));
        }
        let claim = Record { kind: RecordType::ChangeToExclude, group: ip("239.9.9.9"), sources };
        lab.report(gateway(1), &Message::Report(vec![claim]));
        lab.wait(Duration::from_secs(1));
    }
    let groups = lab.groups(gateway(1));
    assert!(groups.iter().all(|(_, filter)| filter.sources().len() <= 128), "{groups:?}");
    assert!(lab.dropped(Reason::SourcesPerGroupMax) > 10_000);
}

#[test]
fn a_relay_that_takes_nobody_new_keeps_whom_it_has() {
    let mut lab = Lab::new();
    lab.join(gateway(1));
    lab.relay.drain();
    lab.join(gateway(2));
    lab.report(gateway(1), &allow("232.1.2.4", &[SOURCE]));
    assert_eq!((lab.relay.endpoints().len(), lab.groups(gateway(1)).len()), (1, 2));
    assert_eq!(lab.dropped(Reason::Limited), 1);
}

#[test]
fn a_hundred_thousand_requests_leave_the_tables_as_large_as_they_were() {
    let mut lab = Lab::new();
    let before = (lab.relay.limiter.len(), lab.relay.hints.len());
    for number in 0..100_000_u32 {
        lab.now += Duration::from_micros(50);
        let from = SocketAddr::from(((0x0b00_0000 + number * 7919).to_be_bytes(), 7));
        lab.receive(from, &Repr::Request { nonce: Nonce(number), flags: RequestFlags(0x80) });
        lab.outputs();
    }
    assert_eq!((lab.relay.limiter.len(), lab.relay.hints.len()), before);
    assert_eq!(before, (16_384, 16_384));
    assert!(lab.relay.members.is_empty() && lab.relay.timers.next().is_none() && lab.relay.merged.is_empty());
    assert!(lab.relay.outputs.capacity() < 64 && lab.relay.counters().plain_queries > 50_000);
}
