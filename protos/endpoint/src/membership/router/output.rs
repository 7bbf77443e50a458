//! What a router tells its driver, and what it shows of itself.

use super::super::{Compatibility, Filter};
use castgate_wire::membership::Query;
use std::net::IpAddr;
use std::time::Instant;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Something else is to be forwarded to the link (RFC 3376 §6.3).
    Changed {
        /// The group.
        group: IpAddr,
        /// What is wanted of it from now on; `None` for nothing.
        filter: Option<Filter>,
    },
    /// Send this query about one group to the link (RFC 3376 §6.6.3). Never with [`super::LeaveMode::Immediate`].
    Query(Query),
}

/// One group as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReport {
    /// The group.
    pub group: IpAddr,
    /// What is forwarded.
    pub filter: Filter,
    /// In EXCLUDE mode, when the group timer ends it.
    pub exclude_until: Option<Instant>,
    /// All source records, with the end of their timers; `None` for a timer at zero.
    pub sources: Vec<(IpAddr, Option<Instant>)>,
    /// The oldest version in use (RFC 3376 §7.3.2, RFC 3810 §8.3.2).
    pub compatibility: Compatibility,
    /// Who reported it last.
    pub reporter: IpAddr,
}

/// Why something that was reported was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// An MLD message from an address that is not link-local (RFC 3810 §5.2.13).
    Stranger,
    /// The group is no multicast address, or never leaves its link.
    UnfitGroup,
    /// A source is not the address of a host, or of another family than its group.
    UnfitSource,
    /// There are as many groups as there may be.
    GroupsMax,
    /// The group has as many sources as it may have; counted for each source.
    SourcesMax,
    /// The record type has no meaning (RFC 3376 §4.2.12).
    UnknownType,
    /// Hosts of older versions are not heard, by configuration.
    OlderHost,
    /// Hosts of older versions are there: the record can not be obeyed (RFC 3376 §7.3.2).
    Incompatible,
}

impl Refusal {
    /// Every refusal, in the order of the counters.
    pub const ALL: [Self; 8] = [
        Self::Stranger,
        Self::UnfitGroup,
        Self::UnfitSource,
        Self::GroupsMax,
        Self::SourcesMax,
        Self::UnknownType,
        Self::OlderHost,
        Self::Incompatible,
    ];

    /// The refusal as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::UnfitGroup => "unfit_group",
            Self::UnfitSource => "unfit_source",
            Self::GroupsMax => "groups_max",
            Self::SourcesMax => "sources_max",
            Self::UnknownType => "unknown_type",
            Self::OlderHost => "older_host",
            Self::Incompatible => "incompatible",
        }
    }
}

/// Counts since the router was made; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Records that were heard; a report of an older version is one.
    pub records: u64,
    /// Queries about groups that were sent.
    pub queries: u64,
    /// Changes of what is forwarded.
    pub changes: u64,
    refused: [u64; Refusal::ALL.len()],
}

impl Counters {
    /// How often this happened.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize]
    }

    /// All refusals with their counts.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().zip(self.refused)
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refuse_many(refusal, 1);
    }

    pub(super) fn refuse_many(&mut self, refusal: Refusal, times: usize) {
        self.refused[refusal as usize] += times as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_place_and_label() {
        for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, place);
        }
        let labels: std::collections::BTreeSet<_> = Refusal::ALL.map(Refusal::label).into();
        assert_eq!(labels.len(), Refusal::ALL.len());
    }
}
