//! The XML of answers: the short form of QUERY, the long form of TRANSFER (draft-liefooghe-castgate-02 §6.5).
//!
//! ```text
//!   SERVERS
//!     SERVER *    ADDRESS  PORT  TYPE  PROTOCOL  [PREFIXLEN]  [FEDBY]  [SCHEME]          QUERY
//!     SERVER *    ADDRESS  PORT  TYPE  PROTOCOL  LOGIN  PASSWORD  [COUNTRIES [COUNTRY *]]
//!                                         [NETWORKS  [NETWORK *]]  [EXPIRES]  [FEDBY]  [SCHEME]    TRANSFER
//! ```
//! EXPIRES is ours: for how many seconds the entry lives unless it is refreshed. Other readers skip it.
//!
//! Liberal in (castgate UMTP notes): byte order mark, comments, attributes and processing instructions are passed over,
//! names are read in any case and children in any order, unknown children are skipped, of repeated ones the first that is
//! not empty counts, blanks around values are trimmed. A document type and entities of one's own are refused, and so is
//! what is longer or deeper than any honest answer. Strict out: the draft's order and, behind it,
//! FEDBY of relays and SCHEME of databases that say so, which are extensions of ours: readers of the draft skip them (castgate UMTP
//! notes).

mod emit;
mod read;
#[cfg(test)]
mod tests;

use std::io::BufRead;

pub use emit::{TRANSFER_BEGIN, TRANSFER_END, emit_servers, emit_transfer, emit_transfer_entries};

use super::entry::{self, EntryType, Scheme};
use super::{Country, CountryError, Protocol, Server, TransferEntry};
use read::Fields;

/// The longest answer to a QUERY that is read, in octets.
pub const LEN_MAX: usize = 1 << 20;
/// The longest answer to a TRANSFER that is read, in octets: a million entries of a kilobyte. It is never in memory as a whole.
pub const TRANSFER_LEN_MAX: usize = 1 << 30;
/// The longest SERVER in the answer to a TRANSFER, in octets: more networks than a database takes for one entry.
pub const TRANSFER_SERVER_LEN_MAX: usize = 1 << 20;
/// The deepest nesting of elements that is read; an honest answer needs four.
pub const DEPTH_MAX: usize = 8;

/// Why a document is not an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Longer than [`LEN_MAX`], or than what a TRANSFER and its parts may have; holds its length or the bound in octets.
    #[error("The document or a part of it is longer than it may be, with {0} octets or more.")]
    TooLong(usize),
    /// Octets that are no UTF-8.
    #[error("The document is not UTF-8 text.")]
    NotUtf8,
    /// Markup that is no XML; holds what is wrong with it.
    #[error("The document is not well-formed: {0}.")]
    IllFormed(String),
    /// A document type, which could hold entities.
    #[error("The document has a DOCTYPE, which is refused.")]
    Doctype,
    /// An entity that XML itself does not define.
    #[error("The document refers to the entity {0:?}, which is refused.")]
    Entity(String),
    /// Elements deeper than [`DEPTH_MAX`].
    #[error("The document nests elements deeper than {DEPTH_MAX}.")]
    TooDeep,
    /// A root that is no list of servers; holds its name.
    #[error("The document is {0:?} and not SERVERS.")]
    NotServers(String),
    /// A server without something that every server has.
    #[error("A SERVER has no {element}.")]
    Missing {
        /// The element.
        element: &'static str,
    },
    /// An element whose value it cannot have.
    #[error("{element} has the value {value:?}, which is not {expected}.")]
    Bad {
        /// The element.
        element: &'static str,
        /// Its value, cut when long.
        value: String,
        /// What would have been right.
        expected: &'static str,
    },
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "too_long",
            Self::NotUtf8 => "not_utf8",
            Self::IllFormed(_) => "ill_formed",
            Self::Doctype => "doctype",
            Self::Entity(_) => "entity",
            Self::TooDeep => "too_deep",
            Self::NotServers(_) => "not_servers",
            Self::Missing { .. } => "missing_element",
            Self::Bad { .. } => "bad_element",
        }
    }
}

/// Reads the answer to a QUERY. Credentials in it, which do not belong there, are not looked at.
///
/// # Errors
/// [`ParseError`] with the first thing that is wrong. Never panics, whatever the bytes.
pub fn parse_servers(document: &[u8]) -> Result<Vec<Server>, ParseError> {
    read::servers(document)?.into_iter().map(|fields| fields.server()).collect()
}

/// Reads a whole answer to a TRANSFER. A prefix length in it, which does not belong there, is not looked at.
///
/// # Errors
/// [`ParseError`] with the first thing that is wrong. Never panics, whatever the bytes.
pub fn parse_transfer(document: &[u8]) -> Result<Vec<TransferEntry>, ParseError> {
    if std::str::from_utf8(document).is_err() {
        return Err(ParseError::NotUtf8);
    }
    let mut entries = Vec::new();
    read_transfer(document, |entry| entries.push(entry))?;
    entries.into_iter().collect()
}

/// Reads the answer to a TRANSFER while it comes, one entry after the other. An entry that is none is handed on as an error, and
/// those after it are read: a region is not lost for one entry.
///
/// # Errors
/// [`ParseError`] when the document is none or breaks off; what was handed on before is good.
pub fn read_transfer(
    source: impl BufRead,
    mut each: impl FnMut(Result<TransferEntry, ParseError>),
) -> Result<(), ParseError> {
    read::each_server(source, |fields| each(fields.transfer_entry()))
}

impl Fields {
    fn server(&self) -> Result<Server, ParseError> {
        let required = |element, value: &Option<String>| value.clone().ok_or(ParseError::Missing { element });
        let address = required("ADDRESS", &self.address)?;
        let port = required("PORT", &self.port)?;
        let entry_type = required("TYPE", &self.entry_type)?;
        let prefix_len = self.prefix_len.as_deref().map(|text| {
            let read = entry::parse_digits(text).filter(|len| *len <= 128);
            read.ok_or_else(|| bad("PREFIXLEN", text, "a prefix length"))
        });
        Ok(Server {
            address: address.parse().map_err(|_| bad("ADDRESS", &address, "an IP address"))?,
            port: entry::parse_port(&port).ok_or_else(|| bad("PORT", &port, "a port from 1 to 65535"))?,
            entry_type: EntryType::parse(&entry_type).ok_or_else(|| bad("TYPE", &entry_type, "0 or 1"))?,
            protocol: self.protocol.as_deref().map(|word| {
                let Ok(protocol) = word.parse::<Protocol>();
                protocol
            }),
            prefix_len: prefix_len.transpose()?,
            fed_by: match &self.fed_by {
                None => Vec::new(),
                Some(text) => {
                    entry::parse_fed_by(text).ok_or_else(|| bad("FEDBY", text, "a list of at most 16 IP addresses"))?
                }
            },
            scheme: match &self.scheme {
                None => Scheme::Http,
                Some(text) => Scheme::parse(text).ok_or_else(|| bad("SCHEME", text, "http or https"))?,
            },
        })
    }

    fn transfer_entry(self) -> Result<TransferEntry, ParseError> {
        let server = Server { prefix_len: None, ..self.server()? };
        let countries = self.countries.iter().filter_map(|text| match text.parse::<Country>() {
            Ok(country) => Some(Ok(country)),
            Err(CountryError::Unknown) => None,
            Err(CountryError::NotTwoLetters) => Some(Err(bad("COUNTRY", text, "a country of two letters"))),
        });
        let networks = self
            .networks
            .iter()
            .map(|text| entry::parse_prefix(text).ok_or_else(|| bad("NETWORK", text, "a network in prefix notation")));
        Ok(TransferEntry {
            server,
            countries: countries.collect::<Result<_, _>>()?,
            networks: networks.collect::<Result<_, _>>()?,
            login: self.login.unwrap_or_default(),
            password: self.password.unwrap_or_default(),
            // A number that is none says nothing: the element is ours alone.
            expires_in_seconds: self.expires.as_deref().and_then(entry::parse_digits),
        })
    }
}

fn bad(element: &'static str, value: &str, expected: &'static str) -> ParseError {
    ParseError::Bad { element, value: entry::shown(value), expected }
}
