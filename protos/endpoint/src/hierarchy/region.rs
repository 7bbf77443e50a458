//! Which countries are neighbours: the geographic region of a country (the fourth tier of a QUERY).
//!
//! The draft never says what a region is. castgate UMTP notes: a sub-region of UN M49, and its intermediate region where M49
//! has one (in Africa and in Latin America), because those are the neighbours.
//!
//! # Source
//! UN Statistics Division, "Standard country or area codes for statistical use (M49)"; ISO 3166-1 for the codes. Taiwan (TW),
//! which M49 does not list, is put to Eastern Asia.

use castgate_wire::registry::Country;

/// A region and its countries.
#[derive(Debug, PartialEq, Eq)]
pub struct Region {
    /// English name of M49.
    pub name: &'static str,
    /// ISO 3166-1 alpha-2 codes with a blank between two.
    codes: &'static str,
}

impl Region {
    /// The region of a country; `None` for codes that ISO 3166-1 does not assign.
    #[must_use]
    pub fn of(country: Country) -> Option<&'static Self> {
        REGIONS.iter().find(|region| region.codes().any(|code| code == country.as_str()))
    }

    /// The countries of the region.
    ///
    /// # Panics
    /// Never: a test reads the whole table.
    pub fn countries(&self) -> impl Iterator<Item = Country> {
        self.codes().map(|code| code.parse().expect("the table holds nothing but codes"))
    }

    fn codes(&self) -> impl Iterator<Item = &'static str> {
        self.codes.split(' ')
    }
}

const fn region(name: &'static str, codes: &'static str) -> Region {
    Region { name, codes }
}

/// All regions; every country is in one.
static REGIONS: [Region; 23] = [
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
        let all: Vec<Country> = REGIONS.iter().flat_map(Region::countries).collect();
        let unique: BTreeSet<Country> = all.iter().copied().collect();
        assert_eq!((all.len(), unique.len()), (249, 249));
        for country in all {
            let region = Region::of(country).unwrap();
            assert!(region.countries().any(|member| member == country));
        }
    }

    #[test]
    fn neighbours_share_a_region_and_others_do_not() {
        let name = |code: &str| Region::of(code.parse().unwrap()).map(|region| region.name);
        assert_eq!(name("BE"), Some("Western Europe"));
        assert_eq!(name("BE"), name("NL"));
        assert_ne!(name("BE"), name("GB"));
        assert_eq!(name("UK"), Some("Northern Europe"), "UK is read as GB");
        assert_eq!(name("EL"), Some("Southern Europe"), "EL is read as GR");
        assert_eq!(name("XX"), None);
    }
}
