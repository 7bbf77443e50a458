//! Memberships: which groups, and from which sources, the kernel shall deliver to a socket.

use crate::UdpSocket;
use crate::raw::{GroupRequest, GroupSourceRequest, level_of, set_option};
use std::io;
use std::net::IpAddr;

impl UdpSocket {
    /// Joins `group` on the interface with this index, from `source` only or from anyone.
    ///
    /// # Errors
    /// What the kernel says: `ENOBUFS` beyond [`GROUPS_PER_SOCKET_MAX`](crate::GROUPS_PER_SOCKET_MAX) groups or
    /// [`SOURCES_PER_GROUP_MAX`](crate::SOURCES_PER_GROUP_MAX) sources, `ENODEV` without the interface, `EADDRINUSE` or
    /// `EADDRNOTAVAIL` for what is joined already, `EINVAL` when the group is none.
    pub fn join(&self, group: IpAddr, source: Option<IpAddr>, interface: u32) -> io::Result<()> {
        match source {
            None => self.change_group(libc::MCAST_JOIN_GROUP, group, interface),
            Some(source) => self.change_source(libc::MCAST_JOIN_SOURCE_GROUP, group, source, interface),
        }
    }

    /// Leaves what [`join`](Self::join) joined.
    ///
    /// # Errors
    /// What the kernel says: `EADDRNOTAVAIL` when it was not joined, `ENODEV` when the interface is gone.
    pub fn leave(&self, group: IpAddr, source: Option<IpAddr>, interface: u32) -> io::Result<()> {
        match source {
            None => self.change_group(libc::MCAST_LEAVE_GROUP, group, interface),
            Some(source) => self.change_source(libc::MCAST_LEAVE_SOURCE_GROUP, group, source, interface),
        }
    }

    /// Takes nothing from `source` in a group that was joined from anyone.
    ///
    /// # Errors
    /// What the kernel says: `ENOBUFS` beyond [`SOURCES_PER_GROUP_MAX`](crate::SOURCES_PER_GROUP_MAX) sources, `EINVAL`
    /// when the group was not joined from anyone.
    pub fn block(&self, group: IpAddr, source: IpAddr, interface: u32) -> io::Result<()> {
        self.change_source(libc::MCAST_BLOCK_SOURCE, group, source, interface)
    }

    /// Ends a [`block`](Self::block).
    ///
    /// # Errors
    /// What the kernel says: `EADDRNOTAVAIL` when it was not blocked.
    pub fn unblock(&self, group: IpAddr, source: IpAddr, interface: u32) -> io::Result<()> {
        self.change_source(libc::MCAST_UNBLOCK_SOURCE, group, source, interface)
    }

    fn change_group(&self, option: i32, group: IpAddr, interface: u32) -> io::Result<()> {
        set_option(self, level_of(group), option, &GroupRequest { interface, group: group.into() })
    }

    fn change_source(&self, option: i32, group: IpAddr, source: IpAddr, interface: u32) -> io::Result<()> {
        let request = GroupSourceRequest { interface, group: group.into(), source: source.into() };
        set_option(self, level_of(group), option, &request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::wait_readable;
    use crate::{GROUPS_PER_SOCKET_MAX, MulticastOut, Options, RecvBatch, SOURCES_PER_GROUP_MAX, netns};
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
    use std::time::Duration;

    const LOOPBACK: u32 = 1;

    #[test]
    fn a_source_specific_member_hears_its_source_and_no_other() {
        let group = Ipv4Addr::new(232, 77, 1, 1);
        let (member, port) = listener(group);
        let wanted = sender(Ipv4Addr::new(127, 1, 0, 1));
        let other = sender(Ipv4Addr::new(127, 1, 0, 2));
        member.join(group.into(), Some(Ipv4Addr::new(127, 1, 0, 1).into()), LOOPBACK).unwrap();

        other.send_to(b"no", SocketAddrV4::new(group, port)).unwrap();
        wanted.send_to(b"yes", SocketAddrV4::new(group, port)).unwrap();
        assert_eq!(receive_all(&member), [b"yes".to_vec()]);

        member.leave(group.into(), Some(Ipv4Addr::new(127, 1, 0, 1).into()), LOOPBACK).unwrap();
        wanted.send_to(b"late", SocketAddrV4::new(group, port)).unwrap();
        assert!(receive_all(&member).is_empty());
    }

    #[test]
    fn every_socket_bound_to_the_group_gets_its_own_copy_of_a_datagram() {
        let group = Ipv4Addr::new(239, 77, 1, 2);
        let (first, port) = listener(group);
        let second = listener_at(SocketAddrV4::new(group, port));
        for member in [&first, &second] {
            member.join(group.into(), None, LOOPBACK).unwrap();
        }
        let source = sender(Ipv4Addr::LOCALHOST);
        for datagram in [b"1", b"2", b"3"] {
            source.send_to(datagram, SocketAddrV4::new(group, port)).unwrap();
        }
        // SO_REUSEPORT balances unicast only: workers that share a channel each take it in.
        assert_eq!(receive_all(&first).len(), 3);
        assert_eq!(receive_all(&second).len(), 3);
    }

    #[test]
    fn a_socket_hears_nothing_that_only_others_joined() {
        let group = Ipv4Addr::new(239, 77, 1, 3);
        let (member, port) = listener(group);
        let stranger = listener_at(SocketAddrV4::new(group, port));
        member.join(group.into(), None, LOOPBACK).unwrap();
        sender(Ipv4Addr::LOCALHOST).send_to(b"x", SocketAddrV4::new(group, port)).unwrap();
        assert_eq!(receive_all(&member).len(), 1);
        assert!(receive_all(&stranger).is_empty());
    }

    #[test]
    fn the_limits_are_the_ones_this_crate_states() {
        let (many_groups, _) = listener(Ipv4Addr::UNSPECIFIED);
        let group = |i: usize| IpAddr::from([239, 77, 2, u8::try_from(i).unwrap()]);
        for i in 0..GROUPS_PER_SOCKET_MAX {
            many_groups.join(group(i), None, LOOPBACK).unwrap();
        }
        let refused = many_groups.join(group(GROUPS_PER_SOCKET_MAX), None, LOOPBACK).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOBUFS));

        let (many_sources, _) = listener(Ipv4Addr::UNSPECIFIED);
        let source = |i: usize| Some(IpAddr::from([127, 1, 2, u8::try_from(i + 1).unwrap()]));
        for i in 0..SOURCES_PER_GROUP_MAX {
            many_sources.join(group(0), source(i), LOOPBACK).unwrap();
        }
        let refused = many_sources.join(group(0), source(SOURCES_PER_GROUP_MAX), LOOPBACK).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOBUFS));
    }

    #[test]
    fn a_blocked_source_is_not_heard_until_it_is_unblocked() {
        let group = Ipv4Addr::new(239, 77, 1, 4);
        let (member, port) = listener(group);
        let blocked = Ipv4Addr::new(127, 1, 3, 1);
        member.join(group.into(), None, LOOPBACK).unwrap();
        member.block(group.into(), blocked.into(), LOOPBACK).unwrap();
        let send = |source, payload: &[u8]| sender(source).send_to(payload, SocketAddrV4::new(group, port)).unwrap();
        send(blocked, b"no");
        send(Ipv4Addr::new(127, 1, 3, 2), b"yes");
        assert_eq!(receive_all(&member), [b"yes".to_vec()]);
        member.unblock(group.into(), blocked.into(), LOOPBACK).unwrap();
        send(blocked, b"now");
        assert_eq!(receive_all(&member), [b"now".to_vec()]);
    }

    #[test]
    fn ipv6_groups_are_joined_from_anyone_and_from_one_source() {
        netns::isolated_test(|| {
            netns::ip("-6 route add local ff00::/8 dev lo table local");
            let group = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x77, 1);
            let out = MulticastOut { interface: LOOPBACK, ttl: 1, loopback: true };
            let any_port = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0);
            let source = UdpSocket::bind(&Options { multicast_out: Some(out), ..Options::new(any_port) }).unwrap();
            let wanted = IpAddr::from(Ipv6Addr::LOCALHOST);
            let other = IpAddr::from(Ipv6Addr::from(0x20 << 120));
            for (of, heard) in [(Some(wanted), true), (Some(other), false), (None, true)] {
                let member = listener_at(SocketAddrV6::new(group, 0, 0, 0));
                let port = member.local_address().unwrap().port();
                let send = || source.send_to(b"x", SocketAddrV6::new(group, port, 0, 0)).unwrap();
                member.join(group.into(), of, LOOPBACK).unwrap();
                send();
                assert_eq!(receive_all(&member).len(), usize::from(heard), "from {of:?}");
                if of.is_none() {
                    member.block(group.into(), wanted, LOOPBACK).unwrap();
                    send();
                    assert!(receive_all(&member).is_empty());
                    member.unblock(group.into(), wanted, LOOPBACK).unwrap();
                }
                member.leave(group.into(), of, LOOPBACK).unwrap();
                send();
                assert!(receive_all(&member).is_empty());
            }
        });
    }

    fn listener(group: Ipv4Addr) -> (UdpSocket, u16) {
        let socket = listener_at(SocketAddrV4::new(group, 0));
        let port = socket.local_address().unwrap().port();
        (socket, port)
    }

    fn listener_at(bind: impl Into<SocketAddr>) -> UdpSocket {
        UdpSocket::bind(&Options { reuse_port: true, reuse_address: true, ..Options::new(bind) }).unwrap()
    }

    fn sender(address: Ipv4Addr) -> UdpSocket {
        let out = MulticastOut { interface: LOOPBACK, ttl: 1, loopback: true };
        UdpSocket::bind(&Options { multicast_out: Some(out), ..Options::new(SocketAddrV4::new(address, 0)) }).unwrap()
    }

    /// What has arrived: loopback delivers within the call that sends, so nothing is still under way.
    fn receive_all(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut batch = RecvBatch::new(8, 64);
        if !wait_readable(socket, Some(Duration::ZERO)).unwrap() {
            return Vec::new();
        }
        batch.receive(socket).unwrap();
        batch.iter().map(|datagram| datagram.payload.to_vec()).collect()
    }
}
