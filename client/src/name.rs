//! Group names of the Common Multicast API (RFC 7046 §3): what a user types for a channel.
//!
//! ```text
//!   ham:ip:232.1.2.3@192.0.2.10:5004        ham:ip:239.1.2.3:5004
//!       │      │         │        │
//!   namespace group   source    port        everything after a "/" is a credential and no part of the name
//! ```
//! Only the `ip` namespace with IPv4 addresses has a tunnel to travel through; the others are refused by name.

use std::fmt;
use std::str::FromStr;

use castgate_wire::umtp::{Channel, ChannelError};
use thiserror::Error;

/// The name of a channel, e.g. `ham:ip:232.1.2.3@192.0.2.10:5004`.
///
/// ```
/// let name: castgate_client::GroupName = "ham:ip:232.1.2.3@192.0.2.10:5004".parse()?;
/// assert_eq!(name.channel().port, 5004);
/// assert_eq!(name.to_string(), "ham:ip:232.1.2.3@192.0.2.10:5004");
/// # Ok::<(), castgate_client::NameError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupName {
    channel: Channel,
}

/// Why a text is not the name of a channel that can be received.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not of the form at all.
    #[error(
        "the name {0:?} is not of the form ham:ip:GROUP[@SOURCE]:PORT, for example ham:ip:232.1.2.3@192.0.2.10:5004"
    )]
    Form(String),
    /// Another namespace of RFC 7046.
    #[error("the name {0:?} is not in the namespace ip, the only one that tunnels carry")]
    Namespace(String),
    /// An IPv6 group.
    #[error("the name {0:?} is an IPv6 group, which UMTP cannot carry")]
    Ipv6(String),
    /// Something in it is not what it should be.
    #[error("the name {name:?}: {error}")]
    Channel {
        /// The whole name.
        name: String,
        /// What is wrong with it.
        error: ChannelError,
    },
}

impl GroupName {
    /// Names a channel.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// The channel that is named.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ham:ip:{}", self.channel)
    }
}

impl FromStr for GroupName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (is_ip, rest) = split_namespace(text)?;
        // RFC 7046 §3.1: credentials ("/" alg ";" val) do not belong to the name and are ignored when names are compared.
        let rest = rest.split_once('/').map_or(rest, |(name, _credentials)| name);
        if rest.starts_with('[') {
            return Err(NameError::Ipv6(text.to_owned()));
        }
        if !is_ip {
            return Err(NameError::Namespace(text.to_owned()));
        }
        let channel: Channel = rest.parse().map_err(|error| NameError::Channel { name: text.to_owned(), error })?;
        // Port 0 asks for all ports at once, which no socket of ours could take apart again.
        if channel.port == 0 { Err(NameError::Form(text.to_owned())) } else { Ok(Self { channel }) }
    }
}

/// Says whether the namespace is `ip`, and what follows it. The draft's `ipv4://` and a bare `group:port` mean the same.
fn split_namespace(text: &str) -> Result<(bool, &str), NameError> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return match scheme.to_ascii_lowercase().as_str() {
            "ipv4" => Ok((true, rest)),
            "ipv6" => Err(NameError::Ipv6(text.to_owned())),
            _ => Ok((false, rest)),
        };
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
    fn both_kinds_of_channel_are_named_and_read_back() {
        for text in ["ham:ip:232.1.2.3@192.0.2.10:5004", "ham:ip:239.1.2.3:5004"] {
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
            ("ham:ip:[ff3e::8000:1]@[2001:db8::1]:5004", "IPv6"),
            ("ham:ip:192.0.2.1:5004", "not a multicast address"),
            ("ham:ip:232.1.2.3@232.1.2.4:5004", "not the address of a host"),
        ];
        for (text, cause) in cases {
            let sentence = text.parse::<GroupName>().unwrap_err().to_string();
            assert!(sentence.contains(cause) && sentence.contains(text), "{text}: {sentence}");
        }
    }
}
