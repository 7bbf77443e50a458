//! The router's side of one link, or of one AMT endpoint: RFC 3376 §6 and RFC 3810 §7.
//!
//! ```text
//!   reports ──▶ handle_message ──▶ groups: filter mode, group timer, source timers ──▶ poll_output: Changed, Query
//!                                       ▲ handle_timeout ◀── next_timeout
//! ```
//! IGMP and MLD are one machine here; a router has groups of both families if both are reported to it. It sends no general
//! queries: a [`Querier`](super::querier::Querier) does on a LAN, the Request of its gateway calls for one at an AMT relay.
//!
//! Nothing reported makes it hold more than [`Config::groups_max`] groups with [`Config::sources_per_group_max`] sources each.
//! Of a list that is too long, the first sources are taken: of wanted ones some are then missing; of excluded ones some are
//! forwarded that nobody wants. What was refused is counted.

mod config;
mod group;
mod output;

pub use config::{Config, LeaveMode};
pub use output::{Counters, GroupReport, Output, Refusal};

use super::{Compatibility, Filter};
use crate::deadlines::Deadlines;
use castgate_wire::membership::{Message, Query, Record, RecordType};
use group::{Group, Rules};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

/// What the hosts of a link want. See the [module](self), and [`super`] for the contract with its driver.
#[derive(Debug, Clone)]
pub struct Router {
    config: Config,
    is_querier: bool,
    groups: BTreeMap<IpAddr, Group>,
    deadlines: Deadlines<IpAddr>,
    /// Groups whose filter may be another one.
    touched: BTreeSet<IpAddr>,
    /// Groups that are gone, with the filter that the driver still believes in.
    gone: BTreeMap<IpAddr, Filter>,
    queries: VecDeque<Query>,
    counters: Counters,
}

impl Router {
    /// A router without groups, which asks about leaves if its configuration says so.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            is_querier: true,
            groups: BTreeMap::new(),
            deadlines: Deadlines::new(),
            touched: BTreeSet::new(),
            gone: BTreeMap::new(),
            queries: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes in what `reporter` said. Queries lower timers when another router asks them; with [`LeaveMode::Immediate`] they are
    /// ignored.
    pub fn handle_message(&mut self, now: Instant, reporter: IpAddr, message: &Message) {
        self.run(now);
        match message {
            Message::Report(records) => {
                for record in records {
                    self.handle_record(now, reporter, record);
                }
            }
            Message::OldReport { version, group } => self.handle_old_report(now, reporter, *version, *group),
            Message::OldLeave { group } => self.handle_old_leave(now, reporter, *group),
            Message::Query(query) => self.hear_query(now, query),
        }
        self.run(now);
    }

    fn handle_record(&mut self, now: Instant, reporter: IpAddr, record: &Record) {
        self.counters.records += 1;
        if matches!(record.kind, RecordType::Unknown(_)) {
            return self.counters.refusals.add(Refusal::UnknownType);
        }
        if !self.admits(reporter, record.group) {
            return;
        }
        let Record { kind, group, sources } = record;
        let is_fit = |source: &&IpAddr| is_host(**source) && source.is_ipv4() == group.is_ipv4();
        let mut listed: BTreeSet<IpAddr> = sources.iter().filter(is_fit).copied().collect();
        let unfit = sources.iter().filter(|source| !is_fit(source)).count();
        self.counters.refusals.add_many(Refusal::UnfitSource, unfit as u64);
        match (self.compatibility(now, *group), kind) {
            // RFC 3376 §7.3.2, RFC 3810 §8.3.2: older hosts cannot say that they want the sources which others block.
            (Compatibility::First | Compatibility::Second, RecordType::BlockOldSources)
            | (Compatibility::First, RecordType::ChangeToInclude) => {
                return self.counters.refusals.add(Refusal::Incompatible);
            }
            (Compatibility::First | Compatibility::Second, RecordType::ChangeToExclude) => listed.clear(),
            _ => {}
        }
        self.apply(now, reporter, *group, *kind, &listed);
    }

    fn handle_old_report(&mut self, now: Instant, reporter: IpAddr, version: u8, group: IpAddr) {
        self.counters.records += 1;
        if !self.config.older_hosts {
            return self.counters.refusals.add(Refusal::OlderHost);
        }
        if !self.admits(reporter, group) {
            return;
        }
        self.apply(now, reporter, group, RecordType::ModeIsExclude, &BTreeSet::new());
        let rules = self.rules(now);
        if let Some(entry) = self.groups.get_mut(&group) {
            entry.hear_older(Compatibility::of(group.is_ipv4(), version).min(Compatibility::Second), &rules);
        }
    }

    fn handle_old_leave(&mut self, now: Instant, reporter: IpAddr, group: IpAddr) {
        self.counters.records += 1;
        if !self.config.older_hosts {
            return self.counters.refusals.add(Refusal::OlderHost);
        }
        if !self.admits(reporter, group) {
            return;
        }
        match self.compatibility(now, group) {
            Compatibility::First => self.counters.refusals.add(Refusal::Incompatible),
            // RFC 3376 §7.3.2 does not say what a leave means when no older host was heard of late. A host that says so leaves.
            Compatibility::Second | Compatibility::Current => {
                self.apply(now, reporter, group, RecordType::ChangeToInclude, &BTreeSet::new());
            }
        }
    }

    /// Another router has asked (RFC 3376 §6.6.1).
    fn hear_query(&mut self, now: Instant, query: &Query) {
        if query.suppress || self.config.leave_mode == LeaveMode::Immediate {
            return;
        }
        let rules = self.rules(now);
        let Some((group, entry)) = query.group.and_then(|group| Some((group, self.groups.get_mut(&group)?))) else {
            return;
        };
        if query.sources.is_empty() {
            entry.lower_group(&rules);
        } else {
            entry.lower_sources(&query.sources, &rules);
        }
        self.arrange(group);
    }

    /// Whether a report about `group` may be heard; counts why not.
    fn admits(&mut self, reporter: IpAddr, group: IpAddr) -> bool {
        // RFC 3810 §5.2.13. RFC 3376 §4.2.13 takes IGMP reports from anybody, RFC 7450 §5.3.1 all that come through a tunnel.
        if group.is_ipv6() && self.config.leave_mode == LeaveMode::Queried && !is_link_local(reporter) {
            self.counters.refusals.add(Refusal::Stranger);
            return false;
        }
        if !is_forwarded(group) {
            self.counters.refusals.add(Refusal::UnfitGroup);
            return false;
        }
        true
    }

    fn apply(&mut self, now: Instant, reporter: IpAddr, group: IpAddr, kind: RecordType, listed: &BTreeSet<IpAddr>) {
        let rules = self.rules(now);
        if !self.groups.contains_key(&group) {
            // These make no group; a flood of them shall not look like one.
            let is_leave = kind == RecordType::BlockOldSources || (!kind.excludes() && listed.is_empty());
            if is_leave {
                return;
            }
            if self.groups.len() >= self.config.groups_max {
                return self.counters.refusals.add(Refusal::GroupsMax);
            }
        }
        let entry = self.groups.entry(group).or_insert_with(|| Group::new(reporter, self.gone.remove(&group)));
        entry.reporter = reporter;
        let without_room = entry.record(kind, listed, &rules);
        self.counters.refusals.add_many(Refusal::SourcesMax, without_room as u64);
        self.arrange(group);
    }

    /// The oldest version in use for a group, or on the whole link by configuration.
    fn compatibility(&self, now: Instant, group: IpAddr) -> Compatibility {
        let of_group = self.groups.get(&group).map_or(Compatibility::Current, |group| group.compatibility(now));
        of_group.min(self.config.version)
    }

    fn rules(&self, now: Instant) -> Rules {
        Rules::new(&self.config, self.is_querier, now)
    }

    /// After whatever has happened to a group: it is looked at again when its next timer ends, or gone.
    fn arrange(&mut self, group: IpAddr) {
        let Some(entry) = self.groups.get(&group) else { return };
        self.touched.insert(group);
        if entry.is_empty() {
            let announced = self.groups.remove(&group).and_then(Group::into_announced);
            self.gone.extend(announced.map(|filter| (group, filter)));
            self.deadlines.disarm(group);
        } else if let Some(at) = entry.next_timeout() {
            self.deadlines.arm(group, at);
        } else {
            self.deadlines.disarm(group);
        }
    }

    /// Carries out what is due.
    fn run(&mut self, now: Instant) {
        let rules = self.rules(now);
        while let Some(group) = self.deadlines.pop_due(now) {
            if let Some(entry) = self.groups.get_mut(&group) {
                entry.expire(now);
                entry.take_queries(&rules, |suppress, sources| {
                    self.queries.push_back(group::query(&self.config, group, suppress, sources));
                });
            }
            self.arrange(group);
        }
    }

    /// Lets timers run out and sends queries again.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// The next thing to do. A group that changed several times since the last call is told once, as it is now.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(query) = self.queries.pop_front() {
            self.counters.queries += 1;
            return Some(Output::Query(query));
        }
        while let Some(group) = self.touched.pop_first() {
            let filter = match self.groups.get_mut(&group) {
                Some(entry) => match entry.announce() {
                    Some(filter) => Some(filter),
                    None => continue,
                },
                None if self.gone.remove(&group).is_some() => None,
                None => continue,
            };
            self.counters.changes += 1;
            return Some(Output::Changed { group, filter });
        }
        None
    }

    /// Whether this router asks on its link (RFC 3376 §6.6.2): it is, until it is told otherwise.
    pub fn set_querier(&mut self, is_querier: bool) {
        self.is_querier = is_querier;
        if is_querier {
            return;
        }
        for entry in self.groups.values_mut() {
            entry.forget_queries();
        }
        self.queries.clear();
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.arrange(group);
        }
    }

    /// Takes over times of the querier (RFC 3376 §4.1.6, §4.1.7); timers that run stay as they are.
    pub fn set_times(&mut self, robustness: NonZeroU8, query_interval: Duration) {
        self.config.robustness = robustness;
        self.config.query_interval = query_interval;
    }

    /// Forgets all groups, as after a report that leaves them all.
    pub fn clear(&mut self) {
        for (group, entry) in std::mem::take(&mut self.groups) {
            self.deadlines.disarm(group);
            self.gone.extend(entry.into_announced().map(|filter| (group, filter)));
            self.touched.insert(group);
        }
        self.queries.clear();
    }

    /// What is forwarded of `group`; `None` for nothing.
    #[must_use]
    pub fn filter(&self, group: IpAddr) -> Option<Filter> {
        self.groups.get(&group).map(Group::filter)
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether nobody wants anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// All groups as they are at `now`, in order.
    pub fn groups(&self, now: Instant) -> impl Iterator<Item = GroupReport> + '_ {
        self.groups.iter().map(move |(group, entry)| GroupReport {
            group: *group,
            filter: entry.filter(),
            exclude_until: entry.exclude_until(),
            sources: entry.sources().collect(),
            compatibility: entry.compatibility(now),
            reporter: entry.reporter,
        })
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Times and limits in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Whether packets to `group` go further than their link.
fn is_forwarded(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.is_multicast() && group.octets()[..3] != [224, 0, 0],
        // Scopes 0 (reserved), 1 (interface) and 2 (link), RFC 4291 §2.7.
        IpAddr::V6(group) => group.is_multicast() && group.octets()[1] & 0x0f > 2,
    }
}

/// Whether `source` can be the source of a packet.
fn is_host(source: IpAddr) -> bool {
    let is_broadcast = matches!(source, IpAddr::V4(source) if source.is_broadcast());
    !source.is_multicast() && !source.is_unspecified() && !is_broadcast
}

/// Whether `address` is one of `fe80::/10`.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_multicast_beyond_the_link_is_forwarded() {
        let is_forwarded = |group: &str| is_forwarded(group.parse().unwrap());
        assert!(["224.0.1.0", "232.1.2.3", "239.255.255.255", "ff3e::1", "ff05::1"].into_iter().all(is_forwarded));
        assert!(
            !["224.0.0.22", "192.0.2.1", "240.0.0.1", "ff02::1", "ff31::1", "ff00::1"].into_iter().any(is_forwarded)
        );
        assert!(["192.0.2.1", "2001:db8::1"].into_iter().all(|source| is_host(source.parse().unwrap())));
        assert!(
            !["0.0.0.0", "::", "224.1.1.1", "ff3e::1", "255.255.255.255"]
                .into_iter()
                .any(|source| is_host(source.parse().unwrap()))
        );
    }
}
