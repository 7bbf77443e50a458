//! Hosts of all versions and routers on one link: upstream state equals the reference model.

use crate::bed::{Lan, Millis, group, source};
use castgate_endpoint::membership::host::{self, Host};
use castgate_endpoint::membership::querier;
use castgate_endpoint::membership::router::{self, LeaveMode, Output, Router};
use castgate_endpoint::membership::{Compatibility, Filter};
use castgate_wire::membership::{Family, Message, Query, emit, parse};
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// All old reports, all timers and the last general query with its answers: RFC 3376 §7.3.2 warns that it takes so long.
const QUIET: Duration = Duration::from_secs(260 + 260 + 260 + 135);

fn of_version(version: Compatibility) -> host::Config {
    host::Config { version, ..host::Config::default() }
}

/// A link with hosts of these versions whose wishes change for a while.
fn restless(family: Family, seed: u64, versions: &[Compatibility], loss_permille: u64, steps: u64) -> Lan {
    let mut lan = Lan::new(family, seed);
    lan.loss_permille = loss_permille;
    lan.is_watched = loss_permille == 0;
    lan.add_router(querier::Config::default(), 1);
    lan.add_router(querier::Config::default(), 2);
    for version in versions {
        lan.add_host(of_version(*version));
    }
    for _ in 0..steps {
        let host = usize::try_from(lan.random.below(versions.len() as u64)).unwrap();
        let (group, filter) = (lan.draw_group(), lan.draw_filter());
        lan.set(host, group, &filter_of(&filter, versions[host]));
        // Now at once, now after some repeats, now after an expiry.
        let wait = [1, 100, 1_000, 10_000, 100_000][usize::try_from(lan.random.below(5)).unwrap()];
        let wait = lan.random.below(wait) + 1;
        lan.run_for(wait.millis());
    }
    lan
}

/// An older host knows no sources: who wants some gets all.
fn filter_of(filter: &Filter, version: Compatibility) -> Filter {
    if version == Compatibility::Current || filter.is_nothing() { filter.clone() } else { Filter::everything() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn on_a_link_that_loses_nothing_nobody_goes_without_and_the_state_becomes_the_model(
        seed: u64, is_v4: bool, older in 0..3_usize,
    ) {
        let family = if is_v4 { Family::V4 } else { Family::V6 };
        let mut versions = vec![Compatibility::Current; 3];
        versions.extend([Compatibility::Second, Compatibility::First].into_iter().take(older));
        let mut lan = restless(family, seed, &versions, 0, 25);
        lan.run_for(QUIET);
        lan.assert_equals_model();
    }

    #[test]
    fn after_a_time_of_losses_the_state_becomes_the_model(seed: u64, is_v4: bool, older in 0..3_usize) {
        let family = if is_v4 { Family::V4 } else { Family::V6 };
        let mut versions = vec![Compatibility::Current; 3];
        versions.extend([Compatibility::Second, Compatibility::First].into_iter().take(older));
        let mut lan = restless(family, seed, &versions, 250, 25);
        lan.loss_permille = 0;
        lan.run_for(QUIET);
        lan.assert_equals_model();
    }

    #[test]
    fn an_amt_endpoint_is_its_host_at_every_moment(
        seed: [u8; 16], is_v4: bool, steps in prop::collection::vec((0..3_u8, any::<u8>(), any::<bool>(), 0..3_000_u64), 1..60),
    ) {
        let family = if is_v4 { Family::V4 } else { Family::V6 };
        let mut tunnel = Tunnel::new(family, seed);
        for (number, bits, is_exclude, wait) in steps {
            let group = crate::bed::numbered_group(family, number + 1);
            let sources = (0..8).filter(|bit| bits & (1 << bit) != 0).map(|number| source(family, number + 1));
            let filter = if is_exclude { Filter::exclude(sources) } else { Filter::include(sources) };
            tunnel.host.set(tunnel.now, group, filter).unwrap();
            tunnel.carry(0);
            tunnel.assert_same();
            tunnel.run_for(wait.millis(), 0);
            tunnel.assert_same();
        }
    }

    #[test]
    fn an_amt_endpoint_with_losses_is_its_host_again_in_time(
        seed: [u8; 16], steps in prop::collection::vec((any::<u8>(), any::<bool>(), 0..30_000_u64), 1..40),
    ) {
        let mut tunnel = Tunnel::new(Family::V4, seed);
        for (bits, is_exclude, wait) in steps {
            let sources = (0..8).filter(|bit| bits & (1 << bit) != 0).map(|number| source(Family::V4, number + 1));
            let filter = if is_exclude { Filter::exclude(sources) } else { Filter::include(sources) };
            tunnel.host.set(tunnel.now, group(Family::V4), filter).unwrap();
            tunnel.run_for(wait.millis(), 400);
        }
        tunnel.run_for(QUIET, 0);
        tunnel.assert_same();
    }
}

#[test]
fn a_link_without_hosts_has_no_state() {
    let mut lan = restless(Family::V4, 1, &[Compatibility::Current], 0, 0);
    lan.run_for(QUIET);
    lan.assert_equals_model();
    assert!(lan.routers.iter().all(|router| router.filters.is_empty()));
}

#[test]
fn a_host_that_vanishes_is_forgotten_after_the_group_membership_interval() {
    let mut lan = restless(Family::V4, 1, &[Compatibility::Current, Compatibility::Second], 0, 0);
    let group = group(Family::V4);
    lan.set(0, group, &Filter::include([source(Family::V4, 1)]));
    lan.set(1, group, &Filter::everything());
    lan.run_for(1_000.millis());
    lan.is_watched = false;
    lan.hosts.clear();
    lan.run_for(258_000.millis());
    assert!(lan.routers.iter().all(|router| router.filters.len() == 1));
    lan.run_for(QUIET);
    assert!(lan.routers.iter().all(|router| router.filters.is_empty()));
}

#[test]
fn when_the_querier_dies_the_next_one_takes_over_and_the_state_is_the_model_again() {
    let versions = [Compatibility::Current, Compatibility::Second, Compatibility::Current];
    let mut lan = restless(Family::V4, 7, &versions, 0, 20);
    assert!(lan.routers[0].querier.is_querier() && !lan.routers[1].querier.is_querier());
    assert!(!lan.routers[1].asked.iter().skip(2).any(|(_, is_specific)| *is_specific), "one querier asks");
    lan.routers[0].is_alive = false;
    // With the times of the RFC a member may expire before the next querier has his answer: Other Querier Present takes 255 s,
    // the answer 10 s more, and the membership interval is 260 s.
    lan.is_watched = false;
    lan.run_for(270_000.millis());
    lan.is_watched = true;
    lan.run_for(QUIET);
    assert!(lan.routers[1].querier.is_querier());
    lan.assert_equals_model();
}

/// A gateway's host and the relay's router of it, with a general query every 125 s.
struct Tunnel {
    now: Instant,
    family: Family,
    random: crate::random::Random,
    host: Host,
    router: Router,
    query_at: Instant,
    filters: std::collections::BTreeMap<IpAddr, Filter>,
}

impl Tunnel {
    fn new(family: Family, seed: [u8; 16]) -> Self {
        let now = Instant::now();
        let config = router::Config { leave_mode: LeaveMode::Immediate, ..router::Config::default() };
        Self {
            now,
            family,
            random: crate::random::Random(u64::from(seed[0])),
            host: Host::new(host::Config::tunnel(), family, seed),
            router: Router::new(config),
            query_at: now,
            filters: std::collections::BTreeMap::new(),
        }
    }

    fn carry(&mut self, loss_permille: u64) {
        let from: IpAddr = if self.family == Family::V4 { [0; 4].into() } else { [0_u16; 8].into() };
        while let Some(message) = self.host.poll_output() {
            for packet in emit(&message, from) {
                if self.random.below(1000) >= loss_permille {
                    self.router.handle_message(self.now, from, &parse(&packet).unwrap().message);
                }
            }
        }
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Changed { group, filter: Some(filter) } => {
                    assert_ne!(self.filters.insert(group, filter.clone()), Some(filter), "a change changes something");
                }
                Output::Changed { group, filter: None } => assert!(self.filters.remove(&group).is_some()),
                Output::Query(_) => panic!("an endpoint is asked nothing"),
            }
        }
    }

    fn run_for(&mut self, time: Duration, loss_permille: u64) {
        let end = self.now + time;
        loop {
            let timeouts = [self.host.next_timeout(), self.router.next_timeout(), Some(self.query_at)];
            let Some(next) = timeouts.into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.now = next;
            self.host.handle_timeout(next);
            self.router.handle_timeout(next);
            if self.query_at <= next {
                self.query_at = next + Duration::from_secs(125);
                let query = general(self.family);
                let from = if self.family == Family::V4 { [0; 4].into() } else { "2001:db8::1".parse().unwrap() };
                self.host.handle_message(next, from, &Message::Query(query));
            }
            self.carry(loss_permille);
        }
        self.now = end;
    }

    #[track_caller]
    fn assert_same(&self) {
        let wanted: Vec<_> = self.host.groups().map(|(group, filter)| (group, filter.clone())).collect();
        assert_eq!(self.filters.clone().into_iter().collect::<Vec<_>>(), wanted);
    }
}

fn general(family: Family) -> Query {
    Query {
        version: if family == Family::V4 { 3 } else { 2 },
        group: None,
        max_response: 100.millis(),
        suppress: false,
        robustness: 2,
        interval: 125_000.millis(),
        sources: vec![],
    }
}
