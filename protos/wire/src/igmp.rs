//! IGMP versions 1 to 3 (RFC 1112 appendix I, RFC 2236 §2, RFC 3376 §4): the payload of an IPv4 packet.
//!
//! ```text
//!   0      1      2          4       8             9      10            12
//!   | type | code | checksum | group |                                            versions 1 and 2
//!   | 0x11 | code | checksum | group | resv S QRV | QQIC | sources (2) | ... |    query, version 3
//!   | 0x22 | resv | checksum | reserved | records (2) | ... |                     report, version 3
//! ```

use crate::checksum::Checksum;
use crate::ip::Family;
use crate::membership::{
    Message, ParseError, Query, append_addresses, append_query_tail, append_records, decode_octet, encode_octet,
    parse_records, read_address, read_query_tail,
};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The shortest message, and the only length of versions 1 and 2, in octets.
pub const LEN_MIN: usize = 8;
/// The shortest query of version 3, in octets.
pub const QUERY_V3_LEN_MIN: usize = 12;
/// Within which time a query of version 1 is answered (RFC 2236 §4).
pub const MAX_RESPONSE_V1: Duration = Duration::from_secs(10);

/// Types of messages, by the names of RFC 3376 §4.
#[expect(missing_docs, reason = "the names are the RFC's")]
pub mod kind {
    pub const MEMBERSHIP_QUERY: u8 = 0x11;
    pub const V1_MEMBERSHIP_REPORT: u8 = 0x12;
    pub const V2_MEMBERSHIP_REPORT: u8 = 0x16;
    pub const V2_LEAVE_GROUP: u8 = 0x17;
    pub const V3_MEMBERSHIP_REPORT: u8 = 0x22;
}

/// Reads a message and verifies its checksum, which covers also what may follow the message.
///
/// # Errors
/// [`ParseError`] with what is wrong. Never panics, whatever the bytes.
pub fn parse(octets: &[u8]) -> Result<Message, ParseError> {
    let header = octets.first_chunk::<LEN_MIN>().ok_or(ParseError::Truncated(octets.len()))?;
    if Checksum::default().add(octets).finish() != 0 {
        return Err(ParseError::Checksum);
    }
    let group = read_address(Family::V4, &header[4..]);
    match header[0] {
        kind::MEMBERSHIP_QUERY => parse_query(octets, header[1], group).map(Message::Query),
        kind::V1_MEMBERSHIP_REPORT => Ok(Message::OldReport { version: 1, group }),
        kind::V2_MEMBERSHIP_REPORT => Ok(Message::OldReport { version: 2, group }),
        kind::V2_LEAVE_GROUP => Ok(Message::OldLeave { group }),
        kind::V3_MEMBERSHIP_REPORT => parse_records(Family::V4, octets).map(Message::Report),
        unknown => Err(ParseError::UnknownType(unknown)),
    }
}

/// Length and code tell the version (RFC 3376 §7.1).
fn parse_query(octets: &[u8], code: u8, group: IpAddr) -> Result<Query, ParseError> {
    let (version, max_response) = match (octets.len(), code) {
        (LEN_MIN, 0) => (1, MAX_RESPONSE_V1),
        (LEN_MIN, code) => (2, tenths(code.into())),
        (QUERY_V3_LEN_MIN.., code) => (3, tenths(decode_octet(code))),
        (len, _) => return Err(ParseError::QueryLength(len)),
    };
    let mut query = Query {
        version,
        group: (!group.is_unspecified()).then_some(group),
        max_response,
        suppress: false,
        robustness: 0,
        interval: Duration::ZERO,
        sources: Vec::new(),
    };
    if version == 3 {
        read_query_tail(Family::V4, &octets[LEN_MIN..], octets.len(), &mut query)?;
    }
    Ok(query)
}

/// Appends a message with its checksum.
///
/// # Panics
/// When a group or source is IPv6, or for more records or sources than a packet holds: the caller chose the family and
/// splits what is long, as [`membership::emit`](crate::membership::emit) does.
pub fn append(message: &Message, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    let (kind, code) = match message {
        Message::Query(query) => (kind::MEMBERSHIP_QUERY, max_response_code(query)),
        Message::OldReport { version: ..=1, .. } => (kind::V1_MEMBERSHIP_REPORT, 0),
        Message::OldReport { .. } => (kind::V2_MEMBERSHIP_REPORT, 0),
        Message::OldLeave { .. } => (kind::V2_LEAVE_GROUP, 0),
        Message::Report(_) => (kind::V3_MEMBERSHIP_REPORT, 0),
    };
    buffer.extend_from_slice(&[kind, code, 0, 0]);
    match message {
        Message::Query(query) => {
            append_addresses(Family::V4, [&query.group.unwrap_or(Ipv4Addr::UNSPECIFIED.into())], buffer);
            if query.version > 2 {
                append_query_tail(Family::V4, query, buffer);
            }
        }
        Message::OldReport { group, .. } | Message::OldLeave { group } => {
            append_addresses(Family::V4, [group], buffer);
        }
        Message::Report(records) => append_records(Family::V4, records, buffer),
    }
    let checksum = Checksum::default().add(&buffer[start..]).finish();
    buffer[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
}

fn tenths(count: u32) -> Duration {
    Duration::from_millis(100 * u64::from(count))
}

fn max_response_code(query: &Query) -> u8 {
    let tenths = u64::try_from(query.max_response.as_millis() / 100).unwrap_or(u64::MAX);
    match query.version {
        ..=1 => 0,
        // 0 would make the query one of version 1.
        2 => u8::try_from(tenths).unwrap_or(u8::MAX).max(1),
        _ if query.max_response.is_zero() => 0,
        _ => encode_octet(tenths).max(1),
    }
}
