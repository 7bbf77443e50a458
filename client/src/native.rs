//! The native path: the kernel joins the channel on an interface of this host (RFC 3376, RFC 3810), and what arrives is
//! ours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use castgate_udp::{Datagram, MulticastOut, Options, UdpSocket};

use crate::name::GroupName;
use crate::socket::Socket;

/// A channel joined by the kernel.
#[derive(Debug)]
pub(crate) struct NativeGroup {
    socket: Socket,
}

impl NativeGroup {
    /// Joins on the interface with this index; 0 leaves the choice to the routing table. Dropping it leaves.
    pub(crate) fn join(name: &GroupName, interface: u32) -> io::Result<Self> {
        let options = Options {
            // Players of this host may listen to the same channel.
            reuse_address: true,
            receive_ttl: true,
            ..Options::new(SocketAddr::new(name.group(), name.port()))
        };
        let socket = Socket::bind(&options)?;
        socket.join(name.group(), name.source(), interface)?;
        Ok(Self { socket })
    }

    pub(crate) fn readable(&self) -> impl Future<Output = io::Result<()>> {
        self.socket.readable()
    }

    pub(crate) fn take(&mut self, each: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
        self.socket.take(each)
    }
}

/// Sends into a channel natively.
#[derive(Debug)]
pub(crate) struct NativeSender {
    socket: UdpSocket,
    to: SocketAddr,
}

impl NativeSender {
    /// Sends from the channel's source, which has to be an address of this host, or from any address.
    pub(crate) fn open(name: &GroupName, interface: u32, ttl: u8) -> io::Result<Self> {
        let any = match name.group() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let options = Options {
            multicast_out: Some(MulticastOut { interface, ttl, loopback: true }),
            ..Options::new(SocketAddr::new(name.source().unwrap_or(any), 0))
        };
        Ok(Self { socket: UdpSocket::bind(&options)?, to: SocketAddr::new(name.group(), name.port()) })
    }

    pub(crate) fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(payload, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::find_interface;

    #[tokio::test]
    async fn a_source_specific_channel_brings_its_source_only() {
        let lo = find_interface("lo").unwrap().index;
        let channel: GroupName = "ham:ip:232.88.2.1@127.88.0.1:35004".parse().unwrap();
        let other = "ham:ip:232.88.2.1@127.88.0.2:35004".parse().unwrap();
        let mut group = NativeGroup::join(&channel, lo).unwrap();
        NativeSender::open(&other, lo, 1).unwrap().send(b"other").unwrap();
        NativeSender::open(&channel, lo, 1).unwrap().send(b"wanted").unwrap();
        group.readable().await.unwrap();
        let mut taken = Vec::new();
        group.take(|datagram| taken.push((datagram.payload.to_vec(), datagram.ttl, datagram.source.ip()))).unwrap();
        assert_eq!(taken, [(b"wanted".to_vec(), Some(1), IpAddr::from([127, 88, 0, 1]))]);
    }
}
