//! One group on one link: filter mode, group timer, source timers, and the queries that are under way.
//!
//! ```text
//!   INCLUDE (A)     A: sources with running timers; they are forwarded.
//!                   A timer at zero ends its source, and the last source the group.
//!   EXCLUDE (X,Y)   X: sources with running timers, which somebody asked for. Y: sources with timers at zero, which nobody
//!                   wants. All but Y are forwarded. The group timer at zero makes INCLUDE (X) of it.
//! ```
//! RFC 3376 and RFC 3810 have the same tables with other words: Filter Timer, Requested and Exclude List, MALI, LLQT.

use super::super::compatibility::Older;
use super::super::{Compatibility, Filter, told_robustness};
use super::config::{Config, LeaveMode};
use castgate_wire::membership::{Query, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A record with so many sources may be one part of a list that fits no packet (RFC 3376 §4.2.16): with the least MTU of
/// IPv6, a part has 75.
const PART_SOURCES_MIN: usize = 64;
/// Within this time all parts of a list have arrived: a host sends them in one go.
const PART_WINDOW: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Include,
    /// Until the group timer is at zero.
    Exclude {
        until: Instant,
    },
}

#[derive(Debug, Clone, Default)]
struct Source {
    /// When the timer is at zero; `None` when it is.
    until: Option<Instant>,
    /// Retransmissions that are left of queries for this source.
    queries_left: u8,
}

/// What "Send Q" in the tables means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// Ask, and lower the timers.
    Query,
    /// Somebody else asks; the timers are lowered when his query is heard.
    Wait,
    /// Nobody is there to be asked: the timers are at zero.
    Expire,
}

/// What is the same for all groups of a router.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    now: Instant,
    /// The end of a timer that is set to the group membership interval.
    member_until: Instant,
    /// The end of a timer that is lowered to the last member query time.
    query_until: Instant,
    query_interval: Duration,
    query_count: u8,
    asking: Asking,
    sources_max: usize,
}

impl Rules {
    pub(super) fn new(config: &Config, is_querier: bool, now: Instant) -> Self {
        Self {
            now,
            member_until: now + config.membership_interval(),
            query_until: now + config.last_member_query_time(),
            query_interval: config.last_member_query_interval,
            query_count: config.last_member_query_count().get(),
            asking: match (config.leave_mode, is_querier) {
                (LeaveMode::Immediate, _) => Asking::Expire,
                (LeaveMode::Queried, true) => Asking::Query,
                (LeaveMode::Queried, false) => Asking::Wait,
            },
            sources_max: config.sources_per_group_max,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Group {
    mode: Mode,
    sources: BTreeMap<IpAddr, Source>,
    older: Older,
    /// Retransmissions that are left of queries for the group.
    queries_left: u8,
    query_at: Option<Instant>,
    /// The filter that was announced last.
    announced: Option<Filter>,
    /// When a record came that may be a part.
    part_at: Option<Instant>,
    pub(super) reporter: IpAddr,
}

impl Group {
    /// A group in which nobody is; `announced` is what the driver still believes of it.
    pub(super) fn new(reporter: IpAddr, announced: Option<Filter>) -> Self {
        Self {
            mode: Mode::Include,
            sources: BTreeMap::new(),
            older: Older::default(),
            queries_left: 0,
            query_at: None,
            announced,
            part_at: None,
            reporter,
        }
    }

    /// The tables of RFC 3376 §6.4.1 and §6.4.2, RFC 3810 §7.4.1 and §7.4.2. Returns how many sources had no room.
    pub(super) fn record(&mut self, kind: RecordType, listed: &BTreeSet<IpAddr>, rules: &Rules) -> usize {
        use RecordType::{
            AllowNewSources, BlockOldSources, ChangeToExclude, ChangeToInclude, ModeIsExclude, ModeIsInclude, Unknown,
        };
        let is_listed = |source: &IpAddr| listed.contains(source);
        let exclude = Mode::Exclude { until: rules.member_until };
        let mut without_room = 0;
        match (self.mode, kind) {
            // INCLUDE (A) IS_IN (B), ALLOW (B): INCLUDE (A+B), (B)=GMI.
            // EXCLUDE (X,Y) IS_IN (A), ALLOW (A): EXCLUDE (X+A,Y-A), (A)=GMI.
            (Mode::Include | Mode::Exclude { .. }, ModeIsInclude | AllowNewSources) => {
                without_room = self.refresh(listed, rules);
            }
            // INCLUDE (A) BLOCK (B): INCLUDE (A), Send Q(G,A*B).
            (Mode::Include, BlockOldSources) => self.doubt_sources(is_listed, rules),
            // INCLUDE (A) IS_EX (B): EXCLUDE (A*B,B-A), (B-A)=0, Delete (A-B), Group Timer=GMI.
            (Mode::Include, ModeIsExclude) => {
                self.keep_only(listed);
                without_room = self.add(listed, None, rules);
                self.mode = exclude;
            }
            // INCLUDE (A) TO_EX (B): the same, and Send Q(G,A*B).
            (Mode::Include, ChangeToExclude) => {
                self.keep_only(listed);
                without_room = self.add(listed, None, rules);
                self.mode = exclude;
                self.doubt_sources(is_listed, rules);
            }
            // INCLUDE (A) TO_IN (B): INCLUDE (A+B), (B)=GMI, Send Q(G,A-B).
            (Mode::Include, ChangeToInclude) => {
                let is_part = self.note_part(listed, rules);
                without_room = self.refresh(listed, rules);
                if is_part {
                    self.await_parts(listed, rules);
                } else {
                    self.doubt_sources(|source| !is_listed(source), rules);
                }
            }
            // EXCLUDE (X,Y) IS_EX (A): EXCLUDE (A-Y,Y*A), (A-X-Y)=GMI, Delete (X-A), Delete (Y-A), Group Timer=GMI.
            (Mode::Exclude { .. }, ModeIsExclude) => {
                self.keep_only(listed);
                without_room = self.add(listed, Some(rules.member_until), rules);
                self.mode = exclude;
            }
            // EXCLUDE (X,Y) BLOCK (A): EXCLUDE (X+(A-Y),Y), (A-X-Y)=Group Timer, Send Q(G,A-Y).
            (Mode::Exclude { until }, BlockOldSources) => {
                without_room = self.add(listed, Some(until), rules);
                self.doubt_sources(is_listed, rules);
            }
            // EXCLUDE (X,Y) TO_EX (A): EXCLUDE (A-Y,Y*A), (A-X-Y)=Group Timer, Delete (X-A), Delete (Y-A), Send Q(G,A-Y),
            // Group Timer=GMI.
            (Mode::Exclude { until }, ChangeToExclude) => {
                self.keep_only(listed);
                without_room = self.add(listed, Some(until), rules);
                self.doubt_sources(is_listed, rules);
                self.mode = exclude;
            }
            // EXCLUDE (X,Y) TO_IN (A): EXCLUDE (X+A,Y-A), (A)=GMI, Send Q(G,X-A), Send Q(G).
            (Mode::Exclude { .. }, ChangeToInclude) => {
                self.note_part(listed, rules);
                self.doubt_sources(|source| !is_listed(source), rules);
                without_room = self.refresh(listed, rules);
                self.doubt_group(rules);
            }
            (Mode::Include | Mode::Exclude { .. }, Unknown(_)) => {}
        }
        without_room
    }

    /// `(listed)=GMI`, for as many as there is room for.
    fn refresh(&mut self, listed: &BTreeSet<IpAddr>, rules: &Rules) -> usize {
        for (source, record) in &mut self.sources {
            if listed.contains(source) {
                record.until = Some(rules.member_until);
            }
        }
        self.add(listed, Some(rules.member_until), rules)
    }

    /// New records for what is listed and not yet there. Returns how many had no room.
    fn add(&mut self, listed: &BTreeSet<IpAddr>, until: Option<Instant>, rules: &Rules) -> usize {
        let mut without_room = 0;
        for source in listed {
            if self.sources.contains_key(source) {
                continue;
            }
            if self.sources.len() >= rules.sources_max {
                without_room += 1;
                continue;
            }
            self.sources.insert(*source, Source { until, ..Source::default() });
        }
        without_room
    }

    /// Deletes the records of all other sources.
    fn keep_only(&mut self, listed: &BTreeSet<IpAddr>) {
        self.sources.retain(|source, _| listed.contains(source));
    }

    /// `Send Q(G,these)` (RFC 3376 §6.6.3.2).
    fn doubt_sources(&mut self, is_doubted: impl Fn(&IpAddr) -> bool, rules: &Rules) {
        match rules.asking {
            Asking::Wait => {}
            Asking::Query => {
                for (_, record) in self.sources.iter_mut().filter(|(source, _)| is_doubted(source)) {
                    if record.until.is_some_and(|until| until > rules.query_until) {
                        record.until = Some(rules.query_until);
                        record.queries_left = rules.query_count;
                        self.query_at = Some(rules.now);
                    }
                }
            }
            Asking::Expire => {
                for (_, record) in self.sources.iter_mut().filter(|(source, _)| is_doubted(source)) {
                    record.until = None;
                }
                self.drop_expired();
            }
        }
    }

    /// `Send Q(G)` (RFC 3376 §6.6.3.1).
    fn doubt_group(&mut self, rules: &Rules) {
        match rules.asking {
            Asking::Wait => {}
            Asking::Query => {
                self.lower_group(rules);
                self.queries_left = rules.query_count;
                self.query_at = Some(rules.now);
            }
            Asking::Expire => self.include(),
        }
    }

    /// Whether a record, or one that came just before, may be a part of a longer list. Notes that it came.
    fn note_part(&mut self, listed: &BTreeSet<IpAddr>, rules: &Rules) -> bool {
        if listed.len() >= PART_SOURCES_MIN {
            self.part_at = Some(rules.now);
        }
        rules.asking == Asking::Expire && self.part_at.is_some_and(|at| rules.now - at < PART_WINDOW)
    }

    /// After a part of a list, what the other parts have named a moment ago stays, and the rest has a moment to be named.
    ///
    /// RFC 3376 §4.2.16 splits a `TO_IN` that fits no packet. Where queries are asked the answers put things right; where a leave
    /// is believed, each part would take away what the others list.
    fn await_parts(&mut self, listed: &BTreeSet<IpAddr>, rules: &Rules) {
        let named_lately = rules.member_until.checked_sub(PART_WINDOW);
        for (_, record) in self.sources.iter_mut().filter(|(source, _)| !listed.contains(source)) {
            if record.until.is_some() && record.until <= named_lately {
                record.until = record.until.min(Some(rules.now + PART_WINDOW));
            }
        }
    }

    /// The group timer at zero (RFC 3376 §6.5).
    fn include(&mut self) {
        self.mode = Mode::Include;
        self.queries_left = 0;
        self.drop_expired();
    }

    /// In INCLUDE mode a timer at zero ends its source (RFC 3376 §6.3).
    fn drop_expired(&mut self) {
        if self.mode == Mode::Include {
            self.sources.retain(|_, record| record.until.is_some());
        }
    }

    /// The group timer is lowered to LMQT (RFC 3376 §6.6.1).
    pub(super) fn lower_group(&mut self, rules: &Rules) {
        if let Mode::Exclude { until } = &mut self.mode {
            *until = rules.query_until.min(*until);
        }
    }

    /// The timers of these sources are lowered to LMQT (RFC 3376 §6.6.1).
    pub(super) fn lower_sources(&mut self, asked: &[IpAddr], rules: &Rules) {
        for source in asked {
            if let Some(record) = self.sources.get_mut(source)
                && record.until.is_some_and(|until| until > rules.query_until)
            {
                record.until = Some(rules.query_until);
            }
        }
    }

    /// Whoever asks now, it is not us.
    pub(super) fn forget_queries(&mut self) {
        self.query_at = None;
        self.queries_left = 0;
        for record in self.sources.values_mut() {
            record.queries_left = 0;
        }
    }

    /// Lets all timers run out that are at zero at `now`.
    pub(super) fn expire(&mut self, now: Instant) {
        for record in self.sources.values_mut() {
            if record.until.is_some_and(|until| until <= now) {
                record.until = None;
                record.queries_left = 0;
            }
        }
        match self.mode {
            Mode::Exclude { until } if until <= now => self.include(),
            Mode::Exclude { .. } | Mode::Include => self.drop_expired(),
        }
    }

    /// The queries that are due (RFC 3376 §6.6.3).
    pub(super) fn take_queries(&mut self, rules: &Rules, mut send: impl FnMut(bool, Vec<IpAddr>)) {
        if self.query_at.is_none_or(|at| at > rules.now) {
            return;
        }
        let has_group_query = self.queries_left > 0;
        if has_group_query {
            self.queries_left -= 1;
            send(matches!(self.mode, Mode::Exclude { until } if until > rules.query_until), Vec::new());
        }
        let (mut confirmed, mut doubted) = (Vec::new(), Vec::new());
        for (source, record) in self.sources.iter_mut().filter(|(_, record)| record.queries_left > 0) {
            record.queries_left -= 1;
            let is_confirmed = record.until.is_some_and(|until| until > rules.query_until);
            if is_confirmed { &mut confirmed } else { &mut doubted }.push(*source);
        }
        // §6.6.3.2: a query for the group asks for the confirmed sources as well.
        if !confirmed.is_empty() && !has_group_query {
            send(true, confirmed);
        }
        if !doubted.is_empty() {
            send(false, doubted);
        }
        let is_more_left = self.queries_left > 0 || self.sources.values().any(|record| record.queries_left > 0);
        self.query_at = is_more_left.then(|| rules.now + rules.query_interval);
    }

    /// A report of an older version was heard (RFC 3376 §7.3.2).
    pub(super) fn hear_older(&mut self, version: Compatibility, rules: &Rules) {
        self.older.hear(version, rules.member_until);
    }

    pub(super) fn compatibility(&self, now: Instant) -> Compatibility {
        self.older.compatibility(now)
    }

    /// Nothing is left that anybody wants.
    pub(super) fn is_empty(&self) -> bool {
        self.mode == Mode::Include && self.sources.is_empty()
    }

    /// What the driver believes of the group.
    pub(super) fn into_announced(self) -> Option<Filter> {
        self.announced
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let group = match self.mode {
            Mode::Include => None,
            Mode::Exclude { until } => Some(until),
        };
        let sources = self.sources.values().filter_map(|record| record.until).min();
        [group, sources, self.query_at].into_iter().flatten().min()
    }

    /// The filter, when it is another than was announced before.
    pub(super) fn announce(&mut self) -> Option<Filter> {
        let is_known = self.announced.as_ref().is_some_and(|announced| {
            announced.is_exclude() == self.is_exclude() && announced.sources().iter().eq(self.named())
        });
        if is_known {
            return None;
        }
        let filter = self.filter();
        self.announced = Some(filter.clone());
        Some(filter)
    }

    /// What is forwarded (RFC 3376 §6.3).
    pub(super) fn filter(&self) -> Filter {
        let named = self.named().copied();
        if self.is_exclude() { Filter::exclude(named) } else { Filter::include(named) }
    }

    fn is_exclude(&self) -> bool {
        matches!(self.mode, Mode::Exclude { .. })
    }

    /// The sources that the filter names: those with running timers in INCLUDE mode, the others in EXCLUDE mode.
    fn named(&self) -> impl Iterator<Item = &IpAddr> {
        let is_exclude = self.is_exclude();
        self.sources.iter().filter(move |(_, record)| record.until.is_none() == is_exclude).map(|(source, _)| source)
    }

    pub(super) fn exclude_until(&self) -> Option<Instant> {
        match self.mode {
            Mode::Include => None,
            Mode::Exclude { until } => Some(until),
        }
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = (IpAddr, Option<Instant>)> + '_ {
        self.sources.iter().map(|(source, record)| (*source, record.until))
    }
}

/// A query about a group or its sources.
pub(super) fn query(config: &Config, group: IpAddr, suppress: bool, sources: Vec<IpAddr>) -> Query {
    let is_current = config.version == Compatibility::Current;
    Query {
        version: config.version.version(group.is_ipv4()),
        group: Some(group),
        max_response: config.last_member_query_interval,
        suppress: suppress && is_current,
        robustness: told_robustness(config.robustness),
        interval: config.query_interval,
        // The older versions know no sources: who wants any of them answers.
        sources: if is_current { sources } else { Vec::new() },
    }
}
