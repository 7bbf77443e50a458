//! Servers, questions and transferred entries as they travel, and as the registry knows them.

use std::net::IpAddr;

use castgate_control::{EntryType, Protocol};
use castgate_wire::registry::{FED_BY_MAX, Prefix, ProtocolFilter, Query, Scheme, Server, Transfer, TransferEntry};

use crate::convert::{EntryError, NETWORKS_MAX, country, network, wrong};
use crate::v1;

/// Countries of one entry: there are not many more.
const COUNTRIES_MAX: usize = 1_024;

impl From<&Server> for v1::Server {
    fn from(server: &Server) -> Self {
        let Server { address, port, entry_type, protocol, prefix_len, fed_by, scheme } = server;
        Self {
            r#type: entry_type.word().to_owned(),
            address: address.to_string(),
            port: u32::from(*port),
            protocol: protocol.as_ref().map(|protocol| protocol.word().to_owned()).unwrap_or_default(),
            prefix_len: prefix_len.map(u32::from),
            fed_by: fed_by.iter().take(FED_BY_MAX).map(ToString::to_string).collect(),
            scheme: scheme_word(*scheme),
        }
    }
}

impl TryFrom<&v1::Server> for Server {
    type Error = EntryError;

    fn try_from(server: &v1::Server) -> Result<Self, EntryError> {
        let v1::Server { r#type, address, port, protocol, prefix_len, fed_by, scheme } = server;
        let port_of = |port: u32| u16::try_from(port).ok().filter(|port| *port != 0);
        let length = |length: u32| u8::try_from(length).ok().filter(|length| *length <= 128);
        Ok(Self {
            entry_type: entry_type(r#type)?,
            address: address.parse().map_err(|_| wrong("address", address, "an address"))?,
            port: port_of(*port).ok_or_else(|| wrong("port", &port.to_string(), "in 1..=65535"))?,
            protocol: protocol_of(protocol),
            prefix_len: match prefix_len {
                None => None,
                Some(len) => Some(length(*len).ok_or_else(|| wrong("prefix_len", &len.to_string(), "in 0..=128"))?),
            },
            fed_by: chain(fed_by)?,
            scheme: scheme_of(scheme)?,
        })
    }
}

impl v1::LocateRequest {
    /// A question of this agent's, on behalf of `client` where that is somebody else.
    #[must_use]
    pub fn of_query(agent: String, query: &Query, client: Option<IpAddr>) -> Self {
        let Query { entry_type, country, protocol, network } = query;
        Self {
            agent,
            r#type: entry_type.word().to_owned(),
            client: client.map(|client| client.to_string()).unwrap_or_default(),
            country: country.as_ref().map(ToString::to_string).unwrap_or_default(),
            protocol: match protocol {
                ProtocolFilter::All => String::new(),
                ProtocolFilter::Only(protocol) => protocol.word().to_owned(),
            },
            network: network.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// What is asked, and on whose behalf.
    ///
    /// # Errors
    /// [`EntryError`] with the first field that is wrong.
    pub fn query(&self) -> Result<(Query, Option<IpAddr>), EntryError> {
        let Self { agent: _, r#type, client, country: code, protocol, network: range } = self;
        let client = match client.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| wrong("client", text, "an address"))?),
        };
        let query = Query {
            entry_type: entry_type(r#type)?,
            country: country(code)?,
            protocol: protocol_of(protocol).map_or(ProtocolFilter::All, ProtocolFilter::Only),
            network: optional_network(range)?,
        };
        Ok((query, client))
    }
}

impl v1::TransferRequest {
    /// Which entries of a peer are wanted.
    ///
    /// # Errors
    /// [`EntryError`] with the first field that is wrong.
    pub fn transfer(&self) -> Result<Transfer, EntryError> {
        Ok(Transfer { network: optional_network(&self.network)?, country: country(&self.country)? })
    }
}

impl From<&TransferEntry> for v1::TransferEntry {
    fn from(entry: &TransferEntry) -> Self {
        let TransferEntry { server, login, password, countries, networks, expires_in_seconds } = entry;
        Self {
            server: Some(server.into()),
            login: login.clone(),
            password: password.clone(),
            countries: countries.iter().map(ToString::to_string).collect(),
            networks: networks.iter().map(ToString::to_string).collect(),
            expires_in_seconds: *expires_in_seconds,
        }
    }
}

impl TryFrom<&v1::TransferEntry> for TransferEntry {
    type Error = EntryError;

    fn try_from(entry: &v1::TransferEntry) -> Result<Self, EntryError> {
        let v1::TransferEntry { server, login, password, countries, networks, expires_in_seconds } = entry;
        if countries.len() > COUNTRIES_MAX {
            return Err(EntryError::new(format!("countries: are more than {COUNTRIES_MAX}")));
        }
        if networks.len() > NETWORKS_MAX {
            return Err(EntryError::new(format!("networks: are more than {NETWORKS_MAX}")));
        }
        let server = server.as_ref().ok_or_else(|| EntryError::new("server: is missing".to_owned()))?;
        Ok(Self {
            server: server.try_into()?,
            login: login.clone(),
            password: password.clone(),
            countries: countries.iter().filter_map(|code| country(code).transpose()).collect::<Result<_, _>>()?,
            networks: networks.iter().map(|text| network(text)).collect::<Result<_, _>>()?,
            expires_in_seconds: *expires_in_seconds,
        })
    }
}

/// Who feeds a server, nearest first.
///
/// # Errors
/// [`EntryError`] when one is no address or there are too many.
pub fn chain(fed_by: &[String]) -> Result<Vec<IpAddr>, EntryError> {
    if fed_by.len() > FED_BY_MAX {
        return Err(EntryError::new(format!("fed_by: are more than {FED_BY_MAX}")));
    }
    fed_by.iter().map(|text| text.parse().map_err(|_| wrong("fed_by", text, "an address"))).collect()
}

/// What need not be said is not said.
pub(crate) fn scheme_word(scheme: Scheme) -> String {
    if scheme.is_http() { String::new() } else { scheme.word().to_owned() }
}

pub(crate) fn scheme_of(word: &str) -> Result<Scheme, EntryError> {
    match word {
        "" => Ok(Scheme::Http),
        word => Scheme::parse(word).ok_or_else(|| wrong("scheme", word, "http or https")),
    }
}

fn entry_type(word: &str) -> Result<EntryType, EntryError> {
    match word {
        "TS" => Ok(EntryType::TunnelServer),
        "TDS" => Ok(EntryType::TunnelDatabase),
        other => Err(wrong("type", other, "TS or TDS")),
    }
}

/// Any word: a stranger's database may know protocols that we do not.
fn protocol_of(word: &str) -> Option<Protocol> {
    if word.is_empty() {
        return None;
    }
    let Ok(protocol) = word.parse::<Protocol>();
    Some(protocol)
}

fn optional_network(text: &str) -> Result<Option<Prefix>, EntryError> {
    if text.is_empty() { Ok(None) } else { network(text).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_questions_and_entries_travel_there_and_back() {
        let server = Server {
            address: "2001:db8::1".parse().unwrap(),
            port: 5_632,
            entry_type: EntryType::TunnelDatabase,
            protocol: Some(Protocol::Unknown("QUIC".to_owned())),
            prefix_len: Some(0),
            fed_by: vec!["192.0.2.1".parse().unwrap()],
            scheme: Scheme::Https,
        };
        assert_eq!(Server::try_from(&v1::Server::from(&server)), Ok(server.clone()));
        let entry = TransferEntry {
            server: Server { prefix_len: None, protocol: None, ..server },
            login: "be".to_owned(),
            password: "$argon2id$".to_owned(),
            countries: vec!["BE".parse().unwrap()],
            networks: vec!["198.51.100.0/24".parse().unwrap()],
            expires_in_seconds: Some(7),
        };
        assert_eq!(TransferEntry::try_from(&v1::TransferEntry::from(&entry)), Ok(entry));
        for (protocol, network) in
            [(ProtocolFilter::All, None), (ProtocolFilter::Only(Protocol::Amt), Some("10.0.0.0/8"))]
        {
            let query = Query {
                entry_type: EntryType::TunnelServer,
                country: Some("BE".parse().unwrap()),
                protocol,
                network: network.map(|network| network.parse().unwrap()),
            };
            let client = Some("192.0.2.7".parse().unwrap());
            let request = v1::LocateRequest::of_query("me".to_owned(), &query, client);
            assert_eq!((request.agent.as_str(), request.query()), ("me", Ok((query, client))));
        }
    }

    #[test]
    fn a_field_that_is_wrong_is_named() {
        let good = v1::Server {
            r#type: "TS".to_owned(),
            address: "192.0.2.1".to_owned(),
            port: 10_100,
            protocol: "UDP".to_owned(),
            prefix_len: None,
            fed_by: Vec::new(),
            scheme: String::new(),
        };
        assert!(Server::try_from(&good).is_ok());
        for (server, sentence) in [
            (v1::Server { r#type: "0".to_owned(), ..good.clone() }, "type: \"0\" is not TS or TDS"),
            (v1::Server { address: "here".to_owned(), ..good.clone() }, "address: \"here\" is not an address"),
            (v1::Server { port: 65_536, ..good.clone() }, "port: \"65536\" is not in 1..=65535"),
            (v1::Server { prefix_len: Some(129), ..good.clone() }, "prefix_len: \"129\" is not in 0..=128"),
            (v1::Server { fed_by: vec!["x".to_owned()], ..good.clone() }, "fed_by: \"x\" is not an address"),
            (v1::Server { fed_by: vec!["::".to_owned(); 17], ..good.clone() }, "fed_by: are more than 16"),
            (v1::Server { scheme: "ftp".to_owned(), ..good }, "scheme: \"ftp\" is not http or https"),
        ] {
            assert_eq!(Server::try_from(&server).unwrap_err().to_string(), sentence);
        }
        let question = v1::LocateRequest { r#type: "TS".to_owned(), ..v1::LocateRequest::default() };
        assert!(question.query().is_ok());
        let strange = v1::LocateRequest { client: "me".to_owned(), ..question.clone() };
        assert_eq!(strange.query().unwrap_err().to_string(), "client: \"me\" is not an address");
        let strange = v1::LocateRequest { network: "all".to_owned(), ..question };
        assert!(strange.query().unwrap_err().to_string().starts_with("networks: \"all\""));
        let nobody = v1::TransferEntry::default();
        assert_eq!(TransferEntry::try_from(&nobody).unwrap_err().to_string(), "server: is missing");
    }
}
