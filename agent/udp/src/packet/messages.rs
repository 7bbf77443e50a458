//! What routers and hosts of a link say to each other about memberships, for whoever is a router there.

use super::filter;
use crate::raw::{self, set_option};
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// A packet socket that hears the IGMP and MLD messages of an interface, to whichever group they go, and never blocks.
#[derive(Debug)]
pub struct MembershipSocket {
    socket: Socket,
}

impl MembershipSocket {
    /// Opens a socket that hears from now on. What this host says is not heard.
    ///
    /// # Errors
    /// What the kernel says: `EPERM` without `CAP_NET_RAW`, `ENODEV` without the interface.
    pub fn open(interface: u32) -> io::Result<Self> {
        // Protocol 0 hears nothing until the filter is in place and the interface is named.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), None)?;
        set_option(&socket, libc::SOL_PACKET, super::PACKET_IGNORE_OUTGOING, &1_i32)?;
        socket.attach_filter(&filter::membership_messages())?;
        raw::bind_packet_socket(&socket, interface)?;
        // Hosts of version 2 report to the group itself: the interface has to take in what it is no member of.
        let request = libc::packet_mreq {
            mr_ifindex: interface.cast_signed(),
            mr_type: u16::try_from(libc::PACKET_MR_ALLMULTI).map_err(io::Error::other)?,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)?;
        Ok(Self { socket })
    }

    /// Reads one message, a whole IP packet.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.socket, buffer)?)
    }
}

impl AsFd for MembershipSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
