//! What a registry holds and hands out: entries, and the words they are made of.

use super::Country;
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network in prefix notation, without host bits.
pub type Prefix = ipnet::IpNet;

/// Octets of a value that an error repeats; the rest of a long value helps nobody.
const SHOWN_LEN_MAX: usize = 64;

/// A value as an error repeats it.
pub(super) fn shown(value: &str) -> String {
    let mut shown = value[..value.floor_char_boundary(SHOWN_LEN_MAX)].to_owned();
    if shown.len() < value.len() {
        shown.push('…');
    }
    shown
}

/// Reads a network: a prefix whose host bits are cleared, or a bare address, which stands for itself alone.
pub(super) fn parse_prefix(text: &str) -> Option<Prefix> {
    text.parse::<Prefix>().map(|prefix| prefix.trunc()).or_else(|_| text.parse::<IpAddr>().map(Prefix::from)).ok()
}

/// Reads a port; 0 is none.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    parse_digits(text).filter(|port| *port != 0)
}

/// Reads a decimal number. `from_str` alone would take a plus sign.
pub(super) fn parse_digits<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Addresses of a chain that one server is fed by which are announced and read: as many as there are steps in the longest way
/// from a root to a tunnel server. A chain of relays that is longer is out of order.
pub const FED_BY_MAX: usize = 16;

/// Reads a list of addresses with commas between them; `None` when one is no address, or there are more than [`FED_BY_MAX`].
pub(super) fn parse_fed_by(text: &str) -> Option<Vec<IpAddr>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let list: Vec<IpAddr> = items.map(|item| item.parse().ok()).take(FED_BY_MAX + 1).collect::<Option<_>>()?;
    (list.len() <= FED_BY_MAX).then_some(list)
}

/// Writes such a list; what is more than [`FED_BY_MAX`] is left out from the far end.
pub(super) fn emit_fed_by(list: &[IpAddr]) -> String {
    let items: Vec<String> = list.iter().take(FED_BY_MAX).map(ToString::to_string).collect();
    items.join(",")
}

/// Which kind of server an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryType {
    /// A tunnel server: `TS` in requests, `0` in XML.
    TunnelServer,
    /// A tunnel database: `TDS` in requests, `1` in XML.
    TunnelDatabase,
}

impl EntryType {
    /// Reads either notation, in any case, in either place (castgate UMTP notes).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is = |word| text.eq_ignore_ascii_case(word);
        if is("TS") || is("0") {
            Some(Self::TunnelServer)
        } else if is("TDS") || is("1") {
            Some(Self::TunnelDatabase)
        } else {
            None
        }
    }

    /// The word that requests use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::TunnelServer => "TS",
            Self::TunnelDatabase => "TDS",
        }
    }

    /// The digit that XML uses.
    #[must_use]
    pub const fn digit(self) -> &'static str {
        match self {
            Self::TunnelServer => "0",
            Self::TunnelDatabase => "1",
        }
    }
}

impl fmt::Display for EntryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How the HTTP of a database is carried (castgate UMTP notes: an extension of ours that readers of the draft skip).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Over TCP. What is not said at all, as the draft knows nothing else.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// Reads the word in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme.word()))
    }

    /// The word that URLs and the wire use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Whether it is the one that need not be said. By reference, as serde hands it out.
    #[must_use]
    pub const fn is_http(&self) -> bool {
        matches!(self, Self::Http)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// UMTP over UDP.
    Udp,
    /// UMTP over HTTP; the HTTP of a database.
    Tcp,
    /// An AMT relay (RFC 7450; castgate UMTP notes).
    Amt,
    /// A word that we do not know, in upper case.
    Unknown(String),
}

impl Protocol {
    /// The word on the wire.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Amt => "AMT",
            Self::Unknown(word) => word,
        }
    }
}

impl FromStr for Protocol {
    type Err = Infallible;

    /// Takes any case, and any word.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let known = [Self::Udp, Self::Tcp, Self::Amt].into_iter().find(|known| known.word().eq_ignore_ascii_case(text));
        Ok(known.unwrap_or_else(|| Self::Unknown(text.to_ascii_uppercase())))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which protocols a QUERY is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProtocolFilter {
    /// `ALL`, and what is not said at all: UDP and TCP, as before there were others.
    All,
    /// One protocol.
    Only(Protocol),
}

impl ProtocolFilter {
    /// The word on the wire.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::All => "ALL",
            Self::Only(protocol) => protocol.word(),
        }
    }

    /// Whether an entry of this protocol belongs into the answer.
    ///
    /// castgate UMTP notes: `ALL` means UDP and TCP, so that those who do not know AMT never see it; an entry that says no
    /// protocol is an old one, and matches everything but AMT.
    #[must_use]
    pub fn matches(&self, protocol: Option<&Protocol>) -> bool {
        match (self, protocol) {
            (Self::All, Some(protocol)) => matches!(protocol, Protocol::Udp | Protocol::Tcp),
            (Self::All, None) => true,
            (Self::Only(wanted), Some(protocol)) => wanted == protocol,
            (Self::Only(wanted), None) => matches!(wanted, Protocol::Udp | Protocol::Tcp),
        }
    }
}

impl fmt::Display for ProtocolFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One server in the answer to a QUERY.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// The address as registered.
    pub address: IpAddr,
    /// The port as registered.
    pub port: u16,
    /// Which kind of server.
    pub entry_type: EntryType,
    /// How it is reached, if it says so.
    pub protocol: Option<Protocol>,
    /// In answers to `TYPE=TDS`: the length of the registered network that matched, 0 for a country.
    pub prefix_len: Option<u8>,
    /// Whom it takes its channels from, nearest first, when it is a relay that says so (castgate UMTP notes: an extension of ours
    /// that readers of the draft skip). Nobody who is in there may take channels from it.
    pub fed_by: Vec<IpAddr>,
    /// How its HTTP is carried, when it is a database (castgate UMTP notes: SCHEME, an extension of ours that readers of the draft
    /// skip).
    pub scheme: Scheme,
}

/// One entry in the answer to a TRANSFER.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TransferEntry {
    /// The server.
    pub server: Server,
    /// The account that registered it.
    pub login: String,
    /// Its password, or the hash of it.
    pub password: String,
    /// The countries that it serves.
    pub countries: Vec<Country>,
    /// The networks that it serves.
    pub networks: Vec<Prefix>,
    /// For how long it lives unless it is refreshed, if the peer says so.
    pub expires_in_seconds: Option<u32>,
}

/// Passwords are not for logs.
impl fmt::Debug for TransferEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, login, password: _, countries, networks, expires_in_seconds } = self;
        f.debug_struct("TransferEntry")
            .field("server", server)
            .field("login", login)
            .field("countries", countries)
            .field("networks", networks)
            .field("expires_in_seconds", expires_in_seconds)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_digits_are_types_in_any_case() {
        for text in ["TS", "ts", "0"] {
            assert_eq!(EntryType::parse(text), Some(EntryType::TunnelServer));
        }
        for text in ["TDS", "Tds", "1"] {
            assert_eq!(EntryType::parse(text), Some(EntryType::TunnelDatabase));
        }
        for text in ["", "2", "00", "TSX"] {
            assert_eq!(EntryType::parse(text), None);
        }
    }

    #[test]
    fn a_scheme_is_read_in_any_case_and_nothing_else_is_one() {
        for scheme in [Scheme::Http, Scheme::Https] {
            assert_eq!(Scheme::parse(scheme.word()), Some(scheme));
            assert_eq!(Scheme::parse(&scheme.word().to_ascii_uppercase()), Some(scheme));
        }
        for text in ["", "ftp", "httpss", "https://"] {
            assert_eq!(Scheme::parse(text), None, "{text}");
        }
    }

    #[test]
    fn host_bits_are_masked_and_a_bare_address_stands_for_itself() {
        let shown = |text| parse_prefix(text).map(|prefix| prefix.to_string());
        assert_eq!(shown("134.184.1.7/16").as_deref(), Some("134.184.0.0/16"));
        assert_eq!(shown("134.184.1.7").as_deref(), Some("134.184.1.7/32"));
        assert_eq!(shown("2001:db8::1/32").as_deref(), Some("2001:db8::/32"));
        assert_eq!(shown("2001:db8::1").as_deref(), Some("2001:db8::1/128"));
        assert_eq!(shown("134.184.1.7/33"), None);
        assert_eq!(shown("134.184/16"), None);
    }

    #[test]
    fn all_means_udp_and_tcp_so_that_amt_is_seen_by_those_who_ask_for_it() {
        let foreign = Protocol::Unknown("QUIC".into());
        assert!(ProtocolFilter::All.matches(Some(&Protocol::Udp)));
        assert!(ProtocolFilter::All.matches(Some(&Protocol::Tcp)));
        assert!(ProtocolFilter::All.matches(None));
        assert!(!ProtocolFilter::All.matches(Some(&Protocol::Amt)));
        assert!(!ProtocolFilter::All.matches(Some(&foreign)));
        let amt = ProtocolFilter::Only(Protocol::Amt);
        assert!(amt.matches(Some(&Protocol::Amt)) && !amt.matches(Some(&Protocol::Udp)) && !amt.matches(None));
        assert!(ProtocolFilter::Only(foreign.clone()).matches(Some(&foreign)));
    }

    #[test]
    fn a_chain_is_read_and_written_up_to_its_bound() {
        let list = |count: u8| (0..count).map(|number| IpAddr::from([10, 0, 0, number])).collect::<Vec<_>>();
        let bound = u8::try_from(FED_BY_MAX).unwrap();
        assert_eq!(parse_fed_by(" 10.0.0.0 ,, 10.0.0.1,").as_deref(), Some(&list(2)[..]));
        assert_eq!(parse_fed_by(""), Some(Vec::new()));
        assert_eq!(parse_fed_by("2001:db8::1,relay"), None);
        assert_eq!(parse_fed_by(&emit_fed_by(&list(bound))), Some(list(bound)));
        assert_eq!(parse_fed_by(&format!("{},10.0.1.1", emit_fed_by(&list(bound)))), None);
        assert_eq!(emit_fed_by(&list(bound + 9)), emit_fed_by(&list(bound)));
    }

    #[test]
    fn a_transfer_entry_does_not_show_its_password() {
        let entry = TransferEntry {
            server: Server {
                address: IpAddr::from([134, 184, 1, 95]),
                port: 6777,
                entry_type: EntryType::TunnelDatabase,
                protocol: None,
                prefix_len: None,
                fed_by: Vec::new(),
                scheme: Scheme::Http,
            },
            login: "as2026u1".into(),
            password: "u12!56D".into(),
            countries: Vec::new(),
            networks: Vec::new(),
            expires_in_seconds: None,
        };
        assert!(!format!("{entry:?}").contains("u12"));
    }
}
