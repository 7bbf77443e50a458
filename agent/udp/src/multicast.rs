//! Memberships: which groups, and from which sources, the kernel shall deliver to a socket.

use crate::UdpSocket;
use crate::raw::{set_option, to_storage};
use std::io;
use std::net::Ipv4Addr;

impl UdpSocket {
    /// Joins `group` on the interface with this index, from `source` only or from anyone.
    ///
    /// # Errors
    /// What the kernel says: `ENOBUFS` beyond [`GROUPS_PER_SOCKET_MAX`](crate::GROUPS_PER_SOCKET_MAX) groups or
    /// [`SOURCES_PER_GROUP_MAX`](crate::SOURCES_PER_GROUP_MAX) sources, `ENODEV` without the interface, `EADDRINUSE` or
    /// `EADDRNOTAVAIL` for what is joined already, `EINVAL` when the group is none.
    pub fn join(&self, group: Ipv4Addr, source: Option<Ipv4Addr>, interface: u32) -> io::Result<()> {
        self.change_membership(group, source, interface, libc::MCAST_JOIN_GROUP, libc::MCAST_JOIN_SOURCE_GROUP)
    }

    /// Leaves what [`join`](Self::join) joined.
    ///
    /// # Errors
    /// What the kernel says: `EADDRNOTAVAIL` when it was not joined, `ENODEV` when the interface is gone.
    pub fn leave(&self, group: Ipv4Addr, source: Option<Ipv4Addr>, interface: u32) -> io::Result<()> {
        self.change_membership(group, source, interface, libc::MCAST_LEAVE_GROUP, libc::MCAST_LEAVE_SOURCE_GROUP)
    }

    fn change_membership(
        &self,
        group: Ipv4Addr,
        source: Option<Ipv4Addr>,
        interface: u32,
        any_source: i32,
        one_source: i32,
    ) -> io::Result<()> {
        match source {
            None => {
                let request = libc::group_req { gr_interface: interface, gr_group: to_storage(group) };
                set_option(self, libc::IPPROTO_IP, any_source, &request)
            }
            Some(source) => {
                let request = libc::group_source_req {
                    gsr_interface: interface,
                    gsr_group: to_storage(group),
                    gsr_source: to_storage(source),
                };
                set_option(self, libc::IPPROTO_IP, one_source, &request)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::wait_readable;
    use crate::{GROUPS_PER_SOCKET_MAX, MulticastOut, Options, RecvBatch, SOURCES_PER_GROUP_MAX};
    use std::net::SocketAddrV4;
    use std::time::Duration;

    const LOOPBACK: u32 = 1;

    #[test]
    fn a_source_specific_member_hears_its_source_and_no_other() {
        let group = Ipv4Addr::new(232, 77, 1, 1);
        let (member, port) = listener(group);
        let wanted = sender(Ipv4Addr::new(127, 1, 0, 1));
        let other = sender(Ipv4Addr::new(127, 1, 0, 2));
        member.join(group, Some(Ipv4Addr::new(127, 1, 0, 1)), LOOPBACK).unwrap();

        other.send_to(b"no", SocketAddrV4::new(group, port)).unwrap();
        wanted.send_to(b"yes", SocketAddrV4::new(group, port)).unwrap();
        assert_eq!(receive_all(&member), [b"yes".to_vec()]);

        member.leave(group, Some(Ipv4Addr::new(127, 1, 0, 1)), LOOPBACK).unwrap();
        wanted.send_to(b"late", SocketAddrV4::new(group, port)).unwrap();
        assert!(receive_all(&member).is_empty());
    }

    #[test]
    fn every_socket_bound_to_the_group_gets_its_own_copy_of_a_datagram() {
        let group = Ipv4Addr::new(239, 77, 1, 2);
        let (first, port) = listener(group);
        let second = listener_at(SocketAddrV4::new(group, port));
        for member in [&first, &second] {
            member.join(group, None, LOOPBACK).unwrap();
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
        member.join(group, None, LOOPBACK).unwrap();
        sender(Ipv4Addr::LOCALHOST).send_to(b"x", SocketAddrV4::new(group, port)).unwrap();
        assert_eq!(receive_all(&member).len(), 1);
        assert!(receive_all(&stranger).is_empty());
    }

    #[test]
    fn the_limits_are_the_ones_this_crate_states() {
        let (many_groups, _) = listener(Ipv4Addr::UNSPECIFIED);
        let group = |i: usize| Ipv4Addr::new(239, 77, 2, u8::try_from(i).unwrap());
        for i in 0..GROUPS_PER_SOCKET_MAX {
            many_groups.join(group(i), None, LOOPBACK).unwrap();
        }
        let refused = many_groups.join(group(GROUPS_PER_SOCKET_MAX), None, LOOPBACK).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOBUFS));

        let (many_sources, _) = listener(Ipv4Addr::UNSPECIFIED);
        let source = |i: usize| Some(Ipv4Addr::new(127, 1, 2, u8::try_from(i + 1).unwrap()));
        for i in 0..SOURCES_PER_GROUP_MAX {
            many_sources.join(group(0), source(i), LOOPBACK).unwrap();
        }
        let refused = many_sources.join(group(0), source(SOURCES_PER_GROUP_MAX), LOOPBACK).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOBUFS));
    }

    fn listener(group: Ipv4Addr) -> (UdpSocket, u16) {
        let socket = listener_at(SocketAddrV4::new(group, 0));
        let port = socket.local_address().unwrap().port();
        (socket, port)
    }

    fn listener_at(bind: SocketAddrV4) -> UdpSocket {
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
