//! MRT routing information export: what route collectors and routers dump (RFC 6396 §2, §4.3; RFC 8050 for additional paths).
//!
//! ```text
//!   0               4       6       8               12
//!   ┌───────────────┬───────┬───────┬───────────────┬─────────────
//!   │ Timestamp     │ Type  │Subtype│ Length        │ Message
//!   └───────────────┴───────┴───────┴───────────────┴─────────────
//!   Message of RIB_IPV4_UNICAST and RIB_IPV6_UNICAST:
//!     Sequence 4 │ Prefix Length 1 │ Prefix 0..16 │ Entry Count 2 │ entries
//!   Entry: Peer Index 2 │ Originated Time 4 │ (Path Identifier 4) │ Attribute Length 2 │ BGP Attributes
//! ```
//! Only the origin of each prefix is wanted: the last AS of its `AS_PATH`. Where peers disagree, the one that most of them see, of
//! several the lowest. Records of other types are passed over.

use std::io::BufRead;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{RouteTable, RouteTableError};

const HEADER_BYTES: usize = 12;
const TABLE_DUMP_V2: u16 = 13;
/// RFC 6396 §4: the types that a dump may hold beside ours, and of which a file may begin.
const TYPES: [u16; 10] = [11, 12, 13, 16, 17, 32, 33, 48, 49, 64];
/// Longest record: thousands of peers with long paths. A dump of all collectors has none above 100 kB.
const RECORD_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// BGP path attributes (RFC 4271 §4.3).
const EXTENDED_LENGTH: u8 = 0x10;
const AS_PATH: u8 = 2;
const AS_SEQUENCE: u8 = 2;
const AS_SET: u8 = 1;

/// Whether a file that begins like this is MRT. No text has a zero octet there.
pub(super) fn is_mrt(first: &[u8]) -> bool {
    first
        .get(4..6)
        .and_then(|octets| octets.try_into().ok())
        .is_some_and(|octets| TYPES.contains(&u16::from_be_bytes(octets)))
}

pub(super) fn read(mut input: impl BufRead) -> Result<RouteTable, RouteTableError> {
    let mut table = RouteTable::default();
    let mut message = Vec::new();
    for record in 1.. {
        if input.fill_buf()?.is_empty() {
            break;
        }
        let wrong = |(field, reason): Wrong| RouteTableError::Record { record, field, reason };
        let mut header = [0; HEADER_BYTES];
        whole(&mut input, &mut header, "Header")?.map_err(wrong)?;
        let [_, _, _, _, kind @ .., a, b, c, d] = header;
        let [kind_high, kind_low, subtype_high, subtype_low] = kind;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length > RECORD_BYTES_MAX {
            return Err(wrong(("Length", format!("{length} octets, and no record is longer than {RECORD_BYTES_MAX}"))));
        }
        message.resize(usize::try_from(length).expect("a small number"), 0);
        whole(&mut input, &mut message, "Message")?.map_err(wrong)?;
        if u16::from_be_bytes([kind_high, kind_low]) != TABLE_DUMP_V2 {
            continue;
        }
        let (six, additional_paths) = match u16::from_be_bytes([subtype_high, subtype_low]) {
            2 => (false, false),
            4 => (true, false),
            8 => (false, true),
            10 => (true, true),
            // Peers, multicast, and families that we have no use for.
            _ => continue,
        };
        if let Some((prefix, asn)) = route(&message, six, additional_paths).map_err(wrong)? {
            // RFC 6396 §4.3.2: one record a prefix. Who writes two means the first.
            table.insert(prefix, asn)?;
        }
    }
    Ok(table)
}

/// A field in the words of the RFC, and what is wrong with it.
type Wrong = (&'static str, String);

/// Fills `buffer`. A file that ends within is wrong, which is another thing than one that cannot be read.
fn whole(input: &mut impl BufRead, buffer: &mut [u8], field: &'static str) -> std::io::Result<Result<(), Wrong>> {
    let mut read = 0;
    while read < buffer.len() {
        match input.read(&mut buffer[read..]) {
            Ok(0) => {
                let reason = format!("ends after {read} octets of {}", buffer.len());
                return Ok(Err((field, reason)));
            }
            Ok(more) => read += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(()))
}

/// The prefix of a record and its origin; `None`: nobody's path tells one.
fn route(message: &[u8], six: bool, additional_paths: bool) -> Result<Option<(IpNet, u32)>, Wrong> {
    let mut rest = Octets(message);
    rest.take(4, "Sequence Number")?;
    let [len] = rest.array("Prefix Length")?;
    let most = if six { 128 } else { 32 };
    if len > most {
        return Err(("Prefix Length", format!("{len} is more than {most}")));
    }
    let bits = rest.take(usize::from(len).div_ceil(8), "Prefix")?;
    let mut octets = [0; 16];
    octets[..bits.len()].copy_from_slice(bits);
    let prefix = if six {
        Ipv6Net::new(Ipv6Addr::from(octets), len).map(IpNet::V6)
    } else {
        let [a, b, c, d, ..] = octets;
        Ipv4Net::new(Ipv4Addr::new(a, b, c, d), len).map(IpNet::V4)
    };
    // RFC 6396 §4.3.2: the bits that follow the prefix mean nothing.
    let prefix = prefix.map_err(|error| ("Prefix Length", error.to_string()))?.trunc();
    let entries = u16::from_be_bytes(rest.array("Entry Count")?);
    let mut origins: Vec<(u32, usize)> = Vec::new();
    for _ in 0..entries {
        rest.take(2, "Peer Index")?;
        rest.take(4, "Originated Time")?;
        if additional_paths {
            rest.take(4, "Path Identifier")?;
        }
        let length = u16::from_be_bytes(rest.array("Attribute Length")?);
        let attributes = rest.take(length.into(), "BGP Attributes")?;
        let Some(origin) = origin(attributes)? else { continue };
        match origins.iter_mut().find(|(asn, _)| *asn == origin) {
            Some((_, times)) => *times += 1,
            None => origins.push((origin, 1)),
        }
    }
    let chosen = origins.into_iter().min_by_key(|(asn, times)| (std::cmp::Reverse(*times), *asn));
    Ok(chosen.map(|(asn, _)| (prefix, asn)))
}

/// The last AS of the path among these attributes.
fn origin(attributes: &[u8]) -> Result<Option<u32>, Wrong> {
    let mut rest = Octets(attributes);
    while !rest.0.is_empty() {
        let [flags, kind] = rest.array("Attribute Flags")?;
        let length = if flags & EXTENDED_LENGTH == 0 {
            let [length] = rest.array("Attribute Length")?;
            usize::from(length)
        } else {
            usize::from(u16::from_be_bytes(rest.array("Attribute Length")?))
        };
        let value = rest.take(length, "Attribute Value")?;
        if kind == AS_PATH {
            return last_as(value);
        }
    }
    Ok(None)
}

/// RFC 6396 §4.3.4: numbers of an `AS_PATH` have four octets. A set of several tells no origin; confederations stay inside one.
fn last_as(path: &[u8]) -> Result<Option<u32>, Wrong> {
    let mut rest = Octets(path);
    let mut last = None;
    while !rest.0.is_empty() {
        let [kind, count] = rest.array("AS_PATH Segment")?;
        let systems = rest.take(usize::from(count) * 4, "AS_PATH Segment")?;
        let end = systems.last_chunk::<4>().map(|octets| u32::from_be_bytes(*octets));
        match kind {
            AS_SEQUENCE => last = end.or(last),
            AS_SET => last = end.filter(|_| count == 1),
            _ => {}
        }
    }
    // RFC 7607, RFC 7300: nobody's.
    Ok(last.filter(|asn| *asn != super::NOBODY && *asn != u32::MAX))
}

/// What is left of a message.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], Wrong> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else {
            return Err((field, format!("needs {len} octets, and {} are left", self.0.len())));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn array<const LEN: usize>(&mut self, field: &'static str) -> Result<[u8; LEN], Wrong> {
        let taken = self.take(LEN, field)?;
        Ok(taken.try_into().expect("as long as was asked for"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dump_tells_the_origin_of_each_prefix() {
        let path = |systems: &[u32]| attributes(&[(AS_SEQUENCE, systems)]);
        let mut dump = record(1, &[0; 8]);
        dump.extend(record(2, &rib(&[10], 8, &[path(&[1, 2, 64_500]), path(&[3, 64_501]), path(&[4, 64_500])], false)));
        // A set of one is as good as a sequence; of several it tells nothing.
        dump.extend(record(2, &rib(&[10, 1], 16, &[attributes(&[(AS_SEQUENCE, &[1]), (AS_SET, &[64_502])])], false)));
        dump.extend(record(2, &rib(&[10, 2], 16, &[attributes(&[(AS_SEQUENCE, &[1]), (AS_SET, &[5, 6])])], false)));
        dump.extend(record(4, &rib(&[0x20, 1, 0x0d, 0xb8], 32, &[path(&[7, 4_200_000_000])], false)));
        dump.extend(record(8, &rib(&[192, 0, 2], 23, &[path(&[9, 8])], true)));
        dump.extend(record(6, b"a generic entry that means nothing here"));
        let table = RouteTable::read(dump.as_slice()).unwrap();
        let asn = |address: &str| table.asn_of(address.parse().unwrap());
        assert_eq!(table.len(), 4);
        assert_eq!([asn("10.0.0.1"), asn("10.1.0.1"), asn("10.2.0.1")], [Some(64_500), Some(64_502), Some(64_500)]);
        assert_eq!([asn("2001:db8::1"), asn("192.0.2.1"), asn("192.0.3.255")], [Some(4_200_000_000), Some(8), Some(8)]);
    }

    /// The first records of a dump of RIPE RIS have this form: extended length, other attributes first.
    #[test]
    fn attributes_before_the_path_are_passed_over() {
        let mut entry = vec![0x40, 1, 1, 0, 0x40, 3, 4, 192, 0, 2, 1];
        entry.extend([0x50, AS_PATH, 0, 6, AS_SEQUENCE, 1, 0, 0, 0xfb, 0xf4]);
        let dump = record(2, &rib(&[], 0, &[entry], false));
        assert_eq!(RouteTable::read(dump.as_slice()).unwrap().asn_of([192, 0, 2, 1].into()), Some(64_500));
    }

    #[test]
    fn what_is_wrong_is_named_by_record_and_field() {
        let good = record(2, &rib(&[10], 8, &[attributes(&[(AS_SEQUENCE, &[1])])], false));
        let after = |bad: Vec<u8>| [good.clone(), bad].concat();
        let long = [&[0, 0, 0, 0, 0, 13, 0, 2][..], &u32::MAX.to_be_bytes()].concat();
        let cut = |end: usize| after(good[..good.len() - end].to_vec());
        let short_entry = record(2, &[0, 0, 0, 0, 8, 10, 0, 1, 0, 0]);
        let attribute = record(2, &rib(&[10], 8, &[vec![0x40, AS_PATH, 9, 2, 1]], false));
        let segment = record(2, &rib(&[10], 8, &[vec![0x40, AS_PATH, 4, 2, 1, 0, 0]], false));
        for (dump, sentence) in [
            (after(vec![0; 5]), "record 2: Header: ends after 5 octets of 12"),
            (cut(1), "record 2: Message: ends after 24 octets of 25"),
            (after(long), "record 2: Length: 4294967295 octets, and no record is longer than 4194304"),
            (after(record(2, &[0, 0, 0, 0, 33])), "record 2: Prefix Length: 33 is more than 32"),
            (after(record(4, &[0, 0, 0, 0, 129])), "record 2: Prefix Length: 129 is more than 128"),
            (after(record(2, &[0, 0, 0, 0, 24, 10])), "record 2: Prefix: needs 3 octets, and 1 are left"),
            (after(short_entry), "record 2: Originated Time: needs 4 octets, and 0 are left"),
            (after(attribute), "record 2: Attribute Value: needs 9 octets, and 2 are left"),
            (after(segment), "record 2: AS_PATH Segment: needs 4 octets, and 2 are left"),
            (record(1, &[]), "holds no route"),
        ] {
            assert_eq!(RouteTable::read(dump.as_slice()).unwrap_err().to_string(), sentence);
        }
    }

    proptest! {
        #[test]
        fn no_dump_is_too_strange(octets in prop::collection::vec(any::<u8>(), 0..200), subtype in 0..12_u16) {
            let _ = RouteTable::read(record(subtype, &octets).as_slice());
            let _ = RouteTable::read([&[0, 0, 0, 0, 0, 13][..], octets.as_slice()].concat().as_slice());
        }

        #[test]
        fn a_dump_with_one_octet_changed_ends_with_a_table_or_a_sentence(at in 0..35_usize, octet in any::<u8>()) {
            let mut dump = record(2, &rib(&[10], 8, &[attributes(&[(AS_SEQUENCE, &[1])])], false));
            dump[at] = octet;
            let _ = RouteTable::read(dump.as_slice());
        }
    }

    fn record(subtype: u16, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[0, 0, 0, 0][..], &TABLE_DUMP_V2.to_be_bytes(), &subtype.to_be_bytes(), &length.to_be_bytes(), message]
            .concat()
    }

    fn rib(prefix: &[u8], len: u8, entries: &[Vec<u8>], additional_paths: bool) -> Vec<u8> {
        let mut message = [&[0, 0, 0, 7, len][..], prefix].concat();
        message.extend(u16::try_from(entries.len()).unwrap().to_be_bytes());
        for attributes in entries {
            message.extend([0; 6]);
            message.extend(additional_paths.then_some([0, 0, 0, 1]).into_iter().flatten());
            message.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
            message.extend(attributes);
        }
        message
    }

    fn attributes(segments: &[(u8, &[u32])]) -> Vec<u8> {
        let mut path = Vec::new();
        for (kind, systems) in segments {
            path.extend([*kind, u8::try_from(systems.len()).unwrap()]);
            path.extend(systems.iter().flat_map(|asn| asn.to_be_bytes()));
        }
        [&[0x40, AS_PATH, u8::try_from(path.len()).unwrap()][..], &path].concat()
    }
}
