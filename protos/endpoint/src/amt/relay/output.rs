//! What a relay tells its driver to do, and what it shows of itself.

use crate::membership::Filter;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// A tunnel endpoint: a gateway as the relay sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Our address and port, to which its Updates come: Multicast Data leaves from there (RFC 7450 §5.3.3.6.3).
    pub local: SocketAddr,
    /// The gateway's address and port.
    pub remote: SocketAddr,
    /// Whether it decapsulates ECN by RFC 6040. If not, the outer ECN field of what it gets must be zero (RFC 9601).
    pub ecn: bool,
}

/// One thing to do. Order matters: an endpoint is up before it has a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram.
    Transmit {
        /// From which address and port.
        local: SocketAddr,
        /// To whom.
        to: SocketAddr,
        /// All octets of the UDP payload.
        datagram: Vec<u8>,
    },
    /// A gateway has proven its address and has its first group. For a remote that is up already it replaces what was said before:
    /// its Updates come to another address of ours, or its ECN ability has changed.
    EndpointUp {
        /// The endpoint.
        endpoint: Endpoint,
    },
    /// The endpoint is gone; all its filters were taken back before.
    EndpointDown {
        /// The gateway.
        remote: SocketAddr,
        /// Why.
        reason: DownReason,
    },
    /// What goes to this endpoint from now on.
    Filter {
        /// The gateway.
        remote: SocketAddr,
        /// The group.
        group: IpAddr,
        /// The sources of which packets go to it; `None` when nothing of the group does.
        filter: Option<Filter>,
    },
    /// What is to be taken in from the network from now on: the filters of all endpoints together.
    Upstream {
        /// The group.
        group: IpAddr,
        /// The sources; `None` when nothing of the group is wanted.
        filter: Option<Filter>,
    },
}

/// Why an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DownReason {
    /// It has left its last group.
    Left,
    /// Nobody refreshed it within [`super::Config::endpoint_timeout`].
    Expired,
    /// A Teardown named it.
    Teardown,
    /// What goes to it comes back as ICMP Destination Unreachable.
    Unreachable,
    /// The rules no longer permit anything that it has.
    NotPermitted,
    /// The driver asked for it.
    Requested,
}

impl DownReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Left, Self::Expired, Self::Teardown, Self::Unreachable, Self::NotPermitted, Self::Requested];

    /// The reason as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Expired => "expired",
            Self::Teardown => "teardown",
            Self::Unreachable => "unreachable",
            Self::NotPermitted => "not_permitted",
            Self::Requested => "requested",
        }
    }
}

/// An endpoint as a report shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReport {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// When its last valid Update came.
    pub heard_at: Instant,
    /// Whether its Queries carry no flags, because it drops those that do.
    pub is_plain: bool,
    /// What it has, in order.
    pub groups: Vec<(IpAddr, Filter)>,
}
