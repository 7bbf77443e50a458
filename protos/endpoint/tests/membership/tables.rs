//! The tables of RFC 3376 §6.4.1 and §6.4.2 as they stand in the RFC, read by the test, for every state and every record.
//!
//! RFC 3810 §7.4.1 and §7.4.2 say the same with Filter Timer, MALI and MA.

use crate::bed::{Millis, group, report, source};
use castgate_endpoint::membership::router::{Config, LeaveMode, Output, Router};
use castgate_wire::membership::{Family, Query, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const ROWS: &str = "
    INCLUDE (A)   | IS_IN (B) | INCLUDE (A+B)         | (B)=GMI
    INCLUDE (A)   | IS_EX (B) | EXCLUDE (A*B,B-A)     | (B-A)=0; Delete (A-B); Group Timer=GMI
    EXCLUDE (X,Y) | IS_IN (A) | EXCLUDE (X+A,Y-A)     | (A)=GMI
    EXCLUDE (X,Y) | IS_EX (A) | EXCLUDE (A-Y,Y*A)     | (A-X-Y)=GMI; Delete (X-A); Delete (Y-A); Group Timer=GMI
    INCLUDE (A)   | ALLOW (B) | INCLUDE (A+B)         | (B)=GMI
    INCLUDE (A)   | BLOCK (B) | INCLUDE (A)           | Send Q(G,A*B)
    INCLUDE (A)   | TO_EX (B) | EXCLUDE (A*B,B-A)     | (B-A)=0; Delete (A-B); Send Q(G,A*B); Group Timer=GMI
    INCLUDE (A)   | TO_IN (B) | INCLUDE (A+B)         | (B)=GMI; Send Q(G,A-B)
    EXCLUDE (X,Y) | ALLOW (A) | EXCLUDE (X+A,Y-A)     | (A)=GMI
    EXCLUDE (X,Y) | BLOCK (A) | EXCLUDE (X+(A-Y),Y)   | (A-X-Y)=Group Timer; Send Q(G,A-Y)
    EXCLUDE (X,Y) | TO_EX (A) | EXCLUDE (A-Y,Y*A)     | (A-X-Y)=Group Timer; Delete (X-A); Delete (Y-A); Send Q(G,A-Y); Group Timer=GMI
    EXCLUDE (X,Y) | TO_IN (A) | EXCLUDE (X+A,Y-A)     | (A)=GMI; Send Q(G,X-A); Send Q(G)
";

const GMI: Duration = Duration::from_secs(260);
const LMQT: Duration = Duration::from_secs(2);

type Set = BTreeSet<u8>;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    Querier,
    Listening,
    Endpoint,
}

#[test]
fn every_record_does_to_every_state_what_the_tables_say_and_the_querier_asks() {
    assert_eq!(check_all(Role::Querier), 2 * 1680);
}

#[test]
fn a_router_that_is_not_the_querier_changes_its_state_alike_and_asks_nothing() {
    check_all(Role::Listening);
}

#[test]
fn at_an_amt_endpoint_what_would_be_asked_about_is_over_at_once() {
    check_all(Role::Endpoint);
}

/// All filter modes with all sets of three sources, times all record types with all sets of them, for both families.
fn check_all(role: Role) -> usize {
    let mut cases = 0;
    for family in Family::ALL {
        for row in ROWS.lines().filter(|row| row.contains('|')) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [before, record, after, actions] = cells[..] else { panic!("{row}") };
            for listed in subsets(&Set::from([1, 2, 3])) {
                for first in subsets(&Set::from([1, 2, 3])) {
                    let rest = &Set::from([1, 2, 3]) - &first;
                    let seconds = if before.starts_with("INCLUDE") { vec![Set::new()] } else { subsets(&rest) };
                    for second in seconds {
                        Case { family, role, row, first: first.clone(), second, listed: listed.clone() }
                            .check(before, record, after, actions);
                        cases += 1;
                    }
                }
            }
        }
    }
    cases
}

struct Case<'a> {
    family: Family,
    role: Role,
    row: &'a str,
    first: Set,
    second: Set,
    listed: Set,
}

impl Case<'_> {
    fn check(&self, before: &str, record: &str, after: &str, actions: &str) {
        let start = Instant::now();
        let leave_mode = if self.role == Role::Endpoint { LeaveMode::Immediate } else { LeaveMode::Queried };
        let mut router = Router::new(Config { leave_mode, ..Config::default() });
        router.set_querier(self.role == Role::Querier);
        let is_include = before.starts_with("INCLUDE");
        // The timers of X and of the group differ from each other and from what the record sets.
        let (x_at, now) = (start + 5_000.millis(), start + 10_000.millis());
        if is_include {
            self.hear(&mut router, x_at, RecordType::AllowNewSources, &self.first);
        } else {
            self.hear(&mut router, start, RecordType::ModeIsExclude, &self.second);
            self.hear(&mut router, x_at, RecordType::ModeIsInclude, &self.first);
        }
        while router.poll_output().is_some() {}

        let (kind, letter) = record.split_once(' ').unwrap();
        self.hear(&mut router, now, kind_of(kind), &self.listed);
        let mut sets = BTreeMap::from([(letter.trim_matches(['(', ')']), self.listed.clone())]);
        sets.insert(if is_include { "A" } else { "X" }, self.first.clone());
        sets.insert("Y", self.second.clone());
        let expected = self.expect(&sets, is_include, after, actions, (start, x_at, now));

        let seen = router.groups(now).next();
        let about = format!("{:?} {:?} {:?} {:?}: {}", self.role, self.first, self.second, self.listed, self.row);
        let group_timer = seen.as_ref().and_then(|report| report.exclude_until);
        assert_eq!(group_timer, expected.group_timer, "{about}");
        let timers: BTreeMap<IpAddr, Option<Instant>> =
            seen.map(|report| report.sources.into_iter().collect()).unwrap_or_default();
        let named = |(source, until): (&u8, &Option<Instant>)| (self.source(*source), *until);
        assert_eq!(timers, expected.timers.iter().map(named).collect(), "{about}");
        let mut queries = Vec::new();
        while let Some(output) = router.poll_output() {
            if let Output::Query(Query { suppress, sources, group: asked, .. }) = output {
                assert_eq!(asked, Some(group(self.family)));
                assert!(!suppress, "what is asked about has lowered timers: {about}");
                queries.push(sources);
            }
        }
        let asked = |set: &Set| set.iter().map(|source| self.source(*source)).collect::<Vec<_>>();
        assert_eq!(queries, expected.queries.iter().map(asked).collect::<Vec<_>>(), "{about}");
    }

    fn source(&self, number: u8) -> IpAddr {
        source(self.family, number)
    }

    fn hear(&self, router: &mut Router, now: Instant, kind: RecordType, sources: &Set) {
        let sources = sources.iter().map(|number| self.source(*number)).collect();
        let reporter = if self.family == Family::V4 { [10, 0, 0, 1].into() } else { "fe80::1".parse().unwrap() };
        router.handle_message(now, reporter, &report(kind, group(self.family), sources));
    }

    /// Carries out a row by hand.
    fn expect(
        &self,
        sets: &BTreeMap<&str, Set>,
        was_include: bool,
        after: &str,
        actions: &str,
        (start, x_at, now): (Instant, Instant, Instant),
    ) -> Expected {
        let mut timers: BTreeMap<u8, Option<Instant>> = self.first.iter().map(|x| (*x, Some(x_at + GMI))).collect();
        timers.extend(self.second.iter().map(|y| (*y, None)));
        let mut group_timer = (!was_include).then_some(start + GMI);
        let (mode, lists) = after.split_once(' ').unwrap();
        let lists: Vec<Set> = split_lists(lists).map(|list| evaluate(list, sets)).collect();
        let mut queries = Vec::new();
        for action in actions.split(';').map(str::trim) {
            if let Some(list) = action.strip_prefix("Delete ") {
                timers.retain(|source, _| !evaluate(list, sets).contains(source));
            } else if action == "Group Timer=GMI" {
                group_timer = Some(now + GMI);
            } else if action == "Send Q(G)" {
                match self.role {
                    Role::Querier => {
                        group_timer = group_timer.min(Some(now + LMQT));
                        queries.insert(0, Set::new());
                    }
                    Role::Endpoint => group_timer = None,
                    Role::Listening => {}
                }
            } else if let Some(list) = action.strip_prefix("Send Q(G,").and_then(|list| list.strip_suffix(')')) {
                let asked = evaluate(list, sets);
                for source in &asked {
                    match self.role {
                        Role::Querier => timers.insert(*source, Some(now + LMQT)),
                        Role::Endpoint => timers.insert(*source, None),
                        Role::Listening => None,
                    };
                }
                if self.role == Role::Querier && !asked.is_empty() {
                    queries.push(asked);
                }
            } else {
                let (list, value) = action.rsplit_once('=').unwrap();
                let value = match value {
                    "GMI" => Some(now + GMI),
                    "0" => None,
                    "Group Timer" => group_timer,
                    other => panic!("{other}"),
                };
                timers.extend(evaluate(list, sets).into_iter().map(|source| (source, value)));
            }
        }
        // The new state and the timers say the same in two ways, but where an endpoint is believed at once.
        if self.role != Role::Endpoint {
            let running: Set = timers.iter().filter(|(_, until)| until.is_some()).map(|(source, _)| *source).collect();
            assert_eq!(running, lists[0], "{}", self.row);
            let stopped: Set = timers.iter().filter(|(_, until)| until.is_none()).map(|(source, _)| *source).collect();
            assert_eq!(stopped, lists.get(1).cloned().unwrap_or_default(), "{}", self.row);
            assert_eq!(group_timer.is_none(), mode == "INCLUDE", "{}", self.row);
        }
        if group_timer.is_none() {
            timers.retain(|_, until| until.is_some());
        }
        Expected { timers, group_timer, queries }
    }
}

struct Expected {
    timers: BTreeMap<u8, Option<Instant>>,
    group_timer: Option<Instant>,
    queries: Vec<Set>,
}

fn kind_of(name: &str) -> RecordType {
    match name {
        "IS_IN" => RecordType::ModeIsInclude,
        "IS_EX" => RecordType::ModeIsExclude,
        "TO_IN" => RecordType::ChangeToInclude,
        "TO_EX" => RecordType::ChangeToExclude,
        "ALLOW" => RecordType::AllowNewSources,
        "BLOCK" => RecordType::BlockOldSources,
        other => panic!("{other}"),
    }
}

fn subsets(of: &Set) -> Vec<Set> {
    of.iter().fold(vec![Set::new()], |sets, element| {
        let with = sets.iter().map(|set| set | &Set::from([*element]));
        sets.iter().cloned().chain(with).collect()
    })
}

/// `(X+(A-Y),Y)` without its brackets, at the comma.
fn split_lists(lists: &str) -> impl Iterator<Item = &str> {
    lists.strip_prefix('(').and_then(|lists| lists.strip_suffix(')')).unwrap().split(',')
}

/// "A+B" the union, "A*B" the intersection, "A-B" the difference (RFC 3376 §4.2.15).
fn evaluate(expression: &str, sets: &BTreeMap<&str, Set>) -> Set {
    let mut rest = expression;
    let value = sum(&mut rest, sets);
    assert!(rest.is_empty(), "{expression}: {rest}");
    value
}

fn sum(rest: &mut &str, sets: &BTreeMap<&str, Set>) -> Set {
    let mut value = product(rest, sets);
    loop {
        if let Some(more) = rest.strip_prefix('+') {
            *rest = more;
            value = &value | &product(rest, sets);
        } else if let Some(more) = rest.strip_prefix('-') {
            *rest = more;
            value = &value - &product(rest, sets);
        } else {
            return value;
        }
    }
}

fn product(rest: &mut &str, sets: &BTreeMap<&str, Set>) -> Set {
    let mut value = factor(rest, sets);
    while let Some(more) = rest.strip_prefix('*') {
        *rest = more;
        value = &value & &factor(rest, sets);
    }
    value
}

fn factor(rest: &mut &str, sets: &BTreeMap<&str, Set>) -> Set {
    if let Some(more) = rest.strip_prefix('(') {
        *rest = more;
        let value = sum(rest, sets);
        *rest = rest.strip_prefix(')').expect("a closed bracket");
        return value;
    }
    let (letter, more) = rest.split_at(1);
    *rest = more;
    sets[letter].clone()
}
