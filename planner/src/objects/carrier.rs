//! What carries channels: tunnel servers and relays, and where they are reached.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU8;

use castgate_control::{AmtSnapshot, LoopCheck, ServerLimits, ServerTimers, UpstreamSnapshot};
use castgate_crds::placement::Toleration;
use castgate_crds::tunnels::AddressType;

use super::Hierarchy;

/// A tunnel server or a tunnel relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where its channels come from.
    pub feed: Feed,
    /// Where tunnels end on one machine; 0.0.0.0 for every address.
    pub listen: SocketAddrV4,
    /// The address that tunnels end at, when it is named.
    pub address: Option<Ipv4Addr>,
    /// Which address of its node is meant when none is named.
    pub address_type: AddressType,
    /// The UDP port.
    pub port: u16,
    /// Its AMT relay; `None`: it has none.
    pub amt: Option<Amt>,
    /// Names of its bundles, in its own namespace.
    pub bundles: Vec<String>,
    /// Where it registers.
    pub hierarchy: Hierarchy,
    /// What it carries at most.
    pub limits: ServerLimits,
    /// How long it waits.
    pub timers: ServerTimers,
    /// Threads that carry packets; `None`: one for each processor.
    pub workers: Option<NonZeroU8>,
    /// Labels of the nodes it may run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that it may run on all the same.
    pub tolerations: Vec<Toleration>,
    /// How many nodes of the pool carry tunnels; `None`: all.
    pub replicas: Option<u32>,
    /// Its own labels, by which policies choose.
    pub labels: BTreeMap<String, String>,
}

/// Where channels come from: the difference between a server and a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// From networks that have multicast.
    Native {
        /// Interfaces with multicast.
        interfaces: Vec<String>,
        /// Which tunnels a native packet of a client's address ends.
        loop_check: LoopCheck,
    },
    /// Through a tunnel.
    Upstream(Box<Upstream>),
}

/// The tunnel to a server above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// All of it, but for what depends on where it runs: where `database` answers, and whom to stay away from.
    pub snapshot: UpstreamSnapshot,
    /// Name of the database of its namespace that is asked.
    pub database: Option<String>,
    /// Name of the Secret with `ca.crt`.
    pub ca: Option<String>,
}

/// An AMT relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amt {
    /// The UDP port.
    pub port: u16,
    /// Its addresses, when they are named.
    pub addresses: Vec<IpAddr>,
    /// Whether an address of version 6 that is not named is used too.
    pub ipv6: bool,
    /// All of it, but for where it listens.
    pub snapshot: AmtSnapshot,
}

/// Where one agent is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// For UMTP.
    pub(crate) umtp: SocketAddrV4,
    /// For AMT, if there is any.
    pub(crate) amt: Vec<SocketAddr>,
}

impl Place {
    /// Every UDP socket of it.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = SocketAddr> {
        std::iter::once(SocketAddr::V4(self.umtp)).chain(self.amt.iter().copied())
    }
}

impl Server {
    /// Where it listens, given the address for UMTP and, where its machine has one, the address of version 6.
    ///
    /// Addresses that are named are taken as they are. One that is named for UMTP alone is that of AMT too, and then there is no
    /// other: whoever names an address means it.
    pub(crate) fn place(&self, umtp: Ipv4Addr, six: Option<Ipv6Addr>) -> Place {
        let amt = self.amt.iter().flat_map(|amt| {
            let own = match (amt.addresses.as_slice(), self.address) {
                ([], Some(address)) => vec![IpAddr::V4(address)],
                ([], None) => {
                    let six = six.filter(|_| amt.ipv6).map(IpAddr::V6);
                    std::iter::once(IpAddr::V4(umtp)).chain(six).collect()
                }
                (named, _) => named.to_vec(),
            };
            own.into_iter().map(|address| SocketAddr::new(address, amt.port))
        });
        Place { umtp: SocketAddrV4::new(umtp, self.port), amt: amt.collect() }
    }

    /// Addresses that it is given by name: those of one machine.
    pub(crate) fn named(&self) -> impl Iterator<Item = IpAddr> {
        self.address.map(IpAddr::V4).into_iter().chain(self.amt.iter().flat_map(|amt| amt.addresses.iter().copied()))
    }

    /// Interfaces with multicast; none for a relay.
    #[must_use]
    pub fn interfaces(&self) -> &[String] {
        match &self.feed {
            Feed::Native { interfaces, .. } => interfaces,
            Feed::Upstream(_) => &[],
        }
    }
}
