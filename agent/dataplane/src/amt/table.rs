//! The forwarding table's part for AMT: which endpoints want which sources of which groups.
//!
//! ```text
//!   Table ── endpoints ── remote ──▶ EndpointEntry { Endpoint, way, its filters }
//!        └── groups ───── group ───▶ GroupEntry ── of worker 0 ── source ──▶ legs      (INCLUDE)
//!                                               │              └─ legs, each but some sources   (EXCLUDE)
//!                                               └─ of worker n ── ..
//! ```

use super::filter::SourceFilter;
use super::listen;
use crate::counters::{FlowCells, TrafficCell};
use crate::events::Share;
use crate::table::TableBuilder;
use castgate_udp::shard_of;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize};

/// What all tables and legs share of one endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) remote: SocketAddr,
    /// Longest datagram that the way to it takes in a message of several; a refusal lowers it.
    pub(crate) segment_bytes_max: AtomicUsize,
    /// The longest packet that goes to it in one piece; 0 before anybody asked.
    pub(crate) mtu: AtomicUsize,
    /// The second, since the start of the dataplane, of the last look at it.
    pub(crate) mtu_second: AtomicU32,
    /// Its events that wait for the control thread.
    pub(crate) share: Arc<Share>,
    pub(crate) sent: TrafficCell,
}

/// An endpoint, by its address and port.
#[derive(Debug, Clone)]
pub(crate) struct EndpointEntry {
    pub(crate) leg: AmtLeg,
    pub(crate) local: SocketAddr,
    pub(crate) filters: HashMap<IpAddr, SourceFilter>,
}

/// One way for a group to go.
#[derive(Debug, Clone)]
pub(crate) struct AmtLeg {
    pub(crate) endpoint: Arc<Endpoint>,
    /// Place of the socket in the list of listeners.
    pub(crate) listener: usize,
    /// Which of our addresses it comes from, if the socket has several.
    pub(crate) from: Option<IpAddr>,
    /// It decapsulates ECN by RFC 6040.
    pub(crate) ecn: bool,
}

/// A group, by its address.
#[derive(Debug, Clone)]
pub(crate) struct GroupEntry {
    /// By worker.
    pub(crate) members: Vec<Arc<GroupMembers>>,
    pub(crate) flows: Arc<FlowCells>,
}

/// The endpoints of one worker that want something of a group.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupMembers {
    include: HashMap<IpAddr, Arc<Vec<AmtLeg>>>,
    exclude: Vec<ExcludeLeg>,
}

#[derive(Debug, Clone)]
struct ExcludeLeg {
    leg: AmtLeg,
    sources: Arc<[IpAddr]>,
}

/// The legs for one source of a group. Places count from 0 and are not all taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Legs<'a> {
    include: &'a [AmtLeg],
    exclude: &'a [ExcludeLeg],
    source: IpAddr,
}

impl TableBuilder {
    /// An endpoint was proven. `local` is our address that it speaks to, as [`Event::Amt`](crate::Event::Amt) names it: what it
    /// gets comes from there. With `ecn` it decapsulates by RFC 6040. One that is there keeps its filters and takes the rest.
    pub fn endpoint_up(&mut self, remote: SocketAddr, local: SocketAddr, ecn: bool) {
        let Some((listener, from)) = listen::find(&self.listeners, local) else {
            tracing::warn!(%remote, %local, "an endpoint speaks to no address of ours");
            return;
        };
        let filters = match self.table.endpoints.get(&remote) {
            Some(entry) if (entry.local, entry.leg.ecn) == (local, ecn) => return,
            Some(entry) => entry.filters.clone(),
            None => HashMap::new(),
        };
        let endpoint = self.table.endpoints.get(&remote).map(|entry| Arc::clone(&entry.leg.endpoint));
        self.endpoint_down(remote);
        let endpoint = endpoint.unwrap_or_else(|| Arc::new(Endpoint::new(remote)));
        let leg = AmtLeg { endpoint, listener, from, ecn };
        let entry = EndpointEntry { leg, local, filters: HashMap::new() };
        self.table.endpoints.insert(remote, Arc::new(entry));
        for (group, filter) in filters {
            self.filter(remote, group, Some(filter));
        }
    }

    /// An endpoint is gone, and with it all its filters.
    pub fn endpoint_down(&mut self, remote: SocketAddr) {
        if let Some(entry) = self.table.endpoints.remove(&remote) {
            for (group, filter) in &entry.filters {
                self.edit_group(&entry.leg, *group, Some(filter), None);
            }
        }
    }

    /// From now on, packets of `group` go to this endpoint whose source `filter` admits; without one none do.
    pub fn filter(&mut self, remote: SocketAddr, group: IpAddr, filter: Option<SourceFilter>) {
        let filter = filter.filter(|filter| !filter.is_nothing());
        let Some(entry) = self.table.endpoints.get_mut(&remote) else { return };
        if entry.filters.get(&group) == filter.as_ref() {
            return;
        }
        let entry = Arc::make_mut(entry);
        let before = match filter.clone() {
            Some(filter) => entry.filters.insert(group, filter),
            None => entry.filters.remove(&group),
        };
        let leg = entry.leg.clone();
        self.edit_group(&leg, group, before.as_ref(), filter.as_ref());
    }

    fn edit_group(&mut self, leg: &AmtLeg, group: IpAddr, before: Option<&SourceFilter>, after: Option<&SourceFilter>) {
        let workers = self.table.workers;
        let shard = shard_of(leg.endpoint.remote.ip(), workers);
        let entry = self.table.groups.get_or_insert_with(group, || Arc::new(GroupEntry::new(workers)));
        let entry = Arc::make_mut(entry);
        let members = Arc::make_mut(&mut entry.members[shard]);
        if let Some(before) = before {
            members.remove(leg, before, after);
        }
        if let Some(after) = after {
            members.add(leg, before, after);
        }
        let legs = &mut self.table.amt_legs[shard];
        *legs = *legs + usize::from(after.is_some()) - usize::from(before.is_some());
        if entry.is_empty() {
            self.table.groups.remove(&group);
        }
    }
}

impl Endpoint {
    pub(crate) fn new(remote: SocketAddr) -> Self {
        Self {
            remote,
            segment_bytes_max: AtomicUsize::new(usize::MAX),
            mtu: AtomicUsize::new(0),
            mtu_second: AtomicU32::new(0),
            share: Arc::default(),
            sent: TrafficCell::default(),
        }
    }
}

impl GroupEntry {
    fn new(workers: NonZeroUsize) -> Self {
        let nobody = Arc::new(GroupMembers::default());
        Self { members: vec![nobody; workers.get()], flows: Arc::default() }
    }

    fn is_empty(&self) -> bool {
        self.members.iter().all(|members| members.is_empty())
    }

    /// The worker that counts the native packets of this source, of all those that forward them.
    pub(crate) fn counting_worker(&self, source: IpAddr) -> Option<usize> {
        self.members.iter().position(|members| members.legs(source).iter().next().is_some())
    }

    /// Endpoints with a filter for it.
    pub(crate) fn endpoints(&self) -> usize {
        self.members.iter().map(|members| members.endpoints()).sum()
    }
}

impl GroupMembers {
    /// Who wants packets of this source.
    pub(crate) fn legs(&self, source: IpAddr) -> Legs<'_> {
        let include = self.include.get(&source).map_or(&[][..], |legs| legs);
        Legs { include, exclude: &self.exclude, source }
    }

    fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    fn endpoints(&self) -> usize {
        let included: std::collections::HashSet<SocketAddr> =
            self.include.values().flat_map(|legs| legs.iter().map(|leg| leg.endpoint.remote)).collect();
        included.len() + self.exclude.len()
    }

    /// Takes the leg out wherever `before` put it and `after` will not.
    fn remove(&mut self, leg: &AmtLeg, before: &SourceFilter, after: Option<&SourceFilter>) {
        let remote = leg.endpoint.remote;
        match before {
            SourceFilter::Include(sources) => {
                for source in sources.iter().filter(|source| !stays(after, **source)) {
                    let Some(legs) = self.include.get_mut(source) else { continue };
                    let legs_of_source = Arc::make_mut(legs);
                    if let Some(place) = legs_of_source.iter().position(|leg| leg.endpoint.remote == remote) {
                        legs_of_source.swap_remove(place);
                    }
                    if legs_of_source.is_empty() {
                        self.include.remove(source);
                    }
                }
            }
            SourceFilter::Exclude(_) => {
                if let Some(place) = self.exclude.iter().position(|other| other.leg.endpoint.remote == remote) {
                    self.exclude.swap_remove(place);
                }
            }
        }
    }

    /// Puts the leg wherever `after` wants it and `before` has not.
    fn add(&mut self, leg: &AmtLeg, before: Option<&SourceFilter>, after: &SourceFilter) {
        match after {
            SourceFilter::Include(sources) => {
                for source in sources.iter().filter(|source| !stays(before, **source)) {
                    Arc::make_mut(self.include.entry(*source).or_default()).push(leg.clone());
                }
            }
            SourceFilter::Exclude(sources) => {
                self.exclude.push(ExcludeLeg { leg: leg.clone(), sources: Arc::clone(sources) });
            }
        }
    }
}

/// Whether a leg of this source is there by the other filter too.
fn stays(other: Option<&SourceFilter>, source: IpAddr) -> bool {
    matches!(other, Some(SourceFilter::Include(_))) && other.is_some_and(|other| other.admits(source))
}

impl<'a> Legs<'a> {
    /// All of them with their places.
    pub(crate) fn iter(self) -> impl Iterator<Item = (usize, &'a AmtLeg)> {
        let Self { include, exclude, source } = self;
        let included = include.iter().enumerate();
        let excluding = exclude.iter().enumerate();
        let excluding = excluding.filter(move |(_, other)| other.sources.binary_search(&source).is_err());
        included.chain(excluding.map(move |(place, other)| (include.len() + place, &other.leg)))
    }

    /// The leg at a place of [`iter`](Self::iter).
    pub(crate) fn at(&self, place: usize) -> &'a AmtLeg {
        match place.checked_sub(self.include.len()) {
            None => &self.include[place],
            Some(place) => &self.exclude[place].leg,
        }
    }

    /// How many there may be.
    pub(crate) fn len_max(&self) -> usize {
        self.include.len() + self.exclude.len()
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
