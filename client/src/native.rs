//! The native path: the kernel joins the channel on an interface of this host (RFC 3376), and what arrives is ours.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use castgate_udp::{Datagram, MulticastOut, Options, UdpSocket};
use castgate_wire::umtp::Channel;

use crate::socket::Socket;

/// A channel joined by the kernel.
#[derive(Debug)]
pub(crate) struct NativeGroup {
    socket: Socket,
}

impl NativeGroup {
    /// Joins on the interface with this index; 0 leaves the choice to the routing table. Dropping it leaves.
    pub(crate) fn join(channel: &Channel, interface: u32) -> io::Result<Self> {
        let options = Options {
            // Players of this host may listen to the same channel.
            reuse_address: true,
            receive_ttl: true,
            ..Options::new(SocketAddrV4::new(channel.group, channel.port))
        };
        let socket = Socket::bind(&options)?;
        socket.join(channel.group, channel.source, interface)?;
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
    to: SocketAddrV4,
}

impl NativeSender {
    /// Sends from the channel's source, which has to be an address of this host, or from any address.
    pub(crate) fn open(channel: &Channel, interface: u32, ttl: u8) -> io::Result<Self> {
        let options = Options {
            multicast_out: Some(MulticastOut { interface, ttl, loopback: true }),
            ..Options::new(SocketAddrV4::new(channel.source.unwrap_or(Ipv4Addr::UNSPECIFIED), 0))
        };
        Ok(Self { socket: UdpSocket::bind(&options)?, to: SocketAddrV4::new(channel.group, channel.port) })
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
        let channel: Channel = "232.88.2.1@127.88.0.1:35004".parse().unwrap();
        let other = Channel { source: Some(Ipv4Addr::new(127, 88, 0, 2)), ..channel };
        let mut group = NativeGroup::join(&channel, lo).unwrap();
        NativeSender::open(&other, lo, 1).unwrap().send(b"other").unwrap();
        NativeSender::open(&channel, lo, 1).unwrap().send(b"wanted").unwrap();
        group.readable().await.unwrap();
        let mut taken = Vec::new();
        group.take(|datagram| taken.push((datagram.payload.to_vec(), datagram.ttl, *datagram.source.ip()))).unwrap();
        assert_eq!(taken, [(b"wanted".to_vec(), Some(1), Ipv4Addr::new(127, 88, 0, 1))]);
    }
}
