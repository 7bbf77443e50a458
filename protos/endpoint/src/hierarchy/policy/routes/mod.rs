//! Which Autonomous System an address belongs to, from a table that an operator gives.
//!
//! ```text
//!   "prefix,asn" lines ──▶ csv ─┐
//!                               ├─▶ RouteTable ─▶ longest prefix around the address ─▶ AS number
//!   MRT TABLE_DUMP_V2  ──▶ mrt ─┘
//! ```
//! Reads what it is handed, record by record: opening a file, and unpacking it, is its caller's part. Whatever is in it, the
//! reader ends with a table or with one sentence that names the place, and holds no more than the bounds below.

mod aggregate;
mod csv;
mod mrt;

use std::io::{self, BufRead};
use std::net::IpAddr;

use ipnet::IpNet;

use super::prefixes::Prefixes;

pub use aggregate::TooManyNetworks;
pub use csv::Row;

/// Prefixes of one table: three times those of the Internet.
const PREFIXES_MAX: usize = 4_000_000;
/// How many bits shorter than a prefix of the table an aggregate may be: what a claim costs at most is two to this number of look-ups.
const AGGREGATED_BITS_MAX: u8 = 8;
/// Not the number of anybody (RFC 7607): a prefix of which only that it belongs to somebody else is known.
pub const NOBODY: u32 = 0;

/// A route table.
#[derive(Debug, Default)]
pub struct RouteTable(Prefixes);

/// Why there is no table: one sentence that names the line, or the record and its field.
#[derive(Debug, thiserror::Error)]
pub enum RouteTableError {
    /// A line of `prefix,asn` is none.
    #[error("line {0}: {1}")]
    Line(usize, String),
    /// A record of MRT is wrong.
    #[error("record {record}: {field}: {reason}")]
    Record {
        /// Its number, the first one being 1.
        record: usize,
        /// The field, in the words of RFC 6396.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// More than is held.
    #[error("has more than {PREFIXES_MAX} prefixes")]
    TooMany,
    /// Nothing is in it.
    #[error("holds no route")]
    Empty,
    /// It cannot be read to its end.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl RouteTable {
    /// Reads a table of either form: MRT is known by its first record, anything else is text.
    ///
    /// # Errors
    /// [`RouteTableError`].
    pub fn read(mut input: impl BufRead) -> Result<Self, RouteTableError> {
        let table = if mrt::is_mrt(input.fill_buf()?) { mrt::read(input)? } else { csv::read(input)? };
        if table.0.len() == 0 { Err(RouteTableError::Empty) } else { Ok(table) }
    }

    /// The table of rows that were read before.
    #[must_use]
    pub fn of_rows(rows: impl IntoIterator<Item = Row>) -> Self {
        let mut table = Self::default();
        for Row { prefix, asn } in rows {
            table.0.insert(prefix, asn);
        }
        table
    }

    /// The Autonomous System of an address.
    #[must_use]
    pub fn asn_of(&self, address: IpAddr) -> Option<u32> {
        self.0.around(address).map(|(_, asn)| asn).filter(|asn| *asn != NOBODY)
    }

    /// The Autonomous System of a whole network: that of the longest prefix around it.
    #[must_use]
    pub fn asn_of_network(&self, network: IpNet) -> Option<u32> {
        self.0.longest(network).map(|(_, asn)| asn).filter(|asn| *asn != NOBODY)
    }

    /// Whether a network belongs to these Autonomous Systems: the longest prefix around it does, or both of its halves do, so that
    /// an aggregate of theirs is theirs as well. What others have within one of their prefixes does not matter.
    #[must_use]
    pub fn gives(&self, network: IpNet, asns: &[u32]) -> bool {
        self.gives_halves(network, asns, AGGREGATED_BITS_MAX)
    }

    fn gives_halves(&self, network: IpNet, asns: &[u32], bits: u8) -> bool {
        if self.asn_of_network(network).is_some_and(|asn| asns.contains(&asn)) {
            return true;
        }
        let Some(bits) = bits.checked_sub(1) else { return false };
        let Ok(mut halves) = network.subnets(network.prefix_len() + 1) else { return false };
        halves.all(|half| self.gives_halves(half, asns, bits))
    }

    /// How many prefixes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a prefix in; the number that it has already.
    fn insert(&mut self, prefix: IpNet, asn: u32) -> Result<Option<u32>, RouteTableError> {
        let before = self.0.insert(prefix, asn);
        if self.0.len() > PREFIXES_MAX { Err(RouteTableError::TooMany) } else { Ok(before) }
    }
}

/// The rows that decide which addresses belong to one of these Autonomous Systems: theirs, and within them those of others.
/// Those of others lose their number, which is nobody's business then.
#[must_use]
pub fn rows_about(rows: &[Row], asns: &[u32]) -> Vec<Row> {
    let mut theirs = Prefixes::default();
    for Row { prefix, asn } in rows.iter().filter(|row| asns.contains(&row.asn)) {
        theirs.insert(*prefix, *asn);
    }
    let about = |row: &Row| {
        let Row { prefix, asn } = *row;
        if asns.contains(&asn) {
            Some(Row { prefix, asn })
        } else {
            theirs.longest(prefix).map(|_| Row { prefix, asn: NOBODY })
        }
    };
    rows.iter().filter_map(about).collect()
}

/// Reads the rows of a text of `prefix,asn` lines.
///
/// # Errors
/// [`RouteTableError`], which names the line.
pub fn rows_of(text: &str) -> Result<Vec<Row>, RouteTableError> {
    csv::rows(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_about_some_systems_answer_as_the_whole_table_does() {
        let text = "10.0.0.0/8,64500\n10.1.0.0/16,64501\n10.1.2.0/24,64500\n192.0.2.0/24,64502\n2001:db8::/32,64500\n";
        let rows = rows_of(text).unwrap();
        let whole = RouteTable::read(text.as_bytes()).unwrap();
        let part = rows_about(&rows, &[64_500]);
        assert_eq!(part.iter().filter(|row| row.asn == NOBODY).count(), 1);
        assert_eq!(part.len(), 4, "what lies nowhere near is left out");
        let part = RouteTable::of_rows(part);
        for address in ["10.0.0.1", "10.1.0.1", "10.1.2.3", "192.0.2.1", "2001:db8::1", "203.0.113.1"] {
            let address = address.parse().unwrap();
            let expected = whole.asn_of(address).filter(|asn| *asn == 64_500);
            assert_eq!(part.asn_of(address), expected, "{address}");
        }
    }
}
