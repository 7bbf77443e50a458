//! What a dataplane is started with, and why it may not start.

use crate::amt::settings::{AmtSettings, Delivery, WholePackets};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::thread;

/// Everything that is fixed while the dataplane runs; `Settings::new(..)` and then the fields that differ.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address and port of all tunnels. With port 0 the kernel chooses one; with address 0.0.0.0 routing chooses the address
    /// of what we send, so a host with several addresses names one.
    pub listen: SocketAddrV4,
    /// Worker threads. Default: one for each processor.
    pub workers: NonZeroUsize,
    /// Where channels are taken natively, and where upstream DATA is multicast.
    pub interfaces: Vec<Interface>,
    /// Further addresses of this host; together with `listen` and those of the interfaces they are never taken for a
    /// client's that hears its own packets.
    pub own_addresses: Vec<Ipv4Addr>,
    /// Use UDP GSO where the kernel has it. Default: on.
    pub segmentation: bool,
    /// Longest payload that is forwarded either way, in octets; longer ones are dropped and counted. Default: what fits into
    /// a UDP datagram beside the longest trailer.
    pub payload_bytes_max: usize,
    /// Events that may wait for the control thread, of tunnels with the right cookie. Default: 4096, several refreshes of
    /// each of a thousand tunnels.
    pub known_queue_max: usize,
    /// Events that may wait for the control thread, of anybody else. Default: 1024, some milliseconds of a flood.
    pub stranger_queue_max: usize,
    /// Wanted receive buffer of each socket, in octets. Default: 4 MiB, the usual limit for an ordinary user.
    pub receive_buffer_bytes: usize,
    /// Wanted send buffer of each socket, in octets. Default: 4 MiB.
    pub send_buffer_bytes: usize,
    /// An AMT relay beside UMTP. Default: none.
    pub amt: Option<AmtSettings>,
    /// Where what relays above send is delivered natively. Default: nowhere.
    pub deliver: Vec<Delivery>,
}

/// An interface of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name, for messages.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Our address on it: the source of what we multicast there.
    pub address: Ipv4Addr,
}

/// Why the dataplane did not start, or did not take other interfaces.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tunnel address cannot be bound.
    #[error("cannot listen for tunnels at {address}: {source}")]
    Listen {
        /// The address wanted.
        address: SocketAddrV4,
        /// What the kernel says.
        source: io::Error,
    },
    /// An interface cannot send multicast.
    #[error("cannot send multicast from {address} on interface {name}: {source}")]
    Interface {
        /// The interface's name.
        name: String,
        /// Our address on it.
        address: Ipv4Addr,
        /// What the kernel says.
        source: io::Error,
    },
    /// An address of the AMT relay cannot be bound.
    #[error("cannot listen for gateways at {address}: {source}")]
    Amt {
        /// The address wanted.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// Packet sockets cannot be had.
    #[error("cannot take in whole packets, which needs CAP_NET_RAW: {0}")]
    WholePackets(io::Error),
    /// An interface cannot be delivered to.
    #[error("cannot deliver on interface {name}, which needs CAP_NET_RAW: {source}")]
    Delivery {
        /// The interface's name.
        name: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// Threads or descriptors are used up.
    #[error("cannot start the workers: {0}")]
    Workers(io::Error),
}

impl Settings {
    /// The defaults, for these tunnels and interfaces.
    #[must_use]
    pub fn new(listen: SocketAddrV4, interfaces: Vec<Interface>) -> Self {
        Self {
            listen,
            workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            interfaces,
            own_addresses: Vec::new(),
            segmentation: true,
            payload_bytes_max: castgate_udp::DATAGRAM_BYTES_MAX - castgate_wire::umtp::LONG_TRAILER_LEN,
            known_queue_max: 4096,
            stranger_queue_max: 1024,
            receive_buffer_bytes: 4 << 20,
            send_buffer_bytes: 4 << 20,
            amt: None,
            deliver: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether whole packets are made of what UDP sockets receive.
    pub(crate) fn is_rebuilding(&self) -> bool {
        self.amt.as_ref().is_some_and(|amt| matches!(amt.ingress, WholePackets::Rebuilt { .. }))
    }

    /// The ports of those sockets.
    pub(crate) fn rebuilt_ports(&self) -> &[u16] {
        match self.amt.as_ref().map(|amt| &amt.ingress) {
            Some(WholePackets::Rebuilt { ports }) => ports,
            Some(WholePackets::Sniffed) | None => &[],
        }
    }
}

impl StartError {
    /// The cause as a metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::Interface { .. } => "interface",
            Self::Amt { .. } => "amt",
            Self::WholePackets(_) => "whole_packets",
            Self::Delivery { .. } => "delivery",
            Self::Workers(_) => "workers",
        }
    }
}
