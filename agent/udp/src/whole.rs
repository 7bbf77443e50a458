//! Whole IP packets out of an interface, with the source address that they have.
//!
//! Owns two raw sockets, one a family. Every packet carries [`OWN_MARK`], so that packet sockets of
//! this program do not take it in again. Needs `CAP_NET_RAW`.

use crate::packet::OWN_MARK;
use crate::raw::set_option;
use crate::socket::{set_buffer, set_multicast_out};
use crate::{Filling, Head, MulticastOut, Outcome, SEGMENTS_MAX, SendBatch};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

/// Sends whole IP packets of both families.
#[derive(Debug)]
pub struct WholeSender {
    v4: Socket,
    /// None where the kernel has no IPv6.
    v6: Option<Socket>,
}

impl WholeSender {
    /// Sockets whose multicast leaves by the interface with this index, and is heard by members on this host. Index 0 leaves
    /// the choice to the routing table, for unicast.
    ///
    /// # Errors
    /// What the kernel says: `EPERM` without `CAP_NET_RAW`, `ENODEV` without the interface.
    pub fn open(interface: u32, send_buffer_bytes: usize) -> io::Result<Self> {
        let open = |domain, family: IpAddr| {
            let socket =
                Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(libc::IPPROTO_RAW)))?;
            set_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, send_buffer_bytes)?;
            // Kernels before 5.17 take CAP_NET_ADMIN for it. Without the mark, what leaves here by an interface at which this
            // program listens comes back: whoever has only such a kernel needs the right.
            set_option(&socket, libc::SOL_SOCKET, libc::SO_MARK, &OWN_MARK)?;
            if family.is_ipv4() {
                // Lets `head` name a source that is not ours.
                set_option(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, &1_i32)?;
            }
            if interface != 0 {
                // The header has its own TTL.
                set_multicast_out(&socket, family, MulticastOut { interface, ttl: 1, loopback: true })?;
            }
            Ok::<_, io::Error>(socket)
        };
        let v4 = open(Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED))?;
        let v6 = match open(Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
            Ok(socket) => Some(socket),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6 })
    }

    /// What goes with a packet from `source` to `to` in a filling.
    ///
    /// IPv4 chooses the members of this host by the source that the socket names, not by the one in the header: without it,
    /// members of a source-specific channel would hear nothing. IPv6 looks at the header.
    #[must_use]
    pub fn head(source: IpAddr, to: IpAddr) -> Head {
        Head { from: Some(source).filter(IpAddr::is_ipv4), ..Head::to(SocketAddr::new(to, 0)) }
    }

    /// Sends one packet to where its header says.
    ///
    /// # Errors
    /// What the kernel says: `EMSGSIZE` when it is longer than the interface takes. `InvalidInput` when it is no IP packet.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let (source, to) = addresses(packet).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let socket = self.socket(to).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let mut batch = SendBatch::new(1, SEGMENTS_MAX);
        let mut filling = batch.fill();
        filling.message_with(Self::head(source, to), 0);
        filling.datagram(packet, None);
        let mut error = None;
        filling.send(socket, |outcome| error = outcome.error);
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Sends a filling whose messages are one whole packet each, all of the family of `group`.
    pub fn send_filled(&self, group: IpAddr, filling: Filling<'_, '_>, report: impl FnMut(Outcome)) {
        if let Some(socket) = self.socket(group) {
            filling.send(socket.as_fd(), report);
        }
    }

    fn socket(&self, to: IpAddr) -> Option<&Socket> {
        if to.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() }
    }
}

/// Where a packet comes from and goes by its header.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at| packet.get(at..).and_then(<[u8]>::first_chunk::<4>).map(|octets| IpAddr::from(*octets));
    let v6 = |at| packet.get(at..).and_then(<[u8]>::first_chunk::<16>).map(|octets| IpAddr::from(*octets));
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, RecvBatch, UdpSocket, netns};

    const LOOPBACK: u32 = 1;

    #[test]
    fn a_packet_of_either_family_leaves_with_the_source_it_has() {
        netns::isolated_test(|| {
            netns::ip("-6 route add local ff00::/8 dev lo table local");
            // Strict filtering of sources, which containers may have, would drop what comes from nowhere.
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
            netns::ip("route add 198.51.100.0/24 dev lo");
            let sender = WholeSender::open(LOOPBACK, 1 << 16).unwrap();
            let mut v4 = vec![0x45, 0, 0, 29, 0, 7, 0x40, 0, 9, 17, 0, 0, 198, 51, 100, 7, 232, 1, 2, 3];
            let mut v6 = vec![0x60, 0, 0, 0, 0, 9, 17, 9];
            v6.extend("2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
            v6.extend("ff3e::8000:1".parse::<Ipv6Addr>().unwrap().octets());
            let udp = [0x13, 0x8c, 0x13, 0x8c, 0, 9, 0, 0, b'x'];
            v4.extend(udp);
            v6.extend(udp);
            // RFC 8200 §8.1: IPv6 wants the checksum. Pseudo header and datagram, summed by hand in the usual way.
            let words = |octets: &[u8]| -> u32 {
                octets.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
            };
            let sum = words(&v6[8..40]) + 9 + 17 + words(&udp);
            let sum = (sum & 0xffff) + (sum >> 16);
            let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            v6[46..48].copy_from_slice(&checksum.to_be_bytes());
            for (packet, source) in [(v4, "198.51.100.7:5004"), (v6, "[2001:db8::7]:5004")] {
                let (of, group) = addresses(&packet).unwrap();
                for of in [None, Some(of)] {
                    let to = SocketAddr::new(group, 5004);
                    let member = UdpSocket::bind(&Options { receive_ttl: true, ..Options::new(to) }).unwrap();
                    member.join(group, of, LOOPBACK).unwrap();
                    sender.send(&packet).unwrap();
                    let mut batch = RecvBatch::new(4, 64);
                    batch.receive(&member).unwrap_or_else(|error| panic!("{source}, joined from {of:?}: {error}"));
                    let heard = batch.iter().next().unwrap();
                    assert_eq!((heard.source, heard.ttl, heard.payload), (source.parse().unwrap(), Some(9), &b"x"[..]));
                }
            }
        });
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        assert_eq!(addresses(b""), None);
        assert_eq!(addresses(&[0x45; 19]), None);
        assert_eq!(addresses(&[0x60; 39]), None);
        assert_eq!(addresses(&[0x15; 60]), None);
        assert_eq!(addresses(&[0x45; 20]), Some((IpAddr::from([0x45; 4]), IpAddr::from([0x45; 4]))));
    }
}
