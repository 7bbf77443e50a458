//! Native memberships for what all endpoints together want: the kernel's host side of IGMP and MLD says it to the network.
//!
//! Sockets that receive nothing hold the memberships. The kernel's limits, 20 groups a socket and 10 sources a group and socket,
//! end a socket, not a filter: sources of INCLUDE spread over as many sockets as it takes. EXCLUDE lists of two sockets would
//! intersect, so one socket holds such a filter, and a list longer than the limit becomes EXCLUDE {}: the tunnels have their own
//! filters.
//!
//! ```text
//!   232.1.1.1 INCLUDE {1..12}   socket 0: sources 1..10     socket 1: sources 11, 12
//!   239.1.1.1 EXCLUDE {1}       socket 0: all but 1         239.1.1.2 EXCLUDE {1..11}   socket 0: all
//! ```
//! A change joins what is new before it leaves what is old: no packet is missed in between.

use super::filter::SourceFilter;
use castgate_udp::{GROUPS_PER_SOCKET_MAX, SOURCES_PER_GROUP_MAX, UdpSocket};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// The memberships and the sockets that hold them.
#[derive(Debug, Default)]
pub(crate) struct Natives {
    interfaces: BTreeMap<u32, String>,
    wanted: BTreeMap<IpAddr, SourceFilter>,
    held: BTreeMap<Place, Vec<Holding>>,
    slots: Vec<Option<Slot>>,
    refused: BTreeSet<Place>,
}

/// A group on an interface.
type Place = (IpAddr, u32);

/// What one socket holds of a group on an interface: a list that is never empty, or all but a list.
#[derive(Debug)]
struct Holding {
    slot: usize,
    is_exclude: bool,
    sources: Vec<IpAddr>,
}

#[derive(Debug)]
struct Slot {
    socket: UdpSocket,
    is_ipv6: bool,
    places: usize,
}

/// A membership that the kernel refused for the first time.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) group: IpAddr,
    pub(crate) interface: String,
    pub(crate) error: io::Error,
}

impl Natives {
    /// Holds `filter` for the group on every interface, in place of what was held.
    pub(crate) fn set(&mut self, group: IpAddr, filter: Option<SourceFilter>, on_refusal: &mut dyn FnMut(Refused)) {
        let filter = filter.filter(|filter| !filter.is_nothing());
        if self.wanted.get(&group) == filter.as_ref() {
            return;
        }
        match filter {
            Some(filter) => self.wanted.insert(group, filter),
            None => self.wanted.remove(&group),
        };
        for interface in self.interfaces.keys().copied().collect::<Vec<_>>() {
            self.follow((group, interface), on_refusal);
        }
    }

    /// Holds everything on these interfaces and on no other.
    pub(crate) fn set_interfaces(
        &mut self,
        interfaces: impl Iterator<Item = (u32, String)>,
        on_refusal: &mut dyn FnMut(Refused),
    ) {
        let before = std::mem::replace(&mut self.interfaces, interfaces.collect());
        let left = before.keys().filter(|index| !self.interfaces.contains_key(index));
        let new = self.interfaces.keys().filter(|index| !before.contains_key(index));
        let changed: Vec<u32> = left.chain(new).copied().collect();
        let groups: Vec<IpAddr> = self.wanted.keys().copied().collect();
        for interface in changed {
            for group in &groups {
                self.follow((*group, interface), on_refusal);
            }
        }
    }

    pub(crate) fn has_refusals(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Tries again what was refused.
    pub(crate) fn retry(&mut self) {
        for place in self.refused.iter().copied().collect::<Vec<_>>() {
            if self.apply(place).is_ok() {
                self.refused.remove(&place);
            }
        }
    }

    /// What the kernel holds now: group, name of the interface, and the filter.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = (IpAddr, String, SourceFilter)> + '_ {
        self.held.iter().map(|((group, interface), holdings)| {
            let name = self.interfaces.get(interface).cloned().unwrap_or_else(|| interface.to_string());
            let filter = match holdings.iter().find(|holding| holding.is_exclude) {
                Some(holding) => SourceFilter::exclude(holding.sources.iter().copied()),
                None => SourceFilter::include(holdings.iter().flat_map(|holding| holding.sources.iter().copied())),
            };
            (*group, name, filter)
        })
    }

    fn follow(&mut self, place: Place, on_refusal: &mut dyn FnMut(Refused)) {
        match self.apply(place) {
            Ok(()) => {
                self.refused.remove(&place);
            }
            Err(error) => {
                if self.refused.insert(place) {
                    let interface = self.interfaces.get(&place.1).cloned().unwrap_or_default();
                    on_refusal(Refused { group: place.0, interface, error });
                }
            }
        }
    }

    /// Makes what is held for a place what is wanted there. After an error some of it is, and calling again goes on.
    fn apply(&mut self, place: Place) -> io::Result<()> {
        let wanted = self.wanted.get(&place.0).filter(|_| self.interfaces.contains_key(&place.1)).cloned();
        let joined = match &wanted {
            None => Ok(()),
            Some(SourceFilter::Include(sources)) => self.include(place, sources),
            Some(SourceFilter::Exclude(sources)) if sources.len() > SOURCES_PER_GROUP_MAX => self.exclude(place, &[]),
            Some(SourceFilter::Exclude(sources)) => self.exclude(place, sources),
        };
        // What could not be joined is no reason to keep what is not wanted, but for a filter that takes its place.
        if joined.is_ok() {
            self.leave_others(place, wanted.as_ref());
        }
        joined
    }

    fn include(&mut self, place: Place, sources: &[IpAddr]) -> io::Result<()> {
        let held: BTreeSet<IpAddr> = self
            .holdings(place)
            .filter(|holding| !holding.is_exclude)
            .flat_map(|holding| holding.sources.iter().copied())
            .collect();
        for source in sources.iter().filter(|source| !held.contains(source)) {
            self.join_source(place, *source)?;
        }
        Ok(())
    }

    fn join_source(&mut self, place: Place, source: IpAddr) -> io::Result<()> {
        let (group, interface) = place;
        let has_room = |holding: &&mut Holding| !holding.is_exclude && holding.sources.len() < SOURCES_PER_GROUP_MAX;
        let holdings = self.held.get_mut(&place).into_iter().flatten();
        if let Some(holding) = { holdings }.find(has_room) {
            let slot = self.slots[holding.slot].as_ref().expect("a holding has a socket");
            slot.socket.join(group, Some(source), interface)?;
            holding.sources.push(source);
            return Ok(());
        }
        self.open(place, false, |socket| socket.join(group, Some(source), interface))?.push(source);
        Ok(())
    }

    fn exclude(&mut self, place: Place, sources: &[IpAddr]) -> io::Result<()> {
        let (group, interface) = place;
        if !self.holdings(place).any(|holding| holding.is_exclude) {
            self.open(place, true, |socket| socket.join(group, None, interface))?;
        }
        let holding = self.held.get_mut(&place).and_then(|holdings| holdings.iter_mut().find(|one| one.is_exclude));
        let holding = holding.expect("there was one, or it was opened above");
        let socket = &self.slots[holding.slot].as_ref().expect("a holding has a socket").socket;
        for blocked in holding.sources.clone() {
            if !sources.contains(&blocked) {
                socket.unblock(group, blocked, interface)?;
                holding.sources.retain(|source| *source != blocked);
            }
        }
        for source in sources {
            if !holding.sources.contains(source) {
                socket.block(group, *source, interface)?;
                holding.sources.push(*source);
            }
        }
        Ok(())
    }

    /// A new holding in a socket that has none of this place, and room.
    fn open(
        &mut self,
        place: Place,
        is_exclude: bool,
        join: impl Fn(&UdpSocket) -> io::Result<()>,
    ) -> io::Result<&mut Vec<IpAddr>> {
        let is_ipv6 = place.0.is_ipv6();
        let taken: Vec<usize> = self.holdings(place).map(|holding| holding.slot).collect();
        let fits = |(number, slot): &(usize, &Option<Slot>)| {
            slot.as_ref().is_some_and(|slot| slot.is_ipv6 == is_ipv6 && slot.places < GROUPS_PER_SOCKET_MAX)
                && !taken.contains(number)
        };
        let found = self.slots.iter().enumerate().find(fits).map(|(number, _)| number);
        let number = if let Some(number) = found {
            number
        } else {
            let socket = UdpSocket::for_memberships(place.0)?;
            let number = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            self.slots[number] = Some(Slot { socket, is_ipv6, places: 0 });
            number
        };
        let slot = self.slots[number].as_mut().expect("found or opened above");
        let joined = join(&slot.socket);
        if joined.is_ok() {
            slot.places += 1;
        }
        if slot.places == 0 {
            self.slots[number] = None;
        }
        joined?;
        let holdings = self.held.entry(place).or_default();
        holdings.push(Holding { slot: number, is_exclude, sources: Vec::new() });
        Ok(&mut holdings.last_mut().expect("just pushed").sources)
    }

    fn leave_others(&mut self, place: Place, wanted: Option<&SourceFilter>) {
        let (group, interface) = place;
        let Some(holdings) = self.held.get_mut(&place) else { return };
        for holding in holdings.iter_mut() {
            let slot = self.slots[holding.slot].as_mut().expect("a holding has a socket");
            // The one failure there is: the interface is gone, and the membership with it.
            let is_left = if holding.is_exclude {
                let stays = matches!(wanted, Some(SourceFilter::Exclude(_)));
                if !stays {
                    let _left_or_gone = slot.socket.leave(group, None, interface);
                }
                !stays
            } else {
                let keep = |source: &IpAddr| {
                    matches!(wanted, Some(SourceFilter::Include(_))) && wanted.is_some_and(|it| it.admits(*source))
                };
                for source in holding.sources.iter().filter(|source| !keep(source)) {
                    let _left_or_gone = slot.socket.leave(group, Some(*source), interface);
                }
                holding.sources.retain(keep);
                holding.sources.is_empty()
            };
            if is_left {
                slot.places -= 1;
                holding.sources.clear();
                holding.is_exclude = false;
            }
            if slot.places == 0 {
                self.slots[holding.slot] = None;
            }
        }
        holdings.retain(|holding| holding.is_exclude || !holding.sources.is_empty());
        if holdings.is_empty() {
            self.held.remove(&place);
        }
    }

    fn holdings(&self, place: Place) -> impl Iterator<Item = &Holding> {
        self.held.get(&place).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests;
