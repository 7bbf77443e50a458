//! Older versions: hosts of `IGMPv1`, `IGMPv2` and `MLDv1` at a router (RFC 3376 §7.3.2, RFC 3810 §8.3.2), and older queriers at a
//! host (§7.2.1, §8.2.1).

use crate::bed::{JustBefore, Millis, group, neighbour, report, source};
use castgate_endpoint::membership::host::{self, Host};
use castgate_endpoint::membership::router::{Config, LeaveMode, Output, Refusal, Router};
use castgate_endpoint::membership::{Compatibility, Filter};
use castgate_wire::membership::{Family, Message, Query, RecordType};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const GMI: Duration = Duration::from_secs(260);
/// Family, version, and whether its hosts can leave.
const OLDER: [(Family, u8, bool); 3] = [(Family::V4, 1, false), (Family::V4, 2, true), (Family::V6, 1, true)];

#[test]
fn a_report_of_an_older_host_wants_everything() {
    for (family, version, _) in OLDER {
        let mut link = Link::new(family, Config::default());
        link.say(&Message::OldReport { version, group: group(family) });
        assert_eq!(link.filter(), Some(Filter::everything()));
        link.advance_to(GMI.just_before());
        assert_eq!(link.filter(), Some(Filter::everything()));
        link.advance_to(GMI);
        assert_eq!(link.filter(), None);
    }
}

#[test]
fn while_older_hosts_are_there_nothing_is_blocked_to_the_nanosecond() {
    for (family, version, _) in OLDER {
        let mut link = Link::new(family, Config::default());
        link.say(&Message::OldReport { version, group: group(family) });
        link.record(RecordType::BlockOldSources, &[1]);
        link.record(RecordType::ChangeToExclude, &[1, 2]);
        link.advance_to(GMI.just_before());
        // Neither has had an effect; the second has set the group timer anew, as TO_EX({}) does.
        assert_eq!(link.router.counters().refusals.of(Refusal::Incompatible), 1);
        assert!(link.report().sources.is_empty());
        link.record(RecordType::BlockOldSources, &[1]);
        link.record(RecordType::ChangeToExclude, &[]);
        assert!(link.report().sources.is_empty());
        link.advance_to(GMI);
        assert_eq!(link.report().compatibility, Compatibility::Current);
        link.record(RecordType::BlockOldSources, &[1]);
        assert_eq!(link.report().sources.len(), 1, "blocked again");
    }
}

#[test]
fn the_oldest_version_that_was_heard_in_time_counts() {
    let mut link = Link::new(Family::V4, Config::default());
    let say = |link: &mut Link, version| link.say(&Message::OldReport { version, group: group(Family::V4) });
    assert_eq!(link.compatibility_after(|link| say(link, 2)), Compatibility::Second);
    link.advance_to(10_000.millis());
    assert_eq!(link.compatibility_after(|link| say(link, 1)), Compatibility::First);
    link.advance_to(100_000.millis());
    assert_eq!(link.compatibility_after(|link| say(link, 2)), Compatibility::First);
    link.advance_to((10_000.millis() + GMI).just_before());
    assert_eq!(link.report().compatibility, Compatibility::First);
    link.advance_to(10_000.millis() + GMI);
    assert_eq!(link.report().compatibility, Compatibility::Second);
    link.record(RecordType::ModeIsExclude, &[]);
    link.advance_to(100_000.millis() + GMI);
    assert_eq!(link.report().compatibility, Compatibility::Current);
}

#[test]
fn an_older_host_leaves_after_the_querier_has_asked_and_one_of_igmpv1_never_does() {
    for (family, version, can_leave) in OLDER {
        let mut link = Link::new(family, Config::default());
        link.say(&Message::OldReport { version, group: group(family) });
        link.say(&Message::OldLeave { group: group(family) });
        link.record(RecordType::ChangeToInclude, &[1]);
        assert_eq!(link.queries > 0, can_leave);
        link.advance_to(2_000.millis());
        let expected = if can_leave { Filter::include([source(family, 1)]) } else { Filter::everything() };
        assert_eq!(link.filter(), Some(expected), "{family:?} {version}");
    }
}

#[test]
fn an_older_host_at_an_endpoint_leaves_at_once() {
    for (family, version, can_leave) in OLDER {
        let mut link = Link::new(family, Config { leave_mode: LeaveMode::Immediate, ..Config::default() });
        link.say(&Message::OldReport { version, group: group(family) });
        link.say(&Message::OldLeave { group: group(family) });
        assert_eq!(link.filter().is_none(), can_leave);
    }
}

#[test]
fn a_leave_of_an_older_host_after_a_long_silence_is_heard_all_the_same() {
    let mut link = Link::new(Family::V4, Config::default());
    link.record(RecordType::ModeIsExclude, &[]);
    link.say(&Message::OldLeave { group: group(Family::V4) });
    assert_eq!(link.queries, 1);
    link.advance_to(2_000.millis());
    assert_eq!(link.filter(), None);
    link.say(&Message::OldLeave { group: group(Family::V4) });
    assert_eq!((link.queries, link.router.len()), (2, 0), "once more in time, and none for a group that is not there");
}

#[test]
fn older_hosts_can_be_switched_off() {
    let mut link = Link::new(Family::V4, Config { older_hosts: false, ..Config::default() });
    link.say(&Message::OldReport { version: 1, group: group(Family::V4) });
    link.say(&Message::OldLeave { group: group(Family::V4) });
    assert_eq!((link.router.len(), link.router.counters().refusals.of(Refusal::OlderHost)), (0, 2));
}

#[test]
fn a_link_that_is_set_to_an_older_version_is_asked_in_it_and_heard_like_it() {
    for (family, version, can_leave) in OLDER {
        let set = Compatibility::of(family == Family::V4, version);
        let mut link = Link::new(family, Config { version: set, ..Config::default() });
        link.record(RecordType::ModeIsInclude, &[1, 2]);
        link.record(RecordType::BlockOldSources, &[1]);
        link.record(RecordType::ChangeToInclude, &[2]);
        let asked = link.last_query.as_ref().map(|query| (query.version, query.sources.len(), query.group));
        assert_eq!(asked, can_leave.then_some((version, 0, Some(group(family)))));
    }
}

/// RFC 3376 §7.2.1: which queries make a host speak an older version, and for how long.
#[test]
fn a_host_follows_an_older_querier_for_its_time_to_the_nanosecond() {
    for (family, version, _) in OLDER {
        for is_general in [true, false] {
            let mut host = Host::new(host::Config::default(), family, [7; 16]);
            let now = Instant::now();
            host.set(now, group(family), Filter::include([source(family, 1)])).unwrap();
            let asked = (!is_general).then(|| group(family));
            let from = neighbour(family, 1);
            // A querier of today has told its interval before.
            host.handle_message(now, from, &query(family, if family == Family::V4 { 3 } else { 2 }, None));
            host.handle_message(now, from, &query(family, version, asked));
            // An IGMPv2 query for a group is no sign of an IGMPv2 querier.
            let follows = is_general || family == Family::V6 || version == 1;
            let older = Compatibility::of(family == Family::V4, version);
            assert_eq!(host.version(), if follows { older } else { Compatibility::Current });
            if follows {
                // The robustness and the interval of the last query, and 10 s.
                let end = now + 3 * 50_000.millis() + 10_000.millis();
                host.handle_timeout(end.just_before());
                assert_eq!(host.version(), older);
                host.handle_timeout(end);
                assert_eq!(host.version(), Compatibility::Current);
            }
        }
    }
}

#[test]
fn when_both_older_queriers_are_gone_one_after_the_other_the_version_goes_up_step_by_step() {
    let mut host = Host::new(host::Config::default(), Family::V4, [7; 16]);
    let now = Instant::now();
    let from = neighbour(Family::V4, 1);
    host.handle_message(now, from, &query(Family::V4, 1, None));
    host.handle_message(now + 30_000.millis(), from, &query(Family::V4, 2, None));
    host.handle_message(now + 40_000.millis(), from, &query(Family::V4, 3, None));
    assert_eq!(host.version(), Compatibility::First);
    host.handle_timeout(now + GMI);
    assert_eq!(host.version(), Compatibility::Second);
    host.handle_timeout(now + 30_000.millis() + GMI);
    assert_eq!(host.version(), Compatibility::Current);
}

#[test]
fn under_an_older_querier_joins_and_leaves_have_its_words_and_sources_none() {
    for (family, version, can_leave) in OLDER {
        let mut host = Host::new(host::Config::default(), family, [7; 16]);
        let now = Instant::now();
        host.handle_message(now, neighbour(family, 1), &query(family, version, None));
        let group = group(family);
        host.set(now, group, Filter::include([source(family, 1)])).unwrap();
        assert_eq!(said(&mut host), [Message::OldReport { version, group }]);
        host.set(now, group, Filter::exclude([source(family, 1)])).unwrap();
        assert_eq!(said(&mut host), []);
        host.handle_timeout(now + 1_000.millis());
        assert_eq!(said(&mut host), [Message::OldReport { version, group }], "as often as robustness says");
        host.handle_timeout(now + 20_000.millis());
        assert_eq!(said(&mut host), []);
        host.set(now + 20_000.millis(), group, Filter::nothing()).unwrap();
        assert_eq!(said(&mut host), if can_leave { vec![Message::OldLeave { group }] } else { vec![] });
    }
}

#[test]
fn a_change_of_version_cancels_answers_and_repeats() {
    let mut host = Host::new(host::Config::default(), Family::V4, [7; 16]);
    let now = Instant::now();
    host.set(now, group(Family::V4), Filter::include([source(Family::V4, 1)])).unwrap();
    host.handle_message(now, neighbour(Family::V4, 1), &query(Family::V4, 3, None));
    assert_eq!(said(&mut host).len(), 1);
    // The query is for a group that is not ours, so that nothing new is due.
    host.handle_message(now, neighbour(Family::V4, 1), &query(Family::V4, 1, Some([239, 9, 9, 9].into())));
    host.handle_timeout(now + 100_000.millis());
    assert_eq!(said(&mut host), []);
}

#[test]
fn what_was_pending_before_a_change_of_version_does_not_hold_up_an_answer_after_it() {
    let mut host = Host::new(host::Config::default(), Family::V4, [7; 16]);
    let now = Instant::now();
    let group = group(Family::V4);
    host.set(now, group, Filter::everything()).unwrap();
    host.handle_timeout(now + 5_000.millis());
    said(&mut host);
    let asked = now + 5_000.millis();
    host.handle_message(asked, neighbour(Family::V4, 1), &query(Family::V4, 3, Some(group)));
    host.handle_message(asked, neighbour(Family::V4, 1), &query(Family::V4, 2, None));
    host.handle_timeout(asked + 10_000.millis());
    assert_eq!(said(&mut host), [Message::OldReport { version: 2, group }]);
}

#[test]
fn an_older_host_answers_every_group_within_the_time_granted_unless_another_has() {
    for (family, version, _) in OLDER {
        let mut host = Host::new(host::Config::default(), family, [7; 16]);
        let now = Instant::now();
        let (one, two) = (group(family), crate::bed::numbered_group(family, 2));
        host.set(now, one, Filter::everything()).unwrap();
        host.set(now, two, Filter::everything()).unwrap();
        host.handle_message(now, neighbour(family, 1), &query(family, version, None));
        said(&mut host);
        host.handle_message(now, neighbour(family, 9), &Message::OldReport { version, group: two });
        host.handle_timeout(now + 10_000.millis());
        assert_eq!(said(&mut host), [Message::OldReport { version, group: one }]);
        // And a host of today is not kept from answering.
        let mut host = Host::new(host::Config::default(), family, [7; 16]);
        host.set(now, one, Filter::everything()).unwrap();
        host.handle_timeout(now + 5_000.millis());
        said(&mut host);
        let current = Compatibility::Current.version(family == Family::V4);
        host.handle_message(now + 5_000.millis(), neighbour(family, 1), &query(family, current, None));
        host.handle_message(now + 5_000.millis(), neighbour(family, 9), &Message::OldReport { version, group: one });
        host.handle_timeout(now + 20_000.millis());
        assert_eq!(said(&mut host), [report(RecordType::ModeIsExclude, one, vec![])]);
    }
}

#[test]
fn an_igmpv1_query_grants_ten_seconds_whatever_its_field_says() {
    let mut latest = Duration::ZERO;
    for seed in 0..40 {
        let mut host = Host::new(host::Config::default(), Family::V4, [seed; 16]);
        let now = Instant::now();
        host.set(now, group(Family::V4), Filter::everything()).unwrap();
        let Message::Query(query) = query(Family::V4, 1, None) else { panic!("a query") };
        let query = Query { max_response: Duration::ZERO, ..query };
        host.handle_message(now, neighbour(Family::V4, 1), &Message::Query(query));
        latest = latest.max(host.next_timeout().unwrap() - now);
    }
    assert!(latest > 8_000.millis() && latest <= 10_000.millis(), "{latest:?}");
}

#[test]
fn a_shorter_time_granted_by_an_older_querier_shortens_the_wait_and_a_longer_one_does_not() {
    let mut host = Host::new(host::Config::default(), Family::V4, [7; 16]);
    let now = Instant::now();
    host.handle_message(now, neighbour(Family::V4, 1), &query(Family::V4, 2, None));
    host.set(now, group(Family::V4), Filter::everything()).unwrap();
    host.handle_timeout(now + 1_000.millis());
    let asked = now + 2_000.millis();
    let ask = |host: &mut Host, millis: u64| {
        let Message::Query(query) = query(Family::V4, 2, Some(group(Family::V4))) else { panic!("a query") };
        let query = Query { max_response: millis.millis(), ..query };
        host.handle_message(asked, neighbour(Family::V4, 1), &Message::Query(query));
        host.next_timeout().unwrap()
    };
    let first = ask(&mut host, 1_000_000);
    assert!(first > asked + 10.millis());
    assert_eq!(ask(&mut host, 2_000_000), first);
    assert!(ask(&mut host, 10) <= asked + 10.millis());
}

#[test]
fn older_queriers_can_be_switched_off() {
    let config = host::Config { older_queriers: false, ..host::Config::default() };
    for (family, version, _) in OLDER {
        let mut host = Host::new(config, family, [7; 16]);
        let now = Instant::now();
        host.set(now, group(family), Filter::everything()).unwrap();
        host.handle_timeout(now + 5_000.millis());
        host.handle_message(now + 5_000.millis(), neighbour(family, 1), &query(family, version, None));
        assert_eq!((host.version(), host.next_timeout()), (Compatibility::Current, None));
    }
}

fn said(host: &mut Host) -> Vec<Message> {
    std::iter::from_fn(|| host.poll_output()).collect()
}

/// A query of a querier with robustness 3 and an interval of 50 s, where its version can say so.
fn query(family: Family, version: u8, group: Option<IpAddr>) -> Message {
    let is_current = Compatibility::of(family == Family::V4, version) == Compatibility::Current;
    let is_lasting = is_current && group.is_none();
    Message::Query(Query {
        version,
        group,
        max_response: 10_000.millis(),
        suppress: false,
        robustness: if is_lasting { 3 } else { 0 },
        interval: if is_lasting { 50_000.millis() } else { Duration::ZERO },
        sources: vec![],
    })
}

/// A router and one group under a clock that we turn.
struct Link {
    start: Instant,
    now: Instant,
    family: Family,
    router: Router,
    queries: usize,
    last_query: Option<Query>,
}

impl Link {
    fn new(family: Family, config: Config) -> Self {
        let start = Instant::now();
        Self { start, now: start, family, router: Router::new(config), queries: 0, last_query: None }
    }

    fn say(&mut self, message: &Message) {
        self.router.handle_message(self.now, neighbour(self.family, 9), message);
        self.gather();
    }

    fn record(&mut self, kind: RecordType, numbers: &[u8]) {
        let sources = numbers.iter().map(|number| source(self.family, *number)).collect();
        self.say(&report(kind, group(self.family), sources));
    }

    fn gather(&mut self) {
        while let Some(output) = self.router.poll_output() {
            if let Output::Query(query) = output {
                self.queries += 1;
                self.last_query = Some(query);
            }
        }
    }

    fn advance_to(&mut self, after: Duration) {
        let end = self.start + after;
        while let Some(next) = self.router.next_timeout().filter(|next| *next <= end) {
            self.router.handle_timeout(next);
            self.gather();
        }
        self.now = end;
    }

    fn filter(&self) -> Option<Filter> {
        self.router.filter(group(self.family))
    }

    fn report(&self) -> castgate_endpoint::membership::router::GroupReport {
        self.router.groups(self.now).next().expect("a group")
    }

    fn compatibility_after(&mut self, say: impl Fn(&mut Self)) -> Compatibility {
        say(self);
        self.report().compatibility
    }
}
