//! The server role: where it listens, what it serves, for how long and how much.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::amt::collide;
use crate::place::is_host_address;
use crate::{AmtSnapshot, SnapshotError, UpstreamSnapshot, integer};

/// A tunnel server; with an upstream it is a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerSnapshot {
    /// Address and UDP port of the tunnels. `0.0.0.0` means every address of the host.
    pub listen: SocketAddrV4,
    /// Threads that carry packets; absent: one per processor.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "integer::read_some")]
    pub workers: Option<NonZeroU8>,
    /// Network interfaces on which channels are taken natively and re-multicast; none for a relay.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// What happens to a tunnel whose client is heard natively. Default: `endpoint`.
    #[serde(default)]
    pub loop_check: LoopCheck,
    /// How long things live.
    #[serde(default)]
    pub timers: ServerTimers,
    /// How much of everything there may be.
    #[serde(default)]
    pub limits: ServerLimits,
    /// Channels that may be joined. What no rule names is refused; default: nothing.
    #[serde(default)]
    pub channels: Vec<ChannelRule>,
    /// An AMT relay for the same channels, without regard to their ports. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amt: Option<AmtSnapshot>,
    /// The tunnel that channels come through, instead of `interfaces`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamSnapshot>,
}

/// Which tunnels a native packet with a client's source address ends (draft-finlayson-umtp-09 §4, non-local event).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LoopCheck {
    /// None.
    Off,
    /// Those of that address that joined this very channel: two clients behind one NAT do not end each other's tunnels.
    #[default]
    Endpoint,
    /// All of that address, as the draft has it.
    Address,
}

/// Timers of the server role, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerTimers {
    /// A channel is taken from a client that did not repeat its JOIN for so long. Default: 60 000 (draft-finlayson-umtp-09 §4).
    #[serde(deserialize_with = "integer::read")]
    pub join_timeout_ms: NonZeroU32,
    /// A tunnel without a channel ends after so long without a valid datagram. Default: 120 000.
    #[serde(deserialize_with = "integer::read")]
    pub idle_timeout_ms: NonZeroU32,
    /// A new cookie every so often; the one before stays good for one more epoch. Default: 3 600 000.
    #[serde(deserialize_with = "integer::read")]
    pub cookie_epoch_ms: NonZeroU32,
    /// An address gets at most one answer to unproven datagrams in this time. Default: 1 000.
    #[serde(deserialize_with = "integer::read")]
    pub answer_interval_ms: NonZeroU32,
    /// Wrong cookies of an address are counted over this time. Default: 60 000.
    #[serde(deserialize_with = "integer::read")]
    pub wrong_cookie_window_ms: NonZeroU32,
    /// An address with too many wrong cookies is not listened to for so long. Default: 60 000.
    #[serde(deserialize_with = "integer::read")]
    pub ignore_for_ms: NonZeroU32,
    /// Tunnels of one address are torn down for a loop at most once in this time. Default: 1 000.
    #[serde(deserialize_with = "integer::read")]
    pub loop_interval_ms: NonZeroU32,
}

/// Bounds of the server role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerLimits {
    /// Tunnels at one time. Default: 100 000.
    #[serde(deserialize_with = "integer::read")]
    pub tunnels: NonZeroU32,
    /// Channels at one time. Default: 10 000.
    #[serde(deserialize_with = "integer::read")]
    pub channels: NonZeroU32,
    /// Channels of one tunnel. Default: 256.
    #[serde(deserialize_with = "integer::read")]
    pub channels_per_tunnel: NonZeroU32,
    /// Largest TTL a client may ask for. Default: 63.
    #[serde(deserialize_with = "integer::read")]
    pub ttl: NonZeroU8,
    /// Wrong cookies that an address without a proven tunnel may show in one window before it is ignored. Default: 16.
    #[serde(deserialize_with = "integer::read")]
    pub wrong_cookies: NonZeroU32,
}

/// Channels that clients may join: one group, one source or any, one port or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelRule {
    /// What people call it; unique within a server.
    pub name: String,
    /// Multicast group. One of version 6 is for AMT alone: UMTP carries none.
    pub group: IpAddr,
    /// The only source, for a source-specific channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// UDP ports: `5004` or `5004-5010`.
    pub ports: Ports,
    /// Whether clients may send into it. Default: no.
    #[serde(default)]
    pub send: bool,
    /// Largest TTL of what clients send into it; the limit of the server holds too. Default: 63.
    #[serde(default = "default_ttl", deserialize_with = "integer::read")]
    pub ttl: NonZeroU8,
}

/// One UDP port or a run of them, never empty, never port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    first: NonZeroU16,
    last: NonZeroU16,
}

/// Why a text is not a run of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// Not a port between 1 and 65535; holds the text.
    #[error("{0:?} is not a port in 1..=65535 or a run such as 5004-5010")]
    NotAPort(String),
    /// The last port is below the first.
    #[error("{first}-{last} ends before it begins")]
    Reversed {
        /// First port as written.
        first: NonZeroU16,
        /// Last port as written.
        last: NonZeroU16,
    },
}

impl ServerSnapshot {
    /// A server with the defaults of everything that has one, which serves nothing yet.
    #[must_use]
    pub fn new(listen: SocketAddrV4, interfaces: Vec<String>) -> Self {
        Self {
            listen,
            workers: None,
            interfaces,
            loop_check: LoopCheck::default(),
            timers: ServerTimers::default(),
            limits: ServerLimits::default(),
            channels: Vec::new(),
            amt: None,
            upstream: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        if self.listen.ip().is_multicast() || self.listen.ip().is_broadcast() {
            return Err(SnapshotError::new("listen", format_args!("{} is not an address of a host", self.listen.ip())));
        }
        match &self.upstream {
            None if self.interfaces.is_empty() => return Err(SnapshotError::new("interfaces", "names no interface")),
            Some(_) if !self.interfaces.is_empty() => {
                return Err(SnapshotError::new(
                    "interfaces",
                    "is there beside upstream: channels come from one of the two",
                ));
            }
            None => {}
            Some(upstream) => upstream.check().map_err(|error| error.within("upstream"))?,
        }
        if let Some(amt) = &self.amt {
            amt.check().map_err(|error| error.within("amt"))?;
            if let Some(index) = amt.listen.iter().position(|place| collide(*place, SocketAddr::V4(self.listen))) {
                let what = format!("{} is taken by listen of the server", amt.listen[index]);
                return Err(SnapshotError::new(format!("amt.listen[{index}]"), what));
            }
        }
        for (index, name) in self.interfaces.iter().enumerate() {
            check_interface(name).map_err(|reason| SnapshotError::new(format!("interfaces[{index}]"), reason))?;
            if self.interfaces[..index].contains(name) {
                return Err(SnapshotError::new(
                    format!("interfaces[{index}]"),
                    format_args!("{name:?} is named twice"),
                ));
            }
        }
        for (index, rule) in self.channels.iter().enumerate() {
            let field = format!("channels[{index}]");
            rule.check().map_err(|error| error.within(&field))?;
            if let Some(first) = self.channels[..index].iter().position(|other| other.name == rule.name) {
                let reason = format_args!("{:?} is the name of channels[{first}] too", rule.name).to_string();
                return Err(SnapshotError::new(format!("{field}.name"), reason));
            }
        }
        Ok(())
    }
}

impl ChannelRule {
    fn check(&self) -> Result<(), SnapshotError> {
        if self.name.trim().is_empty() {
            return Err(SnapshotError::new("name", "is empty"));
        }
        check_group(self.group).map_err(|reason| SnapshotError::new("group", reason))?;
        match self.source {
            Some(source) if !is_host_address(source) => {
                Err(SnapshotError::new("source", format_args!("{source} is not the address of a host")))
            }
            Some(source) if source.is_ipv4() != self.group.is_ipv4() => {
                let what = format!("{source} is not of the family of {}", self.group);
                Err(SnapshotError::new("source", what))
            }
            None if is_source_specific(self.group) => {
                let range = if self.group.is_ipv4() { "232.0.0.0/8" } else { "ff3x::/32" };
                let what = format!("is missing, and {} is in the source-specific range {range}", self.group);
                Err(SnapshotError::new("source", what))
            }
            Some(_) | None if self.send && self.group.is_ipv6() => {
                let what = format!("is for channels of version 4, which UMTP carries; {} is none", self.group);
                Err(SnapshotError::new("send", what))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Says what is wrong with a group that nobody may join.
pub(crate) fn check_group(group: IpAddr) -> Result<(), String> {
    match group {
        IpAddr::V4(address) if matches!(address.octets(), [224, 0, 0, _]) => {
            Err(format!("{group} is in 224.0.0.0/24, which never leaves its link"))
        }
        // RFC 4291 §2.7: scopes 0 to 2 are reserved, of an interface, of a link.
        IpAddr::V6(address) if address.is_multicast() && address.octets()[1] & 0x0f <= 2 => {
            Err(format!("{group} has a scope that never leaves its link"))
        }
        group if group.is_multicast() => Ok(()),
        group => Err(format!("{group} is not a multicast group")),
    }
}

/// Says what is wrong with the name of an interface, as far as the name alone tells.
pub(crate) fn check_interface(name: &str) -> Result<(), String> {
    // The kernel's own rule: IFNAMSIZ with its terminating zero is 16.
    let possible = !name.is_empty()
        && name.len() <= 15
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| c.is_whitespace() || matches!(c, '/' | ':' | '\0'));
    if possible { Ok(()) } else { Err(format!("{name:?} cannot be the name of an interface")) }
}

/// RFC 4607 §1: 232/8 and `ff3x::/32` are for source-specific channels only.
pub(crate) fn is_source_specific(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.octets()[0] == 232,
        IpAddr::V6(group) => matches!(group.segments(), [0xff30..=0xff3f, 0, ..]),
    }
}

impl Default for ServerTimers {
    fn default() -> Self {
        Self {
            join_timeout_ms: non_zero(60_000),
            idle_timeout_ms: non_zero(120_000),
            cookie_epoch_ms: non_zero(3_600_000),
            answer_interval_ms: non_zero(1_000),
            wrong_cookie_window_ms: non_zero(60_000),
            ignore_for_ms: non_zero(60_000),
            loop_interval_ms: non_zero(1_000),
        }
    }
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            tunnels: non_zero(100_000),
            channels: non_zero(10_000),
            channels_per_tunnel: non_zero(256),
            ttl: default_ttl(),
            wrong_cookies: non_zero(16),
        }
    }
}

const fn non_zero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("the constants of this file are not zero")
}

const fn default_ttl() -> NonZeroU8 {
    NonZeroU8::new(63).expect("63 is not zero")
}

impl Ports {
    /// One port.
    #[must_use]
    pub const fn single(port: NonZeroU16) -> Self {
        Self { first: port, last: port }
    }

    /// All ports from `first` to `last`, both included.
    ///
    /// # Errors
    /// When `last` is below `first`.
    pub fn new(first: NonZeroU16, last: NonZeroU16) -> Result<Self, PortsError> {
        if last < first { Err(PortsError::Reversed { first, last }) } else { Ok(Self { first, last }) }
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first.get()
    }

    /// The highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last.get()
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first()..=self.last()).contains(&port)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { first, last } = self;
        if first == last { write!(formatter, "{first}") } else { write!(formatter, "{first}-{last}") }
    }
}

impl FromStr for Ports {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        let port = |part: &str| part.trim().parse().map_err(|_| PortsError::NotAPort(text.to_owned()));
        match text.split_once('-') {
            Some((first, last)) => Self::new(port(first)?, port(last)?),
            None => port(text).map(Self::single),
        }
    }
}

impl Serialize for Ports {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last { serializer.serialize_u16(self.first()) } else { serializer.collect_str(self) }
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl serde::de::Visitor<'_> for Text {
            type Value = Ports;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a port in 1..=65535 or a run such as 5004-5010")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ports, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, port: u64) -> Result<Ports, E> {
                self.visit_str(&port.to_string())
            }

            fn visit_i64<E: serde::de::Error>(self, port: i64) -> Result<Ports, E> {
                self.visit_str(&port.to_string())
            }
        }
        deserializer.deserialize_any(Text)
    }
}
