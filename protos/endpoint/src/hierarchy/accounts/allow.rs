//! What an account may claim, and the sentence about what it may not.
//!
//! ```text
//!   TYPE ─▶ SOURCE within a range ─▶ each of NETWORKS within a prefix of the account, or of one of its Autonomous Systems
//!        ─▶ all of them and SOURCE within one such prefix (where the account is strict) ─▶ COUNTRY
//! ```

use std::net::IpAddr;

use castgate_wire::registry::{Country, EntryType, Prefix, Register};

use super::systems::Systems;
use crate::hierarchy::policy::List;

/// What an account may claim. An empty list of types, networks, systems or countries allows none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {
    /// Kinds of entries.
    pub types: Vec<EntryType>,
    /// Every network of an entry lies within one of these. A public entry needs a prefix of length 0 here.
    pub networks: Vec<Prefix>,
    /// Or it is one that a route table gives to one of these.
    pub systems: Systems,
    /// Countries an entry may name.
    pub countries: Vec<Country>,
    /// The entry's own address lies within one of these; empty: any address.
    pub sources: Vec<Prefix>,
    /// Whether the networks of an entry and its own address have to lie within one and the same prefix of the account: the rule of
    /// draft-liefooghe-castgate-02 §9, which neither NAT nor an operator with several blocks can keep.
    pub strict_source: bool,
}

/// Something that an entry claims and its account may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Claim {
    /// The kind of entry.
    #[error("this account may not register entries of TYPE {0}")]
    Type(EntryType),
    /// One of its networks.
    #[error("this account may not register network {0}")]
    Network(Prefix),
    /// One of its networks, which is not one of the account's Autonomous Systems either.
    #[error("this account may not register network {network}, which is of {} and not of AS {}", owner(*.of), List(.asns))]
    System {
        /// The network.
        network: Prefix,
        /// Whose it is by the route table; `None`: nobody's that is known.
        of: Option<u32>,
        /// The Autonomous Systems of the account.
        asns: Vec<u32>,
    },
    /// One of its networks is in another prefix of the account than its own address.
    #[error(
        "this account may not register network {network} with source {source_address}: strictSource wants both within one \
         network of the account"
    )]
    Apart {
        /// The first network that is.
        network: Prefix,
        /// The entry's own address.
        source_address: IpAddr,
    },
    /// Its country.
    #[error("this account may not register country {0}")]
    Country(Country),
    /// Its own address.
    #[error("this account may not register source {0}")]
    Source(IpAddr),
}

impl Allow {
    /// Whether an account may claim all of this.
    ///
    /// # Errors
    /// The first [`Claim`] that it may not.
    pub fn check(
        &self,
        entry_type: EntryType,
        source: IpAddr,
        networks: &[Prefix],
        countries: &[Country],
    ) -> Result<(), Claim> {
        if !self.types.contains(&entry_type) {
            return Err(Claim::Type(entry_type));
        }
        if !self.sources.is_empty() && !self.sources.iter().any(|range| range.contains(&source)) {
            return Err(Claim::Source(source));
        }
        if let Some(network) = networks.iter().find(|network| !self.holds(network)) {
            return Err(self.not_held(*network));
        }
        if self.strict_source
            && let Some(network) = self.apart(source, networks)
        {
            return Err(Claim::Apart { network, source_address: source });
        }
        match countries.iter().find(|country| !self.countries.contains(country)) {
            Some(country) => Err(Claim::Country(*country)),
            None => Ok(()),
        }
    }

    /// Whether the account says the same, whatever table its Autonomous Systems are looked up in.
    pub(super) fn says(&self, other: &Self) -> bool {
        let Self { types, networks, systems, countries, sources, strict_source } = self;
        (types, networks, countries, sources) == (&other.types, &other.networks, &other.countries, &other.sources)
            && systems.asns() == other.systems.asns()
            && *strict_source == other.strict_source
    }

    /// Whether a network lies within one prefix of the account or of its Autonomous Systems.
    fn holds(&self, network: &Prefix) -> bool {
        self.networks.iter().any(|range| range.contains(network)) || self.systems.have(network)
    }

    fn not_held(&self, network: Prefix) -> Claim {
        match self.systems.asns() {
            [] => Claim::Network(network),
            asns => Claim::System { network, of: self.systems.owner(&network), asns: asns.to_vec() },
        }
    }

    /// The first network that no prefix of the account holds together with the source and the networks before it. Without any
    /// network there is nothing that could be apart.
    fn apart(&self, source: IpAddr, networks: &[Prefix]) -> Option<Prefix> {
        let mut together = Some(Prefix::from(source.to_canonical()));
        networks.iter().copied().find(|network| {
            together = together.and_then(|together| around(together, *network));
            !together.is_some_and(|together| self.holds(&together))
        })
    }

    /// [`check`](Self::check) for a REGISTER.
    ///
    /// # Errors
    /// The first [`Claim`] that the account may not.
    pub fn check_register(&self, register: &Register) -> Result<(), Claim> {
        self.check(register.entry_type, register.source, &register.networks, register.country.as_slice())
    }
}

/// The smallest prefix around both; `None` for two families.
fn around(one: Prefix, other: Prefix) -> Option<Prefix> {
    let mut both = one;
    while !both.contains(&other) {
        both = both.supernet()?;
    }
    Some(both)
}

fn owner(of: Option<u32>) -> String {
    of.map_or("no Autonomous System that is known".to_owned(), |asn| format!("AS {asn}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hierarchy::policy::RouteTable;

    #[test]
    fn a_claim_beyond_the_account_is_named() {
        let allow = Allow {
            types: vec![EntryType::TunnelServer],
            networks: vec!["134.184.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            countries: vec!["BE".parse().unwrap()],
            sources: vec!["134.184.0.0/16".parse().unwrap()],
            ..Allow::default()
        };
        let check = |kind, source: &str, networks: &[&str], countries: &[&str]| {
            let networks: Vec<Prefix> = networks.iter().map(|text| text.parse().unwrap()).collect();
            let countries: Vec<Country> = countries.iter().map(|text| text.parse().unwrap()).collect();
            let outcome = allow.check(kind, source.parse().unwrap(), &networks, &countries);
            outcome.map_err(|claim| claim.to_string())
        };
        let ts = EntryType::TunnelServer;
        assert_eq!(check(ts, "134.184.1.1", &["134.184.1.0/24", "2001:db8:1::/48"], &["BE"]), Ok(()));
        assert_eq!(check(ts, "134.184.1.1", &["134.184.0.0/16"], &[]), Ok(()));
        let refused = |sentence: &str| Err(format!("this account may not register {sentence}"));
        assert_eq!(check(EntryType::TunnelDatabase, "134.184.1.1", &[], &["BE"]), refused("entries of TYPE TDS"));
        assert_eq!(check(ts, "134.185.1.1", &[], &["BE"]), refused("source 134.185.1.1"));
        assert_eq!(check(ts, "134.184.1.1", &["134.184.0.0/15"], &[]), refused("network 134.184.0.0/15"));
        assert_eq!(check(ts, "134.184.1.1", &["134.184.1.0/24", "0.0.0.0/0"], &[]), refused("network 0.0.0.0/0"));
        assert_eq!(check(ts, "134.184.1.1", &[], &["FR"]), refused("country FR"));
    }

    #[test]
    fn an_account_without_claims_may_claim_nothing_but_from_anywhere() {
        let mut allow = Allow::default();
        let source = "192.0.2.1".parse().unwrap();
        let ts = EntryType::TunnelServer;
        assert_eq!(allow.check(ts, source, &[], &[]), Err(Claim::Type(ts)));
        allow.types.push(ts);
        assert_eq!(allow.check(ts, source, &[], &[]), Ok(()), "no list of sources means any source");
    }

    #[test]
    fn an_account_may_claim_what_the_route_table_gives_its_autonomous_systems() {
        let table =
            "10.0.0.0/8,64500\n10.1.0.0/16,64501\n10.1.2.0/24,64500\n198.51.100.0/25,64502\n198.51.100.128/25,64502\n";
        let table = RouteTable::read(table.as_bytes()).unwrap();
        let allow = Allow {
            types: vec![EntryType::TunnelServer],
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            systems: Systems::new(vec![64_500, 64_502], Some(Arc::new(table))),
            ..Allow::default()
        };
        let claim = |network: &str| claimed(&allow, "203.0.113.1", &[network]);
        for network in ["10.0.0.0/8", "10.2.0.0/16", "10.1.2.128/25", "192.0.2.0/25", "198.51.100.7/32"] {
            assert_eq!(claim(network), Ok(()), "{network}");
        }
        assert_eq!(claim("198.51.100.0/24"), Ok(()), "two halves of theirs are theirs together");
        let of_other = "network 10.1.3.0/24, which is of AS 64501 and not of AS 64500, 64502";
        assert_eq!(claim("10.1.3.0/24"), refused(of_other), "the longest prefix decides");
        let of_nobody = "which is of no Autonomous System that is known and not of AS 64500, 64502";
        assert_eq!(claim("203.0.113.0/24"), refused(&format!("network 203.0.113.0/24, {of_nobody}")));
        assert_eq!(claim("198.51.100.0/23"), refused(&format!("network 198.51.100.0/23, {of_nobody}")));
        assert_eq!(claim("0.0.0.0/0"), refused(&format!("network 0.0.0.0/0, {of_nobody}")));
        let unknown = Allow { systems: Systems::new(vec![64_500], None), ..allow.clone() };
        let of_nobody = "network 10.0.0.0/8, which is of no Autonomous System that is known and not of AS 64500";
        assert_eq!(claimed(&unknown, "203.0.113.1", &["10.0.0.0/8"]), refused(of_nobody), "without a table");
    }

    #[test]
    fn a_strict_account_registers_networks_only_beside_its_own_address() {
        let table = RouteTable::read("198.51.100.0/24,64500\n".as_bytes()).unwrap();
        let strict = Allow {
            types: vec![EntryType::TunnelServer],
            networks: ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"].map(|text| text.parse().unwrap()).to_vec(),
            systems: Systems::new(vec![64_500], Some(Arc::new(table))),
            countries: vec!["BE".parse().unwrap()],
            strict_source: true,
            ..Allow::default()
        };
        let lenient = Allow { strict_source: false, ..strict.clone() };
        for (source, networks) in [
            ("10.255.0.1", &["10.1.0.0/16", "10.2.0.0/16"][..]),
            ("2001:db8::1", &["2001:db8:1::/48"]),
            ("198.51.100.9", &["198.51.100.0/24"]),
            ("::ffff:192.0.2.1", &["192.0.2.0/24"]),
        ] {
            assert_eq!(claimed(&strict, source, networks), Ok(()), "{source}");
        }
        for (source, networks, apart) in [
            ("192.0.2.1", &["10.1.0.0/16"][..], "10.1.0.0/16"),
            ("192.168.0.1", &["192.0.2.0/24"], "192.0.2.0/24"),
            ("192.0.2.1", &["192.0.2.0/25", "10.0.0.0/8"], "10.0.0.0/8"),
            ("10.0.0.1", &["10.0.0.0/16", "2001:db8::/48"], "2001:db8::/48"),
            ("10.0.0.1", &["198.51.100.0/24"], "198.51.100.0/24"),
        ] {
            let why = "strictSource wants both within one network of the account";
            assert_eq!(
                claimed(&strict, source, networks),
                refused(&format!("network {apart} with source {source}: {why}"))
            );
            assert_eq!(claimed(&lenient, source, networks), Ok(()), "{source}");
        }
        let by_country =
            strict.check(EntryType::TunnelServer, "192.168.0.1".parse().unwrap(), &[], &["BE".parse().unwrap()]);
        assert_eq!(by_country, Ok(()), "a whole country has no network that could be elsewhere");
    }

    fn claimed(allow: &Allow, source: &str, networks: &[&str]) -> Result<(), String> {
        let networks: Vec<Prefix> = networks.iter().map(|text| text.parse().unwrap()).collect();
        let outcome = allow.check(EntryType::TunnelServer, source.parse().unwrap(), &networks, &[]);
        outcome.map_err(|claim| claim.to_string())
    }

    fn refused(sentence: &str) -> Result<(), String> {
        Err(format!("this account may not register {sentence}"))
    }
}
