//! The AMT relay of a server (RFC 7450): where gateways reach it, for how long and how much.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::place::is_host_address;
use crate::{SnapshotError, integer};

/// UDP port of relays (RFC 7450 §7).
pub const AMT_PORT: NonZeroU16 = NonZeroU16::new(2268).expect("2268 is not zero");
/// Least that a tunnel carries: what every host takes in one piece (RFC 1122 §3.3.2).
const MTU_MIN: u16 = 576;
/// Most that a UDP datagram over IPv4 holds beside the two octets of a Multicast Data header.
const MTU_MAX: u16 = 65_505;
/// The field of a query has three bits (RFC 3376 §4.1.6).
const ROBUSTNESS_MAX: u8 = 7;
/// Longest query interval that a query can carry (RFC 3376 §4.1.7).
const QUERY_INTERVAL_MS_MAX: u32 = 31_744_000;
/// RFC 7450 §5.3.5: a secret is renewed at least every two hours.
const SECRET_LIFETIME_MS_MAX: u32 = 7_200_000;

/// An AMT relay beside the UMTP of a server. Its channels and interfaces are those of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AmtSnapshot {
    /// Addresses and UDP ports where gateways reach it. `0.0.0.0` and `::` mean every address of their family.
    pub listen: Vec<SocketAddr>,
    /// Addresses that a Relay Advertisement names, at most one of each family. Default: the address that was asked, and for an
    /// anycast address the first of `listen` of its family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertise: Vec<IpAddr>,
    /// Addresses that other relays have too. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anycast: Option<AnycastSnapshot>,
    /// Whether queries tell a gateway its address (G flag), and it may end its tunnel from another one with a Teardown.
    /// Default: yes.
    #[serde(default = "yes")]
    pub teardown: bool,
    /// Largest IP packet in a tunnel, in octets. Default: what the path to each gateway takes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "integer::read_some")]
    pub mtu: Option<NonZeroU16>,
    /// Whether Multicast Data goes out without a UDP checksum; it is then sent one datagram at a time. Default: no.
    #[serde(default)]
    pub zero_checksum: bool,
    /// How long things live.
    #[serde(default)]
    pub timers: AmtTimers,
    /// How much of everything there may be.
    #[serde(default)]
    pub limits: AmtLimits,
}

/// Anycast addresses of a relay. They are ours only while the server is ready to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnycastSnapshot {
    /// The addresses, as in 192.52.193.1 and `2001:3::1` (RFC 7450 §7.1).
    pub addresses: Vec<IpAddr>,
    /// Routing table of the kernel that holds a local route for each of them while the server is ready, for a routing daemon to
    /// announce. Default: 2268.
    #[serde(default = "default_table", deserialize_with = "integer::read")]
    pub table: NonZeroU32,
}

/// Timers of the relay, in milliseconds. An endpoint is forgotten `robustness * queryInterval + queryResponseInterval` after its
/// last Membership Update: 260 s by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AmtTimers {
    /// How often gateways send a Request and an Update: the QQIC of our queries. Default: 125 000 (RFC 3376 §8.2).
    #[serde(deserialize_with = "integer::read")]
    pub query_interval_ms: NonZeroU32,
    /// How late an Update may be. Default: 10 000 (RFC 3376 §8.3).
    #[serde(deserialize_with = "integer::read")]
    pub query_response_interval_ms: NonZeroU32,
    /// How many Updates in a row may be lost, and one more: the QRV of our queries, at most 7. Default: 2 (RFC 3376 §8.1).
    #[serde(deserialize_with = "integer::read")]
    pub robustness: NonZeroU8,
    /// A new secret for Response MACs every so often, at most 7 200 000; the one before stays good for two query intervals.
    /// Default: 7 200 000 (RFC 7450 §5.3.5).
    #[serde(deserialize_with = "integer::read")]
    pub secret_lifetime_ms: NonZeroU32,
}

/// Bounds of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AmtLimits {
    /// Endpoints at one time; who comes then gets queries with the L flag. Default: 100 000.
    #[serde(deserialize_with = "integer::read")]
    pub endpoints: NonZeroU32,
    /// Groups of one endpoint, both families together. Default: 1000.
    #[serde(deserialize_with = "integer::read")]
    pub groups_per_endpoint: NonZeroU32,
    /// Sources of one group of one endpoint. Default: 128.
    #[serde(deserialize_with = "integer::read")]
    pub sources_per_group: NonZeroU32,
}

impl AmtSnapshot {
    /// A relay with the defaults of everything that has one.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>) -> Self {
        Self {
            listen,
            advertise: Vec::new(),
            anycast: None,
            teardown: yes(),
            mtu: None,
            zero_checksum: false,
            timers: AmtTimers::default(),
            limits: AmtLimits::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        let Self { listen, advertise, anycast, teardown: _, mtu, zero_checksum: _, timers, limits: _ } = self;
        check_listen(listen)?;
        for (index, address) in advertise.iter().enumerate() {
            let field = format!("advertise[{index}]");
            if !is_host_address(*address) {
                return Err(SnapshotError::new(field, format_args!("{address} is not the address of a host")));
            }
            if !listen.iter().any(|place| place.is_ipv4() == address.is_ipv4()) {
                return Err(SnapshotError::new(
                    field,
                    format_args!("{address} is of a family without an address in listen"),
                ));
            }
            if advertise[..index].iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                return Err(SnapshotError::new(field, format_args!("{address} is the second address of its family")));
            }
        }
        if let Some(anycast) = anycast {
            anycast.check(self).map_err(|error| error.within("anycast"))?;
        }
        if let Some(mtu) = mtu.filter(|mtu| !(MTU_MIN..=MTU_MAX).contains(&mtu.get())) {
            return Err(SnapshotError::new("mtu", format_args!("{mtu} is not in {MTU_MIN}..={MTU_MAX}")));
        }
        timers.check().map_err(|error| error.within("timers"))
    }

    /// Whether gateways of this family can be sent to an address of this relay alone.
    fn has_own_address(&self, family: IpAddr) -> bool {
        let own = self.listen.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified());
        own.chain(self.advertise.iter().copied()).any(|address| address.is_ipv4() == family.is_ipv4())
    }
}

/// Some addresses, each one of ours, none twice.
fn check_listen(listen: &[SocketAddr]) -> Result<(), SnapshotError> {
    if listen.is_empty() {
        return Err(SnapshotError::new("listen", "names no address"));
    }
    for (index, place) in listen.iter().enumerate() {
        let field = || format!("listen[{index}]");
        if !place.ip().is_unspecified() && !is_host_address(place.ip()) {
            return Err(SnapshotError::new(field(), format_args!("{} is not an address of a host", place.ip())));
        }
        if place.port() == 0 {
            return Err(SnapshotError::new(field(), "has port 0"));
        }
        if let Some(other) = listen[..index].iter().find(|other| collide(**other, *place)) {
            return Err(SnapshotError::new(field(), format_args!("{place} is taken by {other}")));
        }
    }
    Ok(())
}

/// Whether two sockets cannot both be there.
pub(crate) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && (any || one.ip() == other.ip())
}

impl AnycastSnapshot {
    fn check(&self, relay: &AmtSnapshot) -> Result<(), SnapshotError> {
        let Self { addresses, table } = self;
        // Default, main and local: routes of ours there would be everybody's.
        if (253..=255).contains(&table.get()) {
            return Err(SnapshotError::new("table", format_args!("{table} is a table of the kernel itself")));
        }
        if addresses.is_empty() {
            return Err(SnapshotError::new("addresses", "names no address"));
        }
        for (index, address) in addresses.iter().enumerate() {
            let field = format!("addresses[{index}]");
            if !is_host_address(*address) || address.is_loopback() {
                return Err(SnapshotError::new(
                    field,
                    format_args!("{address} is not an address that others can route to"),
                ));
            }
            if addresses[..index].contains(address) {
                return Err(SnapshotError::new(field, format_args!("{address} is named twice")));
            }
            let own = relay.listen.iter().map(SocketAddr::ip).chain(relay.advertise.iter().copied());
            if own.into_iter().any(|own| own == *address) {
                return Err(SnapshotError::new(field, format_args!("{address} is an address of this relay alone too")));
            }
            if !relay.has_own_address(*address) {
                let what = format!("{address} needs an address of its family in advertise, to send gateways to");
                return Err(SnapshotError::new(field, what));
            }
        }
        Ok(())
    }
}

impl AmtTimers {
    fn check(&self) -> Result<(), SnapshotError> {
        let Self { query_interval_ms, query_response_interval_ms, robustness, secret_lifetime_ms } = self;
        if query_interval_ms.get() > QUERY_INTERVAL_MS_MAX {
            let what = format!("{query_interval_ms} is more than a query can carry, {QUERY_INTERVAL_MS_MAX}");
            return Err(SnapshotError::new("queryIntervalMs", what));
        }
        // RFC 3376 §8.3.
        if query_response_interval_ms >= query_interval_ms {
            let what = format!("{query_response_interval_ms} is not below queryIntervalMs, {query_interval_ms}");
            return Err(SnapshotError::new("queryResponseIntervalMs", what));
        }
        if robustness.get() > ROBUSTNESS_MAX {
            return Err(SnapshotError::new("robustness", format_args!("{robustness} is not in 1..={ROBUSTNESS_MAX}")));
        }
        if secret_lifetime_ms.get() > SECRET_LIFETIME_MS_MAX {
            let what = format!("{secret_lifetime_ms} is not in 1..={SECRET_LIFETIME_MS_MAX}");
            return Err(SnapshotError::new("secretLifetimeMs", what));
        }
        Ok(())
    }
}

impl Default for AmtTimers {
    fn default() -> Self {
        Self {
            query_interval_ms: non_zero(125_000),
            query_response_interval_ms: non_zero(10_000),
            robustness: NonZeroU8::new(2).expect("2 is not zero"),
            secret_lifetime_ms: non_zero(3_600_000),
        }
    }
}

impl Default for AmtLimits {
    fn default() -> Self {
        Self { endpoints: non_zero(100_000), groups_per_endpoint: non_zero(1000), sources_per_group: non_zero(128) }
    }
}

const fn non_zero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("the constants of this file are not zero")
}

const fn default_table() -> NonZeroU32 {
    non_zero(2268)
}

const fn yes() -> bool {
    true
}
