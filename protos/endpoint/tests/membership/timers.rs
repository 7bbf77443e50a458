//! The timers of a router, to the nanosecond, and its queries.

use crate::bed::{JustBefore, Millis, group, report, source};
use castgate_endpoint::membership::Filter;
use castgate_endpoint::membership::router::{Config, LeaveMode, Output, Router};
use castgate_wire::membership::{Family, Message, Query, RecordType};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

const GMI: Duration = Duration::from_secs(260);

#[test]
fn a_group_without_reports_ends_after_the_group_membership_interval_to_the_nanosecond() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsExclude, &[1]);
    assert_eq!(lab.changes(), [Some(Filter::exclude([one()]))]);
    assert_eq!(lab.router.next_timeout(), Some(lab.start + GMI));
    lab.advance_to(GMI.just_before());
    assert_eq!(lab.changes(), []);
    lab.advance_to(GMI);
    assert_eq!(lab.changes(), [None]);
    assert_eq!((lab.router.next_timeout(), lab.router.len()), (None, 0));
}

#[test]
fn a_source_without_reports_ends_after_that_time_and_the_group_with_the_last() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsInclude, &[1]);
    lab.advance_to(1_000.millis());
    lab.hear(RecordType::ModeIsInclude, &[2]);
    assert_eq!(lab.changes(), [Some(Filter::include([one()])), Some(Filter::include([one(), two()]))]);
    lab.advance_to(GMI.just_before());
    assert_eq!(lab.changes(), []);
    lab.advance_to(GMI);
    assert_eq!(lab.changes(), [Some(Filter::include([two()]))]);
    lab.advance_to(GMI + 1_000.millis());
    assert_eq!(lab.changes(), [None]);
}

#[test]
fn when_the_group_timer_ends_the_sources_asked_for_stay_and_the_excluded_ones_go() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsExclude, &[2]);
    lab.advance_to(1_000.millis());
    lab.hear(RecordType::ModeIsInclude, &[1]);
    assert_eq!(lab.changes(), [Some(Filter::exclude([two()]))]);
    lab.advance_to(GMI);
    assert_eq!(lab.changes(), [Some(Filter::include([one()]))]);
}

#[test]
fn a_source_whose_timer_ends_in_exclude_mode_is_excluded_and_its_record_stays() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsInclude, &[1]);
    lab.advance_to(1_000.millis());
    lab.hear(RecordType::ModeIsExclude, &[1]);
    assert_eq!(lab.changes(), [Some(Filter::include([one()])), Some(Filter::everything())]);
    lab.advance_to(GMI);
    assert_eq!(lab.changes(), [Some(Filter::exclude([one()]))]);
    assert_eq!(lab.router.groups(lab.now).next().unwrap().sources, [(one(), None)]);
}

#[test]
fn a_leave_is_asked_about_twice_a_second_apart_and_true_after_two_seconds() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsExclude, &[]);
    lab.changes();
    lab.hear(RecordType::ChangeToInclude, &[]);
    assert_eq!(lab.queries(), [(0, false, vec![])]);
    lab.advance_to(1_000.millis().just_before());
    assert_eq!(lab.queries(), []);
    lab.advance_to(1_000.millis());
    assert_eq!(lab.queries(), [(1_000, false, vec![])]);
    lab.advance_to(2_000.millis().just_before());
    assert_eq!((lab.changes(), lab.queries()), (vec![], vec![]));
    lab.advance_to(2_000.millis());
    assert_eq!((lab.changes(), lab.queries()), (vec![None], vec![]));
}

#[test]
fn the_times_and_the_number_of_specific_queries_are_those_of_the_configuration() {
    let mut lab = Lab::new(Config {
        last_member_query_interval: 400.millis(),
        last_member_query_count: NonZeroU8::new(3),
        robustness: NonZeroU8::new(5).unwrap(),
        ..Config::default()
    });
    lab.hear(RecordType::ModeIsInclude, &[1]);
    lab.hear(RecordType::BlockOldSources, &[1]);
    lab.advance_to(2_000.millis());
    assert_eq!(lab.queries(), [0, 400, 800].map(|at| (at, false, vec![one()])));
    assert_eq!(lab.changes(), [Some(Filter::include([one()])), None]);
    assert_eq!(lab.changed_at, [0, 1_200]);
    assert_eq!(
        Config { robustness: NonZeroU8::new(5).unwrap(), ..Config::default() }.membership_interval(),
        635_000.millis()
    );
}

#[test]
fn a_specific_query_carries_the_times_and_the_version_of_its_family() {
    for (family, version) in [(Family::V4, 3), (Family::V6, 2)] {
        let mut router = Router::new(Config::default());
        let (now, reporter) = (Instant::now(), "fe80::9".parse().unwrap());
        router.handle_message(now, reporter, &report(RecordType::ModeIsExclude, group(family), vec![]));
        router.handle_message(now, reporter, &report(RecordType::ChangeToInclude, group(family), vec![]));
        let query = std::iter::from_fn(|| router.poll_output()).find_map(|output| match output {
            Output::Query(query) => Some(query),
            Output::Changed { .. } => None,
        });
        let expected = Query {
            version,
            group: Some(group(family)),
            max_response: 1_000.millis(),
            suppress: false,
            robustness: 2,
            interval: 125_000.millis(),
            sources: vec![],
        };
        assert_eq!(query, Some(expected));
    }
}

#[test]
fn what_a_host_still_wants_stays_and_is_asked_about_again_with_the_s_flag() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsInclude, &[1, 2]);
    lab.hear(RecordType::BlockOldSources, &[1, 2]);
    assert_eq!(lab.queries(), [(0, false, vec![one(), two()])]);
    lab.advance_to(500.millis());
    lab.hear(RecordType::ModeIsInclude, &[2]);
    lab.advance_to(GMI);
    assert_eq!(lab.queries(), [(1_000, true, vec![two()]), (1_000, false, vec![one()])]);
    assert_eq!(lab.changes(), [Some(Filter::include([one(), two()])), Some(Filter::include([two()]))]);
    assert_eq!(lab.changed_at, [0, 2_000]);
    lab.advance_to(GMI + 500.millis());
    assert_eq!(lab.changes(), [None]);
}

#[test]
fn a_group_that_is_still_wanted_is_asked_about_with_the_s_flag_and_its_sources_are_not() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsExclude, &[]);
    lab.hear(RecordType::ModeIsInclude, &[1, 2]);
    lab.hear(RecordType::ChangeToInclude, &[]);
    assert_eq!(lab.queries(), [(0, false, vec![]), (0, false, vec![one(), two()])]);
    lab.advance_to(500.millis());
    lab.hear(RecordType::ModeIsInclude, &[2]);
    lab.hear(RecordType::ModeIsExclude, &[2, 1]);
    lab.advance_to(1_000.millis());
    // RFC 3376 §6.6.3.2: the query with the S flag for sources gives way to that for the group.
    assert_eq!(lab.queries(), [(1_000, true, vec![]), (1_000, false, vec![one()])]);
    lab.advance_to(3_000.millis());
    assert_eq!(lab.changes(), [Some(Filter::everything()), Some(Filter::exclude([one()]))]);
}

#[test]
fn new_queries_are_merged_with_those_under_way() {
    let mut lab = Lab::new(Config { last_member_query_count: NonZeroU8::new(3), ..Config::default() });
    lab.hear(RecordType::ModeIsInclude, &[1, 2]);
    lab.hear(RecordType::BlockOldSources, &[1]);
    lab.advance_to(600.millis());
    lab.hear(RecordType::BlockOldSources, &[2]);
    lab.advance_to(10_000.millis());
    let both = vec![one(), two()];
    let expected =
        [(0, false, vec![one()]), (600, false, both.clone()), (1_600, false, both), (2_600, false, vec![two()])];
    assert_eq!(lab.queries(), expected);
    lab.changes();
    assert_eq!(lab.changed_at, [0, 3_000, 3_600]);
}

#[test]
fn one_report_about_a_group_many_times_is_asked_about_and_told_once() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsInclude, &[1, 2, 3]);
    lab.changes();
    let Message::Report(records) = report(RecordType::BlockOldSources, group(Family::V4), vec![one(), two()]) else {
        panic!("a report")
    };
    let records = std::iter::repeat_n(records, 1000).flatten().collect();
    lab.router.handle_message(lab.now, reporter(), &Message::Report(records));
    assert_eq!(lab.queries(), [(0, false, vec![one(), two()])]);
}

#[test]
fn a_source_that_is_doubted_already_is_not_given_more_time() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsInclude, &[1]);
    lab.changes();
    lab.hear(RecordType::BlockOldSources, &[1]);
    for millis in [500, 1_000, 1_500] {
        lab.advance_to(millis.millis());
        lab.hear(RecordType::BlockOldSources, &[1]);
    }
    lab.advance_to(2_000.millis().just_before());
    assert_eq!(lab.changes(), []);
    lab.advance_to(2_000.millis());
    assert_eq!(lab.changes(), [None]);
    assert_eq!(lab.queries().len(), 2);
}

#[test]
fn a_query_of_the_querier_lowers_the_timers_of_the_others_unless_it_has_the_s_flag() {
    for suppress in [false, true] {
        for sources in [vec![], vec![one()]] {
            let mut lab = Lab::new(Config::default());
            lab.router.set_querier(false);
            let kind = if sources.is_empty() { RecordType::ModeIsExclude } else { RecordType::ModeIsInclude };
            lab.hear(kind, &if sources.is_empty() { vec![] } else { vec![1, 2] });
            lab.changes();
            let query = query(suppress, sources.clone());
            lab.router.handle_message(lab.now, [10, 0, 0, 1].into(), &Message::Query(query));
            lab.advance_to(2_000.millis().just_before());
            assert_eq!(lab.changes(), []);
            lab.advance_to(2_000.millis());
            let left = (!sources.is_empty()).then(|| Filter::include([two()]));
            assert_eq!(lab.changes(), if suppress { vec![] } else { vec![left] });
            assert_eq!(lab.queries(), []);
        }
    }
}

#[test]
fn whoever_is_no_longer_the_querier_asks_no_more() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsExclude, &[]);
    lab.hear_quietly(RecordType::ChangeToInclude, &[]);
    lab.router.set_querier(false);
    lab.advance_to(1_500.millis());
    assert_eq!(lab.queries(), []);
    lab.advance_to(2_000.millis());
    lab.changes();
    assert_eq!(lab.changed_at, [0, 2_000], "the timer that was lowered stays lowered");
}

#[test]
fn an_endpoint_is_asked_nothing_its_queries_are_ignored_and_any_address_may_report() {
    let mut lab = Lab::new(Config { leave_mode: LeaveMode::Immediate, ..Config::default() });
    lab.hear(RecordType::ModeIsInclude, &[1, 2]);
    lab.router.handle_message(lab.now, reporter(), &Message::Query(query(false, vec![one()])));
    lab.advance_to(10_000.millis());
    lab.hear(RecordType::BlockOldSources, &[1]);
    assert_eq!(lab.changes(), [Some(Filter::include([one(), two()])), Some(Filter::include([two()]))]);
    assert_eq!((lab.changed_at.clone(), lab.queries()), (vec![0, 10_000], vec![]));
    let v6 = group(Family::V6);
    for address in ["0.0.0.0", "::", "2001:db8::1", "192.0.2.1"] {
        lab.router.handle_message(lab.now, address.parse().unwrap(), &report(RecordType::ChangeToExclude, v6, vec![]));
        assert_eq!(lab.router.filter(v6), Some(Filter::everything()));
        lab.router.handle_message(lab.now, address.parse().unwrap(), &report(RecordType::ChangeToInclude, v6, vec![]));
        assert_eq!(lab.router.filter(v6), None);
    }
}

#[test]
fn on_a_link_mld_is_heard_from_link_local_addresses_only_and_igmp_from_anybody() {
    use castgate_endpoint::membership::router::Refusal;
    let mut router = Router::new(Config::default());
    let now = Instant::now();
    for address in ["::", "2001:db8::1", "192.0.2.1"] {
        let message = report(RecordType::ModeIsExclude, group(Family::V6), vec![]);
        router.handle_message(now, address.parse().unwrap(), &message);
    }
    assert_eq!((router.len(), router.counters().refusals.of(Refusal::Stranger)), (0, 3));
    let message = report(RecordType::ModeIsExclude, group(Family::V4), vec![]);
    router.handle_message(now, [0, 0, 0, 0].into(), &message);
    assert_eq!(router.len(), 1);
}

#[test]
fn a_list_of_an_endpoint_that_comes_in_parts_is_taken_as_a_whole_and_never_flickers() {
    let start = Instant::now();
    let mut router =
        Router::new(Config { leave_mode: LeaveMode::Immediate, sources_per_group_max: 300, ..Config::default() });
    let v6 = group(Family::V6);
    let all: Vec<IpAddr> = (0..200_u16).map(|low| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, low + 1])).collect();
    let parts: Vec<Vec<IpAddr>> = all.chunks(84).map(<[IpAddr]>::to_vec).collect();
    let hear = |router: &mut Router, at: u64, sources: &[IpAddr]| {
        router.handle_message(
            start + at.millis(),
            reporter(),
            &report(RecordType::ChangeToInclude, v6, sources.to_vec()),
        );
    };
    router.handle_message(start, reporter(), &report(RecordType::ChangeToExclude, v6, vec![]));
    // The report, and its repeat half a second later, in three packets each.
    for (at, part) in [(1, 0), (2, 1), (3, 2), (500, 0), (501, 1), (502, 2)] {
        hear(&mut router, at, &parts[part]);
        if at >= 3 {
            assert_eq!(router.filter(v6), Some(Filter::include(all.clone())), "{at}");
        }
    }
    router.handle_timeout(start + 10_000.millis());
    assert_eq!(router.filter(v6), Some(Filter::include(all.clone())));
    // What no part lists any more is over in a moment.
    hear(&mut router, 20_000, &parts[0]);
    hear(&mut router, 20_001, &parts[2]);
    router.handle_timeout(start + 20_200.millis());
    assert_eq!(router.filter(v6), Some(Filter::include(parts[0].iter().chain(&parts[2]).copied())));
    // And a list that fits one packet is believed at once.
    hear(&mut router, 30_000, &all[..3]);
    assert_eq!(router.filter(v6), Some(Filter::include(all[..3].iter().copied())));
}

#[test]
fn forgetting_everything_tells_every_group_once() {
    let mut lab = Lab::new(Config::default());
    lab.hear(RecordType::ModeIsExclude, &[]);
    lab.changes();
    lab.router.clear();
    assert_eq!(lab.changes(), [None]);
    assert_eq!((lab.router.next_timeout(), lab.router.is_empty()), (None, true));
}

#[test]
fn a_change_that_is_taken_back_before_the_driver_asks_is_not_told() {
    let mut lab = Lab::new(Config { leave_mode: LeaveMode::Immediate, ..Config::default() });
    lab.hear_quietly(RecordType::ModeIsExclude, &[]);
    lab.hear_quietly(RecordType::ChangeToInclude, &[]);
    assert_eq!(lab.changes(), []);
    lab.hear(RecordType::ModeIsExclude, &[1]);
    lab.hear_quietly(RecordType::AllowNewSources, &[1]);
    lab.hear_quietly(RecordType::BlockOldSources, &[1]);
    lab.hear_quietly(RecordType::ChangeToInclude, &[]);
    lab.hear_quietly(RecordType::ChangeToInclude, &[2]);
    lab.hear_quietly(RecordType::ChangeToExclude, &[1]);
    assert_eq!(lab.changes(), [Some(Filter::exclude([one()]))]);
}

fn one() -> IpAddr {
    source(Family::V4, 1)
}

fn two() -> IpAddr {
    source(Family::V4, 2)
}

fn reporter() -> IpAddr {
    [10, 0, 0, 9].into()
}

fn query(suppress: bool, sources: Vec<IpAddr>) -> Query {
    let max_response = 1_000.millis();
    Query {
        version: 3,
        group: Some(group(Family::V4)),
        max_response,
        suppress,
        robustness: 2,
        interval: 125_000.millis(),
        sources,
    }
}

/// One IPv4 group at a router under a clock that we turn.
struct Lab {
    start: Instant,
    now: Instant,
    router: Router,
    told: Vec<Option<Filter>>,
    /// When that was told, in milliseconds.
    changed_at: Vec<u128>,
    asked: Vec<(u128, bool, Vec<IpAddr>)>,
}

impl Lab {
    fn new(config: Config) -> Self {
        let start = Instant::now();
        let router = Router::new(config);
        Self { start, now: start, router, told: Vec::new(), changed_at: Vec::new(), asked: Vec::new() }
    }

    fn hear_quietly(&mut self, kind: RecordType, numbers: &[u8]) {
        let sources = numbers.iter().map(|number| source(Family::V4, *number)).collect();
        self.router.handle_message(self.now, reporter(), &report(kind, group(Family::V4), sources));
    }

    fn hear(&mut self, kind: RecordType, numbers: &[u8]) {
        self.hear_quietly(kind, numbers);
        self.gather();
    }

    fn gather(&mut self) {
        let millis = (self.now - self.start).as_millis();
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Changed { filter, .. } => {
                    self.told.push(filter);
                    self.changed_at.push(millis);
                }
                Output::Query(query) => self.asked.push((millis, query.suppress, query.sources)),
            }
        }
    }

    fn advance_to(&mut self, after: Duration) {
        let end = self.start + after;
        self.gather();
        while let Some(next) = self.router.next_timeout().filter(|next| *next <= end) {
            self.now = next;
            self.router.handle_timeout(next);
            assert!(self.router.next_timeout().is_none_or(|later| later > next), "nothing is due twice");
            self.gather();
        }
        self.now = end;
        self.router.handle_timeout(end);
        self.gather();
    }

    fn changes(&mut self) -> Vec<Option<Filter>> {
        self.gather();
        std::mem::take(&mut self.told)
    }

    fn queries(&mut self) -> Vec<(u128, bool, Vec<IpAddr>)> {
        self.gather();
        std::mem::take(&mut self.asked)
    }
}
