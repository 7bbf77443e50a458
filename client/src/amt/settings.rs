//! Where an AMT tunnel looks for relays, and how a user writes that.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use castgate_endpoint::amt::discovery::{self, Mapping, Method, Place};
use castgate_endpoint::amt::gateway;
use castgate_wire::amt::PORT;
use thiserror::Error;

use crate::dns::Dns;
use crate::locate::Locator;

/// Whether any relay is asked for at an address that many share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anycast {
    /// No.
    Off,
    /// At the addresses that are assigned for it (RFC 7450 §7.1): 192.52.193.1 and `2001:3::1`.
    Assigned,
    /// At this place instead.
    At(Place),
}

/// Settings of an AMT tunnel. The ways of finding relays are tried in the order of their fields, which is that of RFC 8777
/// §3.1.2 behind whatever was named by hand.
#[derive(Debug, Clone)]
pub struct AmtSettings {
    /// Relays for every channel, the best first.
    pub relays: Vec<Place>,
    /// Relays for some channels (RFC 8313 §3.4).
    pub map: Vec<Mapping>,
    /// The hierarchy of tunnel databases, asked for AMT relays whatever the locator was made for.
    pub locator: Option<Locator>,
    /// Domains whose `_amt._udp` is looked up.
    pub domains: Vec<String>,
    /// Anycast.
    pub anycast: Anycast,
    /// Whether AMTRELAY records of the source are looked up (RFC 8777).
    pub driad: bool,
    /// Who is asked for names.
    pub dns: Dns,
    /// The address it starts from, which decides the family of relays; the kernel's choice when `None`.
    pub local: Option<IpAddr>,
    /// A channel silent for so long makes the tunnel go to another relay, after it has asked its relay once more; `None` never
    /// does.
    pub silence: Option<Duration>,
    /// Times and limits of the search; where relays are looked for is told by the fields above.
    pub discovery: discovery::Config,
    /// Times and limits of each connection; its silence is told above.
    pub gateway: gateway::Config,
}

impl Default for AmtSettings {
    /// Anycast and DRIAD, with the documented times.
    fn default() -> Self {
        Self {
            relays: Vec::new(),
            map: Vec::new(),
            locator: None,
            domains: Vec::new(),
            anycast: Anycast::Assigned,
            driad: true,
            dns: Dns::default(),
            local: None,
            silence: gateway::Config::default().silence_initial,
            discovery: discovery::Config::default(),
            gateway: gateway::Config::default(),
        }
    }
}

impl AmtSettings {
    /// These relays and no others.
    #[must_use]
    pub fn of_relays(relays: Vec<Place>) -> Self {
        Self { relays, anycast: Anycast::Off, driad: false, ..Self::default() }
    }

    /// What discovery is told.
    pub(super) fn discovery_config(&self) -> discovery::Config {
        let is_used = |method: &Method| match method {
            Method::Explicit => !self.relays.is_empty(),
            Method::Map => !self.map.is_empty(),
            Method::Hierarchy => self.locator.is_some(),
            Method::DnsSd => !self.domains.is_empty(),
            Method::Anycast => self.anycast != Anycast::Off,
            Method::Driad => self.driad,
        };
        discovery::Config {
            methods: Method::ORDER.into_iter().filter(is_used).collect(),
            relays: self.relays.clone(),
            map: self.map.clone(),
            domains: self.domains.clone(),
            anycast: match &self.anycast {
                Anycast::Off => Vec::new(),
                Anycast::Assigned => discovery::Config::default().anycast,
                Anycast::At(place) => vec![place.clone()],
            },
            ipv4: self.local.is_none_or(|local| local.is_ipv4()),
            ipv6: self.local.is_none_or(|local| local.is_ipv6()),
            ..self.discovery.clone()
        }
    }

    /// What each gateway is told.
    pub(super) fn gateway_config(&self) -> gateway::Config {
        // Payloads are handed out without their ECN field, so that a mark on the outside would be lost: the relay must not let
        // routers mark (RFC 9601 §5).
        gateway::Config { silence_initial: self.silence, ecn: false, ..self.gateway.clone() }
    }
}

/// Why a text names no relay.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not HOST[:PORT], for example 192.0.2.1, [2001:db8::1]:2268 or relay.example.net")]
pub struct PlaceError(String);

/// Reads a relay: `HOST` or `HOST:PORT`, with an address or a name; the port is 2268 if none is given. An IPv6 address
/// before a port stands in brackets.
///
/// # Errors
/// [`PlaceError`] when it is neither.
pub fn parse_place(text: &str) -> Result<Place, PlaceError> {
    let form = || PlaceError(text.to_owned());
    let has_port = |address: SocketAddr| if address.port() == 0 { Err(form()) } else { Ok(Place::Address(address)) };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return has_port(address);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(bare) => Some(bare.parse::<Ipv6Addr>().map_err(|_| form())?.into()),
        None => text.parse::<IpAddr>().ok(),
    };
    if let Some(address) = address {
        return Ok(Place::Address(SocketAddr::new(address, PORT)));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(form)?),
        None => (text, PORT),
    };
    let is_name = |name: &str| {
        name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet))
            // What looks like an address and is none was mistyped.
            && name.bytes().any(|octet| octet.is_ascii_alphabetic())
    };
    if is_name(host) { Ok(Place::Name(host.to_owned(), port)) } else { Err(form()) }
}

/// How a relay was found, as the end of a sentence about it.
pub(crate) struct Found(pub(crate) Method);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Method::Explicit => "as it was named",
            Method::Map => "from the map",
            Method::Hierarchy => "named by a tunnel database",
            Method::DnsSd => "found by DNS-SD",
            Method::Anycast => "found by anycast",
            Method::Driad => "named by the AMTRELAY record of the source",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_an_address_or_a_name_with_or_without_port() {
        let address = |text: &str| Ok(Place::Address(text.parse().unwrap()));
        assert_eq!(parse_place("192.0.2.1"), address("192.0.2.1:2268"));
        assert_eq!(parse_place("192.0.2.1:99"), address("192.0.2.1:99"));
        assert_eq!(parse_place("2001:db8::1"), address("[2001:db8::1]:2268"));
        assert_eq!(parse_place("[2001:db8::1]"), address("[2001:db8::1]:2268"));
        assert_eq!(parse_place("[2001:db8::1]:99"), address("[2001:db8::1]:99"));
        assert_eq!(parse_place("relay.example.net"), Ok(Place::Name("relay.example.net".to_owned(), 2268)));
        assert_eq!(parse_place("relay:99"), Ok(Place::Name("relay".to_owned(), 99)));
    }

    #[test]
    fn what_is_no_relay_is_refused_with_what_was_written() {
        for text in
            ["", ":2268", "a b", "192.0.2.1:0", "192.0.2", "relay:0", "relay:65536", "[::1", "[relay]:1", "http://x"]
        {
            let error = parse_place(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn ways_that_lead_nowhere_are_not_asked() {
        assert_eq!(AmtSettings::default().discovery_config().methods, [Method::Anycast, Method::Driad]);
        let relays = vec![parse_place("192.0.2.1").unwrap()];
        assert_eq!(AmtSettings::of_relays(relays).discovery_config().methods, [Method::Explicit]);
        let domains = vec!["example.net".to_owned()];
        let all = AmtSettings { domains, local: Some("192.0.2.7".parse().unwrap()), ..AmtSettings::default() };
        let config = all.discovery_config();
        assert_eq!(config.methods, [Method::DnsSd, Method::Anycast, Method::Driad]);
        assert!(config.ipv4 && !config.ipv6, "from an address of IPv4 no relay of IPv6 is reached");
    }
}
