//! `dig`: a second opinion on what a name server says.

use crate::lab::Host;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(20);

/// An answer as `dig` printed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Such as `NOERROR` or `NXDOMAIN`.
    pub status: String,
    /// The answer section, in its order.
    pub records: Vec<Record>,
}

/// A record as `dig` printed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The owner, with its last dot.
    pub name: String,
    /// Such as `AMTRELAY`; `TYPE260` where its meaning is not looked at.
    pub kind: String,
    /// The data, with one space between two words.
    pub data: String,
}

/// Asks a server for records of a name, in the presentation of their type.
///
/// # Errors
/// When nobody answers.
pub fn ask(host: &Host, server: SocketAddr, name: &str, kind: &str) -> Result<Answer> {
    run(host, server, name, kind, "+nounknownformat")
}

/// Asks for the octets of records of a name, of the asked type alone (RFC 3597).
///
/// # Errors
/// When nobody answers.
pub fn ask_octets(host: &Host, server: SocketAddr, name: &str, kind: u16) -> Result<Vec<Vec<u8>>> {
    let kind = format!("TYPE{kind}");
    let answer = run(host, server, name, &kind, "+unknownformat")?;
    let records = answer.records.iter().filter(|record| record.kind == kind);
    records.map(|record| octets(&record.data).with_context(|| format!("dig printed `{}`", record.data))).collect()
}

fn run(host: &Host, server: SocketAddr, name: &str, kind: &str, format: &str) -> Result<Answer> {
    let mut dig = host.command("dig");
    dig.args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "-q", name, "-t", kind, format]);
    dig.args([
        "+norecurse",
        "+time=3",
        "+tries=2",
        "+nocmd",
        "+nostats",
        "+noquestion",
        "+noauthority",
        "+noadditional",
    ]);
    let text = host.run("dig", dig, LONGEST)?;
    let answer = parse(&text).with_context(|| format!("dig printed {text}"))?;
    ensure!(!text.contains(";; Warning"), "dig warns: {text}");
    Ok(answer)
}

fn parse(text: &str) -> Option<Answer> {
    let header = text.lines().find(|line| line.contains("->>HEADER<<-"))?;
    let status = header.split("status: ").nth(1)?.split(',').next()?.to_owned();
    let lines = text.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty());
    let records = lines.map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, _ttl, _class, kind, data @ ..] = words.as_slice() else { return None };
        Some(Record { name: (*name).to_owned(), kind: (*kind).to_owned(), data: data.join(" ") })
    });
    Some(Answer { status, records: records.collect::<Option<_>>()? })
}

/// `\# 6 0A010A4D 0002`
fn octets(data: &str) -> Option<Vec<u8>> {
    let mut words = data.strip_prefix("\\# ")?.split_whitespace();
    let len: usize = words.next()?.parse().ok()?;
    let digits: Vec<u8> = words.flat_map(str::bytes).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let octets: Vec<u8> = digits.chunks(2).map(pair).collect::<Option<_>>()?;
    (octets.len() == len).then_some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dig_prints_is_read() {
        let text = "
;; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 4711
;; flags: qr aa; QUERY: 1, ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 1

;; ANSWER SECTION:
1.0.78.10.in-addr.arpa.\t60\tIN\tAMTRELAY 10 0 1 10.77.0.2

";
        let answer = parse(text).unwrap();
        assert_eq!((answer.status.as_str(), answer.records[0].data.as_str()), ("NOERROR", "10 0 1 10.77.0.2"));
        assert_eq!(octets("\\# 6 0A010A4D 0002"), Some(vec![10, 1, 10, 77, 0, 2]));
        assert_eq!(octets("\\# 5 0A010A4D 0002"), None);
        assert_eq!(octets("\\# 0"), Some(Vec::new()));
    }
}
