//! Group names of the Common Multicast API (RFC 7046 §3): what a user types for a channel.
//!
//! ```text
//!   ham:ip:232.1.2.3@192.0.2.10:5004        ham:ip:239.1.2.3:5004        ham:ip:[ff3e::8000:1]@[2001:db8::1]:5004
//!       │      │         │        │
//!   namespace group   source    port        everything after a "/" is a credential and no part of the name
//! ```
//! Only the `ip` namespace has a tunnel to travel through; the others are refused by name.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use castgate_wire::umtp::{Channel, ChannelError};
use thiserror::Error;

/// The name of a channel, e.g. `ham:ip:232.1.2.3@192.0.2.10:5004`.
///
/// ```
/// let name: castgate_client::GroupName = "ham:ip:[ff3e::8000:1]@[2001:db8::1]:5004".parse()?;
/// assert_eq!(name.port(), 5004);
/// assert_eq!(name.to_string(), "ham:ip:[ff3e::8000:1]@[2001:db8::1]:5004");
/// # Ok::<(), castgate_client::NameError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupName {
    // Group and source are of one family, and the port is not 0.
    group: IpAddr,
    source: Option<IpAddr>,
    port: u16,
}

/// Why a text is not the name of a channel that can be received.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not of the form at all.
    #[error(
        "the name {0:?} is not of the form ham:ip:GROUP[@SOURCE]:PORT, for example ham:ip:232.1.2.3@192.0.2.10:5004 \
         or ham:ip:[ff3e::8000:1]@[2001:db8::1]:5004"
    )]
    Form(String),
    /// Another namespace of RFC 7046.
    #[error("the name {0:?} is not in the namespace ip, the only one that tunnels carry")]
    Namespace(String),
    /// A group of IPv6 that is none, or never leaves its link.
    #[error("the name {name:?}: group {group} is not a multicast address of more than one link")]
    Group {
        /// The whole name.
        name: String,
        /// What stands where the group should.
        group: Ipv6Addr,
    },
    /// A source of IPv6 that no packet can have.
    #[error("the name {name:?}: source {source_address} is not the address of a host")]
    Source {
        /// The whole name.
        name: String,
        /// What stands where the source should.
        source_address: Ipv6Addr,
    },
    /// Something in a name with IPv4 addresses is not what it should be.
    #[error("the name {name:?}: {error}")]
    Channel {
        /// The whole name.
        name: String,
        /// What is wrong with it.
        error: ChannelError,
    },
}

impl GroupName {
    /// Names a channel of IPv4.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        let Channel { group, source, port } = channel;
        Self { group: group.into(), source: source.map(IpAddr::from), port }
    }

    /// Where packets of the channel go.
    #[must_use]
    pub fn group(&self) -> IpAddr {
        self.group
    }

    /// Where they come from, when that is part of the name.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Their UDP destination port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The channel, if its addresses are of IPv4: what UMTP can carry.
    #[must_use]
    pub fn channel(&self) -> Option<Channel> {
        let ipv4 = |address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        let group = ipv4(self.group)?;
        Some(Channel { group, source: self.source.and_then(ipv4), port: self.port })
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, source, port } = self;
        write!(formatter, "ham:ip:{}", Bracketed(*group))?;
        if let Some(source) = source {
            write!(formatter, "@{}", Bracketed(*source))?;
        }
        write!(formatter, ":{port}")
    }
}

/// An address as it stands before a port.
struct Bracketed(IpAddr);

impl fmt::Display for Bracketed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(formatter),
            IpAddr::V6(address) => write!(formatter, "[{address}]"),
        }
    }
}

impl FromStr for GroupName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (is_ip, rest) = split_namespace(text)?;
        // RFC 7046 §3.1: credentials ("/" alg ";" val) do not belong to the name and are ignored when names are compared.
        let rest = rest.split_once('/').map_or(rest, |(name, _credentials)| name);
        if !is_ip {
            return Err(NameError::Namespace(text.to_owned()));
        }
        if rest.starts_with('[') {
            return ipv6(text, rest);
        }
        let channel: Channel = rest.parse().map_err(|error| NameError::Channel { name: text.to_owned(), error })?;
        // Port 0 asks for all ports at once, which no socket of ours could take apart again.
        if channel.port == 0 { Err(NameError::Form(text.to_owned())) } else { Ok(Self::new(channel)) }
    }
}

/// Reads `[GROUP]:PORT` or `[GROUP]@[SOURCE]:PORT`; `name` is the whole of it, for refusals.
fn ipv6(name: &str, text: &str) -> Result<GroupName, NameError> {
    let form = || NameError::Form(name.to_owned());
    let (group, rest) = bracketed(text).ok_or_else(form)?;
    let (source, rest) = match rest.strip_prefix('@') {
        Some(rest) => bracketed(rest).map(|(source, rest)| (Some(source), rest)).ok_or_else(form)?,
        None => (None, rest),
    };
    let port = rest.strip_prefix(':').filter(|port| port.bytes().all(|octet| octet.is_ascii_digit()));
    let port = port.and_then(|port| port.parse().ok()).filter(|port| *port != 0).ok_or_else(form)?;
    // RFC 4291 §2.7: scopes 0 (reserved), 1 (interface) and 2 (link) are forwarded by nobody.
    if !group.is_multicast() || group.octets()[1] & 0x0f <= 2 {
        return Err(NameError::Group { name: name.to_owned(), group });
    }
    match source {
        Some(source) if source.is_multicast() || source.is_unspecified() => {
            Err(NameError::Source { name: name.to_owned(), source_address: source })
        }
        _ => Ok(GroupName { group: group.into(), source: source.map(IpAddr::from), port }),
    }
}

/// The address in brackets at the start, and what follows.
fn bracketed(text: &str) -> Option<(Ipv6Addr, &str)> {
    let (address, rest) = text.strip_prefix('[')?.split_once(']')?;
    Some((address.parse().ok()?, rest))
}

/// Says whether the namespace is `ip`, and what follows it. The draft's `ipv4://` and `ipv6://` and a bare `group:port` mean
/// the same.
fn split_namespace(text: &str) -> Result<(bool, &str), NameError> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Ok((["ipv4", "ipv6"].iter().any(|ip| scheme.eq_ignore_ascii_case(ip)), rest));
    }
    let Some((_ham, rest)) = text.split_at_checked(4).filter(|(ham, _)| ham.eq_ignore_ascii_case("ham:")) else {
        return Ok((true, text));
    };
    let (namespace, rest) = rest.split_once(':').ok_or_else(|| NameError::Form(text.to_owned()))?;
    Ok((namespace.eq_ignore_ascii_case("ip"), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_channel_of_both_families_are_named_and_read_back() {
        for text in [
            "ham:ip:232.1.2.3@192.0.2.10:5004",
            "ham:ip:239.1.2.3:5004",
            "ham:ip:[ff3e::8000:1]@[2001:db8::1]:5004",
            "ham:ip:[ff15::1234]:5004",
        ] {
            assert_eq!(text.parse::<GroupName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn aliases_case_and_credentials_make_no_difference() {
        let plain: GroupName = "ham:ip:239.1.2.3:5004".parse().unwrap();
        for text in
            ["HAM:IP:239.1.2.3:5004", "ipv4://239.1.2.3:5004", "239.1.2.3:5004", "ham:ip:239.1.2.3:5004/md5;abc"]
        {
            assert_eq!(text.parse(), Ok(plain), "{text}");
        }
        let plain: GroupName = "ham:ip:[ff15::1]:5004".parse().unwrap();
        for text in ["[ff15::1]:5004", "ipv6://[ff15:0::1]:5004", "ham:ip:[ff15::1]:5004/md5;abc"] {
            assert_eq!(text.parse(), Ok(plain), "{text}");
        }
    }

    #[test]
    fn only_ipv4_is_a_channel_of_umtp() {
        let channel: Channel = "232.1.2.3@192.0.2.10:5004".parse().unwrap();
        assert_eq!(GroupName::new(channel).channel(), Some(channel));
        assert_eq!("ham:ip:[ff15::1]:5004".parse::<GroupName>().unwrap().channel(), None);
    }

    #[test]
    fn every_refusal_quotes_the_name_and_says_the_cause() {
        let cases = [
            ("ham:ip:239.1.2.3", "port"),
            ("ham:ip:239.1.2.3:0", "form"),
            ("ham:ip:239.1.2:5004", "group"),
            ("ham:", "form"),
            ("", "port"),
            ("ham:sip:news@example.org:5004", "namespace"),
            ("sip://news@example.org", "namespace"),
            ("ham:ip:[ff3e::8000:1]@[2001:db8::1]", "form"),
            ("ham:ip:[ff3e::8000:1]@192.0.2.1:5004", "form"),
            ("ham:ip:[ff3e::8000:1:5004", "form"),
            ("ham:ip:[ff3e::8000:1]:0", "form"),
            ("ham:ip:[2001:db8::1]:5004", "not a multicast address"),
            ("ham:ip:[ff02::1]:5004", "more than one link"),
            ("ham:ip:[ff3e::8000:1]@[ff3e::1]:5004", "not the address of a host"),
            ("ham:ip:192.0.2.1:5004", "not a multicast address"),
            ("ham:ip:232.1.2.3@232.1.2.4:5004", "not the address of a host"),
        ];
        for (text, cause) in cases {
            let sentence = text.parse::<GroupName>().unwrap_err().to_string();
            assert!(sentence.contains(cause) && sentence.contains(text), "{text}: {sentence}");
        }
    }
}
