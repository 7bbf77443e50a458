//! What a server tells its driver to do, and what it shows of itself.

use castgate_wire::umtp::{Channel, Cookie};
use std::net::SocketAddrV4;
use std::time::Instant;

/// The cookies of one tunnel, as the forwarding table needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cookies {
    /// Ours; the source cookie of what we send.
    pub local: Cookie,
    /// Ours of the epoch before; still accepted as destination cookie.
    pub local_previous: Cookie,
    /// The client's; the destination cookie of what we send.
    pub remote: Cookie,
}

/// One thing to do. Order matters: a tunnel is up before anything is attached to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram from the server's address and port.
    Transmit {
        /// To whom.
        to: SocketAddrV4,
        /// All octets of the UDP payload.
        datagram: Vec<u8>,
    },
    /// A client has proven its address and joined its first channel.
    TunnelUp {
        /// The client.
        tunnel: SocketAddrV4,
        /// What its datagrams carry.
        cookies: Cookies,
    },
    /// A side has changed its cookie.
    Cookies {
        /// The client.
        tunnel: SocketAddrV4,
        /// What its datagrams carry from now on.
        cookies: Cookies,
    },
    /// The tunnel is gone; everything was detached before.
    TunnelDown {
        /// The client.
        tunnel: SocketAddrV4,
        /// Why.
        reason: DownReason,
    },
    /// Packets of the channel go to this tunnel. For a pair that is attached already it replaces what was said before.
    Attach {
        /// The client.
        tunnel: SocketAddrV4,
        /// What it joined.
        channel: Channel,
        /// The TTL of native packets whose own is not known.
        ttl: u8,
        /// The TTL of what the client sends is lowered to this.
        ttl_max: u8,
        /// Whether the client may send to the channel.
        may_send: bool,
    },
    /// Packets of the channel no longer go to this tunnel.
    Detach {
        /// The client.
        tunnel: SocketAddrV4,
        /// What it left.
        channel: Channel,
    },
    /// The first tunnel has joined the channel: take it from the network.
    JoinNative(Channel),
    /// The last tunnel has left the channel.
    LeaveNative(Channel),
    /// A client sent this: multicast it natively.
    Multicast {
        /// Where to.
        channel: Channel,
        /// The TTL of the packet.
        ttl: u8,
        /// All octets of the UDP payload.
        payload: Vec<u8>,
    },
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DownReason {
    /// The client sent `TEAR_DOWN`.
    Peer,
    /// Nothing joined, and nothing valid heard for [`super::Config::idle_timeout`].
    Idle,
    /// A native packet came from the address of the tunnel.
    Loop,
    /// The driver asked for it.
    Requested,
}

impl DownReason {
    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Idle => "idle",
            Self::Loop => "loop",
            Self::Requested => "requested",
        }
    }
}

/// A tunnel as a report shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelReport {
    /// The client.
    pub tunnel: SocketAddrV4,
    /// What its datagrams carry.
    pub cookies: Cookies,
    /// What it has joined, in order.
    pub channels: Vec<Channel>,
    /// When its last valid datagram came.
    pub heard_at: Instant,
}

/// A channel as a report shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelReport {
    /// The channel.
    pub channel: Channel,
    /// Tunnels that have it joined.
    pub tunnels: usize,
}
