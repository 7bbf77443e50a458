//! Records as text: as in a zone file that knows them (RFC 8777 §4.3), and in the form for unknown types (RFC 3597 §5).

use super::{NameError, ParseError, Record, Relay};
use std::fmt::{self, Write};
use std::str::FromStr;

/// What the form for unknown types starts with.
const GENERIC: &str = r"\#";

/// Why a text is no data of an AMTRELAY record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// More or fewer words than the form has.
    #[error("an AMTRELAY record is written \"precedence D type relay\"")]
    Words,
    /// No number from 0 to 255.
    #[error("precedence {0:?} is not a number from 0 to 255")]
    Precedence(String),
    /// Neither 0 nor 1.
    #[error("the discovery-optional bit is 0 or 1, not {0:?}")]
    DiscoveryOptional(String),
    /// A type that has no form of its own.
    #[error("relay type {0:?} is not 0, 1, 2 or 3")]
    Kind(String),
    /// A relay that is not of its type.
    #[error("relay {relay:?} is not of type {kind}")]
    Relay {
        /// The type.
        kind: u8,
        /// The relay as written.
        relay: String,
    },
    /// A relay of type 3 that is no domain name.
    #[error("relay {relay:?} is no domain name: {error}")]
    Name {
        /// The relay as written.
        relay: String,
        /// What is wrong with it.
        #[source]
        error: NameError,
    },
    /// Not as many hexadecimal digits as the form for unknown types announces, or none.
    #[error("the form for unknown types is \"\\# length hexadecimal digits\"")]
    Generic,
    /// Octets in the form for unknown types that are no AMTRELAY record.
    #[error(transparent)]
    Data(#[from] ParseError),
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { precedence, discovery_optional, relay } = self;
        let start =
            |f: &mut fmt::Formatter<'_>| write!(f, "{precedence} {} {} ", u8::from(*discovery_optional), relay.kind());
        match relay {
            Relay::None => start(f).and_then(|()| f.write_str(".")),
            Relay::V4(address) => start(f).and_then(|()| write!(f, "{address}")),
            Relay::V6(address) => start(f).and_then(|()| write!(f, "{address}")),
            Relay::Name(name) => start(f).and_then(|()| write!(f, "{name}")),
            Relay::Unknown(..) => f.write_str(&self.to_generic()),
        }
    }
}

impl Record {
    /// The record in the form that every name server takes for the type `TYPE260` (RFC 3597 §5).
    #[must_use]
    pub fn to_generic(&self) -> String {
        let rdata = self.to_vec();
        let mut text = format!("{GENERIC} {} ", rdata.len());
        for octet in rdata {
            write!(text, "{octet:02x}").expect("a string takes everything");
        }
        text
    }
}

impl FromStr for Record {
    type Err = TextError;

    /// Takes what [`Display`](fmt::Display) and [`to_generic`](Record::to_generic) write; digits in the form for unknown
    /// types may stand in groups. Parentheses, comments and relative names belong to zone files, not to records.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match *words {
            [GENERIC, len, ref digits @ ..] => Ok(Self::parse(&generic(len, &digits.concat())?)?),
            [precedence, discovery_optional, kind, relay] => Ok(Self {
                precedence: number(precedence).ok_or_else(|| TextError::Precedence(precedence.to_owned()))?,
                discovery_optional: match discovery_optional {
                    "0" => false,
                    "1" => true,
                    other => return Err(TextError::DiscoveryOptional(other.to_owned())),
                },
                relay: parse_relay(kind, relay)?,
            }),
            _ => Err(TextError::Words),
        }
    }
}

fn parse_relay(kind: &str, relay: &str) -> Result<Relay, TextError> {
    let refused = |kind| TextError::Relay { kind, relay: relay.to_owned() };
    match kind {
        "0" if relay == "." => Ok(Relay::None),
        "0" => Err(refused(0)),
        "1" => relay.parse().map(Relay::V4).map_err(|_| refused(1)),
        "2" => relay.parse().map(Relay::V6).map_err(|_| refused(2)),
        "3" => match relay.parse() {
            Ok(name) => Ok(Relay::Name(name)),
            Err(error) => Err(TextError::Name { relay: relay.to_owned(), error }),
        },
        other => Err(TextError::Kind(other.to_owned())),
    }
}

/// Digits only: `u8::from_str` would take a plus sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn generic(len: &str, digits: &str) -> Result<Vec<u8>, TextError> {
    let len: u16 = number(len).ok_or(TextError::Generic)?;
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return Err(TextError::Generic) };
    let nibble = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let octets: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect();
    octets.filter(|octets| octets.len() == usize::from(len)).ok_or(TextError::Generic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Record, TextError> {
        text.parse()
    }

    #[test]
    fn a_record_is_written_as_it_is_read() {
        for text in [
            "0 0 0 .",
            "10 0 1 203.0.113.15",
            "10 0 2 2001:db8::15",
            "128 1 3 amtrelays.example.com.",
            "255 1 3 .",
            r"1 0 3 a\.b\\c\032\255\(\).example.",
            r"\# 2 0184",
            r"\# 5 01fe616263",
        ] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_form_for_unknown_types_stands_for_the_same_record() {
        for (generic, text) in [
            (r"\# 2 0000", "0 0 0 ."),
            (r"\# 6 0a01cb00710f", "10 0 1 203.0.113.15"),
            (r"\# 18 0a0220010db8000000000000000000000015", "10 0 2 2001:db8::15"),
            (r"\# 25 808309616d7472656c617973076578616d706c6503636f6d00", "128 1 3 amtrelays.example.com."),
        ] {
            assert_eq!(read(generic), read(text));
            assert_eq!(read(text).unwrap().to_generic(), generic);
        }
        // Groups of digits, as zone files have them, in any case.
        assert_eq!(read("\\#  6 0A 01\tCB00710f"), read("10 0 1 203.0.113.15"));
    }

    #[test]
    fn a_relative_name_is_taken_for_absolute() {
        assert_eq!(read("1 0 3 amtrelays.example.com"), read("1 0 3 amtrelays.example.com."));
    }

    #[test]
    fn a_bad_text_is_refused_with_its_bad_part() {
        let relay = |kind, relay: &str| Err(TextError::Relay { kind, relay: relay.to_owned() });
        let name = |relay: &str, error| Err(TextError::Name { relay: relay.to_owned(), error });
        assert_eq!(read(""), Err(TextError::Words));
        assert_eq!(read("10 0 0"), Err(TextError::Words));
        assert_eq!(read("10 0 1 203.0.113.15 more"), Err(TextError::Words));
        for precedence in ["256", "+1", "-1", "x"] {
            assert_eq!(read(&format!("{precedence} 0 0 .")), Err(TextError::Precedence(precedence.to_owned())));
        }
        assert_eq!(read("10 2 0 ."), Err(TextError::DiscoveryOptional("2".to_owned())));
        assert_eq!(read("10 0 4 ."), Err(TextError::Kind("4".to_owned())));
        assert_eq!(read("10 0 0 203.0.113.15"), relay(0, "203.0.113.15"));
        assert_eq!(read("10 0 1 2001:db8::15"), relay(1, "2001:db8::15"));
        assert_eq!(read("10 0 2 203.0.113.15"), relay(2, "203.0.113.15"));
        assert_eq!(read("10 0 3 a..b"), name("a..b", NameError::LabelLength(0)));
        assert_eq!(read(r"10 0 3 a\25"), name(r"a\25", NameError::Escape));
        for generic in [r"\#", r"\# 2", r"\# 2 00", r"\# 2 000000", r"\# 2 000", r"\# 2 00g0", r"\# x 0000"] {
            assert!(matches!(read(generic), Err(TextError::Generic | TextError::Words)), "{generic}");
        }
        assert_eq!(read(r"\# 1 00"), Err(TextError::Data(ParseError::Truncated(1))));
    }

    proptest! {
        #[test]
        fn any_text_is_a_record_or_a_refusal(text in r"(\\# )?[0-9]{1,3} ?[01] [0-4] .{0,20}") {
            if let Ok(record) = text.parse::<Record>() {
                prop_assert_eq!(record.to_string().parse(), Ok(record));
            }
        }
    }
}
