//! The draft's picture: who takes part, and what each is for.
//!
//! ```text
//!   root1 ═ root2 ── public                                         0.0.0.0/0
//!     ├── be1 ═ be2 ── beserver, nated (behind NAT)                  BE
//!     │     └── isp1 ═ isp2 ── ispserver                             134.184.0.0/16 and 135.0.0.0/16 in BE
//!     │            └── corp1 ═ corp2 ── corpserver, campus           134.184.0.0/16 again: the ISP's customer
//!     └── fr1 ═ fr2 ── frserver                                      FR
//! ```
//! `═` is a peer. Nobody but the roots is named in a configuration: everybody finds his place from there.

use std::net::{IpAddr, SocketAddr};

use castgate_endpoint::hierarchy::discovery::Role;
use castgate_wire::registry::{EntryType, Protocol, Register, Scheme};

/// Where a database listens.
pub const DATABASE_PORT: u16 = 5_632;
/// Where a tunnel server listens.
pub const TUNNEL_PORT: u16 = 10_100;

/// What runs on a machine, and what it is for.
#[derive(Debug, Clone, Copy)]
pub struct Party {
    pub name: &'static str,
    pub address: &'static str,
    /// Where its requests come from, when that is another address.
    pub seen_as: Option<&'static str>,
    pub kind: Kind,
    pub networks: &'static [&'static str],
    pub country: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A database that is known by its address, with the name of its peer.
    Root(&'static str),
    Database(Role),
    Server,
}

const ISP: &[&str] = &["134.184.0.0/16", "135.0.0.0/16"];
const CORPORATE: &[&str] = &["134.184.0.0/16"];

/// In the order in which they start.
pub const PARTIES: &[Party] = &[
    party("root1", "130.0.0.1", Kind::Root("root2"), &[], None),
    party("root2", "130.0.0.2", Kind::Root("root1"), &[], None),
    party("be1", "131.0.0.1", Kind::Database(Role::Peer), &[], Some("BE")),
    party("be2", "131.0.0.2", Kind::Database(Role::Peer), &[], Some("BE")),
    party("fr1", "132.0.0.1", Kind::Database(Role::Peer), &[], Some("FR")),
    party("fr2", "132.0.0.2", Kind::Database(Role::Peer), &[], Some("FR")),
    party("isp1", "135.0.0.1", Kind::Database(Role::Peer), ISP, Some("BE")),
    // The customer before the ISP's second database: that one has to see through who is whose peer.
    party("corp1", "134.184.50.57", Kind::Database(Role::Customer), CORPORATE, Some("BE")),
    party("isp2", "135.0.0.2", Kind::Database(Role::Peer), ISP, Some("BE")),
    party("corp2", "134.184.50.58", Kind::Database(Role::Customer), CORPORATE, Some("BE")),
    party("public", "140.0.0.1", Kind::Server, &["0.0.0.0/0"], None),
    party("beserver", "131.0.1.1", Kind::Server, &[], Some("BE")),
    Party { seen_as: Some("151.0.0.1"), ..party("nated", "10.9.0.10", Kind::Server, &["151.0.0.1/32"], Some("BE")) },
    party("frserver", "132.0.1.1", Kind::Server, &[], Some("FR")),
    party("ispserver", "135.0.1.1", Kind::Server, &["135.0.0.0/16"], Some("BE")),
    party("corpserver", "134.184.50.80", Kind::Server, &["134.184.50.0/24"], Some("BE")),
    party("campus", "134.184.60.80", Kind::Server, &["134.184.0.0/16"], Some("BE")),
];

/// Those of other tests, who come later: they have to be known by their logins.
pub const LATECOMERS: &[Party] = &[
    party("national", "131.0.2.1", Kind::Server, &["0.0.0.0/0"], Some("BE")),
    party("shop", "134.7.0.1", Kind::Server, &["134.7.0.0/16"], Some("BE")),
    party("wide", "134.0.0.1", Kind::Database(Role::Peer), &["134.0.0.0/8"], Some("BE")),
];

const fn party(
    name: &'static str,
    address: &'static str,
    kind: Kind,
    networks: &'static [&'static str],
    country: Option<&'static str>,
) -> Party {
    Party { name, address, seen_as: None, kind, networks, country }
}

impl Party {
    pub fn of(name: &str) -> &'static Self {
        PARTIES.iter().chain(LATECOMERS).find(|party| party.name == name).expect("a party of the picture")
    }

    pub fn ip(&self) -> IpAddr {
        self.address.parse().expect("an address")
    }

    pub fn source(&self) -> IpAddr {
        self.seen_as.map_or_else(|| self.ip(), |address| address.parse().expect("an address"))
    }

    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), if self.is_database() { DATABASE_PORT } else { TUNNEL_PORT })
    }

    pub fn is_database(&self) -> bool {
        self.kind != Kind::Server
    }

    /// What it announces; a root announces nothing.
    pub fn register(&self) -> Register {
        let (entry_type, protocol) = match self.kind {
            Kind::Server => (EntryType::TunnelServer, Some(Protocol::Udp)),
            Kind::Root(_) | Kind::Database(_) => (EntryType::TunnelDatabase, None),
        };
        Register {
            source: self.ip(),
            port: self.socket().port(),
            entry_type,
            protocol,
            networks: self.networks.iter().map(|network| network.parse().expect("a network")).collect(),
            country: self.country.map(|code| code.parse().expect("a country")),
            fed_by: Vec::new(),
            scheme: Scheme::Http,
        }
    }

    /// `be1` and `be2` are one operator's, who has one account.
    pub fn login(&self) -> &'static str {
        self.name.trim_end_matches(|letter: char| letter.is_ascii_digit())
    }
}

pub fn roots() -> Vec<SocketAddr> {
    PARTIES.iter().filter(|party| matches!(party.kind, Kind::Root(_))).map(Party::socket).collect()
}
