//! How a person names a tunnel database: a URL, `HOST[:PORT]`, or a bare name.
//!
//! Owns the notation; looking names up is the caller's. Used for the roots of the locator and the parents of the registrar.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use castgate_wire::registry::{self, Scheme};
use serde::{Deserialize, Serialize};

/// TCP port of a database when none is named, also in a URL.
pub const DEFAULT_PORT: u16 = 5632;
/// What a bare name is tried as first: a service record of this name below it.
pub const SERVICE: &str = "_castgate._tcp";
/// Longest host name that DNS can carry, in octets.
const NAME_LEN_MAX: usize = 253;

/// A tunnel database as somebody wrote it. Reads from and prints as text, also in serde.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseAddress {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where to connect to.
    pub place: Place,
    /// Path of the HTTP requests; [`registry::PATH`] unless a URL names another.
    pub path: String,
}

/// The host of a [`DatabaseAddress`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// An address: nothing to look up.
    Socket(SocketAddr),
    /// A host name with a port: look up its addresses.
    Name {
        /// The host name.
        name: String,
        /// The TCP port.
        port: u16,
    },
    /// A bare name: look up the service record of [`SERVICE`] below it; without one, its addresses with [`DEFAULT_PORT`].
    Service(String),
}

/// Why a text is not the address of a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A scheme other than http and https.
    #[error("database `{0}`: only http:// and https:// are spoken")]
    Scheme(String),
    /// User, query or fragment in a URL, or what no URL is made of.
    #[error("database `{0}`: a URL of a database is http[s]://HOST[:PORT][/PATH]")]
    Url(String),
    /// A port that is not 1 to 65535.
    #[error("database `{0}`: the port is not a number from 1 to 65535")]
    Port(String),
    /// Neither an address nor a host name.
    #[error("database `{0}`: `{1}` is neither an address nor a host name")]
    Host(String, String),
}

impl DatabaseAddress {
    /// The database at an address, with the usual path, over http.
    #[must_use]
    pub fn of_socket(address: SocketAddr) -> Self {
        Self::at(Scheme::Http, Place::Socket(address))
    }

    /// The database at a place, with the usual path.
    #[must_use]
    pub fn at(scheme: Scheme, place: Place) -> Self {
        Self { scheme, place, path: registry::PATH.to_owned() }
    }

    /// What goes into the `Host` field of a request: `HOST:PORT` as named, not as looked up.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Socket(address) => address.to_string(),
            Place::Name { name, port } => format!("{name}:{port}"),
            Place::Service(name) => format!("{name}:{DEFAULT_PORT}"),
        }
    }
}

impl Place {
    /// The `HOST[:PORT]` of a URL; `None` when it is neither an address nor a host name with or without a port.
    pub(super) fn of_url_host(text: &str, default_port: u16) -> Option<Self> {
        // A URL writes addresses of IPv6 in brackets.
        if text.matches(':').count() > 1 && !text.starts_with('[') {
            return None;
        }
        let has_port = text.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        Some(match (Self::parse(text, text, true).ok()?, has_port) {
            (place, true) => place,
            (Self::Socket(address), false) => Self::Socket(SocketAddr::new(address.ip(), default_port)),
            (Self::Name { name, .. } | Self::Service(name), false) => Self::Name { name, port: default_port },
        })
    }

    fn parse(text: &str, whole: &str, in_url: bool) -> Result<Self, AddressError> {
        let port_of = |port: &str| match port.parse::<u16>() {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(AddressError::Port(whole.to_owned())),
        };
        let wrong_host = |host: &str| AddressError::Host(whole.to_owned(), host.to_owned());
        if let Some(bracketed) = text.strip_prefix('[') {
            let (host, rest) = bracketed.split_once(']').ok_or_else(|| wrong_host(text))?;
            let address: Ipv6Addr = host.parse().map_err(|_| wrong_host(host))?;
            let port = match rest.strip_prefix(':') {
                Some(port) => port_of(port)?,
                None if rest.is_empty() => DEFAULT_PORT,
                None => return Err(wrong_host(text)),
            };
            return Ok(Self::Socket(SocketAddr::new(address.into(), port)));
        }
        // A bare IPv6 address holds colons of its own and cannot carry a port.
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Socket(SocketAddr::new(address, DEFAULT_PORT)));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port_of(port)?)),
            None => (text, None),
        };
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self::Socket(SocketAddr::new(address, port.unwrap_or(DEFAULT_PORT))));
        }
        if !is_host_name(host) {
            return Err(wrong_host(host));
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        Ok(match port {
            Some(port) => Self::Name { name, port },
            None if in_url => Self::Name { name, port: DEFAULT_PORT },
            None => Self::Service(name),
        })
    }
}

/// What a URL is made of (RFC 3986 §2), so that no line of a request can be broken with it, and every HTTP library carries it.
pub(super) fn is_url_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&octet)
}

/// Letters, digits, `-` and `_` in labels of 1 to 63; not all of it digits and dots (`1.2.3` is a mistyped address).
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_is_fine = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
    };
    name.len() <= NAME_LEN_MAX
        && name.split('.').all(label_is_fine)
        && name.bytes().any(|octet| !octet.is_ascii_digit() && octet != b'.')
}

impl FromStr for DatabaseAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let whole = text.trim();
        let (scheme, rest, in_url) = match whole.split_once("://") {
            Some((scheme, rest)) => {
                let scheme = Scheme::parse(scheme).ok_or_else(|| AddressError::Scheme(whole.to_owned()))?;
                (scheme, rest, true)
            }
            None => (Scheme::Http, whole, false),
        };
        let (host, path) = match rest.find('/') {
            Some(at) if in_url => rest.split_at(at),
            _ => (rest, ""),
        };
        let plain = |octet| is_url_octet(octet) && !matches!(octet, b'?' | b'#' | b'@');
        if in_url && !rest.bytes().all(plain) {
            return Err(AddressError::Url(whole.to_owned()));
        }
        let path = if path.is_empty() || path == "/" { registry::PATH } else { path };
        Ok(Self { scheme, place: Place::parse(host, whole, in_url)?, path: path.to_owned() })
    }
}

impl fmt::Display for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path != registry::PATH {
            return write!(f, "{}://{}{}", self.scheme, self.authority(), self.path);
        }
        if self.scheme == Scheme::Https {
            return write!(f, "https://{}", self.authority());
        }
        match &self.place {
            Place::Socket(address) => write!(f, "{address}"),
            Place::Name { name, port } => write!(f, "{name}:{port}"),
            Place::Service(name) => f.write_str(name),
        }
    }
}

impl TryFrom<String> for DatabaseAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<DatabaseAddress> for String {
    fn from(address: DatabaseAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_reads_and_prints_again() {
        let name = |name: &str, port| Place::Name { name: name.to_owned(), port };
        let cases = [
            ("127.0.4.1", Place::Socket("127.0.4.1:5632".parse().unwrap()), "127.0.4.1:5632"),
            ("127.0.4.1:80", Place::Socket("127.0.4.1:80".parse().unwrap()), "127.0.4.1:80"),
            ("::1", Place::Socket("[::1]:5632".parse().unwrap()), "[::1]:5632"),
            ("[2001:db8::1]:8080", Place::Socket("[2001:db8::1]:8080".parse().unwrap()), "[2001:db8::1]:8080"),
            ("Roots.Example", Place::Service("roots.example".to_owned()), "roots.example"),
            ("roots.example.", Place::Service("roots.example".to_owned()), "roots.example"),
            ("roots.example:5633", name("roots.example", 5633), "roots.example:5633"),
            ("http://roots.example", name("roots.example", 5632), "roots.example:5632"),
            ("HTTP://roots.example:80/", name("roots.example", 80), "roots.example:80"),
            (
                "http://127.0.5.1:5632/script/castgate.cgs",
                "127.0.5.1:5632".parse::<SocketAddr>().unwrap().into(),
                "127.0.5.1:5632",
            ),
            (
                "http://192.0.2.1/tds/castgate.cgs",
                Place::Socket("192.0.2.1:5632".parse().unwrap()),
                "http://192.0.2.1:5632/tds/castgate.cgs",
            ),
            ("https://Roots.example", name("roots.example", 5632), "https://roots.example:5632"),
            (
                "HTTPS://[2001:db8::1]:443/script/castgate.cgs",
                Place::Socket("[2001:db8::1]:443".parse().unwrap()),
                "https://[2001:db8::1]:443",
            ),
            ("https://a:1/tds/castgate.cgs", name("a", 1), "https://a:1/tds/castgate.cgs"),
        ];
        for (text, place, printed) in cases {
            let address: DatabaseAddress = text.parse().unwrap();
            assert_eq!(address.place, place, "{text}");
            assert_eq!(address.scheme == Scheme::Https, printed.starts_with("https"), "{text}");
            assert_eq!(address.to_string(), printed, "{text}");
            assert_eq!(printed.parse::<DatabaseAddress>().unwrap(), address, "{printed}");
        }
    }

    #[test]
    fn what_is_no_database_is_refused_with_a_sentence_that_quotes_it() {
        for text in [
            "",
            "ftp://roots.example",
            "https://",
            "http://",
            "http://a@b",
            "http://a/<b>",
            "http://a/`b",
            "http://a/b\\c",
            "http://a/x?y=1",
            "a b",
            "roots.example:0",
            "roots.example:65536",
            "roots.example:http",
            "1.2.3",
            "256.1.1.1",
            "[::1",
            "[::1]5632",
            "-.-..",
            "a/b",
            "http://a/b#c",
        ] {
            let error = text.parse::<DatabaseAddress>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{text}: {error}");
        }
    }

    impl From<SocketAddr> for Place {
        fn from(address: SocketAddr) -> Self {
            Self::Socket(address)
        }
    }
}
