//! The sockets of a relay: each address once a worker, steered by the gateway's address, like those of UMTP.

use super::settings::AmtSettings;
use crate::settings::{Settings, StartError};
use castgate_udp::{Options, UdpSocket};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// All addresses of a relay.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    pub(crate) addresses: Arc<[SocketAddr]>,
    pub(crate) listeners: Vec<Listener>,
}

/// One address.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    /// By worker.
    pub(crate) sockets: Box<[UdpSocket]>,
    /// Where Multicast Data has no checksum: a socket for the rest, to which the kernel gives nothing.
    control: Option<UdpSocket>,
    /// By worker: datagrams lost, as the kernel said last.
    pub(crate) overflow: Box<[AtomicU32]>,
}

impl Listeners {
    pub(crate) fn open(settings: &Settings) -> Result<Self, StartError> {
        let Some(amt) = &settings.amt else { return Ok(Self::default()) };
        let open = |address: &SocketAddr| {
            Listener::open(*address, amt, settings).map_err(|source| StartError::Amt { address: *address, source })
        };
        let listeners = amt.listen.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { addresses: listeners.iter().map(|listener| listener.address).collect(), listeners })
    }
}

impl Listener {
    fn open(mut address: SocketAddr, amt: &AmtSettings, settings: &Settings) -> io::Result<Self> {
        if address.port() != 0 {
            // Another relay of ours would share the port in silence and take half of our gateways: ask for it alone first.
            UdpSocket::bind(&Options::new(address))?;
        }
        let data = Options {
            reuse_port: true,
            receive_buffer_bytes: Some(settings.receive_buffer_bytes),
            send_buffer_bytes: Some(settings.send_buffer_bytes),
            count_overflow: true,
            receive_packet_info: address.ip().is_unspecified(),
            too_long: amt.mtu.too_long(),
            zero_checksum: amt.zero_checksum,
            ..Options::new(address)
        };
        let workers = settings.workers.get();
        let mut sockets = Vec::with_capacity(workers);
        for _ in 0..workers {
            let socket = UdpSocket::bind(&Options { bind: address, ..data.clone() })?;
            if sockets.is_empty() {
                address.set_port(socket.local_address()?.port());
                // Before the others are there, so that no datagram is placed by another rule.
                if workers > 1 || amt.zero_checksum {
                    socket.steer_by_source(settings.workers)?;
                }
            }
            sockets.push(socket);
        }
        // The steering knows nothing of one more.
        let control = || UdpSocket::bind(&Options { bind: address, zero_checksum: false, ..data });
        let control = amt.zero_checksum.then(control).transpose()?;
        let overflow = (0..workers).map(|_| AtomicU32::new(0)).collect();
        Ok(Self { address, sockets: sockets.into(), control, overflow })
    }

    /// The socket for what is no data.
    pub(crate) fn control(&self) -> &UdpSocket {
        self.control.as_ref().unwrap_or(&self.sockets[0])
    }
}

/// The listener at which something for `local` arrives, and the address to answer from where the socket has several.
pub(crate) fn find(listeners: &[SocketAddr], local: SocketAddr) -> Option<(usize, Option<IpAddr>)> {
    let exact = listeners.iter().position(|listener| *listener == local).map(|place| (place, None));
    exact.or_else(|| {
        let serves = |listener: &SocketAddr| {
            listener.ip().is_unspecified() && listener.is_ipv4() == local.is_ipv4() && listener.port() == local.port()
        };
        listeners.iter().position(serves).map(|place| (place, Some(local.ip())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_address_goes_before_the_one_that_stands_for_all() {
        let listeners: Vec<SocketAddr> =
            ["0.0.0.0:2268", "192.0.2.1:2269", "[::]:2268"].map(|text| text.parse().unwrap()).into();
        let find = |text: &str| find(&listeners, text.parse().unwrap());
        assert_eq!(find("192.0.2.1:2269"), Some((1, None)));
        assert_eq!(find("192.0.2.1:2268"), Some((0, Some("192.0.2.1".parse().unwrap()))));
        assert_eq!(find("[2001:db8::1]:2268"), Some((2, Some("2001:db8::1".parse().unwrap()))));
        assert_eq!(find("192.0.2.2:2269"), None);
    }
}
