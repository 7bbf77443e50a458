//! The host's side of one interface and family: RFC 3376 §5 and RFC 3810 §6, with the older versions of §7.2 and §8.2.
//!
//! ```text
//!   set(group, filter) ──▶ State-Change Reports, the first at once, [Robustness Variable] in all ─┐
//!   queries ──▶ handle_message ──▶ a random delay ──▶ Current-State Reports ──────────────────────┴──▶ poll_output: Message
//! ```
//! A program that wants a group has its filter in a [`Merged`](super::merge::Merged); what that comes to is `set` here.
//! [`Config::tunnel`] makes of it the pseudo-interface of an AMT gateway, which answers at once and whoever asks.
//! The host must not be given what it has sent itself: an older host would take it for another one.

mod config;
mod membership;
mod random;

pub use config::{Answer, Config};

use super::router::is_link_local;
use super::{Compatibility, Filter, QUERY_INTERVAL_MAX, ROBUSTNESS_MAX, compatibility::Older};
use crate::deadlines::Deadlines;
use castgate_wire::membership::{Family, Message, Query, Record};
use membership::{Membership, Pending};
use random::Random;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// `IGMPv1` has no field for it: ten seconds (RFC 3376 §7.2.1).
const FIRST_MAX_RESPONSE: Duration = Duration::from_secs(10);
/// What the longest code of MLD stands for (RFC 3810 §5.1.3); a host of ours waits no longer, whatever it is told.
const MAX_RESPONSE: Duration = Duration::from_millis(8_387_584);

/// Why a filter is not set (RFC 3376 §2, §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SetError {
    /// The group is no multicast address of this host's family.
    #[error("{0} is no group of this interface")]
    UnfitGroup(IpAddr),
    /// A source is of another family than its group.
    #[error("{0} is no source of a group of this interface")]
    UnfitSource(IpAddr),
    /// There are as many groups as there may be; holds their number.
    #[error("an interface has no more than {0} groups")]
    GroupsMax(usize),
    /// The list is longer than it may be; holds its limit.
    #[error("a filter has no more than {0} sources")]
    SourcesMax(usize),
}

/// What an interface wants, and how it tells the routers. See the [module](self).
#[derive(Debug, Clone)]
pub struct Host {
    config: Config,
    family: Family,
    random: Random,
    groups: BTreeMap<IpAddr, Membership>,
    deadlines: Deadlines<Timer>,
    general_at: Option<Instant>,
    older: Older,
    /// What is spoken now.
    version: Compatibility,
    /// As the last querier said.
    robustness: u8,
    query_interval: Duration,
    changes: Vec<Record>,
    answers: Vec<Record>,
    old: VecDeque<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Older Version Querier Present (§8.12): a newer version may be spoken.
    OlderQuerier,
    /// The interface timer (§5.2): the answer to a general query.
    General,
    /// A change of the group is reported again (§5.1).
    Changes(IpAddr),
    /// The group timer (§5.2): the answer to a query about the group.
    Answer(IpAddr),
}

impl Host {
    /// A host without groups. `seed` draws the delays; hosts of one link need different ones.
    #[must_use]
    pub fn new(config: Config, family: Family, seed: [u8; 16]) -> Self {
        let mut host = Self {
            family,
            random: Random::new(seed),
            groups: BTreeMap::new(),
            deadlines: Deadlines::new(),
            general_at: None,
            older: Older::default(),
            version: config.version,
            robustness: config.robustness.get(),
            query_interval: config.query_interval,
            changes: Vec::new(),
            answers: Vec::new(),
            old: VecDeque::new(),
            config,
        };
        host.version = host.version_present(Compatibility::Current);
        host
    }

    /// Replaces what is wanted of `group`. [`Filter::nothing`] leaves it.
    ///
    /// # Errors
    /// [`SetError`]: nothing is changed then.
    pub fn set(&mut self, now: Instant, group: IpAddr, filter: Filter) -> Result<(), SetError> {
        self.run(now);
        self.check(group, &filter)?;
        let before = self.groups.get(&group).map(|entry| &entry.filter);
        if before.is_none_or(Filter::is_nothing) && filter.is_nothing() || before == Some(&filter) {
            return Ok(());
        }
        let entry = self.groups.entry(group).or_default();
        if !is_reported(group) {
            entry.filter = filter;
            if entry.is_over() {
                self.groups.remove(&group);
            }
            return Ok(());
        }
        if self.version == Compatibility::Current {
            entry.change(filter, self.robustness);
            self.report_changes(now, group);
        } else {
            self.change_old(now, group, filter);
        }
        Ok(())
    }

    fn check(&self, group: IpAddr, filter: &Filter) -> Result<(), SetError> {
        if !group.is_multicast() || Family::of(group) != self.family {
            return Err(SetError::UnfitGroup(group));
        }
        if let Some(source) = filter.sources().iter().find(|source| Family::of(**source) != self.family) {
            return Err(SetError::UnfitSource(*source));
        }
        if filter.sources().len() > self.config.sources_max {
            return Err(SetError::SourcesMax(self.config.sources_max));
        }
        let is_new = !filter.is_nothing() && !self.groups.contains_key(&group);
        if is_new && self.groups.len() >= self.config.groups_max {
            return Err(SetError::GroupsMax(self.config.groups_max));
        }
        Ok(())
    }

    /// Reports everything as if it were new: the interface has an address at last (RFC 3810 §5.2.13), or another router.
    pub fn announce(&mut self, now: Instant) {
        self.run(now);
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            let filter = self.groups.get_mut(&group).map(|entry| std::mem::take(&mut entry.filter)).unwrap_or_default();
            // Of the groups there were, none is one too many.
            let _ = self.set(now, group, filter);
        }
    }

    /// One State-Change Report of the group, and the time of the next.
    fn report_changes(&mut self, now: Instant, group: IpAddr) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        self.changes.extend(entry.take_changes(group));
        if entry.has_changes() {
            let wait = self.random.delay(self.config.unsolicited_report_interval);
            // Not in this moment: that would be one report and no repeat.
            self.deadlines.arm(Timer::Changes(group), now + wait.max(Duration::from_nanos(1)));
        } else {
            self.deadlines.disarm(Timer::Changes(group));
        }
        self.forget_if_over(group);
    }

    fn forget_if_over(&mut self, group: IpAddr) {
        if self.groups.get(&group).is_some_and(Membership::is_over) {
            self.groups.remove(&group);
            self.deadlines.disarm(Timer::Answer(group));
            self.deadlines.disarm(Timer::Changes(group));
        }
    }

    /// A change in the words of an older version: they know members and no sources (RFC 2236 §3, RFC 2710 §4).
    fn change_old(&mut self, now: Instant, group: IpAddr, filter: Filter) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        let was_member = !entry.filter.is_nothing();
        let is_member = !filter.is_nothing();
        entry.filter = filter;
        match (was_member, is_member) {
            (false, true) => {
                entry.old_reports_left = self.robustness;
                self.report_old(now, group);
            }
            (true, false) => {
                if self.version == Compatibility::Second {
                    self.old.push_back(Message::OldLeave { group });
                }
                self.forget_if_over(group);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// One unsolicited report in the words of an older version, and the time of the next.
    fn report_old(&mut self, now: Instant, group: IpAddr) {
        let Some(entry) = self.groups.get_mut(&group).filter(|entry| entry.old_reports_left > 0) else { return };
        entry.old_reports_left -= 1;
        let is_last = entry.old_reports_left == 0;
        self.old.push_back(self.old_report(group));
        if !is_last {
            let wait = self.random.delay(self.config.unsolicited_report_interval);
            self.deadlines.arm(Timer::Changes(group), now + wait.max(Duration::from_nanos(1)));
        }
    }

    fn old_report(&self, group: IpAddr) -> Message {
        Message::OldReport { version: self.version.version(self.family == Family::V4), group }
    }

    /// Takes in what `from` said. Only queries matter, and to an older host the reports of others.
    pub fn handle_message(&mut self, now: Instant, from: IpAddr, message: &Message) {
        self.run(now);
        match message {
            Message::Query(query) => self.handle_query(now, from, query),
            Message::OldReport { group, .. } => self.handle_other(*group),
            Message::Report(_) | Message::OldLeave { .. } => {}
        }
        self.run(now);
    }

    /// Another older host is a member: the querier need not hear it twice (RFC 2236 §3, RFC 2710 §4).
    fn handle_other(&mut self, group: IpAddr) {
        if self.version == Compatibility::Current {
            return;
        }
        if let Some(entry) = self.groups.get_mut(&group) {
            entry.answer = None;
            entry.old_reports_left = 0;
            self.deadlines.disarm(Timer::Answer(group));
            self.deadlines.disarm(Timer::Changes(group));
        }
    }

    fn handle_query(&mut self, now: Instant, from: IpAddr, query: &Query) {
        let is_ours = Family::of(from) == self.family
            && query.group.is_none_or(|group| Family::of(group) == self.family)
            && (self.family == Family::V4 || self.config.any_querier || is_link_local(from));
        let version = Compatibility::of(self.family == Family::V4, query.version);
        if !is_ours || (version != Compatibility::Current && !self.config.older_queriers) {
            return;
        }
        self.learn(now, version, query);
        let longest =
            if version == Compatibility::First { FIRST_MAX_RESPONSE } else { query.max_response.min(MAX_RESPONSE) };
        let delay = match self.config.answer {
            Answer::AtOnce => Duration::ZERO,
            Answer::Delayed => self.random.delay(longest),
        };
        match (self.version, query.group) {
            (Compatibility::Current, None) => self.schedule_general(now + delay),
            (Compatibility::Current, Some(group)) => self.schedule_answer(now + delay, group, &query.sources),
            (Compatibility::First | Compatibility::Second, None) => {
                for group in self.groups.keys().copied().collect::<Vec<_>>() {
                    let delay = match self.config.answer {
                        Answer::AtOnce => Duration::ZERO,
                        Answer::Delayed => self.random.delay(longest),
                    };
                    self.schedule_old(now, delay, longest, group);
                }
            }
            (Compatibility::First | Compatibility::Second, Some(group)) => {
                self.schedule_old(now, delay, longest, group);
            }
        }
    }

    /// What a query says of its querier (RFC 3376 §4.1.6, §4.1.7, §7.2.1).
    fn learn(&mut self, now: Instant, version: Compatibility, query: &Query) {
        if version == Compatibility::Current {
            let said = |robustness: u8| (robustness > 0).then_some(robustness.min(ROBUSTNESS_MAX));
            self.robustness = said(query.robustness).unwrap_or(self.config.robustness.get());
            let interval = query.interval.min(QUERY_INTERVAL_MAX);
            self.query_interval = if interval.is_zero() { self.config.query_interval } else { interval };
        }
        // An IGMPv2 router says with general queries that it is one; any query of IGMPv1 or MLDv1 does.
        if self.family == Family::V6 || version == Compatibility::First || query.group.is_none() {
            let present = self.query_interval * u32::from(self.robustness) + self.config.query_response_interval;
            self.older.hear(version, now + present);
        }
        self.switch_version(now);
    }

    /// The version to speak when `present` is the oldest heard.
    fn version_present(&self, present: Compatibility) -> Compatibility {
        let version = present.min(self.config.version);
        // MLD has nothing as old as IGMPv1.
        if self.family == Family::V6 { version.max(Compatibility::Second) } else { version }
    }

    fn switch_version(&mut self, now: Instant) {
        match self.older.next_timeout(now) {
            Some(at) => self.deadlines.arm(Timer::OlderQuerier, at),
            None => self.deadlines.disarm(Timer::OlderQuerier),
        }
        let version = self.version_present(self.older.compatibility(now));
        if std::mem::replace(&mut self.version, version) == version {
            return;
        }
        self.general_at = None;
        self.deadlines.disarm(Timer::General);
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            if let Some(entry) = self.groups.get_mut(&group) {
                entry.cancel();
            }
            self.deadlines.disarm(Timer::Answer(group));
            self.deadlines.disarm(Timer::Changes(group));
            self.forget_if_over(group);
        }
    }

    /// Rules 1 and 2 of RFC 3376 §5.2.
    fn schedule_general(&mut self, at: Instant) {
        let has_state = self.groups.iter().any(|(group, entry)| is_reported(*group) && !entry.filter.is_nothing());
        if has_state && self.general_at.is_none_or(|pending| pending > at) {
            self.general_at = Some(at);
            self.deadlines.arm(Timer::General, at);
        }
    }

    /// Rules 1 and 3 to 5 of RFC 3376 §5.2.
    fn schedule_answer(&mut self, at: Instant, group: IpAddr, asked: &[IpAddr]) {
        if !is_reported(group) || self.general_at.is_some_and(|pending| pending <= at) {
            return;
        }
        let Some(entry) = self.groups.get_mut(&group).filter(|entry| !entry.filter.is_nothing()) else { return };
        // What is answered must be an address of a source that the group can have.
        let is_fit = |source: &&IpAddr| Family::of(**source) == self.family;
        let mut sources: BTreeSet<IpAddr> = asked.iter().filter(is_fit).copied().collect();
        if sources.is_empty() && !asked.is_empty() {
            return;
        }
        let mut at = at;
        if let Some(pending) = entry.answer.take() {
            at = at.min(pending.at);
            if sources.is_empty() || pending.sources.is_empty() {
                sources.clear();
            } else {
                sources.extend(pending.sources);
            }
        }
        // RFC 3376 §9.1: forged queries shall not fill the memory. An answer for the whole group answers all of them.
        if sources.len() > self.config.queried_sources_max {
            sources.clear();
        }
        entry.answer = Some(Pending { at, sources });
        self.deadlines.arm(Timer::Answer(group), at);
    }

    /// An older host starts the timer of the group, or shortens it when less time is granted than is left (RFC 2236 §3).
    fn schedule_old(&mut self, now: Instant, delay: Duration, longest: Duration, group: IpAddr) {
        if !is_reported(group) {
            return;
        }
        let Some(entry) = self.groups.get_mut(&group).filter(|entry| !entry.filter.is_nothing()) else { return };
        if entry.answer.as_ref().is_some_and(|pending| pending.at <= now + longest) {
            return;
        }
        entry.answer = Some(Pending { at: now + delay, sources: BTreeSet::new() });
        self.deadlines.arm(Timer::Answer(group), now + delay);
    }

    fn run(&mut self, now: Instant) {
        while let Some(timer) = self.deadlines.pop_due(now) {
            match timer {
                Timer::OlderQuerier => self.switch_version(now),
                Timer::General => self.answer_general(),
                Timer::Changes(group) if self.version == Compatibility::Current => self.report_changes(now, group),
                Timer::Changes(group) => self.report_old(now, group),
                Timer::Answer(group) => self.answer(group),
            }
        }
    }

    fn answer_general(&mut self) {
        self.general_at = None;
        // What was asked about single groups is answered with it.
        for (group, entry) in &mut self.groups {
            if entry.answer.take().is_some() {
                self.deadlines.disarm(Timer::Answer(*group));
            }
        }
        let records = self.current_state();
        self.answers.extend(records);
    }

    fn answer(&mut self, group: IpAddr) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        let Some(Pending { sources, .. }) = entry.answer.take() else { return };
        if self.version == Compatibility::Current {
            self.answers.extend(entry.answer(group, &sources));
        } else {
            self.old.push_back(self.old_report(group));
        }
    }

    /// All Current-State Records, as an answer to a general query has them.
    #[must_use]
    pub fn current_state(&self) -> Vec<Record> {
        let reported = self.groups.iter().filter(|(group, _)| is_reported(**group));
        reported.filter_map(|(group, entry)| entry.current_state(*group)).collect()
    }

    /// Repeats, answers, and takes up a newer version, as far as due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// The next message to send. All changes since the last call are one report, all answers another.
    pub fn poll_output(&mut self) -> Option<Message> {
        if let Some(message) = self.old.pop_front() {
            return Some(message);
        }
        let records = if self.changes.is_empty() { &mut self.answers } else { &mut self.changes };
        (!records.is_empty()).then(|| Message::Report(std::mem::take(records)))
    }

    /// What is wanted of `group`.
    #[must_use]
    pub fn filter(&self, group: IpAddr) -> Option<&Filter> {
        self.groups.get(&group).map(|entry| &entry.filter).filter(|filter| !filter.is_nothing())
    }

    /// All groups that are wanted, in order.
    pub fn groups(&self) -> impl Iterator<Item = (IpAddr, &Filter)> {
        let wanted = self.groups.iter().filter(|(_, entry)| !entry.filter.is_nothing());
        wanted.map(|(group, entry)| (*group, &entry.filter))
    }

    /// The version that is spoken (Host Compatibility Mode, RFC 3376 §7.2.1).
    #[must_use]
    pub fn version(&self) -> Compatibility {
        self.version
    }

    /// The family of this host.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }
}

/// Whether a membership of `group` is ever told: not of all systems (RFC 3376 §5), not of scopes 0 and 1 (RFC 3810 §6).
fn is_reported(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group != Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(group) => group.octets()[1] & 0x0f > 1 && group != Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_systems_and_the_scopes_of_one_host_are_never_told() {
        let is_reported = |group: &str| is_reported(group.parse().unwrap());
        assert!(["224.0.0.22", "239.1.2.3", "ff02::16", "ff3e::1"].into_iter().all(is_reported));
        assert!(!["224.0.0.1", "ff02::1", "ff01::5", "ff00::5"].into_iter().any(is_reported));
    }
}
