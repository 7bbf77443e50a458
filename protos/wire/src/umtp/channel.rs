//! A channel: group, port, and for source-specific multicast the source.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// How a channel is spelled in a name of the hierarchical address mapping; accepted in front of every channel.
const NAME_PREFIX: &str = "ham:ip:";

/// What is joined, left and sent to. Written `232.1.2.3@192.0.2.10:5004` with a source, `239.1.2.3:5004` without.
///
/// A channel that was read from a trailer may hold any octets: ask [`is_multicast`](Self::is_multicast) before joining it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// The destination address.
    pub group: Ipv4Addr,
    /// The only source that is wanted; `None` means any.
    pub source: Option<Ipv4Addr>,
    /// The UDP destination port; 0 stands for all of them (draft-liefooghe-castgate-02 §5.2, raw tunnelling).
    pub port: u16,
}

impl Channel {
    /// `0.0.0.0:0`: what stands in the trailer of a command that concerns no channel.
    pub const UNSPECIFIED: Self = Self::any_source(Ipv4Addr::UNSPECIFIED, 0);

    /// The channel of a group whatever its source.
    #[must_use]
    pub const fn any_source(group: Ipv4Addr, port: u16) -> Self {
        Self { group, source: None, port }
    }

    /// The channel of a group from one source only.
    #[must_use]
    pub const fn source_specific(source: Ipv4Addr, group: Ipv4Addr, port: u16) -> Self {
        Self { group, source: Some(source), port }
    }

    /// The second channel of an RTP pair, one port higher; `None` when there is no higher port.
    #[must_use]
    pub fn rtcp(&self) -> Option<Self> {
        self.port.checked_add(1).map(|port| Self { port, ..*self })
    }

    /// Whether the group is in 224.0.0.0/4.
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        self.group.is_multicast()
    }

    /// Whether the group is in 224.0.0.0/24, which no router forwards and no tunnel may.
    #[must_use]
    pub const fn is_link_local(&self) -> bool {
        matches!(self.group.octets(), [224, 0, 0, _])
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, source, port } = self;
        match source {
            Some(source) => write!(f, "{group}@{source}:{port}"),
            None => write!(f, "{group}:{port}"),
        }
    }
}

/// Why a text is not a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Nothing, or no number from 0 to 65535, after the last colon.
    #[error("channel {0:?} does not end in a port, as in 239.1.2.3:5004")]
    Port(String),
    /// What stands before the source or the port is no IPv4 address.
    #[error("group {0:?} is not an IPv4 address")]
    Group(String),
    /// An address outside 224.0.0.0/4.
    #[error("group {0} is not a multicast address")]
    NotMulticast(Ipv4Addr),
    /// What stands between @ and the port is no IPv4 address.
    #[error("source {0:?} is not an IPv4 address")]
    Source(String),
    /// A source that no packet can have.
    #[error("source {0} is not the address of a host")]
    NotHost(Ipv4Addr),
}

impl FromStr for Channel {
    type Err = ChannelError;

    /// Takes what [`Display`](fmt::Display) writes, with or without `ham:ip:` in front. The group must be multicast.
    fn from_str(text: &str) -> Result<Self, ChannelError> {
        let name = text.strip_prefix(NAME_PREFIX).unwrap_or(text);
        let (address, port) = name.rsplit_once(':').ok_or_else(|| ChannelError::Port(text.to_owned()))?;
        // `u16::from_str` would take a plus sign.
        let port = port
            .bytes()
            .all(|octet| octet.is_ascii_digit())
            .then(|| port.parse().ok())
            .flatten()
            .ok_or_else(|| ChannelError::Port(text.to_owned()))?;
        let (group, source) = match address.split_once('@') {
            Some((group, source)) => (group, Some(source)),
            None => (address, None),
        };
        let group: Ipv4Addr = group.parse().map_err(|_| ChannelError::Group(group.to_owned()))?;
        if !group.is_multicast() {
            return Err(ChannelError::NotMulticast(group));
        }
        let source = source
            .map(|source| source.parse::<Ipv4Addr>().map_err(|_| ChannelError::Source(source.to_owned())))
            .transpose()?;
        match source {
            Some(source) if source.is_multicast() || source.is_unspecified() || source.is_broadcast() => {
                Err(ChannelError::NotHost(source))
            }
            _ => Ok(Self { group, source, port }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_channel_is_written_as_it_is_read() {
        for text in ["232.1.2.3@192.0.2.10:5004", "239.1.2.3:5004", "224.2.127.254:0"] {
            assert_eq!(text.parse::<Channel>().unwrap().to_string(), text);
            assert_eq!(format!("ham:ip:{text}").parse::<Channel>(), text.parse::<Channel>());
        }
    }

    #[test]
    fn the_source_stands_after_the_group() {
        let channel: Channel = "232.1.2.3@192.0.2.10:5004".parse().unwrap();
        let expected = Channel::source_specific(Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(232, 1, 2, 3), 5004);
        assert_eq!(channel, expected);
    }

    #[test]
    fn a_bad_channel_is_refused_with_its_bad_part() {
        let refusal = |text: &str| text.parse::<Channel>().unwrap_err();
        let ten = Ipv4Addr::new(10, 1, 2, 3);
        assert_eq!(refusal("239.1.2.3"), ChannelError::Port("239.1.2.3".into()));
        assert_eq!(refusal("239.1.2.3:"), ChannelError::Port("239.1.2.3:".into()));
        assert_eq!(refusal("239.1.2.3:65536"), ChannelError::Port("239.1.2.3:65536".into()));
        assert_eq!(refusal("239.1.2.3:+5"), ChannelError::Port("239.1.2.3:+5".into()));
        assert_eq!(refusal("239.1.2:5"), ChannelError::Group("239.1.2".into()));
        assert_eq!(refusal("10.1.2.3:5"), ChannelError::NotMulticast(ten));
        assert_eq!(refusal("232.1.2.3@here:5"), ChannelError::Source("here".into()));
        assert_eq!(refusal("232.1.2.3@0.0.0.0:5"), ChannelError::NotHost(Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn the_rtcp_channel_is_one_port_higher_and_the_highest_port_has_none() {
        let rtp = Channel::any_source(Ipv4Addr::new(224, 2, 127, 254), 9874);
        assert_eq!(rtp.rtcp(), Some(Channel { port: 9875, ..rtp }));
        assert_eq!(Channel { port: 65535, ..rtp }.rtcp(), None);
    }

    #[test]
    fn link_local_groups_are_exactly_224_0_0() {
        let link_local = |group: [u8; 4]| Channel::any_source(group.into(), 1).is_link_local();
        assert!(link_local([224, 0, 0, 5]) && link_local([224, 0, 0, 255]));
        assert!(!link_local([224, 0, 1, 0]) && !link_local([225, 0, 0, 1]));
    }

    proptest! {
        #[test]
        fn any_text_is_a_channel_or_a_refusal(text in ".{0,40}") {
            let _ = text.parse::<Channel>();
        }
    }
}
