//! One entry of a database: its key, what it serves, and the form in which it is stored.

use std::fmt;
use std::net::IpAddr;

use castgate_wire::registry::{Country, EntryType, Prefix, Protocol, Register, Scheme, Server};
use serde::{Deserialize, Serialize};

use super::bag::{Kind, Member, Ticket};
use super::logins::LoginId;
use super::slab::Slot;
use crate::hierarchy::clock::UnixMillis;

/// What makes two REGISTERs the same entry (castgate UMTP notes: TYPE, SOURCE, PORT, PROTOCOL).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// TYPE.
    pub entry_type: EntryType,
    /// SOURCE.
    pub source: IpAddr,
    /// PORT.
    pub port: u16,
    /// PROTOCOL; where a REGISTER says none, UDP for a tunnel server and TCP for a database.
    pub protocol: Protocol,
}

/// A server or a database below us, and whose clients it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Login of the account that registered it.
    pub login: String,
    /// Networks whose clients it serves.
    pub networks: Vec<Prefix>,
    /// Countries whose clients it serves; both networks and countries: both must match.
    pub countries: Vec<Country>,
    /// Whom it takes its channels from, as it says itself (FEDBY). Passed through: nothing here goes by it.
    pub fed_by: Vec<IpAddr>,
    /// How its HTTP is carried, when it is a database. Passed through.
    pub scheme: Scheme,
}

/// An [`Entry`] with the moment it goes by itself; made for serde, kept by the driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEntry {
    #[serde(rename = "type")]
    entry_type: String,
    source: IpAddr,
    port: u16,
    protocol: String,
    login: String,
    networks: Vec<Prefix>,
    countries: Vec<String>,
    /// Absent in what an earlier version wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fed_by: Vec<IpAddr>,
    /// Absent in what an earlier version wrote.
    #[serde(default, skip_serializing_if = "Scheme::is_http", with = "crate::hierarchy::scheme")]
    scheme: Scheme,
    expires: UnixMillis,
}

/// What is wrong with an entry that comes from a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stored entry {source_address}:{port}: {value:?} is not a {what}")]
pub struct StoredError {
    source_address: IpAddr,
    port: u16,
    value: String,
    what: &'static str,
}

impl Key {
    pub(super) fn of_register(register: &Register) -> Self {
        Self {
            entry_type: register.entry_type,
            source: register.source,
            port: register.port,
            protocol: register.protocol.clone().unwrap_or_else(|| Self::usual_protocol(register.entry_type)),
        }
    }

    /// What an entry has that says no PROTOCOL.
    pub(super) fn usual_protocol(entry_type: EntryType) -> Protocol {
        match entry_type {
            EntryType::TunnelServer => Protocol::Udp,
            EntryType::TunnelDatabase => Protocol::Tcp,
        }
    }
}

/// One line, unique for each key: the key in a store, and the name in logs.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.entry_type, self.source, self.port, self.protocol)
    }
}

impl Entry {
    pub(super) fn of_register(register: &Register, login: &str) -> Self {
        let countries = register.country.into_iter().collect();
        Self {
            key: Key::of_register(register),
            login: login.to_owned(),
            networks: register.networks.clone(),
            countries,
            fed_by: register.fed_by.clone(),
            scheme: register.scheme,
        }
        .tidied()
    }

    /// Each network and country once: the same one twice would be given back twice when the entry goes.
    pub(super) fn tidied(mut self) -> Self {
        self.networks.sort_unstable();
        self.networks.dedup();
        self.countries.sort_unstable();
        self.countries.dedup();
        self
    }

    pub(super) fn to_stored(&self, expires: UnixMillis) -> StoredEntry {
        let Self { key, login, networks, countries, fed_by, scheme } = self.clone();
        let Key { entry_type, source, port, protocol } = key;
        StoredEntry {
            entry_type: entry_type.word().to_owned(),
            source,
            port,
            protocol: protocol.word().to_owned(),
            login,
            networks,
            countries: countries.iter().map(ToString::to_string).collect(),
            fed_by,
            scheme,
            expires,
        }
    }
}

/// An [`Entry`] as the database keeps it: a hundred octets, and 18 for each network.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: Key,
    pub(super) login: LoginId,
    /// Of source and port: its place in the table of keys, and on the ring of every bag.
    pub(super) hash: u32,
    pub(super) networks: Box<[Prefix]>,
    countries: Countries,
    /// The chain that feeds it, which most servers do not have.
    fed_by: Box<[IpAddr]>,
    /// When it goes, in milliseconds since the origin of the database.
    pub(super) deadline: u64,
    /// Until when somebody vouches for it: its owner with a REGISTER, or a peer that has it from there. No later than its deadline,
    /// and what we tell peers: an entry that they gave us does not grow older than they said by going around.
    pub(super) vouched: u64,
    /// A peer told us about it and its owner did not, or not since.
    pub(super) hearsay: bool,
    scheme: Scheme,
}

/// One country, as a REGISTER has it, needs no memory of its own.
#[derive(Debug)]
enum Countries {
    None,
    One(Country),
    Many(Box<[Country]>),
}

impl Held {
    pub(super) fn new(entry: Entry, login: LoginId, hash: u32) -> Self {
        let Entry { key, login: _, networks, countries, fed_by, scheme } = entry;
        let countries = match countries.as_slice() {
            [] => Countries::None,
            [country] => Countries::One(*country),
            [..] => Countries::Many(countries.into_boxed_slice()),
        };
        let networks = networks.into_boxed_slice();
        let fed_by = fed_by.into_boxed_slice();
        Self { key, login, hash, networks, countries, fed_by, deadline: 0, vouched: 0, hearsay: false, scheme }
    }

    pub(super) fn countries(&self) -> &[Country] {
        match &self.countries {
            Countries::None => &[],
            Countries::One(country) => std::slice::from_ref(country),
            Countries::Many(countries) => countries,
        }
    }

    pub(super) fn member(&self, slot: Slot) -> Member {
        Member::new(Kind::of(&self.key), Ticket::new(self.hash), slot)
    }

    /// Networks that the prefix tier looks at. A prefix of length 0 contains everybody: there it would hide every country.
    pub(super) fn specific_networks(&self) -> impl Iterator<Item = &Prefix> {
        self.networks.iter().filter(|network| network.prefix_len() > 0)
    }

    /// Without a network of its own: for whole countries, or public.
    pub(super) fn is_unspecific(&self) -> bool {
        self.specific_networks().next().is_none()
    }

    /// For everybody: `0.0.0.0/0` (or `::/0`) and no country.
    pub(super) fn is_public(&self) -> bool {
        self.countries().is_empty() && self.networks.iter().any(|network| network.prefix_len() == 0)
    }

    /// Whether a client of this country is meant, as far as countries go.
    pub(super) fn serves(&self, country: Option<Country>) -> bool {
        self.countries().is_empty() || country.is_some_and(|country| self.countries().contains(&country))
    }

    /// Whether it says the same as `entry`, whose key and login are those of this one.
    pub(super) fn says(&self, entry: &Entry) -> bool {
        *self.networks == *entry.networks
            && *self.countries() == *entry.countries
            && *self.fed_by == *entry.fed_by
            && self.scheme == entry.scheme
    }

    pub(super) fn to_server(&self, prefix_len: Option<u8>) -> Server {
        let Key { entry_type, source, port, protocol } = self.key.clone();
        Server {
            address: source,
            port,
            entry_type,
            protocol: Some(protocol),
            prefix_len,
            fed_by: self.fed_by.to_vec(),
            scheme: self.scheme,
        }
    }

    pub(super) fn to_entry(&self, login: &str) -> Entry {
        Entry {
            key: self.key.clone(),
            login: login.to_owned(),
            networks: self.networks.to_vec(),
            countries: self.countries().to_vec(),
            fed_by: self.fed_by.to_vec(),
            scheme: self.scheme,
        }
    }
}

impl StoredEntry {
    /// When it goes by itself.
    #[must_use]
    pub fn expires(&self) -> UnixMillis {
        self.expires
    }

    /// The entry in it.
    ///
    /// # Errors
    /// [`StoredError`] when a word in it is none: the store was written by something else.
    pub fn to_entry(&self) -> Result<Entry, StoredError> {
        let wrong = |value: &str, what| StoredError {
            source_address: self.source,
            port: self.port,
            value: value.to_owned(),
            what,
        };
        let entry_type = EntryType::parse(&self.entry_type).ok_or_else(|| wrong(&self.entry_type, "type"))?;
        let protocol = self.protocol.parse().map_err(|_| wrong(&self.protocol, "protocol"))?;
        let country = |text: &String| text.parse().map_err(|_| wrong(text, "country"));
        Ok(Entry {
            key: Key { entry_type, source: self.source, port: self.port, protocol },
            login: self.login.clone(),
            networks: self.networks.clone(),
            countries: self.countries.iter().map(country).collect::<Result<_, _>>()?,
            fed_by: self.fed_by.clone(),
            scheme: self.scheme,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_stored_form() {
        let entry = Entry {
            key: Key {
                entry_type: EntryType::TunnelServer,
                source: "2001:db8::1".parse().unwrap(),
                port: 2268,
                protocol: Protocol::Amt,
            },
            login: "be".to_owned(),
            networks: vec!["134.184.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            countries: vec!["BE".parse().unwrap()],
            fed_by: vec!["192.0.2.7".parse().unwrap()],
            scheme: Scheme::Https,
        };
        let text = serde_json::to_string(&entry.to_stored(UnixMillis(5))).unwrap();
        let stored: StoredEntry = serde_json::from_str(&text).unwrap();
        assert_eq!((stored.expires(), stored.to_entry().unwrap()), (UnixMillis(5), entry));

        let foreign = StoredEntry { entry_type: "TX".to_owned(), ..stored };
        let sentence = foreign.to_entry().unwrap_err().to_string();
        assert_eq!(sentence, "stored entry 2001:db8::1:2268: \"TX\" is not a type");
    }
    #[test]
    fn what_an_earlier_version_stored_is_read_and_what_it_knew_is_written_as_it_did() {
        let old = r#"{"type":"TDS","source":"192.0.2.1","port":5632,"protocol":"TCP","login":"be","networks":[],"countries":["BE"],"expires":5}"#;
        let stored: StoredEntry = serde_json::from_str(old).unwrap();
        let entry = stored.to_entry().unwrap();
        assert_eq!(entry.scheme, Scheme::Http);
        assert_eq!(serde_json::to_string(&entry.to_stored(UnixMillis(5))).unwrap(), old);
        let https = Entry { scheme: Scheme::Https, ..entry };
        let text = serde_json::to_string(&https.to_stored(UnixMillis(5))).unwrap();
        assert!(text.contains(r#""scheme":"https""#), "{text}");
    }
}
