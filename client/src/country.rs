//! The country of this machine, from what the machine itself tells: its locale, its time zone, its name.
//!
//! ```text
//!   LC_ALL, LC_ADDRESS, LC_MONETARY, LANG ──none──▶ TZ, /etc/localtime ──none──▶ ccTLD of the host's full name ──none──▶ unknown
//! ```
//! A database that knows our network does not need it; one that does not goes by it (draft-liefooghe-castgate-02 §4.1.5). Owns
//! the guess and its reason, so that whoever is told a wrong country sees why; what a person says goes before all of it.
//! Reading the machine is apart from judging what was read, which the tests do with tables.

use std::fmt;
use std::fs;
use std::path::Path;

use castgate_wire::registry::Country;

/// Country and zones a line; see its head.
const ZONES: &str = include_str!("country/zones.txt");
/// What tells where somebody is, in the order of POSIX: the settings of a place. `LC_MESSAGES` tells which language somebody
/// reads, and a Belgian may like English; `LANG` is what is left.
const LOCALE_VARIABLES: [&str; 4] = ["LC_ALL", "LC_ADDRESS", "LC_MONETARY", "LANG"];
/// Top-level domains of countries that are sold to anybody, so that a name in them tells nothing.
const SOLD: [&str; 25] = [
    "AC", "AD", "AI", "AS", "BZ", "CC", "CD", "CO", "DJ", "FM", "GG", "IO", "LA", "LY", "ME", "MS", "NU", "SC", "SH",
    "SR", "ST", "TK", "TO", "TV", "WS",
];
/// Longest file that is read here; the honest ones have some hundred octets.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What the machine tells of its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The variables of the locale that are set, the most telling first.
    pub locale: Vec<(String, String)>,
    /// The name of the time zone, such as `Europe/Brussels`.
    pub zone: Option<String>,
    /// The full name of the host.
    pub host: Option<String>,
}

/// A country and what told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// The country.
    pub country: Country,
    /// What told it.
    pub by: Source,
}

/// What told a country.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This variable of the locale with this value.
    Locale(String, String),
    /// This time zone.
    Zone(String),
    /// This full name of the host.
    Host(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locale(variable, value) => write!(f, "{variable} is {value}"),
            Self::Zone(zone) => write!(f, "the time zone is {zone}"),
            Self::Host(name) => write!(f, "this host is called {name}"),
        }
    }
}

impl Surroundings {
    /// Asks the environment and the files of the system. What cannot be read tells nothing.
    #[must_use]
    pub fn read() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = LOCALE_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?))).collect();
        // TZ that names no zone is still the time that this person wants; the system's zone is another.
        let zone = match variable("TZ") {
            Some(text) => zone_name(&text).map(str::to_owned),
            None => system_zone(),
        };
        let host = text_of("/proc/sys/kernel/hostname").and_then(|host| {
            let hosts = text_of("/etc/hosts").unwrap_or_default();
            full_name(host.trim(), &hosts, &text_of("/etc/resolv.conf").unwrap_or_default())
        });
        Self { locale, zone, host }
    }

    /// The country that these tell, from the most telling on.
    #[must_use]
    pub fn country(&self) -> Option<Detected> {
        let by_locale = self.locale.iter().find_map(|(variable, value)| {
            Some(Detected { country: of_locale(value)?, by: Source::Locale(variable.clone(), value.clone()) })
        });
        let by_zone = || {
            let zone = self.zone.as_ref()?;
            Some(Detected { country: of_zone(zone)?, by: Source::Zone(zone.clone()) })
        };
        let by_host = || {
            let host = self.host.as_ref()?;
            Some(Detected { country: of_host(host)?, by: Source::Host(host.clone()) })
        };
        by_locale.or_else(by_zone).or_else(by_host)
    }
}

/// The territory of a locale: `BE` of `nl_BE.UTF-8@euro`; none of `C`, `POSIX`, or `eo`.
#[must_use]
pub fn of_locale(text: &str) -> Option<Country> {
    let (_language, rest) = text.split_once('_')?;
    known(rest.split(['.', '@']).next()?)
}

/// The country of a time zone that lies in one country; none of `UTC` or `CET`.
#[must_use]
pub fn of_zone(name: &str) -> Option<Country> {
    let name = zone_name(name)?;
    let is_of = |zone: &str| match zone.strip_suffix('*') {
        Some(region) => name.starts_with(region),
        None => zone == name,
    };
    countries().find_map(|(country, mut zones)| zones.any(is_of).then(|| country.parse().ok())?)
}

/// The country of a full host name by its top-level domain, unless that is sold to anybody.
#[must_use]
pub fn of_host(name: &str) -> Option<Country> {
    let (_, top) = name.trim_end_matches('.').rsplit_once('.')?;
    known(top).filter(|country| !SOLD.contains(&country.as_str()))
}

/// Two letters that name a country: `eu`, `su`, and what somebody made up name none.
fn known(text: &str) -> Option<Country> {
    let country: Country = text.parse().ok()?;
    countries().any(|(known, _)| known == country.as_str()).then_some(country)
}

fn countries() -> impl Iterator<Item = (&'static str, std::str::SplitWhitespace<'static>)> {
    ZONES.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words))
    })
}

/// The name in what `TZ` or a link holds: `:Europe/Brussels`, `/usr/share/zoneinfo/posix/Europe/Brussels`.
fn zone_name(text: &str) -> Option<&str> {
    let text = text.trim().trim_start_matches(':');
    let name = text.rsplit_once("zoneinfo/").map_or(text, |(_, name)| name);
    let name = name.strip_prefix("posix/").or_else(|| name.strip_prefix("right/")).unwrap_or(name);
    (!name.is_empty() && !name.starts_with('/')).then_some(name)
}

fn system_zone() -> Option<String> {
    let link = fs::read_link("/etc/localtime").ok();
    let of_link = link.as_deref().and_then(Path::to_str).filter(|link| link.contains("zoneinfo/")).and_then(zone_name);
    // Where it is a copy, Debian and its children keep the name beside it.
    of_link.map(str::to_owned).or_else(|| zone_name(&text_of("/etc/timezone")?).map(str::to_owned))
}

/// The full name of a host: its own, the one that `/etc/hosts` has for it, or the one in the domain of `/etc/resolv.conf`.
fn full_name(host: &str, hosts: &str, resolv: &str) -> Option<String> {
    if host.is_empty() || host.contains('.') {
        return (!host.is_empty()).then(|| host.to_owned());
    }
    let in_hosts = lines_of_words(hosts).find_map(|words| {
        let names = words.get(1..)?;
        let is_ours = names.iter().any(|name| name.eq_ignore_ascii_case(host));
        is_ours.then(|| names.iter().find(|name| name.contains('.')).copied())?
    });
    let domain = || lines_of_words(resolv).find(|words| matches!(words[..], ["domain" | "search", _, ..]));
    in_hosts.map(str::to_owned).or_else(|| Some(format!("{host}.{}", domain()?[1])))
}

fn lines_of_words(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default().split_whitespace().collect())
}

fn text_of(path: &str) -> Option<String> {
    // Files of /proc say that they have no octets.
    let is_short = fs::metadata(path).ok()?.len() <= FILE_BYTES_MAX;
    is_short.then(|| fs::read_to_string(path).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(country: Option<Country>) -> String {
        country.map(|country| country.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_locale_tells_its_territory() {
        for (locale, country) in [
            ("nl_BE.UTF-8", "BE"),
            ("fr_BE", "BE"),
            ("nl_be", "BE"),
            ("de_CH@euro", "CH"),
            ("sr_RS.UTF-8@latin", "RS"),
            ("en_UK", "GB"),
            ("C", ""),
            ("C.UTF-8", ""),
            ("POSIX", ""),
            ("en", ""),
            ("eo", ""),
            ("es_419", ""),
            ("en_ZZ", ""),
            ("en_XX.UTF-8", ""),
            ("_", ""),
            ("", ""),
        ] {
            assert_eq!(shown(of_locale(locale)), country, "{locale}");
        }
    }

    #[test]
    fn a_time_zone_tells_its_country() {
        for (zone, country) in [
            ("Europe/Brussels", "BE"),
            ("Europe/Amsterdam", "NL"),
            ("Europe/Luxembourg", "LU"),
            (":Europe/London", "GB"),
            ("/usr/share/zoneinfo/America/Argentina/Ushuaia", "AR"),
            ("../usr/share/zoneinfo/right/Asia/Tokyo", "JP"),
            ("posix/Asia/Kolkata", "IN"),
            ("Asia/Calcutta", "IN"),
            ("US/Pacific", "US"),
            ("Australia/ACT", "AU"),
            ("Europe/Kiev", "UA"),
            ("UTC", ""),
            ("Etc/UTC", ""),
            ("CET", ""),
            ("CET-1CEST,M3.5.0,M10.5.0/3", ""),
            ("USA", ""),
            ("Mars/Olympus", ""),
            ("/etc/passwd", ""),
            ("", ""),
        ] {
            assert_eq!(shown(of_zone(zone)), country, "{zone}");
        }
    }

    #[test]
    fn every_zone_of_the_table_belongs_to_one_country() {
        let mut seen = std::collections::HashMap::new();
        for (country, zones) in countries() {
            assert!(country.parse::<Country>().is_ok_and(|read| read.as_str() == country), "{country}");
            for zone in zones {
                assert_eq!(seen.insert(zone, country), None, "{zone}");
            }
        }
        assert!(seen.len() > 400, "{}", seen.len());
    }

    #[test]
    fn a_host_name_tells_its_country_unless_its_domain_is_sold_to_anybody() {
        for (name, country) in [
            ("pc.example.be", "BE"),
            ("pc.example.BE.", "BE"),
            ("pc.example.co.uk", "GB"),
            ("pc.example.com", ""),
            ("pc.example.eu", ""),
            ("pc.example.io", ""),
            ("pc.example.tv", ""),
            ("pc.cluster.local", ""),
            ("pc.example.xx", ""),
            ("be", ""),
            ("", ""),
        ] {
            assert_eq!(shown(of_host(name)), country, "{name}");
        }
    }

    #[test]
    fn the_full_name_is_looked_for_where_the_system_keeps_it() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1\tpc.example.be pc # ours\n";
        let resolv = "# by hand\nnameserver 192.0.2.53\nsearch example.nl example.com\n";
        assert_eq!(full_name("pc.example.fr", hosts, resolv).as_deref(), Some("pc.example.fr"));
        assert_eq!(full_name("PC", hosts, resolv).as_deref(), Some("pc.example.be"));
        assert_eq!(full_name("other", hosts, resolv).as_deref(), Some("other.example.nl"));
        assert_eq!(full_name("localhost", hosts, "domain\n"), None);
        assert_eq!(full_name("", hosts, resolv), None);
    }

    #[test]
    fn the_locale_goes_before_the_zone_and_the_zone_before_the_name() {
        let locale = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let all = Surroundings {
            locale: locale(&[("LC_ALL", "C.UTF-8"), ("LC_MONETARY", "nl_BE.UTF-8"), ("LANG", "en_US.UTF-8")]),
            zone: Some("Europe/Paris".to_owned()),
            host: Some("pc.example.nl".to_owned()),
        };
        let told = |surroundings: &Surroundings| {
            let detected = surroundings.country()?;
            Some(format!("{}: {}", detected.country, detected.by))
        };
        assert_eq!(told(&all).as_deref(), Some("BE: LC_MONETARY is nl_BE.UTF-8"));
        let without_locale = Surroundings { locale: locale(&[("LANG", "C")]), ..all };
        assert_eq!(told(&without_locale).as_deref(), Some("FR: the time zone is Europe/Paris"));
        let without_zone = Surroundings { zone: Some("Etc/UTC".to_owned()), ..without_locale };
        assert_eq!(told(&without_zone).as_deref(), Some("NL: this host is called pc.example.nl"));
        assert_eq!(told(&Surroundings { host: None, ..without_zone }), None);
    }
}
