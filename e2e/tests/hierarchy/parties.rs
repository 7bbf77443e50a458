//! Who takes part, as his agent's snapshot: a database or a tunnel server that knows the roots, a login and what it is for.

use anyhow::{Context, Result};
use castgate_e2e::fleet::{Agent, DATABASE_PORT, PASSWORD, PASSWORD_HASH, TUNNEL_PORT};
use castgate_e2e::lab::Lab;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The LAN that stands for the Internet: half of all addresses, so that clients have those of real networks.
const INTERNET: &str = "internet";
/// How long an agent of a debug build may take to stand.
const START: Duration = Duration::from_secs(20);

/// What runs on a host, and what it is for.
#[derive(Debug, Clone, Copy)]
pub struct Party {
    /// Its host.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Networks whose clients it is for.
    pub networks: &'static [&'static str],
    /// Country whose clients it is for.
    pub country: Option<&'static str>,
}

/// What a party is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A database that is known by its address; the others are its peers.
    Root(&'static [&'static str]),
    /// A database that finds its place; `customer` of an ISP with the same range, or not.
    Database {
        /// Who shall not take the ISP for a peer.
        customer: bool,
        /// Logins that it grants: who may register below it.
        grants: &'static [&'static str],
    },
    /// A tunnel server that finds its place.
    Server,
}

impl Party {
    /// Where it is reached by those around it.
    pub fn address(&self, lab: &Lab) -> Ipv4Addr {
        let host = lab.host(self.name);
        // Behind NAT it has a private address, and no other.
        let lan = if self.name == "nated" { "flat" } else { INTERNET };
        host.address(lan)
    }

    /// Starts its agent and waits until it listens.
    ///
    /// # Errors
    /// When it does not stand in time.
    pub fn start<'a>(&self, lab: &'a Lab, roots: &[IpAddr], interval: Duration) -> Result<Agent<'a>> {
        let host = lab.host(self.name);
        let mut agent = Agent::start(lab, host, &self.snapshot(lab, roots, interval))?;
        let stands = match self.kind {
            Kind::Server => host.wait_udp(TUNNEL_PORT, START),
            Kind::Root(_) | Kind::Database { .. } => host.wait_tcp(DATABASE_PORT, START),
        };
        stands.with_context(|| format!("{} said: {}", self.name, agent.process().stderr()))?;
        Ok(agent)
    }

    fn snapshot(&self, lab: &Lab, roots: &[IpAddr], interval: Duration) -> String {
        let (address, seconds) = (self.address(lab), interval.as_secs());
        let mut text = format!("generation: 1\nagent: lab/{}\n", self.name);
        match self.kind {
            Kind::Root(peers) => {
                let members: Vec<String> =
                    peers.iter().map(|peer| lab.host(peer).address(INTERNET).to_string()).collect();
                database(&mut text, address, seconds, &["be", "fr", "public"], &members);
                return text;
            }
            Kind::Database { grants, .. } => database(&mut text, address, seconds, grants, &[]),
            Kind::Server => {
                let lan = if self.name == "nated" { "flat" } else { INTERNET };
                let _ =
                    write!(text, "server:\n  listen: {address}:{TUNNEL_PORT}\n  interfaces: [{lan}]\n  channels: []\n");
            }
        }
        let (entry, role) = match self.kind {
            Kind::Server => (format!("type: TS, source: {address}, port: {TUNNEL_PORT}, protocol: UDP"), "peer"),
            Kind::Database { customer: true, .. } => {
                (format!("type: TDS, source: {address}, port: {DATABASE_PORT}"), "customer")
            }
            _ => (format!("type: TDS, source: {address}, port: {DATABASE_PORT}"), "peer"),
        };
        let country = self.country.map(|country| format!(", country: {country}")).unwrap_or_default();
        let networks = if self.networks.is_empty() {
            String::new()
        } else {
            format!(", networks: [{}]", self.networks.join(", "))
        };
        let roots: Vec<String> = roots.iter().map(|root| format!("\"{root}\"")).collect();
        // Every party has one login everywhere, the beginning of its name.
        let login = self.login();
        let _ = write!(
            text,
            "registrar:
  entries:
    - {{ {entry}{networks}{country} }}
  discovery: {{ roots: [{}], login: {login}, password: \"{PASSWORD}\", role: {role} }}
  intervalSeconds: {seconds}
  retrySeconds: 1
",
            roots.join(", ")
        );
        text
    }

    /// `be1` and `be2` are one operator's, who has one account.
    fn login(&self) -> &str {
        self.name.trim_end_matches(|letter: char| letter.is_ascii_digit())
    }
}

/// A database that grants logins, with the peers it is told of and those it finds.
fn database(text: &mut String, address: Ipv4Addr, seconds: u64, grants: &[&str], peers: &[String]) {
    let _ = write!(
        text,
        "database:\n  listen: {address}:{DATABASE_PORT}\n  updateIntervalSeconds: {seconds}\n  peers: {{ members: [{}], \
         login: peers, password: \"{PASSWORD}\", waitSeconds: 1 }}\n  accounts:\n",
        peers.iter().map(|peer| format!("\"{peer}\"")).collect::<Vec<_>>().join(", ")
    );
    for login in grants {
        let _ = writeln!(
            text,
            "    - {{ login: {login}, passwordHash: \"{PASSWORD_HASH}\", allow: {{ types: [TS, TDS], networks: [0.0.0.0/0], \
             countries: [BE, FR] }} }}"
        );
    }
}
