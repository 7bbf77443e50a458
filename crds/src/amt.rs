//! The AMT relay (RFC 7450) of a tunnel server or a tunnel relay.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule, rule_at};
use crate::units::{SPAN_IN_CEL, TimeSpan};

/// An AMT relay: players, set-top boxes and kernels that speak RFC 7450 take channels from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".addresses",
        "self.addresses.all(a, self.addresses.exists_one(b, a.contains(':') == b.contains(':')))",
        "addresses has at most one of each version",
    ),
    rule_at(".anycast.addresses",
        "!has(self.anycast) || self.anycast.addresses.all(a, self.addresses.size() == 0 ? self.ipv6 || !a.contains(':') : \
         self.addresses.exists(b, a.contains(':') == b.contains(':')))",
        "an anycast address needs an address of its own version, to which gateways are sent: see addresses and ipv6",
    ),
    rule_at(".anycast.addresses",
        "!has(self.anycast) || !self.anycast.addresses.exists(a, a in self.addresses)",
        "an anycast address is that of several: it is none of addresses",
    ),
]))]
pub struct Amt {
    /// The UDP port. Gateways know no other than 2268 unless they are told.
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
    /// The addresses it listens on and registers with, at most one of each version. Without any: that of `umtp`, else those of
    /// its node.
    #[schemars(schema_with = "schema::own_addresses")]
    pub addresses: Vec<String>,
    /// Whether it listens on the address of version 6 of its node too, where the node has one and `addresses` names none.
    pub ipv6: bool,
    /// Addresses that other relays have too: whoever is near is reached. They are ours only while the relay is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Anycast")]
    pub anycast: Option<Anycast>,
    /// Whether a gateway is told its address, so that it can end the tunnel it had under another one. Some old gateways drop
    /// queries that say so.
    pub teardown: bool,
    /// Largest IP packet in a tunnel, in octets. By default what the path to each gateway takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tunnel_mtu")]
    pub mtu: Option<u16>,
    /// Whether packets go out without a UDP checksum (RFC 6935). It makes sending slower, not faster: the kernel cannot send
    /// several at once then.
    pub zero_checksum: bool,
    /// What it carries at most.
    pub limits: AmtLimits,
    /// How long it waits.
    pub timers: AmtTimers,
}

impl Default for Amt {
    fn default() -> Self {
        Self {
            port: 2268,
            addresses: Vec::new(),
            ipv6: true,
            anycast: None,
            teardown: true,
            mtu: None,
            zero_checksum: false,
            limits: AmtLimits::default(),
            timers: AmtTimers::default(),
        }
    }
}

/// Addresses that several relays have. Agents need `NET_ADMIN` to make them theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Anycast {
    /// The addresses, such as 192.52.193.1 and `2001:3::1`, which every gateway knows (RFC 7450 section 7.1).
    #[schemars(schema_with = "schema::anycast_addresses")]
    pub addresses: Vec<String>,
    /// Routing table of the kernel with a local route for each of them, for a routing daemon to announce.
    #[serde(default = "table")]
    #[schemars(schema_with = "schema::routing_table")]
    pub table: u32,
}

fn table() -> u32 {
    2268
}

/// What an AMT relay carries at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AmtLimits {
    /// Gateways at a time; the next one is told to go elsewhere.
    #[schemars(schema_with = "schema::table_size")]
    pub endpoints: u32,
    /// Groups that one gateway may have joined at a time.
    #[schemars(schema_with = "schema::table_size")]
    pub groups_per_endpoint: u32,
    /// Sources of one group that one gateway may name.
    #[schemars(schema_with = "schema::table_size")]
    pub sources_per_group: u32,
}

impl Default for AmtLimits {
    fn default() -> Self {
        Self { endpoints: 100_000, groups_per_endpoint: 1000, sources_per_group: 128 }
    }
}

/// How long an AMT relay waits. A gateway that is silent for `robustness` query intervals and a query response interval is
/// forgotten: 260 s by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".queryResponseInterval",
        &format!(
            "!(self.queryInterval.matches('{SPAN_IN_CEL}') && self.queryResponseInterval.matches('{SPAN_IN_CEL}')) || \
             duration(self.queryResponseInterval) < duration(self.queryInterval)"
        ),
        "queryResponseInterval is shorter than queryInterval",
    ),
]))]
pub struct AmtTimers {
    /// How often gateways say again what they want.
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            &format!("!self.matches('{SPAN_IN_CEL}') || (duration(self) > duration('0s') && duration(self) <= duration('31744s'))"),
            "a query interval is between 1ms and 31744s, the longest that a query can carry",
        ),
    ]))]
    pub query_interval: TimeSpan,
    /// How late they may be.
    pub query_response_interval: TimeSpan,
    /// One more than the number of updates in a row that may be lost.
    #[schemars(schema_with = "schema::robustness")]
    pub robustness: u8,
}

impl Default for AmtTimers {
    fn default() -> Self {
        Self { query_interval: TimeSpan::new("125s"), query_response_interval: TimeSpan::new("10s"), robustness: 2 }
    }
}
