//! Group membership as endpoints see it: one shape for IGMP and MLD.
//!
//! Owns whole IP packets that carry a query, a report or a leave. The octets of the messages themselves are read and written
//! by [`igmp`](crate::igmp) and [`mld`](crate::mld); what follows from a message is decided by the endpoints.
//!
//! | message | IGMP | MLD |
//! |---|---|---|
//! | [`Message::Query`] | versions 1 to 3 | versions 1 and 2 |
//! | [`Message::Report`] | version 3 | version 2 |
//! | [`Message::OldReport`] | versions 1 and 2 | version 1 |
//! | [`Message::OldLeave`] | version 2 | version 1, where it is called done |

mod body;
mod code;
mod packet;

pub use crate::ip::Family;
pub use packet::{PACKET_LEN_MAX, Received, TRAFFIC_CLASS, emit, parse};

pub(crate) use body::{
    append_addresses, append_query_tail, append_records, parse_records, read_address, read_query_tail,
};
pub(crate) use code::{decode_octet, decode_short, encode_octet, encode_short};

use crate::ip;
use std::net::IpAddr;
use std::time::Duration;

/// What a record says about its group (RFC 3376 §4.2.12, RFC 3810 §5.2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordType {
    /// These sources are wanted; the answer to a query.
    ModeIsInclude,
    /// All sources but these are wanted; the answer to a query.
    ModeIsExclude,
    /// From now on these sources are wanted.
    ChangeToInclude,
    /// From now on all sources but these are wanted.
    ChangeToExclude,
    /// These sources are wanted as well.
    AllowNewSources,
    /// These sources are wanted no more.
    BlockOldSources,
    /// A type without a meaning, to be ignored; holds it.
    Unknown(u8),
}

impl RecordType {
    /// The type of a code.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::ModeIsInclude,
            2 => Self::ModeIsExclude,
            3 => Self::ChangeToInclude,
            4 => Self::ChangeToExclude,
            5 => Self::AllowNewSources,
            6 => Self::BlockOldSources,
            unknown => Self::Unknown(unknown),
        }
    }

    /// The code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::ModeIsInclude => 1,
            Self::ModeIsExclude => 2,
            Self::ChangeToInclude => 3,
            Self::ChangeToExclude => 4,
            Self::AllowNewSources => 5,
            Self::BlockOldSources => 6,
            Self::Unknown(code) => code,
        }
    }

    /// Whether the sources are those that are not wanted, so that the list cannot be told in parts.
    #[must_use]
    pub const fn excludes(self) -> bool {
        matches!(self, Self::ModeIsExclude | Self::ChangeToExclude)
    }
}

/// One group of a report. The group is as it was received: ask whether it is multicast before believing it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// What is said.
    pub kind: RecordType,
    /// Of which group.
    pub group: IpAddr,
    /// With which sources, of the same family.
    pub sources: Vec<IpAddr>,
}

/// A query, general, for a group, or for sources of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    /// 1 to 3 with IGMP, 1 or 2 with MLD.
    pub version: u8,
    /// Which group is asked for; `None` for all of them.
    pub group: Option<IpAddr>,
    /// Within which time to answer. Sent as the next shorter time that its field can hold, but never as zero unless it is;
    /// `IGMPv1` has no such field and means ten seconds.
    pub max_response: Duration,
    /// S: routers that hear the query leave their timers alone. Absent, as all that follows, from the older versions.
    pub suppress: bool,
    /// How many losses in a row the querier provides for; 0 when it does not say, or more than 7.
    pub robustness: u8,
    /// The time between general queries; 0 when it does not say. Sent as the next shorter time that its field can hold.
    pub interval: Duration,
    /// Which sources of the group are asked for; none for all of them.
    pub sources: Vec<IpAddr>,
}

/// What is said about membership.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// Who wants what?
    Query(Query),
    /// I want this, by groups and sources.
    Report(Vec<Record>),
    /// I want this group, in the words of an older version.
    OldReport {
        /// 1 or 2 with IGMP, 1 with MLD.
        version: u8,
        /// Which group.
        group: IpAddr,
    },
    /// I want this group no more, in the words of an older version.
    OldLeave {
        /// Which group.
        group: IpAddr,
    },
}

/// Why a packet is no message about membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// No IP packet.
    #[error(transparent)]
    Ip(#[from] ip::ParseError),
    /// The checksum of the IPv4 header is wrong.
    #[error("the IPv4 header checksum is wrong")]
    HeaderChecksum,
    /// A part of a datagram.
    #[error("a fragment is no message about membership")]
    Fragment,
    /// Another protocol than IGMP in IPv4 or `ICMPv6` in IPv6; holds its number.
    #[error("IP protocol {0} does not carry messages about membership")]
    Protocol(u8),
    /// Fewer octets than the message promises; holds the number found.
    #[error("{0} octets are too short for their message about membership")]
    Truncated(usize),
    /// A query whose length is that of no version; holds it, in octets.
    #[error("a query of {0} octets belongs to no version")]
    QueryLength(usize),
    /// The checksum of the message is wrong.
    #[error("the checksum of the message about membership is wrong")]
    Checksum,
    /// A type to be ignored; holds it.
    #[error("message type {0:#04x} is not about membership")]
    UnknownType(u8),
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Ip(error) => error.label(),
            Self::HeaderChecksum => "membership_header_checksum",
            Self::Fragment => "membership_fragment",
            Self::Protocol(_) => "membership_protocol",
            Self::Truncated(_) => "membership_truncated",
            Self::QueryLength(_) => "membership_query_length",
            Self::Checksum => "membership_checksum",
            Self::UnknownType(_) => "membership_type",
        }
    }
}
