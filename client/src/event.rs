//! What a receiver or sender tells its caller.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use castgate_endpoint::umtp::client::{LostReason, Refusal};
use castgate_wire::umtp::Channel;
use serde::Serialize;

use crate::locate::LocateError;

/// The path that packets take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// The kernel joined the channel.
    Native,
    /// Through a UMTP tunnel.
    Umtp,
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Native => "native",
            Self::Umtp => "umtp",
        })
    }
}

/// One received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The channel it belongs to.
    pub channel: Channel,
    /// Its source, where the path tells it: a tunnel does for source-specific channels only.
    pub source: Option<Ipv4Addr>,
    /// The TTL it came with.
    pub ttl: Option<u8>,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Something that happened besides a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is decided which path is taken.
    PathChosen(Path),
    /// A server has proven itself.
    TunnelUp {
        /// The server.
        server: SocketAddrV4,
    },
    /// The first datagram of a channel came.
    FirstData {
        /// The channel.
        channel: Channel,
        /// The server it came from.
        server: SocketAddrV4,
    },
    /// A server does not answer any more, or said good-bye.
    ServerLost {
        /// The server.
        server: SocketAddrV4,
        /// How that showed.
        reason: LostReason,
    },
    /// Another server goes on where the last one stopped.
    HandOver {
        /// The last server.
        from: SocketAddrV4,
        /// The one in use now.
        to: SocketAddrV4,
    },
    /// No server is left: the databases are asked again.
    Searching,
    /// The databases had no answer; they are asked again later.
    LocateFailed(LocateError),
    /// A channel is not to be had.
    Refused {
        /// The channel.
        channel: Channel,
        /// Why.
        reason: Refusal,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PathChosen(path) => write!(formatter, "the path is {path}"),
            Self::TunnelUp { server } => write!(formatter, "tunnel to {server} is up"),
            Self::FirstData { channel, server } => write!(formatter, "first packet of {channel} from {server}"),
            Self::ServerLost { server, reason } => write!(formatter, "server {server} {}", words(*reason)),
            Self::HandOver { from, to } => write!(formatter, "server {to} takes over from {from}"),
            Self::Searching => formatter.write_str("no server is left, asking the databases again"),
            Self::LocateFailed(error) => error.fmt(formatter),
            Self::Refused { channel, reason } => write!(formatter, "the channel {channel} is refused: {reason}"),
        }
    }
}

/// How a server was lost, as the end of a sentence about it.
pub(crate) fn words(reason: LostReason) -> &'static str {
    match reason {
        LostReason::Unanswered => "does not answer",
        LostReason::Silent => "has fallen silent",
        LostReason::TornDown => "has torn the tunnel down",
        LostReason::Refused => "refuses us",
        LostReason::Loop => "sends our own packets back",
    }
}
