//! What a receiver or sender tells its caller.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use castgate_endpoint::amt::{access, discovery::Method};
use castgate_endpoint::umtp::client::{LostReason, Refusal};
use castgate_wire::umtp::Channel;
use serde::Serialize;

use crate::amt::Found;
use crate::locate::LocateError;
use crate::name::GroupName;
use crate::tunnel::Received;

/// The path that packets take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// The kernel joined the channel.
    Native,
    /// Through a UMTP tunnel.
    Umtp,
    /// Through an AMT tunnel (RFC 7450).
    Amt,
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Native => "native",
            Self::Umtp => "umtp",
            Self::Amt => "amt",
        })
    }
}

/// One received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Its source, where the path tells it: native and AMT always do, UMTP for source-specific channels only.
    pub source: Option<IpAddr>,
    /// The TTL it came with.
    pub ttl: Option<u8>,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> From<Received<'a>> for Datagram<'a> {
    fn from(received: Received<'a>) -> Self {
        let Received { channel, ttl, payload } = received;
        Self { source: channel.source.map(IpAddr::V4), ttl: Some(ttl), payload }
    }
}

/// Something that happened besides a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is decided which path is taken.
    PathChosen(Path),
    /// A server has proven itself.
    TunnelUp {
        /// The server.
        server: SocketAddr,
    },
    /// The first datagram of a channel came.
    FirstData {
        /// The channel.
        name: GroupName,
        /// The server it came from.
        server: SocketAddr,
    },
    /// A server does not answer any more, or said good-bye.
    ServerLost {
        /// The server.
        server: SocketAddr,
        /// How that showed.
        reason: LostReason,
    },
    /// Another server goes on where the last one stopped.
    HandOver {
        /// The last server.
        from: SocketAddr,
        /// The one in use now.
        to: SocketAddr,
    },
    /// The channel is joined at an AMT relay.
    RelayFound {
        /// The relay.
        relay: SocketAddr,
        /// How it was found.
        method: Method,
    },
    /// An AMT relay that was used is given up.
    RelayLost {
        /// The relay.
        relay: SocketAddr,
        /// Why.
        reason: access::LostReason,
    },
    /// No AMT relay is to be had; the search begins again by itself. Says in one sentence what was tried.
    NoRelay(String),
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
            Self::FirstData { name, server } => write!(formatter, "first packet of {name} from {server}"),
            Self::ServerLost { server, reason } => write!(formatter, "server {server} {}", words(*reason)),
            Self::HandOver { from, to } => write!(formatter, "server {to} takes over from {from}"),
            Self::RelayFound { relay, method } => write!(formatter, "AMT relay {relay} is used, {}", Found(*method)),
            Self::RelayLost { relay, reason } => {
                let words = match reason {
                    access::LostReason::Unanswered => "does not answer",
                    access::LostReason::Silent => "brings nothing",
                    access::LostReason::Unreachable => "cannot be reached any more",
                };
                write!(formatter, "AMT relay {relay} {words}, looking for another")
            }
            Self::NoRelay(sentence) => formatter.write_str(sentence),
            Self::Searching => formatter.write_str("no server is left, asking the databases again"),
            Self::LocateFailed(error) => write!(formatter, "{error}; the databases are asked again"),
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
