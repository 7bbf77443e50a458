//! Memberships of one worker: which sockets take in which channels.
//!
//! A socket is bound to one group and port and takes either everything (any-source) or what its sources send
//! (source-specific). The kernel's limits, 20 memberships a socket and 10 sources a group and socket, end a socket, not a
//! channel: the next membership opens another. Two sockets never hold the same membership, so nothing arrives twice.
//!
//! ```text
//!   232.1.1.1:5004   socket: sources 1..10     232.1.1.1:5004   socket: sources 11, 12
//!   239.1.1.1:5004   socket: any source        239.1.1.2:5004   socket: any source
//! ```

use crate::settings::Interface;
use castgate_udp::ready::Poller;
use castgate_udp::{GROUPS_PER_SOCKET_MAX, Options, SOURCES_PER_GROUP_MAX, UdpSocket};
use castgate_wire::umtp::Channel;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// The ingress of one worker. Its sockets are known to the poller by their slot plus `first_token`.
#[derive(Debug)]
pub(crate) struct Ingress {
    first_token: u64,
    receive_buffer_bytes: usize,
    slots: Vec<Option<IngressSocket>>,
    /// Where each membership that works is held.
    held: BTreeMap<Membership, usize>,
    /// What the kernel refused and somebody still wants.
    refused: BTreeSet<Membership>,
}

/// One channel on one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Membership {
    pub(crate) channel: Channel,
    pub(crate) interface: u32,
}

/// A socket of the ingress.
#[derive(Debug)]
pub(crate) struct IngressSocket {
    pub(crate) socket: UdpSocket,
    group: Ipv4Addr,
    port: u16,
    source_specific: bool,
    /// Sources (none in an any-source socket) and interfaces.
    memberships: Vec<(Option<Ipv4Addr>, u32)>,
    /// What the kernel said last about datagrams lost in the receive buffer.
    overflow: u32,
}

/// A membership that the kernel refused for the first time.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) membership: Membership,
    pub(crate) error: io::Error,
}

impl Ingress {
    pub(crate) fn new(first_token: u64, receive_buffer_bytes: usize) -> Self {
        Self { first_token, receive_buffer_bytes, slots: Vec::new(), held: BTreeMap::new(), refused: BTreeSet::new() }
    }

    /// The socket that a token of the poller stands for, if it is still there.
    pub(crate) fn by_token(&mut self, token: u64) -> Option<&mut IngressSocket> {
        let slot = usize::try_from(token.checked_sub(self.first_token)?).ok()?;
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Takes `channel` in on all `interfaces` and on no other, or with `wanted` off nowhere.
    pub(crate) fn set<'a>(
        &mut self,
        poller: &Poller,
        channel: Channel,
        wanted: bool,
        interfaces: impl Iterator<Item = &'a Interface>,
        on_refusal: &mut impl FnMut(Refusal),
    ) {
        let targets: BTreeSet<u32> = interfaces.filter(|_| wanted).map(|interface| interface.index).collect();
        self.refused.retain(|refused| refused.channel != channel || targets.contains(&refused.interface));
        let first = Membership { channel, interface: u32::MIN };
        let last = Membership { channel, interface: u32::MAX };
        let held = self.held.range(first..=last).map(|(membership, _)| *membership);
        let left: Vec<_> = held.filter(|held| !targets.contains(&held.interface)).collect();
        for membership in left {
            self.leave(membership);
        }
        for interface in targets {
            let membership = Membership { channel, interface };
            if self.held.contains_key(&membership) {
                continue;
            }
            if let Err(error) = self.join(poller, membership)
                && self.refused.insert(membership)
            {
                on_refusal(Refusal { membership, error });
            }
        }
    }

    /// The channels that are taken in or that the kernel refused.
    pub(crate) fn channels(&self) -> BTreeSet<Channel> {
        self.held.keys().chain(&self.refused).map(|membership| membership.channel).collect()
    }

    /// What is taken in now.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = Membership> + '_ {
        self.held.keys().copied()
    }

    pub(crate) fn has_refusals(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Tries again what was refused; whether anything works now that did not.
    pub(crate) fn retry(&mut self, poller: &Poller) -> bool {
        let again: Vec<_> = self.refused.iter().copied().collect();
        let before = self.refused.len();
        for membership in again {
            if self.join(poller, membership).is_ok() {
                self.refused.remove(&membership);
            }
        }
        self.refused.len() < before
    }

    fn join(&mut self, poller: &Poller, membership: Membership) -> io::Result<()> {
        let Membership { channel, interface } = membership;
        let slot = match self.slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.has_room(membership)))
        {
            Some(slot) => slot,
            None => self.open(poller, channel)?,
        };
        let member = self.slots[slot].as_mut().expect("found or opened above");
        let joined = member.socket.join(channel.group.into(), channel.source.map(IpAddr::V4), interface);
        if joined.is_ok() {
            member.memberships.push((channel.source, interface));
            self.held.insert(membership, slot);
        }
        self.close_if_unused(slot);
        joined
    }

    fn leave(&mut self, membership: Membership) {
        let Some(slot) = self.held.remove(&membership) else { return };
        let member = self.slots[slot].as_mut().expect("a held membership has a socket");
        let Membership { channel, interface } = membership;
        member.memberships.retain(|held| *held != (channel.source, interface));
        // The one failure there is: the interface is gone, and the membership with it.
        let _left_or_gone = member.socket.leave(channel.group.into(), channel.source.map(IpAddr::V4), interface);
        self.close_if_unused(slot);
    }

    fn open(&mut self, poller: &Poller, channel: Channel) -> io::Result<usize> {
        let options = Options {
            // Other programs of this host may take the same channel.
            reuse_address: true,
            reuse_port: true,
            receive_buffer_bytes: Some(self.receive_buffer_bytes),
            receive_ttl: true,
            count_overflow: true,
            ..Options::new(SocketAddrV4::new(channel.group, channel.port))
        };
        let socket = UdpSocket::bind(&options)?;
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        poller.add(&socket, self.first_token + slot as u64)?;
        self.slots[slot] = Some(IngressSocket {
            socket,
            group: channel.group,
            port: channel.port,
            source_specific: channel.source.is_some(),
            memberships: Vec::new(),
            overflow: 0,
        });
        Ok(slot)
    }

    fn close_if_unused(&mut self, slot: usize) {
        // Closing takes it out of the poller too.
        self.slots[slot].take_if(|member| member.memberships.is_empty());
    }
}

impl IngressSocket {
    /// The channel of a datagram from `source` at this socket.
    pub(crate) fn channel_of(&self, source: Ipv4Addr) -> Channel {
        let source = self.source_specific.then_some(source);
        Channel { group: self.group, source, port: self.port }
    }

    pub(crate) fn is_source_specific(&self) -> bool {
        self.source_specific
    }

    /// How many datagrams were lost since the last call, given the kernel's running total.
    pub(crate) fn lost_since(&mut self, overflow: Option<u32>) -> u32 {
        let now = overflow.unwrap_or(self.overflow);
        let lost = now.wrapping_sub(self.overflow);
        self.overflow = now;
        lost
    }

    fn has_room(&self, membership: Membership) -> bool {
        let Membership { channel, interface } = membership;
        let Channel { group, source, port } = channel;
        if (self.group, self.port, self.source_specific) != (group, port, source.is_some()) {
            return false;
        }
        let on_interface = self.memberships.iter().filter(|(_, index)| *index == interface).count();
        let interfaces: BTreeSet<_> = self.memberships.iter().map(|(_, index)| index).collect();
        let per_interface_max = if self.source_specific { SOURCES_PER_GROUP_MAX } else { 1 };
        on_interface < per_interface_max && (on_interface > 0 || interfaces.len() < GROUPS_PER_SOCKET_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ipv4Addr = Ipv4Addr::new(232, 88, 1, 1);
    const PORT: u16 = 47_001;

    #[test]
    fn twelve_sources_take_two_sockets_and_give_them_back() {
        let mut lab = Lab::new();
        for host in 1..=12 {
            lab.set(specific(host), true);
        }
        assert_eq!((lab.ingress.held.len(), lab.sockets()), (12, 2));
        for host in 1..=11 {
            lab.set(specific(host), false);
        }
        assert_eq!((lab.ingress.held.len(), lab.sockets()), (1, 1));
        lab.set(specific(12), false);
        assert_eq!((lab.ingress.held.len(), lab.sockets()), (0, 0));
    }

    #[test]
    fn any_source_and_one_source_of_a_group_do_not_share_a_socket() {
        let mut lab = Lab::new();
        lab.set(specific(1), true);
        lab.set(Channel::any_source(GROUP, PORT), true);
        assert_eq!(lab.sockets(), 2);
    }

    #[test]
    fn a_refused_membership_is_told_once_and_tried_again() {
        let mut lab = Lab::new();
        lab.interfaces.push(Interface { name: "gone".into(), index: 1_000_000, address: Ipv4Addr::LOCALHOST });
        lab.set(specific(1), true);
        lab.set(specific(1), true);
        assert_eq!(lab.refusals.len(), 1);
        assert_eq!(lab.refusals[0].membership.interface, 1_000_000);
        assert!(!lab.ingress.retry(&lab.poller) && lab.ingress.has_refusals());
        lab.set(specific(1), false);
        assert!(!lab.ingress.has_refusals());
    }

    #[test]
    fn an_interface_more_or_less_changes_only_its_memberships() {
        let mut lab = Lab::new();
        lab.set(specific(1), true);
        lab.interfaces.clear();
        lab.set(specific(1), true);
        assert_eq!((lab.ingress.held.len(), lab.sockets()), (0, 0));
    }

    #[test]
    fn losses_are_told_as_differences_and_survive_a_wrap() {
        let mut lab = Lab::new();
        lab.set(specific(1), true);
        let socket = lab.ingress.by_token(FIRST_TOKEN).unwrap();
        assert_eq!(socket.lost_since(None), 0);
        assert_eq!(socket.lost_since(Some(u32::MAX)), u32::MAX);
        assert_eq!(socket.lost_since(Some(2)), 3);
        assert_eq!(socket.lost_since(None), 0);
        assert!(lab.ingress.by_token(0).is_none() && lab.ingress.by_token(FIRST_TOKEN + 1).is_none());
    }

    const FIRST_TOKEN: u64 = 2;

    struct Lab {
        poller: Poller,
        ingress: Ingress,
        interfaces: Vec<Interface>,
        refusals: Vec<Refusal>,
    }

    impl Lab {
        fn new() -> Self {
            let loopback = Interface { name: "lo".into(), index: 1, address: Ipv4Addr::LOCALHOST };
            Self {
                poller: Poller::new().unwrap(),
                ingress: Ingress::new(FIRST_TOKEN, 1 << 16),
                interfaces: vec![loopback],
                refusals: Vec::new(),
            }
        }

        fn set(&mut self, channel: Channel, wanted: bool) {
            let Self { poller, ingress, interfaces, refusals } = self;
            ingress.set(poller, channel, wanted, interfaces.iter(), &mut |refusal| refusals.push(refusal));
        }

        fn sockets(&self) -> usize {
            self.ingress.slots.iter().flatten().count()
        }
    }

    fn specific(host: u8) -> Channel {
        Channel::source_specific(Ipv4Addr::new(127, 88, 0, host), GROUP, PORT)
    }
}
