//! What an AMT relay is started with.

use super::whole::DATA;
use castgate_udp::TooLong;
use castgate_udp::tun::Tun;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const UDP_BYTES: usize = 8;

/// An AMT relay; `AmtSettings::new(..)` and then the fields that differ.
#[derive(Debug, Clone)]
pub struct AmtSettings {
    /// Addresses and ports at which gateways reach it. `0.0.0.0` and `::` stand for all addresses of their family, and what is
    /// sent comes from the one that the gateway addressed. With port 0 the kernel chooses one.
    pub listen: Vec<SocketAddr>,
    /// How the longest packet of a tunnel is found. Default: the path's limit, never believed to be below 576 octets.
    pub mtu: TunnelMtu,
    /// Send Multicast Data without a UDP checksum, which also means one datagram a message. Default: off.
    pub zero_checksum: bool,
    /// Differentiated services of the outer header. Default: those of the packet.
    pub dscp: Dscp,
    /// Where native packets come from. Default: packet sockets.
    pub ingress: WholePackets,
}

/// How the longest IP packet that goes into a tunnel in one piece is found (RFC 7450 §5.3.3.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelMtu {
    /// What the path to each endpoint takes, as ICMP tells, less the headers of the tunnel.
    Path {
        /// Least path MTU that is believed, in octets: forged ICMP could name any.
        min: u16,
    },
    /// What the first interface to each endpoint takes, less the headers of the tunnel, whatever ICMP tells.
    Interface,
    /// This many octets of the inner packet for everybody.
    Fixed(u16),
}

/// Differentiated services of the outer header (RFC 2983).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dscp {
    /// Those of the inner packet (the uniform model).
    #[default]
    Copy,
    /// The same for everything (the pipe model): the six bits of the code point.
    Fixed(u8),
}

/// Where whole native packets come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WholePackets {
    /// A packet socket a worker and interface: packets as they were sent. Takes `CAP_NET_RAW`.
    #[default]
    Sniffed,
    /// UDP sockets at these ports, for an ordinary user with a host of his own (other programs of the host that are bound to one
    /// of these ports may lose unicast to them): headers are written anew, without options, and a datagram that came in
    /// fragments is one packet again.
    Rebuilt {
        /// UDP destination ports of the channels.
        ports: Vec<u16>,
    },
}

/// Where packets from relays above are delivered natively, with the source that they have.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// Multicast on an interface. Takes `CAP_NET_RAW`.
    Interface {
        /// Its name, for messages.
        name: String,
        /// The kernel's number for it.
        index: u32,
    },
    /// Received by a virtual interface of ours.
    Tun(Arc<Tun>),
}

impl AmtSettings {
    /// The defaults, at these addresses.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>) -> Self {
        Self {
            listen,
            mtu: TunnelMtu::Path { min: 576 },
            zero_checksum: false,
            dscp: Dscp::Copy,
            ingress: WholePackets::Sniffed,
        }
    }
}

impl TunnelMtu {
    /// RFC 7450 §5.3.3.6.3: never fragments outside.
    pub(crate) const fn too_long(self) -> TooLong {
        match self {
            Self::Path { .. } => TooLong::Refused,
            Self::Interface | Self::Fixed(_) => TooLong::RefusedByInterface,
        }
    }

    /// The longest packet that goes from `local` to `remote` in one piece, in octets.
    pub(crate) fn look_up(self, local: IpAddr, remote: SocketAddr) -> usize {
        // A way that is not there now may be there when something is sent; then it says what is too long.
        let path = match self {
            Self::Fixed(mtu) => return mtu.into(),
            Self::Path { min } => castgate_udp::path_mtu(local, remote).unwrap_or(usize::MAX).max(min.into()),
            Self::Interface => castgate_udp::interface_mtu(local, remote).unwrap_or(usize::MAX),
        };
        let ip_bytes = if remote.is_ipv6() { 40 } else { 20 };
        path.saturating_sub(ip_bytes + UDP_BYTES).min(castgate_udp::DATAGRAM_BYTES_MAX).saturating_sub(DATA.len())
    }
}

impl Dscp {
    /// The outer traffic class of a packet with this one; ECN by RFC 9601: copied for whoever can decapsulate it.
    pub(crate) const fn outer(self, inner: u8, ecn: bool) -> u8 {
        let services = match self {
            Self::Copy => inner & !castgate_wire::ecn::MASK,
            Self::Fixed(code) => code << 2,
        };
        if ecn { services | inner & castgate_wire::ecn::MASK } else { services }
    }
}
