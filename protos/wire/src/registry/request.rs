//! The four actions as values, and how they are read from the pairs of a request.

use super::Country;
use super::entry::{self, EntryType, Prefix, Protocol, ProtocolFilter, Scheme};
use super::pairs::{self, NotUtf8};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

/// What a caller wants.
///
/// ```
/// use castgate_wire::registry::Request;
///
/// let (request, _) = Request::parse("action=query;type=0;country=\"uk\"")?;
/// assert_eq!(request.emit(), "ACTION=QUERY&TYPE=TS&COUNTRY=GB&PROTOCOL=ALL");
/// # Ok::<(), castgate_wire::registry::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// Add or refresh an entry.
    Register(Register),
    /// Remove an entry.
    Bye(Bye),
    /// Which servers are for me?
    Query(Query),
    /// Every entry, for a peer that starts.
    Transfer(Transfer),
}

/// REGISTER (draft-liefooghe-castgate-02 §6.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Register {
    /// The address that QUERY shall return.
    pub source: IpAddr,
    /// The port that QUERY shall return.
    pub port: u16,
    /// Which kind of server registers.
    pub entry_type: EntryType,
    /// How it is reached; databases need not say.
    pub protocol: Option<Protocol>,
    /// The networks whose clients it serves.
    pub networks: Vec<Prefix>,
    /// The country whose clients it serves.
    pub country: Option<Country>,
    /// Whom a relay takes its channels from, nearest first (FEDBY: castgate UMTP notes).
    pub fed_by: Vec<IpAddr>,
    /// How the HTTP of a database is carried (SCHEME: castgate UMTP notes).
    pub scheme: Scheme,
}

/// BYE (draft-liefooghe-castgate-02 §6.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bye {
    /// The address of the entry.
    pub source: IpAddr,
    /// The port of the entry.
    pub port: u16,
    /// Only entries of this type.
    pub entry_type: Option<EntryType>,
    /// Only the entry of this protocol; without it all of that address and port.
    pub protocol: Option<Protocol>,
    /// An entry that is not there shall be an error.
    pub strict: bool,
}

/// QUERY (draft-liefooghe-castgate-02 §6.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    /// Which kind of server is wanted.
    pub entry_type: EntryType,
    /// Where the caller is; `None` if it does not know.
    pub country: Option<Country>,
    /// How the caller can reach a tunnel server.
    pub protocol: ProtocolFilter,
    /// The network to be registered, instead of the caller's address (castgate UMTP notes: the draft sends a range to no
    /// parameter).
    pub network: Option<Prefix>,
}

/// TRANSFER (draft-liefooghe-castgate-02 §6.4); the narrowing is the castgate UMTP notes'.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// Only entries with networks inside this one.
    pub network: Option<Prefix>,
    /// Only entries of this country.
    pub country: Option<Country>,
}

/// Credentials among the pairs of a POST body; HTTP Basic is the usual way.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The account.
    pub login: String,
    /// Its password, in clear.
    pub password: String,
}

/// Passwords are not for logs.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("login", &self.login).finish_non_exhaustive()
    }
}

/// Why pairs are not a request. Shown to the caller as one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A parameter that the action needs is absent or empty.
    #[error("Parameter {name} is missing.")]
    Missing {
        /// The parameter.
        name: &'static str,
    },
    /// A parameter has a value that it cannot have.
    #[error("Parameter {name} has the value {value:?}, which is not {expected}.")]
    Bad {
        /// The parameter.
        name: &'static str,
        /// Its value, cut when long.
        value: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A parameter's octets are no text; they are not repeated.
    #[error("Parameter {name} is not UTF-8 text without control characters.")]
    NotText {
        /// The parameter.
        name: &'static str,
    },
}

impl ParseError {
    /// The cause as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing_parameter",
            Self::Bad { .. } => "bad_parameter",
            Self::NotText { .. } => "not_text",
        }
    }

    /// The parameter at fault.
    #[must_use]
    pub fn parameter(&self) -> &'static str {
        match self {
            Self::Missing { name } | Self::Bad { name, .. } | Self::NotText { name } => name,
        }
    }
}

impl Request {
    /// Reads the pairs of a query part (without `?`) or a POST body, or of both with `&` between them.
    ///
    /// Names and keywords in any case, parameters in any order, unknown ones ignored. Of a repeated parameter the first
    /// value that is not empty counts, but the lists of repeated NETWORKS are one list.
    ///
    /// # Errors
    /// [`ParseError`] with the first parameter that is missing or has a bad value. Never panics, whatever the text.
    pub fn parse(pairs: &str) -> Result<(Self, Option<Login>), ParseError> {
        let parameters = Parameters::parse(pairs);
        let action = parameters.required(ACTION, "an action", Some)?;
        let is = |word| action.eq_ignore_ascii_case(word);
        let request = if is("QUERY") {
            Self::Query(parameters.query()?)
        } else if is("REGISTER") || is("REGISTRATION") {
            // castgate UMTP notes: the draft says both.
            Self::Register(parameters.register()?)
        } else if is("BYE") {
            Self::Bye(parameters.bye()?)
        } else if is("TRANSFER") {
            Self::Transfer(Transfer { network: parameters.network()?, country: parameters.country()? })
        } else {
            return Err(parameters.bad(ACTION, "REGISTER, BYE, QUERY or TRANSFER"));
        };
        Ok((request, parameters.login()?))
    }
}

/// A parameter: its name and where its value stands.
type Name = (usize, &'static str);

pub(super) const ACTION: Name = (0, "ACTION");
pub(super) const TYPE: Name = (1, "TYPE");
pub(super) const SOURCE: Name = (2, "SOURCE");
pub(super) const PORT: Name = (3, "PORT");
pub(super) const PROTOCOL: Name = (4, "PROTOCOL");
pub(super) const NETWORKS: Name = (5, "NETWORKS");
pub(super) const NETWORK: Name = (6, "NETWORK");
pub(super) const COUNTRY: Name = (7, "COUNTRY");
pub(super) const STRICT: Name = (8, "STRICT");
const LOGIN: Name = (9, "LOGIN");
const PASSWORD: Name = (10, "PASSWORD");
pub(super) const FEDBY: Name = (11, "FEDBY");
pub(super) const SCHEME: Name = (12, "SCHEME");
static NAMES: [Name; 13] =
    [ACTION, TYPE, SOURCE, PORT, PROTOCOL, NETWORKS, NETWORK, COUNTRY, STRICT, LOGIN, PASSWORD, FEDBY, SCHEME];

const A_NETWORK: &str = "a network such as 134.184.0.0/16";

/// The values of the parameters that we know.
#[derive(Default)]
struct Parameters<'a>([Option<Result<Cow<'a, str>, NotUtf8>>; NAMES.len()]);

impl<'a> Parameters<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parameters = Self::default();
        for (name, value) in pairs::parse(text) {
            let Some(known) = NAMES.iter().find(|known| known.1.eq_ignore_ascii_case(&name)) else { continue };
            let slot = &mut parameters.0[known.0];
            match (slot.as_mut(), value) {
                (None, value) => *slot = Some(value),
                (Some(Ok(list)), Ok(value)) if *known == NETWORKS => {
                    let list = list.to_mut();
                    list.push(',');
                    list.push_str(&value);
                }
                // The first counts; a list with a part that is no text is none.
                (Some(_), Err(NotUtf8)) if *known == NETWORKS => *slot = Some(Err(NotUtf8)),
                (Some(_), _) => {}
            }
        }
        parameters
    }

    /// The value as it is.
    fn text(&self, (slot, name): Name) -> Result<Option<&str>, ParseError> {
        match &self.0[slot] {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(NotUtf8)) => Err(ParseError::NotText { name }),
        }
    }

    fn bad(&self, name: Name, expected: &'static str) -> ParseError {
        let text = self.text(name).ok().flatten().unwrap_or_default();
        bad(name, text, expected)
    }

    fn optional<'s, V>(
        &'s self,
        name: Name,
        expected: &'static str,
        read: impl FnOnce(&'s str) -> Option<V>,
    ) -> Result<Option<V>, ParseError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        read(text.trim()).map(Some).ok_or_else(|| bad(name, text, expected))
    }

    fn required<'s, V>(
        &'s self,
        name: Name,
        expected: &'static str,
        read: impl FnOnce(&'s str) -> Option<V>,
    ) -> Result<V, ParseError> {
        self.optional(name, expected, read)?.ok_or(ParseError::Missing { name: name.1 })
    }

    fn register(&self) -> Result<Register, ParseError> {
        Ok(Register {
            source: self.source()?,
            port: self.port()?,
            entry_type: self.entry_type()?.ok_or(ParseError::Missing { name: TYPE.1 })?,
            protocol: self.protocol()?,
            networks: self.networks()?,
            country: self.country()?,
            fed_by: self.optional(FEDBY, "a list of at most 16 IP addresses", entry::parse_fed_by)?.unwrap_or_default(),
            scheme: self.optional(SCHEME, "http or https", Scheme::parse)?.unwrap_or_default(),
        })
    }

    fn bye(&self) -> Result<Bye, ParseError> {
        let strict = self.optional(STRICT, "0 or 1", |text| match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" => Some(true),
            "0" | "false" | "no" => Some(false),
            _ => None,
        })?;
        Ok(Bye {
            source: self.source()?,
            port: self.port()?,
            entry_type: self.entry_type()?,
            protocol: self.protocol()?,
            strict: strict.unwrap_or(false),
        })
    }

    fn query(&self) -> Result<Query, ParseError> {
        let protocol = self.optional(PROTOCOL, "UDP, TCP or ALL", |text| {
            let all = text.eq_ignore_ascii_case(ProtocolFilter::All.word());
            if all { Some(ProtocolFilter::All) } else { read_protocol(text).map(ProtocolFilter::Only) }
        })?;
        Ok(Query {
            entry_type: self.entry_type()?.ok_or(ParseError::Missing { name: TYPE.1 })?,
            country: self.country()?,
            protocol: protocol.unwrap_or(ProtocolFilter::All),
            network: self.network()?,
        })
    }

    fn source(&self) -> Result<IpAddr, ParseError> {
        self.required(SOURCE, "an IP address", |text| text.parse().ok())
    }

    fn port(&self) -> Result<u16, ParseError> {
        self.required(PORT, "a port from 1 to 65535", entry::parse_port)
    }

    fn entry_type(&self) -> Result<Option<EntryType>, ParseError> {
        self.optional(TYPE, "TS or TDS", EntryType::parse)
    }

    /// `ALL` is no protocol of an entry: nothing could ask for it.
    fn protocol(&self) -> Result<Option<Protocol>, ParseError> {
        self.optional(PROTOCOL, "UDP or TCP", |text| {
            read_protocol(text).filter(|protocol| protocol.word() != ProtocolFilter::All.word())
        })
    }

    fn country(&self) -> Result<Option<Country>, ParseError> {
        let read = |text: &str| Country::parse_optional(text).ok();
        Ok(self.optional(COUNTRY, "a country of two letters such as BE", read)?.flatten())
    }

    fn networks(&self) -> Result<Vec<Prefix>, ParseError> {
        let list = self.text(NETWORKS)?.unwrap_or_default();
        let read = |item: &str| entry::parse_prefix(item).ok_or_else(|| bad(NETWORKS, item, A_NETWORK));
        list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(read).collect()
    }

    /// The one network of a QUERY or TRANSFER; castgate UMTP notes: also under the name of REGISTER's list.
    fn network(&self) -> Result<Option<Prefix>, ParseError> {
        if let Some(network) = self.optional(NETWORK, A_NETWORK, entry::parse_prefix)? {
            return Ok(Some(network));
        }
        match self.networks()?.as_slice() {
            [] => Ok(None),
            [network] => Ok(Some(*network)),
            [..] => Err(self.bad(NETWORKS, "a single network")),
        }
    }

    /// Credentials are complete or not there: a password without a login proves nothing.
    fn login(&self) -> Result<Option<Login>, ParseError> {
        let text = |name: Name| match self.text(name)? {
            Some(text) if text.chars().any(char::is_control) => Err(ParseError::NotText { name: name.1 }),
            text => Ok(text.map(str::to_owned)),
        };
        match (text(LOGIN)?, text(PASSWORD)?) {
            (Some(login), Some(password)) => Ok(Some(Login { login, password })),
            (Some(_), None) => Err(ParseError::Missing { name: PASSWORD.1 }),
            (None, Some(_)) => Err(ParseError::Missing { name: LOGIN.1 }),
            (None, None) => Ok(None),
        }
    }
}

/// A word of any protocol, known or not.
fn read_protocol(text: &str) -> Option<Protocol> {
    let word = text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.'));
    let Ok(protocol) = text.parse();
    word.then_some(protocol)
}

fn bad((_, name): Name, value: &str, expected: &'static str) -> ParseError {
    ParseError::Bad { name, value: entry::shown(value), expected }
}
