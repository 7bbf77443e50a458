//! One group of one interface: what is wanted, what is still to be reported, what was asked.
//!
//! Owns the counters of RFC 3376 §5.1 and the recorded sources of §5.2. Knows no time but that of the pending answer.

use super::super::Filter;
use castgate_wire::membership::{Record, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

#[derive(Debug, Clone, Default)]
pub(super) struct Membership {
    pub(super) filter: Filter,
    /// Filter Mode Retransmission Counter.
    mode_left: u8,
    /// Source Retransmission Counters.
    sources_left: BTreeMap<IpAddr, u8>,
    /// Reports of an older version that are left.
    pub(super) old_reports_left: u8,
    pub(super) answer: Option<Pending>,
}

/// An answer to a query about this group that is not given yet.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) at: Instant,
    /// The sources that were asked for; none for the whole group.
    pub(super) sources: BTreeSet<IpAddr>,
}

impl Membership {
    /// Replaces the filter, and has the difference reported `times` times (RFC 3376 §5.1).
    pub(super) fn change(&mut self, filter: Filter, times: u8) {
        let before = std::mem::replace(&mut self.filter, filter);
        match (&before, &self.filter) {
            (Filter::Include(old), Filter::Include(new)) | (Filter::Exclude(old), Filter::Exclude(new)) => {
                self.sources_left.extend(old.symmetric_difference(new).map(|source| (*source, times)));
            }
            (Filter::Include(_), Filter::Exclude(_)) | (Filter::Exclude(_), Filter::Include(_)) => {
                self.mode_left = times;
                // The whole list is told with the mode.
                self.sources_left.clear();
            }
        }
    }

    /// The records of one State-Change Report; the counters go down by one.
    ///
    /// Every such report counts for every source: with a filter mode all sources are told.
    pub(super) fn take_changes(&mut self, group: IpAddr) -> Vec<Record> {
        let record = |kind, sources: Vec<IpAddr>| Record { kind, group, sources };
        let records = if self.mode_left > 0 {
            self.mode_left -= 1;
            let kind = if self.filter.is_exclude() { RecordType::ChangeToExclude } else { RecordType::ChangeToInclude };
            vec![record(kind, self.filter.sources().iter().copied().collect())]
        } else {
            let (allowed, blocked): (Vec<_>, Vec<_>) =
                self.sources_left.keys().partition(|source| self.filter.admits(**source));
            [record(RecordType::AllowNewSources, allowed), record(RecordType::BlockOldSources, blocked)]
                .into_iter()
                .filter(|record| !record.sources.is_empty())
                .collect()
        };
        self.sources_left.retain(|_, left| {
            *left -= 1;
            *left > 0
        });
        records
    }

    /// Whether a change is still to be reported.
    pub(super) fn has_changes(&self) -> bool {
        self.mode_left > 0 || !self.sources_left.is_empty()
    }

    /// Whether there is nothing left to know or to say.
    pub(super) fn is_over(&self) -> bool {
        self.filter.is_nothing() && !self.has_changes()
    }

    /// Whoever is there now speaks another version (RFC 3376 §7.2.1).
    pub(super) fn cancel(&mut self) {
        self.mode_left = 0;
        self.sources_left.clear();
        self.old_reports_left = 0;
        self.answer = None;
    }

    /// A Current-State Record, when there is anything to tell.
    pub(super) fn current_state(&self, group: IpAddr) -> Option<Record> {
        let kind = if self.filter.is_exclude() { RecordType::ModeIsExclude } else { RecordType::ModeIsInclude };
        let sources = self.filter.sources().iter().copied().collect();
        (!self.filter.is_nothing()).then_some(Record { kind, group, sources })
    }

    /// The answer to what was asked (RFC 3376 §5.2, rules 2 and 3 of the second list).
    pub(super) fn answer(&self, group: IpAddr, asked: &BTreeSet<IpAddr>) -> Option<Record> {
        if asked.is_empty() {
            return self.current_state(group);
        }
        let sources: Vec<IpAddr> = asked.iter().filter(|source| self.filter.admits(**source)).copied().collect();
        (!sources.is_empty()).then_some(Record { kind: RecordType::ModeIsInclude, group, sources })
    }
}
