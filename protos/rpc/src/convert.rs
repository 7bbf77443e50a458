//! Entries as they travel, and as snapshots hold them.

use std::net::IpAddr;
use std::num::NonZeroU16;

use castgate_control::{Country, EntryType, Protocol, Registration};
use ipnet::IpNet;

use crate::v1;

/// Most networks of one entry: more than any database takes in one request.
pub(crate) const NETWORKS_MAX: usize = 65_536;

/// An entry of a peer that is none: one sentence that names the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryError(String);

impl EntryError {
    pub(crate) fn new(sentence: String) -> Self {
        Self(sentence)
    }
}

impl std::fmt::Display for EntryError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for EntryError {}

impl From<&Registration> for v1::Entry {
    fn from(registration: &Registration) -> Self {
        let Registration { entry_type, source, port, protocol, networks, country, scheme } = registration;
        Self {
            r#type: entry_type.word().to_owned(),
            source: source.to_string(),
            port: port.get().into(),
            protocol: protocol.as_ref().map(|protocol| protocol.word().to_owned()).unwrap_or_default(),
            networks: networks.iter().map(ToString::to_string).collect(),
            country: country.as_ref().map(ToString::to_string).unwrap_or_default(),
            scheme: crate::servers::scheme_word(*scheme),
        }
    }
}

impl TryFrom<&v1::Entry> for Registration {
    type Error = EntryError;

    fn try_from(entry: &v1::Entry) -> Result<Self, EntryError> {
        let v1::Entry { r#type, source, port, protocol, networks, country, scheme } = entry;
        if networks.len() > NETWORKS_MAX {
            return Err(EntryError(format!("networks: are more than {NETWORKS_MAX}")));
        }
        Ok(Self {
            entry_type: match r#type.as_str() {
                "TS" => EntryType::TunnelServer,
                "TDS" => EntryType::TunnelDatabase,
                other => return Err(wrong("type", other, "TS or TDS")),
            },
            source: source.parse::<IpAddr>().map_err(|_| wrong("source", source, "an address"))?,
            port: u16::try_from(*port)
                .ok()
                .and_then(NonZeroU16::new)
                .ok_or_else(|| EntryError(format!("port: {port} is not in 1..=65535")))?,
            protocol: match protocol.as_str() {
                "" => None,
                "UDP" => Some(Protocol::Udp),
                "TCP" => Some(Protocol::Tcp),
                "AMT" => Some(Protocol::Amt),
                other => return Err(wrong("protocol", other, "UDP, TCP or AMT")),
            },
            networks: networks.iter().map(|text| network(text)).collect::<Result<_, _>>()?,
            country: self::country(country)?,
            scheme: crate::servers::scheme_of(scheme)?,
        })
    }
}

/// A field that is wrong; a long value is cut.
pub(crate) fn wrong(field: &str, value: &str, what: &str) -> EntryError {
    let value: String = value.chars().take(64).collect();
    EntryError(format!("{field}: {value:?} is not {what}"))
}

pub(crate) fn network(text: &str) -> Result<IpNet, EntryError> {
    text.parse().map_err(|_| wrong("networks", text, "a network in prefix notation"))
}

/// Two letters, or nothing.
pub(crate) fn country(code: &str) -> Result<Option<Country>, EntryError> {
    match code {
        "" => Ok(None),
        code => code.parse().map(Some).map_err(|_| wrong("country", code, "a country of two letters")),
    }
}

#[cfg(test)]
mod tests {
    use castgate_control::Scheme;

    use super::*;

    #[test]
    fn an_entry_travels_there_and_back() {
        let server = Registration {
            entry_type: EntryType::TunnelServer,
            source: "2001:db8::1".parse().unwrap(),
            port: NonZeroU16::new(10100).unwrap(),
            protocol: Some(Protocol::Udp),
            networks: vec!["198.51.100.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            country: Some("BE".parse().unwrap()),
            scheme: Scheme::Http,
        };
        let database = Registration {
            entry_type: EntryType::TunnelDatabase,
            source: "192.0.2.1".parse().unwrap(),
            protocol: None,
            networks: Vec::new(),
            country: None,
            scheme: Scheme::Https,
            ..server.clone()
        };
        for registration in [server, database] {
            assert_eq!(Registration::try_from(&v1::Entry::from(&registration)), Ok(registration));
        }
    }

    #[test]
    fn a_field_that_is_wrong_is_named() {
        let good = v1::Entry {
            r#type: "TS".to_owned(),
            source: "192.0.2.1".to_owned(),
            port: 10100,
            protocol: "UDP".to_owned(),
            networks: vec!["198.51.100.0/24".to_owned()],
            country: "BE".to_owned(),
            scheme: String::new(),
        };
        assert!(Registration::try_from(&good).is_ok());
        let text = str::to_owned;
        let cases = [
            (v1::Entry { r#type: text("TX"), ..good.clone() }, "type: \"TX\" is not TS or TDS"),
            (v1::Entry { source: text("here"), ..good.clone() }, "source: \"here\" is not an address"),
            (v1::Entry { port: 0, ..good.clone() }, "port: 0 is not in 1..=65535"),
            (v1::Entry { port: 65_536, ..good.clone() }, "port: 65536 is not in 1..=65535"),
            (v1::Entry { protocol: text("udp"), ..good.clone() }, "protocol: \"udp\" is not UDP, TCP or AMT"),
            (v1::Entry { networks: vec![text("all")], ..good.clone() }, "networks: \"all\" is not a network in prefix"),
            (v1::Entry { country: text("Belgium"), ..good.clone() }, "country: \"Belgium\" is not a country"),
            (v1::Entry { scheme: text("ftp"), ..good.clone() }, "scheme: \"ftp\" is not http or https"),
            (v1::Entry { networks: vec![text("::/0"); NETWORKS_MAX + 1], ..good }, "networks: are more than 65536"),
        ];
        for (entry, sentence) in cases {
            let error = Registration::try_from(&entry).unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{error}");
        }
    }
}
