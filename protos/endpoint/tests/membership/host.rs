//! The host's side: what a change reports and how often, which queries are answered when and with what.

use crate::bed::{Millis, group, neighbour, numbered_group, report, source};
use castgate_endpoint::membership::host::{Answer, Config, Host, SetError};
use castgate_endpoint::membership::{Compatibility, Filter};
use castgate_wire::membership::{Family, Message, Query, Record, RecordType};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use RecordType::{
    AllowNewSources as Allow, BlockOldSources as Block, ChangeToExclude as ToEx, ChangeToInclude as ToIn,
    ModeIsExclude as IsEx, ModeIsInclude as IsIn,
};

/// The table of RFC 3376 §5.1, for all pairs of filters with two sources.
#[test]
fn a_change_is_reported_at_once_as_the_table_says() {
    let filters = || {
        [&[][..], &[1], &[2], &[1, 2]].into_iter().flat_map(|list| {
            let list: BTreeSet<IpAddr> = list.iter().map(|number| from(*number)).collect();
            [Filter::Include(list.clone()), Filter::Exclude(list)]
        })
    };
    for old in filters() {
        for new in filters() {
            let mut lab = Lab::new(Config::default());
            lab.set(&old);
            lab.advance_to(10_000.millis());
            lab.said.clear();
            lab.set(&new);
            let (a, b) = (old.sources(), new.sources());
            let expected = match (&old, &new) {
                (Filter::Include(_), Filter::Include(_)) => vec![(Allow, b - a), (Block, a - b)],
                (Filter::Exclude(_), Filter::Exclude(_)) => vec![(Allow, a - b), (Block, b - a)],
                (Filter::Include(_), Filter::Exclude(_)) => vec![(ToEx, b.clone())],
                (Filter::Exclude(_), Filter::Include(_)) => vec![(ToIn, b.clone())],
            };
            let is_mode = old.is_exclude() != new.is_exclude();
            let expected: Vec<_> = expected
                .into_iter()
                .filter(|(_, sources)| is_mode || !sources.is_empty())
                .map(|(kind, sources)| (10_000, kind, sources.into_iter().collect::<Vec<_>>()))
                .collect();
            assert_eq!(lab.said, expected, "{old} to {new}");
            // And once more within the unsolicited report interval, with the default robustness.
            lab.said.clear();
            lab.advance_to(11_000.millis());
            let repeat: Vec<_> = lab.said.iter().map(|(_, kind, sources)| (*kind, sources.clone())).collect();
            assert_eq!(repeat, expected.into_iter().map(|(_, kind, sources)| (kind, sources)).collect::<Vec<_>>());
            lab.said.clear();
            lab.advance_to(60_000.millis());
            assert_eq!((lab.said.len(), lab.host.next_timeout()), (0, None));
        }
    }
}

#[test]
fn repeats_come_as_often_as_the_querier_says_at_random_times() {
    let mut gaps = BTreeSet::new();
    for seed in 0..50 {
        let mut lab = Lab::of(Config::default(), Family::V4, seed);
        lab.ask(None, &[], 0, |query| query.robustness = 4);
        lab.set(&Filter::include([from(1)]));
        lab.advance_to(10_000.millis());
        let times: Vec<u128> = lab.said.iter().map(|(at, ..)| *at).collect();
        assert_eq!(times.len(), 4);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 1_000));
        gaps.extend(times.windows(2).map(|pair| pair[1] - pair[0]));
    }
    assert!(gaps.len() > 50 && *gaps.first().unwrap() < 200 && *gaps.last().unwrap() > 800, "{gaps:?}");
}

#[test]
fn a_querier_that_does_not_say_how_often_leaves_it_to_the_configuration() {
    let mut lab = Lab::new(Config { robustness: NonZeroU8::new(3).unwrap(), ..Config::default() });
    lab.ask(None, &[], 0, |query| query.robustness = 0);
    lab.set(&Filter::everything());
    lab.advance_to(10_000.millis());
    assert_eq!(lab.said.len(), 3);
}

#[test]
fn a_change_during_the_repeats_is_merged_with_them_and_each_source_told_as_often() {
    let mut lab = Lab::new(Config { robustness: NonZeroU8::new(3).unwrap(), ..Config::default() });
    lab.set(&Filter::include([from(1)]));
    lab.set(&Filter::include([from(1), from(2)]));
    lab.set(&Filter::include([from(2), from(3)]));
    lab.advance_to(10_000.millis());
    let expected: [&[(RecordType, &[u8])]; 5] = [
        &[(Allow, &[1])],
        &[(Allow, &[1, 2])],
        // Source 1 is told as blocked now, as often as a change is told.
        &[(Allow, &[2, 3]), (Block, &[1])],
        &[(Allow, &[2, 3]), (Block, &[1])],
        &[(Allow, &[3]), (Block, &[1])],
    ];
    assert_eq!(lab.records(), flat(&expected));
}

#[test]
fn after_a_change_of_mode_the_next_reports_tell_the_mode_and_then_the_sources_that_are_left() {
    let mut lab = Lab::new(Config { robustness: NonZeroU8::new(3).unwrap(), ..Config::default() });
    lab.set(&Filter::exclude([from(1)]));
    lab.set(&Filter::exclude([from(1), from(2)]));
    lab.set(&Filter::exclude([from(2)]));
    lab.advance_to(10_000.millis());
    let expected: [&[(RecordType, &[u8])]; 5] =
        [&[(ToEx, &[1])], &[(ToEx, &[1, 2])], &[(ToEx, &[2])], &[(Allow, &[1]), (Block, &[2])], &[(Allow, &[1])]];
    assert_eq!(lab.records(), flat(&expected));
}

#[test]
fn a_leave_is_repeated_though_the_group_is_gone() {
    let mut lab = Lab::new(Config::default());
    lab.set(&Filter::everything());
    lab.set(&Filter::nothing());
    assert_eq!((lab.host.filter(GROUP), lab.host.groups().count()), (None, 0));
    lab.advance_to(10_000.millis());
    assert_eq!(lab.records(), flat(&[&[(ToEx, &[])], &[(ToIn, &[])], &[(ToIn, &[])]]));
}

#[test]
fn setting_what_is_set_says_nothing() {
    let mut lab = Lab::new(Config::default());
    lab.set(&Filter::nothing());
    lab.set(&Filter::everything());
    lab.advance_to(10_000.millis());
    lab.said.clear();
    lab.set(&Filter::everything());
    lab.advance_to(20_000.millis());
    assert_eq!(lab.said, []);
}

#[test]
fn several_changes_since_the_last_poll_are_one_report() {
    let mut lab = Lab::new(Config::default());
    for number in 1..=3 {
        lab.host.set(lab.now, numbered_group(Family::V4, number), Filter::everything()).unwrap();
    }
    let Some(Message::Report(records)) = lab.host.poll_output() else { panic!("a report") };
    assert_eq!((records.len(), lab.host.poll_output()), (3, None));
}

#[test]
fn a_general_query_is_answered_with_everything_within_the_time_granted_and_never_at_once() {
    let mut times = BTreeSet::new();
    for seed in 0..50 {
        let mut lab = Lab::of(Config::default(), Family::V4, seed);
        lab.host.set(lab.now, numbered_group(Family::V4, 2), Filter::exclude([from(3)])).unwrap();
        lab.set(&Filter::include([from(1), from(2)]));
        lab.advance_to(10_000.millis());
        lab.said.clear();
        lab.ask(None, &[], 8_000, |_| ());
        assert_eq!(lab.said, []);
        lab.advance_to(18_000.millis());
        assert_eq!(lab.records(), flat(&[&[(IsIn, &[1, 2]), (IsEx, &[3])]]));
        times.insert(lab.said[0].0);
    }
    assert!(times.len() > 40 && *times.first().unwrap() < 11_000 && *times.last().unwrap() > 17_000);
}

#[test]
fn without_anything_to_report_no_query_is_answered() {
    let mut lab = Lab::new(Config::default());
    lab.ask(None, &[], 1_000, |_| ());
    lab.ask(Some(GROUP), &[], 1_000, |_| ());
    assert_eq!(lab.host.next_timeout(), None);
    lab.set(&Filter::include([from(1)]));
    lab.run_until_quiet();
    lab.ask(Some(numbered_group(Family::V4, 9)), &[], 1_000, |_| ());
    assert_eq!(lab.host.next_timeout(), None);
}

/// The table of RFC 3376 §5.2: INCLUDE (A) answers B with A*B, EXCLUDE (A) with B-A.
#[test]
fn a_query_for_sources_is_answered_with_those_that_are_wanted() {
    for (filter, answer) in [
        (Filter::include([from(1), from(2)]), Some(&[2][..])),
        (Filter::exclude([from(1), from(2)]), Some(&[3])),
        (Filter::include([from(1)]), None),
        (Filter::exclude([from(2), from(3)]), None),
    ] {
        let mut lab = Lab::new(Config::default());
        lab.set(&filter);
        lab.settle();
        lab.ask(Some(GROUP), &[2, 3], 1_000, |_| ());
        lab.run_until_quiet();
        let expected: Vec<_> = answer.map(|numbers| (IsIn, list(numbers))).into_iter().collect();
        assert_eq!(lab.records(), expected, "{filter}");
    }
}

#[test]
fn a_query_for_the_group_is_answered_with_the_whole_filter() {
    for (filter, kind) in [(Filter::include([from(1)]), IsIn), (Filter::exclude([from(1)]), IsEx)] {
        let mut lab = Lab::new(Config::default());
        lab.set(&filter);
        lab.settle();
        lab.ask(Some(GROUP), &[], 1_000, |_| ());
        lab.run_until_quiet();
        assert_eq!(lab.records(), [(kind, list(&[1]))]);
    }
}

/// The five rules of RFC 3376 §5.2 for queries that overlap.
#[test]
fn rule_1_a_general_answer_that_comes_sooner_answers_everything() {
    let mut lab = Lab::quick_then_slow();
    lab.ask(None, &[], 1_000, |_| ());
    let pending = lab.host.next_timeout();
    lab.ask(Some(GROUP), &[1], 100_000, |_| ());
    lab.ask(None, &[], 100_000, |_| ());
    assert_eq!(lab.host.next_timeout(), pending);
    lab.run_until_quiet();
    assert_eq!(lab.records(), [(IsEx, list(&[9]))]);
}

#[test]
fn rule_2_a_general_query_that_is_to_be_answered_sooner_takes_the_place_of_the_one_before() {
    let mut lab = Lab::quick_then_slow();
    lab.ask(None, &[], 1_000_000, |_| ());
    lab.ask(None, &[], 0, |_| ());
    lab.run_until_quiet();
    assert_eq!(lab.records(), [(IsEx, list(&[9]))]);
    assert_eq!(lab.host.next_timeout(), None);
}

#[test]
fn rule_3_a_query_for_sources_keeps_them_until_its_answer() {
    let mut lab = Lab::quick_then_slow();
    lab.ask(Some(GROUP), &[1, 9], 1_000, |_| ());
    lab.run_until_quiet();
    assert_eq!(lab.records(), [(IsIn, list(&[1]))]);
}

#[test]
fn rule_4_a_query_for_the_group_before_or_after_one_for_sources_asks_for_everything_at_the_earlier_time() {
    for (first, second) in [(&[][..], &[1][..]), (&[1], &[])] {
        let mut lab = Lab::quick_then_slow();
        lab.ask(Some(GROUP), first, 1_000_000, |_| ());
        let later = lab.host.next_timeout().unwrap();
        lab.ask(Some(GROUP), second, 1_000, |_| ());
        assert!(lab.host.next_timeout().unwrap() < later);
        lab.run_until_quiet();
        assert_eq!(lab.records(), [(IsEx, list(&[9]))]);
    }
}

#[test]
fn rule_5_queries_for_sources_are_answered_together_at_the_earlier_time() {
    let mut lab = Lab::quick_then_slow();
    lab.ask(Some(GROUP), &[1], 1_000_000, |_| ());
    lab.ask(Some(GROUP), &[2, 9], 1_000, |_| ());
    lab.advance_to(lab.now - lab.start + 1_000.millis());
    assert_eq!(lab.records(), [(IsIn, list(&[1, 2]))]);
    lab.run_until_quiet();
    assert_eq!(lab.said.len(), 1);
}

#[test]
fn more_sources_than_are_kept_are_answered_with_the_whole_filter() {
    let mut lab = Lab::new(Config { queried_sources_max: 3, ..Config::default() });
    lab.set(&Filter::exclude([from(9)]));
    lab.settle();
    lab.ask(Some(GROUP), &[1, 2], 1_000, |_| ());
    lab.ask(Some(GROUP), &[3, 4], 1_000, |_| ());
    lab.run_until_quiet();
    assert_eq!(lab.records(), [(IsEx, list(&[9]))]);
}

#[test]
fn the_pseudo_interface_of_a_gateway_answers_at_once_and_whoever_asks() {
    assert_eq!(Config::tunnel().answer, Answer::AtOnce);
    for address in ["::", "2001:db8::1", "fe80::1"] {
        let mut host = Host::new(Config::tunnel(), Family::V6, [7; 16]);
        let now = Instant::now();
        host.set(now, group(Family::V6), Filter::everything()).unwrap();
        while host.poll_output().is_some() {}
        host.handle_message(now, address.parse().unwrap(), &Message::Query(general(Family::V6, 10_000)));
        assert_eq!(host.poll_output(), Some(report(IsEx, group(Family::V6), vec![])));
    }
}

#[test]
fn on_a_link_mld_queries_count_from_link_local_addresses_only() {
    let mut host = Host::new(Config::default(), Family::V6, [7; 16]);
    let now = Instant::now();
    host.set(now, group(Family::V6), Filter::everything()).unwrap();
    host.handle_timeout(now + 10_000.millis());
    for address in ["::", "2001:db8::1", "192.0.2.1"] {
        host.handle_message(
            now + 10_000.millis(),
            address.parse().unwrap(),
            &Message::Query(general(Family::V6, 1_000)),
        );
        assert_eq!(host.next_timeout(), None);
    }
    host.handle_message(now + 10_000.millis(), "fe80::1".parse().unwrap(), &Message::Query(general(Family::V6, 1_000)));
    assert!(host.next_timeout().is_some());
}

#[test]
fn all_systems_is_joined_without_a_word() {
    for (family, silent) in [(Family::V4, "224.0.0.1"), (Family::V6, "ff02::1"), (Family::V6, "ff01::9")] {
        let mut host = Host::new(Config::tunnel(), family, [7; 16]);
        let now = Instant::now();
        host.set(now, silent.parse().unwrap(), Filter::everything()).unwrap();
        host.handle_message(now, neighbour(family, 1), &Message::Query(general(family, 1_000)));
        let specific = Query { group: Some(silent.parse().unwrap()), ..general(family, 1_000) };
        host.handle_message(now, neighbour(family, 1), &Message::Query(specific));
        assert_eq!((host.poll_output(), host.next_timeout(), host.groups().count()), (None, None, 1));
        host.set(now, silent.parse().unwrap(), Filter::nothing()).unwrap();
        assert_eq!((host.poll_output(), host.groups().count()), (None, 0));
    }
}

#[test]
fn with_an_address_at_last_everything_is_reported_as_new() {
    let mut lab = Lab::new(Config::default());
    lab.set(&Filter::include([from(1)]));
    lab.host.set(lab.now, numbered_group(Family::V4, 2), Filter::exclude([from(2)])).unwrap();
    lab.settle();
    lab.host.announce(lab.now);
    lab.run_until_quiet();
    let mut records = lab.records();
    let once = flat(&[&[(Allow, &[1]), (ToEx, &[2])]]);
    assert_eq!(records[..2], once);
    // The repeats come in whatever order chance brings.
    records[2..].sort_by_key(|(kind, _)| *kind != Allow);
    assert_eq!(records[2..], once);
    assert_eq!(lab.host.filter(GROUP), Some(&Filter::include([from(1)])));
}

#[test]
fn what_can_not_be_wanted_is_refused_and_changes_nothing() {
    let now = Instant::now();
    let mut host = Host::new(Config { groups_max: 1, sources_max: 64, ..Config::default() }, Family::V4, [7; 16]);
    let v6 = group(Family::V6);
    assert_eq!(host.set(now, from(1), Filter::everything()), Err(SetError::UnfitGroup(from(1))));
    assert_eq!(host.set(now, v6, Filter::everything()), Err(SetError::UnfitGroup(v6)));
    let stranger = source(Family::V6, 1);
    assert_eq!(host.set(now, GROUP, Filter::include([stranger])), Err(SetError::UnfitSource(stranger)));
    let long = |len: u8| Filter::include((0..len).map(from));
    assert_eq!(host.set(now, GROUP, long(65)), Err(SetError::SourcesMax(64)));
    assert_eq!(host.set(now, GROUP, long(64)), Ok(()));
    assert_eq!(host.set(now, numbered_group(Family::V4, 2), Filter::everything()), Err(SetError::GroupsMax(1)));
    assert_eq!(host.set(now, numbered_group(Family::V4, 2), Filter::nothing()), Ok(()));
    assert_eq!(host.groups().count(), 1);
    assert!(Config::default().sources_max >= 64);
    assert_eq!(host.version(), Compatibility::Current);
}

const GROUP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(232, 1, 1, 1));

fn from(number: u8) -> IpAddr {
    source(Family::V4, number)
}

fn list(numbers: &[u8]) -> Vec<IpAddr> {
    numbers.iter().map(|number| from(*number)).collect()
}

fn flat(reports: &[&[(RecordType, &[u8])]]) -> Vec<(RecordType, Vec<IpAddr>)> {
    reports.iter().flat_map(|records| records.iter().map(|(kind, numbers)| (*kind, list(numbers)))).collect()
}

fn general(family: Family, max_response_millis: u64) -> Query {
    Query {
        version: if family == Family::V4 { 3 } else { 2 },
        group: None,
        max_response: max_response_millis.millis(),
        suppress: false,
        robustness: 2,
        interval: 125_000.millis(),
        sources: vec![],
    }
}

/// One host under a clock that we turn, and what it has said and when, in milliseconds.
struct Lab {
    start: Instant,
    now: Instant,
    host: Host,
    said: Vec<(u128, RecordType, Vec<IpAddr>)>,
}

impl Lab {
    fn new(config: Config) -> Self {
        Self::of(config, Family::V4, 7)
    }

    fn of(config: Config, family: Family, seed: u8) -> Self {
        let start = Instant::now();
        Self { start, now: start, host: Host::new(config, family, [seed; 16]), said: Vec::new() }
    }

    /// A host that wants all sources but the ninth and has nothing more to say.
    fn quick_then_slow() -> Self {
        let mut lab = Self::new(Config::default());
        lab.set(&Filter::exclude([from(9)]));
        lab.settle();
        lab
    }

    fn set(&mut self, filter: &Filter) {
        self.host.set(self.now, GROUP, filter.clone()).unwrap();
        self.gather();
    }

    fn ask(&mut self, group: Option<IpAddr>, numbers: &[u8], max_response: u64, adjust: impl Fn(&mut Query)) {
        let mut query = Query { group, sources: list(numbers), ..general(Family::V4, max_response) };
        adjust(&mut query);
        self.host.handle_message(self.now, neighbour(Family::V4, 1), &Message::Query(query));
        self.gather();
    }

    fn gather(&mut self) {
        while let Some(message) = self.host.poll_output() {
            let Message::Report(records) = message else { panic!("{message:?}") };
            let at = (self.now - self.start).as_millis();
            self.said.extend(records.into_iter().map(|Record { kind, sources, .. }| (at, kind, sources)));
        }
    }

    fn records(&self) -> Vec<(RecordType, Vec<IpAddr>)> {
        self.said.iter().map(|(_, kind, sources)| (*kind, sources.clone())).collect()
    }

    fn advance_to(&mut self, after: Duration) {
        let end = self.start + after;
        while let Some(next) = self.host.next_timeout().filter(|next| *next <= end) {
            self.now = next;
            self.host.handle_timeout(next);
            self.gather();
        }
        self.now = end;
    }

    fn run_until_quiet(&mut self) {
        self.advance_to(self.now - self.start + Duration::from_secs(10_000));
    }

    /// Lets the repeats of changes be said, and forgets them.
    fn settle(&mut self) {
        self.run_until_quiet();
        self.said.clear();
    }
}
