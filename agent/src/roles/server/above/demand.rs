//! What the clients of a relay want, whatever the tunnel that they ask through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use castgate_endpoint::membership::Filter;
use castgate_endpoint::membership::merge::Merged;
use castgate_wire::umtp::Channel;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asker {
    /// All AMT endpoints together: their relay has merged them.
    Amt,
    /// All UMTP clients together.
    Umtp,
    /// All hosts of a place that channels are delivered to.
    Hosts(usize),
}

/// What is wanted of each group.
#[derive(Debug, Default)]
pub(super) struct Demand {
    filters: Merged<Asker>,
    /// Those whose hosts ever wanted something.
    places: BTreeSet<usize>,
    channels: BTreeMap<Ipv4Addr, BTreeSet<Channel>>,
}

impl Demand {
    /// What all AMT endpoints together want of a group; whether anything is asked for differently now.
    pub(super) fn set_filter(&mut self, group: IpAddr, filter: Option<Filter>) -> bool {
        self.filters.update(Asker::Amt, group, filter)
    }

    /// What hosts want of a group at a place; whether anything is asked for differently now.
    pub(super) fn set_hosts(&mut self, place: usize, group: IpAddr, filter: Option<Filter>) -> bool {
        self.places.insert(place);
        self.filters.update(Asker::Hosts(place), group, filter)
    }

    /// A channel that UMTP clients want; whether anything is asked for differently now.
    pub(super) fn add_channel(&mut self, channel: Channel) -> bool {
        let is_new = self.channels.entry(channel.group).or_default().insert(channel);
        self.settle(channel.group) | is_new
    }

    /// A channel that no UMTP client wants any more; whether anything is asked for differently now.
    pub(super) fn remove_channel(&mut self, channel: Channel) -> bool {
        let Some(of_group) = self.channels.get_mut(&channel.group) else { return false };
        let was_there = of_group.remove(&channel);
        if of_group.is_empty() {
            self.channels.remove(&channel.group);
        }
        self.settle(channel.group) | was_there
    }

    /// What everybody together wants of a group.
    pub(super) fn filter(&self, group: IpAddr) -> Option<&Filter> {
        self.filters.filter(group)
    }

    /// Whether nobody wants anything.
    pub(super) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// The channels that UMTP clients want.
    pub(super) fn channels(&self) -> impl Iterator<Item = Channel> + '_ {
        self.channels.values().flatten().copied()
    }

    /// What is wanted by those who name no ports: all but UMTP clients.
    pub(super) fn without_ports(&self) -> impl Iterator<Item = (IpAddr, &Filter)> {
        let hosts = self.places.iter().map(|place| Asker::Hosts(*place));
        let askers = std::iter::once(Asker::Amt).chain(hosts);
        askers.flat_map(|asker| self.filters.of(&asker).collect::<Vec<_>>())
    }

    /// The ports are for whoever carries packets to the clients: a membership knows none.
    fn settle(&mut self, group: Ipv4Addr) -> bool {
        let of_group = self.channels.get(&group).into_iter().flatten();
        let sources: Option<Vec<IpAddr>> = of_group.map(|channel| channel.source.map(IpAddr::V4)).collect();
        let filter = sources.map_or_else(Filter::everything, Filter::include);
        self.filters.update(Asker::Umtp, group.into(), Some(filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(text: &str) -> Channel {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_kinds_of_clients_ask_together_and_each_takes_back_its_own() {
        let mut demand = Demand::default();
        let (group, one, two) = (address("232.1.2.3"), address("192.0.2.1"), address("192.0.2.2"));
        assert!(demand.add_channel(channel("232.1.2.3@192.0.2.1:5004")));
        assert!(demand.set_filter(group, Some(Filter::include([two]))));
        assert_eq!(demand.filter(group), Some(&Filter::include([one, two])));
        assert!(!demand.set_filter(group, Some(Filter::include([two]))));
        assert!(demand.remove_channel(channel("232.1.2.3@192.0.2.1:5004")));
        assert_eq!(demand.filter(group), Some(&Filter::include([two])));
        assert!(demand.set_filter(group, None));
        assert_eq!(demand.filter(group), None);
        assert!(!demand.remove_channel(channel("232.1.2.3@192.0.2.1:5004")));
    }

    #[test]
    fn two_ports_of_a_group_are_one_membership_and_any_source_covers_all() {
        let mut demand = Demand::default();
        let group = address("239.1.2.3");
        demand.add_channel(channel("239.1.2.3@192.0.2.1:1"));
        demand.add_channel(channel("239.1.2.3@192.0.2.1:2"));
        assert_eq!(demand.filter(group), Some(&Filter::include([address("192.0.2.1")])));
        demand.add_channel(channel("239.1.2.3:3"));
        assert_eq!(demand.filter(group), Some(&Filter::everything()));
        demand.remove_channel(channel("239.1.2.3@192.0.2.1:1"));
        demand.remove_channel(channel("239.1.2.3:3"));
        assert_eq!(demand.filter(group), Some(&Filter::include([address("192.0.2.1")])));
        assert_eq!(demand.channels().collect::<Vec<_>>(), [channel("239.1.2.3@192.0.2.1:2")]);
    }
}
