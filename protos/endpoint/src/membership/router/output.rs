//! What a router tells its driver, and what it shows of itself.

use super::super::{Compatibility, Filter};
use crate::reasons::{Tally, reasons};
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

reasons! {
    /// Why something that was reported was not done.
    pub enum Refusal {
        /// An MLD message from an address that is not link-local (RFC 3810 §5.2.13).
        Stranger = "stranger",
        /// The group is no multicast address, or never leaves its link.
        UnfitGroup = "unfit_group",
        /// A source is not the address of a host, or of another family than its group.
        UnfitSource = "unfit_source",
        /// There are as many groups as there may be.
        GroupsMax = "groups_max",
        /// The group has as many sources as it may have; counted for each source.
        SourcesMax = "sources_max",
        /// The record type has no meaning (RFC 3376 §4.2.12).
        UnknownType = "unknown_type",
        /// Hosts of older versions are not heard, by configuration.
        OlderHost = "older_host",
        /// Hosts of older versions are there: the record can not be obeyed (RFC 3376 §7.3.2).
        Incompatible = "incompatible",
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
    /// What was not done, by its reason.
    pub refusals: Tally<Refusal, { Refusal::ALL.len() }>,
}
