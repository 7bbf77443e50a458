//! AMTRELAY resource records (RFC 8777 §4): which relay serves a source.
//!
//! Owns the data of a record, as octets and as text, and the name under which it is asked for. Who asks, and what follows, is
//! decided by the discovery of the gateway; zones are made by whoever publishes them.
//!
//! ```text
//!   0            1              2
//!   | precedence | D | type (7) | relay: nothing, 4 or 16 octets, or a domain name |
//! ```

mod name;
mod text;

pub use name::{Name, NameError, reverse_name};
pub use text::TextError;

use std::net::{Ipv4Addr, Ipv6Addr};

/// The number of the type of record.
pub const TYPE: u16 = 260;
/// The type of record in a zone file.
pub const MNEMONIC: &str = "AMTRELAY";
/// Octets before the relay.
const HEADER_LEN: usize = 2;
/// D beside the type of relay.
const DISCOVERY_OPTIONAL_FLAG: u8 = 0x80;

/// Which relay, by the types of RFC 8777 §4.2.3.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Relay {
    /// Type 0: no relay for this source.
    None,
    /// Type 1.
    V4(Ipv4Addr),
    /// Type 2.
    V6(Ipv6Addr),
    /// Type 3: all addresses of a name.
    Name(Name),
    /// A type without a meaning, to be ignored: its number, of which seven bits go to the wire, and what stands there.
    Unknown(u8, Vec<u8>),
}

impl Relay {
    /// The number of the type.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::V4(_) => 1,
            Self::V6(_) => 2,
            Self::Name(_) => 3,
            Self::Unknown(kind, _) => *kind & !DISCOVERY_OPTIONAL_FLAG,
        }
    }
}

/// The data of one record. Written `10 0 1 203.0.113.15`, as in a zone file; one of an unknown type in the form of RFC 3597.
///
/// ```
/// use castgate_wire::amtrelay::{Record, Relay};
///
/// let record: Record = "10 0 1 203.0.113.15".parse()?;
/// assert_eq!(record.relay, Relay::V4("203.0.113.15".parse()?));
/// assert_eq!(record.to_generic(), r"\# 6 0a01cb00710f");
/// assert_eq!(Record::parse(&record.to_vec())?, record);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Lower is tried first.
    pub precedence: u8,
    /// D: a Request may go there without a Relay Discovery before it.
    pub discovery_optional: bool,
    /// Which relay.
    pub relay: Relay,
}

/// Why octets are no data of an AMTRELAY record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Fewer octets than precedence and type; holds the number found.
    #[error("{0} octets are too short for an AMTRELAY record")]
    Truncated(usize),
    /// A relay whose length does not belong to its type.
    #[error("a relay of type {kind} does not have {len} octets")]
    RelayLength {
        /// The type of relay.
        kind: u8,
        /// The octets found.
        len: usize,
    },
    /// A relay that is no domain name.
    #[error("the relay is no domain name: {0}")]
    Name(#[from] NameError),
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Truncated(_) => "amtrelay_truncated",
            Self::RelayLength { .. } => "amtrelay_length",
            Self::Name(_) => "amtrelay_name",
        }
    }
}

impl Record {
    /// Reads the data of a record.
    ///
    /// # Errors
    /// [`ParseError`] with what is wrong. Never panics, whatever the bytes.
    pub fn parse(rdata: &[u8]) -> Result<Self, ParseError> {
        let ([precedence, second], octets) =
            rdata.split_first_chunk::<HEADER_LEN>().ok_or(ParseError::Truncated(rdata.len()))?;
        let kind = second & !DISCOVERY_OPTIONAL_FLAG;
        let length = ParseError::RelayLength { kind, len: octets.len() };
        let relay = match kind {
            0 if octets.is_empty() => Relay::None,
            0 => return Err(length),
            1 => Relay::V4(<[u8; 4]>::try_from(octets).map_err(|_| length)?.into()),
            2 => Relay::V6(<[u8; 16]>::try_from(octets).map_err(|_| length)?.into()),
            3 => Relay::Name(Name::parse(octets)?),
            kind => Relay::Unknown(kind, octets.to_vec()),
        };
        Ok(Self { precedence: *precedence, discovery_optional: second & DISCOVERY_OPTIONAL_FLAG != 0, relay })
    }

    /// The data of the record.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let flag = if self.discovery_optional { DISCOVERY_OPTIONAL_FLAG } else { 0 };
        let mut rdata = vec![self.precedence, flag | self.relay.kind()];
        match &self.relay {
            Relay::None => {}
            Relay::V4(address) => rdata.extend_from_slice(&address.octets()),
            Relay::V6(address) => rdata.extend_from_slice(&address.octets()),
            Relay::Name(name) => rdata.extend_from_slice(name.as_octets()),
            Relay::Unknown(_, octets) => rdata.extend_from_slice(octets),
        }
        rdata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(precedence: u8, discovery_optional: bool, relay: Relay) -> Record {
        Record { precedence, discovery_optional, relay }
    }

    #[track_caller]
    fn holds(rdata: &[u8], record: &Record) {
        assert_eq!(Record::parse(rdata).as_ref(), Ok(record));
        assert_eq!(record.to_vec(), rdata);
    }

    #[test]
    fn all_types_hold_in_both_directions() {
        holds(b"\0\0", &record(0, false, Relay::None));
        holds(b"\x0a\x01\xcb\0\x71\x0f", &record(10, false, Relay::V4(Ipv4Addr::new(203, 0, 113, 15))));
        let v6 = Relay::V6("2001:db8::15".parse().unwrap());
        holds(b"\x0a\x02\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x15", &record(10, false, v6));
        let name = Relay::Name("amtrelays.example.com.".parse().unwrap());
        holds(b"\x80\x83\x09amtrelays\x07example\x03com\0", &record(128, true, name));
        holds(b"\x01\x84", &record(1, true, Relay::Unknown(4, Vec::new())));
        holds(b"\x01\x7fabc", &record(1, false, Relay::Unknown(127, b"abc".to_vec())));
    }

    #[test]
    fn lengths_that_do_not_belong_to_the_type_are_refused() {
        for len in 0..20 {
            let with = |kind: u8| Record::parse(&[&[10, kind][..], &vec![0; len]].concat());
            let wrong = |kind| Err(ParseError::RelayLength { kind, len });
            assert_eq!(with(0).is_ok(), len == 0);
            assert!(len == 4 || with(1) == wrong(1));
            assert!(len == 16 || with(2) == wrong(2));
        }
        assert_eq!(Record::parse(b""), Err(ParseError::Truncated(0)));
        assert_eq!(Record::parse(b"\x0a"), Err(ParseError::Truncated(1)));
    }

    #[test]
    fn a_name_without_its_root_as_in_the_examples_of_the_rfc_is_read_and_never_written() {
        let short = b"\x80\x83\x09amtrelays\x07example\x03com";
        let read = Record::parse(short).unwrap();
        assert_eq!(read, record(128, true, Relay::Name("amtrelays.example.com.".parse().unwrap())));
        assert_eq!(read.to_vec(), [&short[..], b"\0"].concat());
    }

    proptest! {
        #[test]
        fn what_parses_is_written_and_read_again_the_same(
            rdata in proptest::collection::vec(any::<u8>(), 0..40),
            kind in 0_u8..6,
        ) {
            let mut rdata = rdata;
            if let Some(octet) = rdata.get_mut(1) {
                *octet = *octet & 0x80 | kind;
            }
            if let Ok(record) = Record::parse(&rdata) {
                prop_assert_eq!(Record::parse(&record.to_vec()), Ok(record.clone()));
                prop_assert_eq!(record.to_string().parse::<Record>(), Ok(record.clone()));
                prop_assert_eq!(record.to_generic().parse::<Record>(), Ok(record));
            }
        }
    }
}
