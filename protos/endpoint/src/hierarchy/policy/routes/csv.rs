//! `prefix,asn`, one a line: what operators export from their own tools.

use std::fmt;
use std::io::{BufRead, Read as _};
use std::str::FromStr;

use ipnet::IpNet;

use super::{RouteTable, RouteTableError};

/// Longest line: an IPv6 prefix and a number need 60.
const LINE_BYTES_MAX: u64 = 256;

/// A prefix and the Autonomous System that announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The prefix.
    pub prefix: IpNet,
    /// The number.
    pub asn: u32,
}

/// As in a file: `192.0.2.0/24,64500`.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.prefix, self.asn)
    }
}

impl FromStr for Row {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let Some((prefix, asn)) = line.split_once(',') else { return Err(format!("{line:?} is not prefix,asn")) };
        let (prefix, asn) = (prefix.trim(), asn.trim());
        let network: IpNet = prefix.parse().map_err(|_| format!("{prefix:?} is not a prefix such as 192.0.2.0/24"))?;
        if network.trunc() != network {
            return Err(format!("{prefix} has host bits: {} is meant", network.trunc()));
        }
        let digits = asn.strip_prefix("AS").unwrap_or(asn);
        let number = digits.bytes().all(|octet| octet.is_ascii_digit()).then(|| digits.parse::<u32>().ok()).flatten();
        // RFC 7300: the last number is reserved.
        let asn = number
            .filter(|asn| *asn != u32::MAX)
            .ok_or_else(|| format!("{asn:?} is not the number of an Autonomous System"))?;
        Ok(Self { prefix: network, asn })
    }
}

pub(super) fn read(input: impl BufRead) -> Result<RouteTable, RouteTableError> {
    let mut table = RouteTable::default();
    let mut rows = rows(input);
    while let Some(row) = rows.next() {
        let Row { prefix, asn } = row?;
        if let Some(before) = table.insert(prefix, asn)?.filter(|before| *before != asn) {
            let reason = format!("{prefix} is there twice, of AS {before} and of AS {asn}");
            return Err(RouteTableError::Line(rows.line, reason));
        }
    }
    Ok(table)
}

/// The rows one by one; blank lines, lines that begin with `#`, and a heading `prefix,asn` are none.
pub(super) fn rows<R: BufRead>(input: R) -> Rows<R> {
    Rows { input, line: 0 }
}

pub(super) struct Rows<R> {
    input: R,
    /// The number of the line that was read last.
    line: usize,
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Row, RouteTableError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = Vec::new();
            let read = self.input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
            match read {
                Err(error) => return Some(Err(error.into())),
                Ok(0) => return None,
                Ok(_) => self.line += 1,
            }
            let wrong = |reason: String| Some(Err(RouteTableError::Line(self.line, reason)));
            if line.len() as u64 > LINE_BYTES_MAX {
                return wrong(format!("is longer than {LINE_BYTES_MAX} octets"));
            }
            let Ok(text) = std::str::from_utf8(&line) else { return wrong("is not text".to_owned()) };
            let text = text.trim();
            let heading = self.line == 1 && text.eq_ignore_ascii_case("prefix,asn");
            if text.is_empty() || text.starts_with('#') || heading {
                continue;
            }
            return match text.parse() {
                Ok(row) => Some(Ok(row)),
                Err(reason) => wrong(reason),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_prefix_tells_the_system() {
        let text = "prefix,asn\n# ours\n10.0.0.0/8, 64500\r\n\n10.1.0.0/16,AS64501\n2001:db8::/32,4200000000";
        let table = RouteTable::read(text.as_bytes()).unwrap();
        let asn = |address: &str| table.asn_of(address.parse().unwrap());
        assert_eq!(table.len(), 3);
        assert_eq!(
            [asn("10.0.0.1"), asn("10.1.0.1"), asn("::ffff:10.1.0.1")],
            [Some(64_500), Some(64_501), Some(64_501)]
        );
        assert_eq!([asn("2001:db8::1"), asn("192.0.2.1")], [Some(4_200_000_000), None]);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        for (text, sentence) in [
            ("10.0.0.0/8,64500\n10.0.0.0/8;1", "line 2: \"10.0.0.0/8;1\" is not prefix,asn"),
            ("10.0.0.0/33,1", "line 1: \"10.0.0.0/33\" is not a prefix such as 192.0.2.0/24"),
            ("10.0.0.1/8,1", "line 1: 10.0.0.1/8 has host bits: 10.0.0.0/8 is meant"),
            ("10.0.0.0/8,4294967296", "line 1: \"4294967296\" is not the number of an Autonomous System"),
            ("10.0.0.0/8,+1", "line 1: \"+1\" is not the number of an Autonomous System"),
            ("10.0.0.0/8,", "line 1: \"\" is not the number of an Autonomous System"),
            ("10.0.0.0/8,1\n\n10.0.0.0/8,2", "line 3: 10.0.0.0/8 is there twice, of AS 1 and of AS 2"),
            ("# nothing", "holds no route"),
        ] {
            assert_eq!(RouteTable::read(text.as_bytes()).unwrap_err().to_string(), sentence);
        }
        let long = format!("10.0.0.0/8,{}", "0".repeat(300));
        let sentence = RouteTable::read(long.as_bytes()).unwrap_err().to_string();
        assert_eq!(sentence, "line 1: is longer than 256 octets");
        let sentence = RouteTable::read(&b"10.0.0.0/8,\xff"[..]).unwrap_err().to_string();
        assert_eq!(sentence, "line 1: is not text");
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(octets in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = RouteTable::read(octets.as_slice());
        }
    }
}
