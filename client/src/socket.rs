//! A `castgate-udp` socket under Tokio: waits for readiness, then takes a batch in one system call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;

use castgate_udp::{DATAGRAM_BYTES_MAX, Datagram, Options, RecvBatch, UdpSocket};
use tokio::io::Interest;

/// Datagrams taken with one system call.
const BATCH: usize = 32;
/// Wanted receive buffer: 3 s of a channel of 10 Mbit/s while this program does something else.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// A socket, and room for what arrives at it.
#[derive(Debug)]
pub(crate) struct Socket {
    udp: UdpSocket,
    /// The same socket by a descriptor of its own: Tokio watches it, and never reads.
    watched: tokio::net::UdpSocket,
    batch: RecvBatch,
}

impl Socket {
    /// Binds a socket as `options` say, with a receive buffer of our size.
    pub(crate) fn bind(options: &Options) -> io::Result<Self> {
        let options = Options { receive_buffer_bytes: Some(RECEIVE_BUFFER_BYTES), ..options.clone() };
        let udp = UdpSocket::bind(&options)?;
        let watched = tokio::net::UdpSocket::from_std(udp.as_fd().try_clone_to_owned()?.into())?;
        Ok(Self { udp, watched, batch: RecvBatch::new(BATCH, DATAGRAM_BYTES_MAX) })
    }

    /// Joins a group on one interface; index 0 leaves the choice to the routing table.
    pub(crate) fn join(&self, group: IpAddr, source: Option<IpAddr>, interface: u32) -> io::Result<()> {
        self.udp.join(group, source, interface)
    }

    /// Sends one datagram now or never: a full buffer is an error like any other.
    pub(crate) fn send_to(&self, datagram: &[u8], to: impl Into<SocketAddr>) -> io::Result<()> {
        self.udp.send_to(datagram, to)
    }

    /// The address it is bound to.
    #[cfg(test)]
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.udp.local_address()
    }

    /// Waits until something has arrived. Cancelling loses nothing.
    ///
    /// The future holds on to the watched socket alone: the batch may move to another thread, but not be looked at from two.
    pub(crate) fn readable(&self) -> impl Future<Output = io::Result<()>> {
        self.watched.readable()
    }

    /// What Tokio watches, for whoever waits for several sockets at once.
    pub(crate) fn watched(&self) -> &tokio::net::UdpSocket {
        &self.watched
    }

    /// Takes what has arrived, up to one batch; says how many datagrams those were.
    pub(crate) fn take(&mut self, mut each: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
        let Self { udp, watched, batch } = self;
        // Finding the socket empty is what makes Tokio watch again.
        let received = watched.try_io(Interest::READABLE, || batch.receive(udp));
        match received {
            Ok(count) => {
                batch.iter().filter(|datagram| !datagram.truncated).for_each(&mut each);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_arrives_wakes_and_is_taken_in_order() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut receiver = Socket::bind(&Options::new(any)).unwrap();
        let sender = Socket::bind(&Options::new(any)).unwrap();
        let to = receiver.local_address().unwrap();
        let mut taken: Vec<u8> = Vec::new();
        for round in 0..3_u8 {
            let numbers = [round * 2, round * 2 + 1];
            for number in numbers {
                sender.send_to(&[number], to).unwrap();
            }
            while taken.len() < usize::from(round + 1) * 2 {
                receiver.readable().await.unwrap();
                receiver.take(|datagram| taken.extend(datagram.payload)).unwrap();
            }
        }
        assert_eq!(taken, [0, 1, 2, 3, 4, 5]);
        assert_eq!(receiver.take(|_| panic!("nothing is left")).unwrap(), 0);
    }
}
