//! Where a gateway looks for relays, in which order, and for how long it avoids one.

use castgate_wire::amt::{ANYCAST_V4, ANYCAST_V6, PORT};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A multicast channel for which a relay is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// The source; `None` for any. Only a source can be looked up by DRIAD.
    pub source: Option<IpAddr>,
    /// The group.
    pub group: IpAddr,
}

impl std::fmt::Display for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.source {
            Some(source) => write!(f, "({source}, {})", self.group),
            None => write!(f, "(*, {})", self.group),
        }
    }
}

/// A relay by address, or by a name that is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An address and port.
    Address(SocketAddr),
    /// A host name and a port.
    Name(String, u16),
}

/// Relays by configuration for some channels (RFC 8313 §3.4: an (S,G) to relay map).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The groups.
    pub groups: IpNet,
    /// The sources; `None` for any and for channels without one.
    pub sources: Option<IpNet>,
    /// The relays, the best first.
    pub relays: Vec<Place>,
    /// Whether to ask there for the relay (Relay Discovery) before a Request.
    pub discovery_first: bool,
}

impl Mapping {
    /// Whether this line of the map speaks of `channel`.
    #[must_use]
    pub fn covers(&self, channel: Channel) -> bool {
        let has_source = match (self.sources, channel.source) {
            (None, _) => true,
            (Some(net), Some(source)) => net.contains(&source),
            (Some(_), None) => false,
        };
        has_source && self.groups.contains(&channel.group)
    }
}

/// A way of finding relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// [`Config::relays`].
    Explicit,
    /// [`Config::map`].
    Map,
    /// The hierarchy of castgate databases, which the driver asks.
    Hierarchy,
    /// DNS-SD: `_amt._udp` in [`Config::domains`].
    DnsSd,
    /// [`Config::anycast`].
    Anycast,
    /// AMTRELAY records at the reverse name of the source (RFC 8777).
    Driad,
}

impl Method {
    /// The default order: what an administrator has said comes first, then the order of RFC 8777 §3.1.2.
    pub const ORDER: [Self; 6] = [Self::Explicit, Self::Map, Self::Hierarchy, Self::DnsSd, Self::Anycast, Self::Driad];

    /// The method as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Map => "map",
            Self::Hierarchy => "hierarchy",
            Self::DnsSd => "dns_sd",
            Self::Anycast => "anycast",
            Self::Driad => "driad",
        }
    }
}

/// Sources of relays, times and limits. [`Config::default`] holds the documented values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The methods, the most preferred first. Default [`Method::ORDER`] without [`Method::Hierarchy`].
    pub methods: Vec<Method>,
    /// Relays for every channel, the best first. Default none.
    pub relays: Vec<Place>,
    /// Relays for some channels. Default none.
    pub map: Vec<Mapping>,
    /// The domains of which `_amt._udp` is looked up. Default none.
    pub domains: Vec<String>,
    /// Where any relay may answer a Relay Discovery. Default the addresses of RFC 7450 §7.1.
    pub anycast: Vec<Place>,
    /// Whether relays with an IPv4 address can be reached. Default true.
    pub ipv4: bool,
    /// Whether relays with an IPv6 address can be reached. Default true.
    pub ipv6: bool,
    /// Time between the starts of two attempts. Default 250 ms (RFC 8305 §8).
    pub attempt_delay: Duration,
    /// An attempt without a connection ends after this time. Default 6 s: three Requests.
    pub attempt_timeout: Duration,
    /// How long less preferred relays wait for the answers of more preferred methods. Default 250 ms.
    pub resolution_delay: Duration,
    /// A question that nobody answers counts as failed after this time. Default 10 s.
    pub resolution_timeout: Duration,
    /// After a search without a relay, the next begins after a random time from this on. Default 4 s.
    pub retry_initial: Duration,
    /// It doubles up to this. Default 120 s.
    pub retry_max: Duration,
    /// The shortest time for which a relay that brought no traffic is avoided for its source. Default 3 min (RFC 8777 §3.3.4.1).
    pub silent_hold_down_min: Duration,
    /// The longest. Default 10 min.
    pub silent_hold_down_max: Duration,
    /// How long a relay is avoided that takes no new gateways. Default 10 min (RFC 8777 §3.3.5).
    pub limit_hold_down: Duration,
    /// DNS questions within [`Self::dns_window`]. Default 10 (RFC 8777 §3.2.2).
    pub dns_queries_max: usize,
    /// Default 100 ms.
    pub dns_window: Duration,
    /// Channels at one time. Default 4096.
    pub channels_max: usize,
    /// Candidates that are kept for one channel. Default 32.
    pub candidates_max: usize,
    /// Names that are followed for one channel. Default 16.
    pub names_max: usize,
    /// Hold-downs that are remembered. Default 4096.
    pub hold_downs_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            methods: vec![Method::Explicit, Method::Map, Method::DnsSd, Method::Anycast, Method::Driad],
            relays: Vec::new(),
            map: Vec::new(),
            domains: Vec::new(),
            anycast: [IpAddr::V6(ANYCAST_V6), IpAddr::V4(ANYCAST_V4)]
                .map(|address| Place::Address(SocketAddr::new(address, PORT)))
                .into(),
            ipv4: true,
            ipv6: true,
            attempt_delay: Duration::from_millis(250),
            attempt_timeout: Duration::from_secs(6),
            resolution_delay: Duration::from_millis(250),
            resolution_timeout: Duration::from_secs(10),
            retry_initial: Duration::from_secs(4),
            retry_max: Duration::from_mins(2),
            silent_hold_down_min: Duration::from_mins(3),
            silent_hold_down_max: Duration::from_mins(10),
            limit_hold_down: Duration::from_mins(10),
            dns_queries_max: 10,
            dns_window: Duration::from_millis(100),
            channels_max: 4096,
            candidates_max: 32,
            names_max: 16,
            hold_downs_max: 4096,
        }
    }
}
