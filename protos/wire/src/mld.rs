//! MLD versions 1 and 2 (RFC 2710 §3, RFC 3810 §5): the payload of an IPv6 packet, a part of `ICMPv6`.
//!
//! ```text
//!   0      1      2          4               6          8            24           25     26            28
//!   | type | code | checksum | max response | reserved | group (16) |                                           version 1
//!   | 130  | code | checksum | max response | reserved | group (16) | resv S QRV | QQIC | sources (2) | ... |   query, 2
//!   | 143  | resv | checksum | reserved     | records  | ... |                                                  report, 2
//! ```

use crate::checksum::Checksum;
use crate::ip::Family;
use crate::ipv6::protocol;
use crate::membership::{
    Message, ParseError, Query, append_addresses, append_query_tail, append_records, decode_short, encode_short,
    parse_records, read_address, read_query_tail,
};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// The shortest report of version 2, in octets.
pub const REPORT_V2_LEN_MIN: usize = 8;
/// The length of a message of version 1, in octets.
pub const V1_LEN: usize = 24;
/// The shortest query of version 2, in octets.
pub const QUERY_V2_LEN_MIN: usize = 28;
/// Where the group stands, in octets.
const GROUP_AT: usize = 8;

/// Types of messages, by the names of RFC 3810 §5.
#[expect(missing_docs, reason = "the names are the RFC's")]
pub mod kind {
    pub const MULTICAST_LISTENER_QUERY: u8 = 130;
    pub const V1_MULTICAST_LISTENER_REPORT: u8 = 131;
    pub const V1_MULTICAST_LISTENER_DONE: u8 = 132;
    pub const V2_MULTICAST_LISTENER_REPORT: u8 = 143;
}

/// Reads a message between these addresses and verifies its checksum, which covers also what may follow the message.
///
/// # Errors
/// [`ParseError`] with what is wrong. Never panics, whatever the bytes.
pub fn parse(octets: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> Result<Message, ParseError> {
    let truncated = ParseError::Truncated(octets.len());
    let header = octets.first_chunk::<REPORT_V2_LEN_MIN>().ok_or(truncated)?;
    if sum(octets, source, destination).finish() != 0 {
        return Err(ParseError::Checksum);
    }
    let v1 =
        || octets.first_chunk::<V1_LEN>().map(|octets| read_address(Family::V6, &octets[GROUP_AT..])).ok_or(truncated);
    match header[0] {
        kind::MULTICAST_LISTENER_QUERY => {
            let code = u16::from_be_bytes([header[4], header[5]]);
            parse_query(octets, code, v1()?).map(Message::Query)
        }
        kind::V1_MULTICAST_LISTENER_REPORT => Ok(Message::OldReport { version: 1, group: v1()? }),
        kind::V1_MULTICAST_LISTENER_DONE => Ok(Message::OldLeave { group: v1()? }),
        kind::V2_MULTICAST_LISTENER_REPORT => parse_records(Family::V6, octets).map(Message::Report),
        unknown => Err(ParseError::UnknownType(unknown)),
    }
}

/// The length tells the version (RFC 3810 §8.1).
fn parse_query(octets: &[u8], code: u16, group: IpAddr) -> Result<Query, ParseError> {
    let (version, millis) = match octets.len() {
        V1_LEN => (1, code.into()),
        QUERY_V2_LEN_MIN.. => (2, decode_short(code)),
        len => return Err(ParseError::QueryLength(len)),
    };
    let mut query = Query {
        version,
        group: (!group.is_unspecified()).then_some(group),
        max_response: Duration::from_millis(millis.into()),
        suppress: false,
        robustness: 0,
        interval: Duration::ZERO,
        sources: Vec::new(),
    };
    if version == 2 {
        read_query_tail(Family::V6, &octets[V1_LEN..], octets.len(), &mut query)?;
    }
    Ok(query)
}

/// Appends a message between these addresses with its checksum.
///
/// # Panics
/// When a group or source is IPv4, or for more records or sources than a packet holds: the caller chose the family and
/// splits what is long, as [`membership::emit`](crate::membership::emit) does.
pub fn append(message: &Message, source: Ipv6Addr, destination: Ipv6Addr, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    let kind = match message {
        Message::Query(_) => kind::MULTICAST_LISTENER_QUERY,
        Message::OldReport { .. } => kind::V1_MULTICAST_LISTENER_REPORT,
        Message::OldLeave { .. } => kind::V1_MULTICAST_LISTENER_DONE,
        Message::Report(_) => kind::V2_MULTICAST_LISTENER_REPORT,
    };
    buffer.extend_from_slice(&[kind, 0, 0, 0]);
    match message {
        Message::Query(query) => {
            buffer.extend_from_slice(&max_response_code(query).to_be_bytes());
            buffer.extend_from_slice(&[0, 0]);
            append_addresses(Family::V6, [&query.group.unwrap_or(Ipv6Addr::UNSPECIFIED.into())], buffer);
            if query.version > 1 {
                append_query_tail(Family::V6, query, buffer);
            }
        }
        Message::OldReport { group, .. } | Message::OldLeave { group } => {
            buffer.extend_from_slice(&[0, 0, 0, 0]);
            append_addresses(Family::V6, [group], buffer);
        }
        Message::Report(records) => append_records(Family::V6, records, buffer),
    }
    let checksum = sum(&buffer[start..], source, destination).finish();
    buffer[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
}

fn max_response_code(query: &Query) -> u16 {
    let millis = u64::try_from(query.max_response.as_millis()).unwrap_or(u64::MAX);
    let code = if query.version > 1 { encode_short(millis) } else { u16::try_from(millis).unwrap_or(u16::MAX) };
    // A time above zero stays above zero.
    code.max(u16::from(!query.max_response.is_zero()))
}

/// The sum over pseudo header and message.
fn sum(octets: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> Checksum {
    Checksum::default().pseudo_header(source.into(), destination.into(), protocol::ICMPV6, octets.len()).add(octets)
}
