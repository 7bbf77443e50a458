//! What `IGMPv3` and `MLDv2` have in common but for the length of an address.
//!
//! ```text
//!   query tail   | resv S QRV | QQIC | number of sources (2) | sources ... |
//!   record       | type | aux words | number of sources (2) | group | sources ... | auxiliary data: 4 * aux words |
//! ```

use super::{ParseError, Query, Record, RecordType, decode_octet, encode_octet};
use crate::ip::Family;
use std::net::IpAddr;
use std::time::Duration;

/// The S flag of a query.
const SUPPRESS_FLAG: u8 = 0x08;
/// The querier's robustness variable of a query.
const ROBUSTNESS_MASK: u8 = 0x07;
/// Octets of a record before its group.
const RECORD_HEADER_LEN: usize = 4;

/// A cursor over the octets of a message.
struct Reader<'a> {
    rest: &'a [u8],
    whole: usize,
}

impl<'a> Reader<'a> {
    fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets, whole: octets.len() }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ParseError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ParseError::Truncated(self.whole))?;
        self.rest = rest;
        Ok(taken)
    }

    fn addresses(&mut self, family: Family, count: u16) -> Result<Vec<IpAddr>, ParseError> {
        let len = family.address_len();
        // Taken before anything is allocated: a count that the octets do not bear out costs nothing.
        let octets = self.take(usize::from(count) * len)?;
        Ok(octets.chunks_exact(len).map(|address| read_address(family, address)).collect())
    }
}

/// The address at the start of `octets`, which hold one.
pub(crate) fn read_address(family: Family, octets: &[u8]) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from(*octets.first_chunk::<4>().expect("the caller saw four octets")),
        Family::V6 => IpAddr::from(*octets.first_chunk::<16>().expect("the caller saw sixteen octets")),
    }
}

/// Appends addresses of one family.
///
/// # Panics
/// When an address is of the other: the caller chose the family of the message.
pub(crate) fn append_addresses<'a>(
    family: Family,
    addresses: impl IntoIterator<Item = &'a IpAddr>,
    buffer: &mut Vec<u8>,
) {
    for address in addresses {
        assert_eq!(Family::of(*address), family, "groups and sources are of the family of their message");
        match address {
            IpAddr::V4(address) => buffer.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => buffer.extend_from_slice(&address.octets()),
        }
    }
}

/// Reads what follows the group of a query of the newest version into `query`; more octets may follow it.
pub(crate) fn read_query_tail(family: Family, tail: &[u8], whole: usize, query: &mut Query) -> Result<(), ParseError> {
    let mut reader = Reader { rest: tail, whole };
    let header = reader.take(4)?;
    query.suppress = header[0] & SUPPRESS_FLAG != 0;
    query.robustness = header[0] & ROBUSTNESS_MASK;
    query.interval = Duration::from_secs(decode_octet(header[1]).into());
    query.sources = reader.addresses(family, u16::from_be_bytes([header[2], header[3]]))?;
    Ok(())
}

/// Appends what follows the group of a query of the newest version.
pub(crate) fn append_query_tail(family: Family, query: &Query, buffer: &mut Vec<u8>) {
    let robustness = if query.robustness > ROBUSTNESS_MASK { 0 } else { query.robustness };
    let suppress = if query.suppress { SUPPRESS_FLAG } else { 0 };
    buffer.extend_from_slice(&[suppress | robustness, encode_octet(query.interval.as_secs())]);
    buffer.extend_from_slice(&count(&query.sources).to_be_bytes());
    append_addresses(family, &query.sources, buffer);
}

/// Reads a whole report of the newest version, whose first eight octets are there; more octets may follow the last record.
pub(crate) fn parse_records(family: Family, octets: &[u8]) -> Result<Vec<Record>, ParseError> {
    let mut reader = Reader::new(octets);
    let header = reader.take(8)?;
    let records = u16::from_be_bytes([header[6], header[7]]);
    // Not with_capacity(): the number is a claim until the octets are there.
    (0..records)
        .map(|_| {
            let [kind, aux_words, s0, s1] = *reader.take(RECORD_HEADER_LEN)? else { unreachable!("four were taken") };
            let group = read_address(family, reader.take(family.address_len())?);
            let sources = reader.addresses(family, u16::from_be_bytes([s0, s1]))?;
            reader.take(usize::from(aux_words) * 4)?;
            Ok(Record { kind: RecordType::from_code(kind), group, sources })
        })
        .collect()
}

/// Appends what follows the checksum of a report of the newest version.
pub(crate) fn append_records(family: Family, records: &[Record], buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&[0, 0]);
    buffer.extend_from_slice(&count(records).to_be_bytes());
    for Record { kind, group, sources } in records {
        buffer.extend_from_slice(&[kind.code(), 0]);
        buffer.extend_from_slice(&count(sources).to_be_bytes());
        append_addresses(family, [group], buffer);
        append_addresses(family, sources, buffer);
    }
}

fn count<T>(list: &[T]) -> u16 {
    u16::try_from(list.len()).expect("a list that fits a packet has at most 65535 entries")
}
