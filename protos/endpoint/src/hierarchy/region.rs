//! Which countries are neighbours: the geographic region of a country (the fourth tier of a QUERY).
//!
//! The draft never says what a region is. castgate UMTP notes: a sub-region of UN M49, and its intermediate region where M49
//! has one (in Africa and in Latin America), because those are the neighbours. An operator may see it otherwise.
//!
//! # Source
//! UN Statistics Division, "Standard country or area codes for statistical use (M49)"; ISO 3166-1 for the codes. Taiwan (TW),
//! which M49 does not list, is put to Eastern Asia.

use std::collections::{BTreeMap, HashMap};

use castgate_wire::registry::Country;

/// A region and its countries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    name: String,
    countries: Vec<Country>,
}

impl Region {
    /// English name of M49, or the one that an operator gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The countries of the region.
    #[must_use]
    pub fn countries(&self) -> &[Country] {
        &self.countries
    }
}

/// Which region each country is in: that of M49, unless an operator put it into another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    regions: Vec<Region>,
    by_country: HashMap<Country, usize>,
}

/// What is wrong with a table of one's own: one sentence about one of its regions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// The code is nobody's.
    #[error("{0} is neither a country of ISO 3166 nor a code that it leaves to its users, such as XK")]
    Unknown(Country),
    /// Two regions claim the country, or one of them twice.
    #[error("{0} is in {1:?} already")]
    Twice(Country, String),
    /// The region has no name.
    #[error("a region has a name")]
    Nameless,
}

impl Default for Regions {
    /// The regions of M49.
    fn default() -> Self {
        let mut this = Self { regions: Vec::new(), by_country: HashMap::new() };
        for BuiltIn { name, .. } in &BUILT_IN {
            this.regions.push(Region { name: (*name).to_owned(), countries: Vec::new() });
        }
        for (index, region) in BUILT_IN.iter().enumerate() {
            for country in region.countries() {
                this.put(country, index);
            }
        }
        this
    }
}

impl Regions {
    /// The regions of M49, but each country that is named in `own` is in the region it is named for, which may be one of M49
    /// or a new one. Its neighbours are then the countries of that region, and it is no neighbour of those it left.
    ///
    /// # Errors
    /// [`RegionError`] with the name of the region.
    pub fn new(own: &BTreeMap<String, Vec<Country>>) -> Result<Self, (String, RegionError)> {
        let mut this = Self::default();
        let mut named: HashMap<Country, &str> = HashMap::new();
        for (name, countries) in own {
            let wrong = |error| (name.clone(), error);
            if name.trim().is_empty() {
                return Err(wrong(RegionError::Nameless));
            }
            for country in countries {
                if !this.by_country.contains_key(country) && !is_left_to_users(*country) {
                    return Err(wrong(RegionError::Unknown(*country)));
                }
                if let Some(first) = named.insert(*country, name) {
                    return Err(wrong(RegionError::Twice(*country, first.to_owned())));
                }
            }
        }
        for (name, countries) in own {
            let index = this.regions.iter().position(|region| region.name == *name).unwrap_or_else(|| {
                this.regions.push(Region { name: name.clone(), countries: Vec::new() });
                this.regions.len() - 1
            });
            for country in countries {
                if let Some(before) = this.by_country.get(country) {
                    this.regions[*before].countries.retain(|other| other != country);
                }
                this.put(*country, index);
            }
        }
        Ok(this)
    }

    /// The region of a country; `None` for codes that are in none.
    #[must_use]
    pub fn of(&self, country: Country) -> Option<&Region> {
        self.by_country.get(&country).map(|index| &self.regions[*index])
    }

    fn put(&mut self, country: Country, index: usize) {
        self.regions[index].countries.push(country);
        self.by_country.insert(country, index);
    }
}

/// ISO 3166-1 §8.1.3: AA, QM to QZ, XA to XZ and ZZ are never a country's. Kosovo goes by XK.
fn is_left_to_users(country: Country) -> bool {
    matches!(country.as_str().as_bytes(), b"AA" | [b'Q', b'M'..=b'Z'] | [b'X', _])
}

/// A region of M49.
struct BuiltIn {
    name: &'static str,
    /// ISO 3166-1 alpha-2 codes with a blank between two.
    codes: &'static str,
}

impl BuiltIn {
    /// A test reads the whole table.
    fn countries(&self) -> impl Iterator<Item = Country> {
        self.codes.split(' ').map(|code| code.parse().expect("the table holds nothing but codes"))
    }
}

const fn region(name: &'static str, codes: &'static str) -> BuiltIn {
    BuiltIn { name, codes }
}

/// All regions; every country is in one.
static BUILT_IN: [BuiltIn; 23] = [
    region("Northern Africa", "DZ EG EH LY MA SD TN"),
    region("Eastern Africa", "BI DJ ER ET IO KE KM MG MU MW MZ RE RW SC SO SS TF TZ UG YT ZM ZW"),
    region("Middle Africa", "AO CD CF CG CM GA GQ ST TD"),
    region("Southern Africa", "BW LS NA SZ ZA"),
    region("Western Africa", "BF BJ CI CV GH GM GN GW LR ML MR NE NG SH SL SN TG"),
    region("Caribbean", "AG AI AW BB BL BQ BS CU CW DM DO GD GP HT JM KN KY LC MF MQ MS PR SX TC TT VC VG VI"),
    region("Central America", "BZ CR GT HN MX NI PA SV"),
    region("South America", "AR BO BR BV CL CO EC FK GF GS GY PE PY SR UY VE"),
    region("Northern America", "BM CA GL PM US"),
    region("Central Asia", "KG KZ TJ TM UZ"),
    region("Eastern Asia", "CN HK JP KP KR MN MO TW"),
    region("South-eastern Asia", "BN ID KH LA MM MY PH SG TH TL VN"),
    region("Southern Asia", "AF BD BT IN IR LK MV NP PK"),
    region("Western Asia", "AE AM AZ BH CY GE IL IQ JO KW LB OM PS QA SA SY TR YE"),
    region("Eastern Europe", "BG BY CZ HU MD PL RO RU SK UA"),
    region("Northern Europe", "AX DK EE FI FO GB GG IE IM IS JE LT LV NO SE SJ"),
    region("Southern Europe", "AD AL BA ES GI GR HR IT ME MK MT PT RS SI SM VA"),
    region("Western Europe", "AT BE CH DE FR LI LU MC NL"),
    region("Australia and New Zealand", "AU CC CX HM NF NZ"),
    region("Melanesia", "FJ NC PG SB VU"),
    region("Micronesia", "FM GU KI MH MP NR PW UM"),
    region("Polynesia", "AS CK NU PF PN TK TO TV WF WS"),
    region("Antarctica", "AQ"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_country_of_iso_3166_is_in_exactly_one_region() {
        let all: Vec<Country> = BUILT_IN.iter().flat_map(BuiltIn::countries).collect();
        let regions = Regions::default();
        let unique: BTreeSet<Country> = all.iter().copied().collect();
        assert_eq!((all.len(), unique.len()), (249, 249));
        for country in all {
            assert!(regions.of(country).unwrap().countries().contains(&country));
        }
    }

    #[test]
    fn neighbours_share_a_region_and_others_do_not() {
        let regions = Regions::default();
        let name = |code: &str| regions.of(code.parse().unwrap()).map(Region::name);
        assert_eq!(name("BE"), Some("Western Europe"));
        assert_eq!(name("BE"), name("NL"));
        assert_ne!(name("BE"), name("GB"));
        assert_eq!(name("UK"), Some("Northern Europe"), "UK is read as GB");
        assert_eq!(name("EL"), Some("Southern Europe"), "EL is read as GR");
        assert_eq!(name("XX"), None);
    }

    #[test]
    fn a_country_is_in_the_region_that_an_operator_puts_it_into() {
        let own = own(&[("Benelux", &["BE", "NL", "LU"]), ("Western Europe", &["GB"]), ("Southern Europe", &["XK"])]);
        let regions = Regions::new(&own).unwrap();
        let neighbours = |code: &str| {
            let countries = regions.of(code.parse().unwrap()).map(Region::countries);
            countries.map(|countries| countries.iter().map(Country::as_str).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(neighbours("NL").unwrap(), "BE NL LU");
        assert_eq!(neighbours("FR").unwrap(), "AT CH DE FR LI MC GB", "who left is a neighbour no longer");
        assert!(neighbours("XK").unwrap().starts_with("AD AL BA"));
        assert!(!neighbours("IE").unwrap().contains("GB"));
        assert_eq!(neighbours("XX"), None);
        assert_eq!(Regions::new(&BTreeMap::new()), Ok(Regions::default()));
    }

    #[test]
    fn a_code_that_is_nobodys_and_a_country_that_is_there_twice_are_named() {
        let sentence = |rows: &[(&str, &[&str])]| {
            let (region, error) = Regions::new(&own(rows)).unwrap_err();
            format!("{region}: {error}")
        };
        assert_eq!(
            sentence(&[("North", &["SE", "OO"])]),
            "North: OO is neither a country of ISO 3166 nor a code that it leaves to its users, such as XK"
        );
        assert_eq!(sentence(&[("A", &["SE"]), ("B", &["SE"])]), "B: SE is in \"A\" already");
        assert_eq!(sentence(&[("A", &["SE", "SE"])]), "A: SE is in \"A\" already");
        assert_eq!(sentence(&[(" ", &["SE"])]), " : a region has a name");
    }

    fn own(rows: &[(&str, &[&str])]) -> BTreeMap<String, Vec<Country>> {
        let countries = |codes: &[&str]| codes.iter().map(|code| code.parse().unwrap()).collect();
        rows.iter().map(|(name, codes)| ((*name).to_owned(), countries(codes))).collect()
    }
}
