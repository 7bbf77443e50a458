//! Where a server is, as people write it: a name or an address, perhaps with a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`. The host is a name of the DNS or an address of a host.
///
/// ```
/// use castgate_control::Place;
/// let place: Place = "[2001:db8::1]:2268".parse()?;
/// assert_eq!((place.host(), place.port().map(|port| port.get())), ("2001:db8::1", Some(2268)));
/// assert_eq!("2001:db8::1".parse::<Place>()?.to_string(), "2001:db8::1");
/// # Ok::<(), castgate_control::PlaceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    host: String,
    port: Option<NonZeroU16>,
}

/// Why a text is not a place; each variant holds the part that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Neither a name nor an address.
    #[error("{0:?} is no name and no address of a host")]
    Host(String),
    /// An address that no host has.
    #[error("{0} is not the address of a host")]
    Address(IpAddr),
    /// Not a port between 1 and 65535.
    #[error("{0:?} is no port")]
    Port(String),
}

impl Place {
    /// The same place with this port, unless it names one.
    #[must_use]
    pub fn or_port(self, port: NonZeroU16) -> Self {
        Self { port: self.port.or(Some(port)), ..self }
    }

    /// Name in lower case, or address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address, when it is one and no name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The port, when one is named.
    #[must_use]
    pub fn port(&self) -> Option<NonZeroU16> {
        self.port
    }
}

impl From<(IpAddr, NonZeroU16)> for Place {
    fn from((address, port): (IpAddr, NonZeroU16)) -> Self {
        Self { host: address.to_string(), port: Some(port) }
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let not_a_host = || PlaceError::Host(text.to_owned());
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (inner, rest) = rest.split_once(']').ok_or_else(not_a_host)?;
            inner.parse::<Ipv6Addr>().map_err(|_| not_a_host())?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(not_a_host)?) };
            (inner, port)
        } else if text.parse::<Ipv6Addr>().is_ok() {
            // Whoever leaves out the brackets names no port.
            (text, None)
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let host = match host.parse::<IpAddr>() {
            Ok(address) if is_host_address(address) => address.to_string(),
            Ok(address) => return Err(PlaceError::Address(address)),
            Err(_) if is_name(host) => host.to_ascii_lowercase(),
            Err(_) => return Err(PlaceError::Host(host.to_owned())),
        };
        let port = port.map(|port| port.parse().map_err(|_| PlaceError::Port(port.to_owned())));
        Ok(Self { host, port: port.transpose()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match (&self.host, self.port) {
            (host, Some(port)) if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            (host, Some(port)) => write!(formatter, "{host}:{port}"),
            (host, None) => formatter.write_str(host),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether an address can be that of a host: no multicast, no broadcast, nothing that means "any".
#[must_use]
pub fn is_host_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !(address.is_multicast() || address.is_broadcast() || address.octets()[0] == 0),
        IpAddr::V6(address) => {
            // A link-local address means something only together with an interface, a mapped one is of version 4.
            !(address.is_multicast() || address.is_unspecified() || address.is_unicast_link_local())
                && address.to_ipv4_mapped().is_none()
        }
    }
}

/// Whether a text can be a name of the DNS.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // What looks like an address must be one: "127.0.0.300" is no name of anything.
    let number = |label: &str| label.bytes().all(|octet| octet.is_ascii_digit());
    text.len() <= 253 && name.split('.').all(label) && !name.rsplit('.').next().is_some_and(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_place_is_read_and_one_is_written() {
        for (text, written) in [
            ("relay.example.net", "relay.example.net"),
            ("Relay.Example.net:2268", "relay.example.net:2268"),
            ("192.0.2.1:10100", "192.0.2.1:10100"),
            ("[2001:DB8::1]:2268", "[2001:db8::1]:2268"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8:0::1", "2001:db8::1"),
        ] {
            let place: Place = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(place.to_string(), written);
            assert_eq!(written.parse::<Place>().as_ref(), Ok(&place));
        }
    }

    #[test]
    fn what_is_no_place_is_named() {
        for text in ["", ":2268", "a b", "-a", "a..b", "127.0.0.300", "[::1", "[relay]:1", "[::1]2268", "::g:1", "a/b"]
        {
            let error = text.parse::<Place>().expect_err(text);
            assert!(matches!(error, PlaceError::Host(_) | PlaceError::Port(_)), "{text}: {error}");
        }
        for text in ["relay:0", "relay:65536", "relay:x", "192.0.2.1:", "a:b:c"] {
            assert!(matches!(text.parse::<Place>(), Err(PlaceError::Port(_))), "{text}");
        }
        for text in ["224.0.0.1", "0.0.0.0:1", "255.255.255.255", "[ff3e::1]:1", "::", "fe80::1", "::ffff:192.0.2.1"] {
            assert!(matches!(text.parse::<Place>(), Err(PlaceError::Address(_))), "{text}");
        }
    }

    #[test]
    fn a_port_is_filled_in_where_none_is_named() {
        let port = NonZeroU16::new(2268).unwrap();
        for (text, filled) in [("relay", "relay:2268"), ("relay:1", "relay:1"), ("::1", "[::1]:2268")] {
            assert_eq!(text.parse::<Place>().unwrap().or_port(port).to_string(), filled);
        }
    }
}
