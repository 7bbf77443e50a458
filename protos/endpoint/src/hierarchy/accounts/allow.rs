//! What an account may claim, and the sentence about what it may not.

use std::net::IpAddr;

use castgate_wire::registry::{Country, EntryType, Prefix, Register};

/// What an account may claim. An empty list of types, networks or countries allows none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {
    /// Kinds of entries.
    pub types: Vec<EntryType>,
    /// Every network of an entry lies within one of these. A public entry needs a prefix of length 0 here.
    pub networks: Vec<Prefix>,
    /// Countries an entry may name.
    pub countries: Vec<Country>,
    /// The entry's own address lies within one of these; empty: any address.
    pub sources: Vec<Prefix>,
}

/// Something that an entry claims and its account may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Claim {
    /// The kind of entry.
    #[error("this account may not register entries of TYPE {0}")]
    Type(EntryType),
    /// One of its networks.
    #[error("this account may not register network {0}")]
    Network(Prefix),
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
        let inside = |network: &&Prefix| self.networks.iter().any(|range| range.contains(*network));
        if let Some(network) = networks.iter().find(|network| !inside(network)) {
            return Err(Claim::Network(*network));
        }
        match countries.iter().find(|country| !self.countries.contains(country)) {
            Some(country) => Err(Claim::Country(*country)),
            None => Ok(()),
        }
    }

    /// [`check`](Self::check) for a REGISTER.
    ///
    /// # Errors
    /// The first [`Claim`] that the account may not.
    pub fn check_register(&self, register: &Register) -> Result<(), Claim> {
        self.check(register.entry_type, register.source, &register.networks, register.country.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_beyond_the_account_is_named() {
        let allow = Allow {
            types: vec![EntryType::TunnelServer],
            networks: vec!["134.184.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            countries: vec!["BE".parse().unwrap()],
            sources: vec!["134.184.0.0/16".parse().unwrap()],
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
}
