//! Options that several commands share, and how their values are written.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use castgate_client::{CacheFolder, DatabaseAddress, Dns, Locator, Servers, Trust, TunnelSettings, Via};
use castgate_crds::units::{Rate, TimeSpan};
use castgate_wire::registry::Country;

use crate::country::{Choice, Settled};

/// How long a channel may be silent before UMTP asks whether its server lives.
const SILENCE: Duration = Duration::from_secs(2);

/// Where a tunnel may lead and how it starts.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TunnelArgs {
    /// Tunnel server to use, without asking a database; again for a second choice
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "tds")]
    server: Vec<String>,
    #[arg(
        long,
        value_name = "TDS",
        help = "Tunnel database to start at: URL, HOST[:PORT], or a name with SRV records; again for another root"
    )]
    pub(crate) tds: Vec<DatabaseAddress>,
    #[command(flatten)]
    pub(crate) trust: TrustArg,
    #[command(flatten)]
    pub(crate) country: CountryArg,
    /// Address of this host that tunnels and questions to databases start from
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) local: Option<IpAddr>,
    #[arg(
        long,
        value_name = "SPAN|off",
        value_parser = silence,
        help = "A channel silent for so long makes the client ask whether its server lives, or go to another AMT relay; \
                off for channels that often are [default: 2s, with AMT 4s]"
    )]
    silence: Option<Silence>,
    #[arg(
        long,
        value_name = "ADDRESS[:PORT]",
        value_parser = resolver,
        help = "Name server to ask [default: $CASTGATE_RESOLVER, or those of the system]"
    )]
    resolver: Option<Dns>,
    #[arg(
        long,
        value_name = "DIR",
        help = "Folder for what is remembered between runs [default: $XDG_CACHE_HOME/castgate]"
    )]
    state: Option<PathBuf>,
}

/// Whose certificates are believed, where a database is asked over https.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TrustArg {
    #[arg(
        long,
        value_name = "FILE",
        value_parser = trust_of_file,
        help = "Certificates in PEM that vouch for databases over https [default: $SSL_CERT_FILE, or those of the system]"
    )]
    tds_ca: Option<Trust>,
}

impl TrustArg {
    /// What was named, or what the system trusts.
    pub(crate) fn trust(&self) -> Trust {
        self.tds_ca.clone().unwrap_or_default()
    }
}

fn trust_of_file(path: &str) -> Result<Trust, String> {
    Trust::of_file(path.as_ref()).map_err(|error| error.to_string())
}

impl TunnelArgs {
    /// Settles the country, where databases are asked.
    pub(crate) fn settle_country(&mut self) {
        if !self.tds.is_empty() {
            self.country.settle();
        }
    }

    /// The settings of a tunnel; `None` when neither a server nor a database is named.
    pub(crate) async fn settings(&self) -> Result<Option<TunnelSettings>> {
        let servers = if !self.server.is_empty() {
            let dns = self.dns()?;
            let mut servers = Vec::new();
            for server in &self.server {
                servers.extend(dns.servers(server).await?);
            }
            Servers::Fixed(servers)
        } else if let Some(locator) = self.locator()? {
            Servers::Located(locator)
        } else {
            return Ok(None);
        };
        let local = match self.local {
            Some(IpAddr::V6(local)) => bail!("--local {local}: UMTP starts from an IPv4 address"),
            Some(IpAddr::V4(local)) => Some(local),
            None => None,
        };
        Ok(Some(TunnelSettings { servers, local, silence: self.silence(SILENCE) }))
    }

    /// The databases that are named, if any is.
    pub(crate) fn locator(&self) -> Result<Option<Locator>> {
        if self.tds.is_empty() {
            return Ok(None);
        }
        let cache = self.state.as_ref().map_or_else(CacheFolder::of_user, CacheFolder::at);
        let locator = Locator::new(self.tds.clone(), self.country.settled(), self.dns()?, cache);
        Ok(Some(locator.trusting(self.trust.trust())))
    }

    /// Who is asked for names.
    pub(crate) fn dns(&self) -> Result<Dns> {
        Ok(self.resolver.clone().map_or_else(Dns::from_environment, Ok)?)
    }

    /// How long a channel may be silent, when nothing else is said.
    pub(crate) fn silence(&self, default: Duration) -> Option<Duration> {
        self.silence.map_or(Some(default), |silence| silence.0)
    }

    /// Whether a UMTP server is named.
    pub(crate) fn has_server(&self) -> bool {
        !self.server.is_empty()
    }
}

/// Where we are, as far as databases want to know. Found out or asked for once.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CountryArg {
    #[arg(
        long = "country",
        value_name = "CC|none|ask",
        help = "Country of this place, two letters, which databases without our network go by; none leaves it out, ask asks \
                [default: that of locale, time zone or host name, or else what you are asked]"
    )]
    choice: Option<Choice>,
    #[arg(skip)]
    settled: Option<Settled>,
}

impl CountryArg {
    /// Finds out, or asks whoever sits at the terminal. To be called before anything waits or is counted.
    pub(crate) fn settle(&mut self) -> &Settled {
        self.settled.get_or_insert_with(|| self.choice.unwrap_or_default().settle())
    }

    /// The country; without a question to anybody where [`settle`](Self::settle) was not called.
    fn settled(&self) -> Option<Country> {
        match (&self.settled, self.choice) {
            (Some(settled), _) => settled.country,
            (None, Some(Choice::Is(country))) => Some(country),
            (None, _) => None,
        }
    }
}

/// A patience that may be endless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silence(pub(crate) Option<Duration>);

/// Reads `2s` or `off`.
pub(crate) fn silence(text: &str) -> Result<Silence, String> {
    if text == "off" { Ok(Silence(None)) } else { span(text).map(|span| Silence(Some(span))) }
}

/// Reads a name server.
fn resolver(text: &str) -> Result<Dns, String> {
    Dns::with_resolver(text).map_err(|_| "it is neither ADDRESS nor ADDRESS:PORT".to_owned())
}

/// Reads a span of time such as `500ms`, `10s` or `5m`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    TimeSpan::new(text).parse().map_err(|error| error.to_string())
}

/// Reads a rate such as `2Mbit`, `100pps` or, shorter, `2M`.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let short = text.ends_with(['k', 'M', 'G']);
    let long = if short { format!("{text}bit") } else { text.to_owned() };
    long.parse().map_err(|error: castgate_crds::units::RateError| error.to_string())
}

/// Reads a country; `ZZ` says that it is not known.
pub(crate) fn country(text: &str) -> Result<Country, String> {
    match Country::parse_optional(text) {
        Ok(Some(country)) => Ok(country),
        Ok(None) => Err("ZZ is no country".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a path for packets.
pub(crate) fn via(text: &str) -> Result<Via, String> {
    match text {
        "auto" => Ok(Via::Auto),
        "native" => Ok(Via::Native),
        "umtp" => Ok(Via::Umtp),
        "amt" => Ok(Via::Amt),
        "http" => Err(format!("this castgate does not speak {text} yet: take auto, native, amt or umtp")),
        _ => Err("there are auto, native, amt and umtp".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_may_leave_the_bit_out() {
        for (short, long) in [("500k", "500kbit"), ("2M", "2Mbit"), ("1G", "1Gbit"), ("2Mbit", "2Mbit")] {
            assert_eq!(rate(short).unwrap(), long.parse().unwrap());
        }
        assert!(rate("fast").unwrap_err().contains("\"fast\""));
    }

    #[test]
    fn patience_may_be_endless() {
        assert_eq!(silence("off"), Ok(Silence(None)));
        assert_eq!(silence("500ms"), Ok(Silence(Some(Duration::from_millis(500)))));
        assert!(silence("never").is_err());
    }

    #[test]
    fn paths_that_are_not_built_are_refused_with_a_sentence() {
        assert_eq!((via("umtp"), via("amt")), (Ok(Via::Umtp), Ok(Via::Amt)));
        assert!(via("http").unwrap_err().contains("does not speak http yet"));
    }
}
