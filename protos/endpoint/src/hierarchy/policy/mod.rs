//! Tunnel Server Assignment Policies: rules of an operator that win over what was registered (draft-liefooghe-castgate-02 §4.1.2).
//!
//! ```text
//!   client: address, country, moment
//!     │
//!     ▼   rules in order, of one policy after the other
//!   [networks ∧ countries ∧ AS numbers ∧ time window]
//!     ├─ every rule that matches: what it excludes is never handed out, by any tier
//!     └─ the first that matches and whose pools have a server: that is the answer
//!           pools by weight ─▶ servers that are up, below their pool's limit, registered ─▶ those, the client's own order
//!              └─ a pool without any spills over to the next one; weight 0 comes last
//! ```
//! Pure and the same everywhere: databases, the operator and `castgate explain` use this code, and equal input gives equal answers,
//! whichever replica is asked (`choose`). Owns the rules and who they choose; what is registered is the
//! [database](super::database)'s.

mod choose;
mod prefixes;
pub mod routes;
mod tally;
mod window;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use castgate_wire::registry::{Country, EntryType, Protocol, Scheme, Server};
use ipnet::IpNet;

pub use routes::{RouteTable, RouteTableError};
pub use window::{TimeWindow, WindowError};

use super::clock::UnixMillis;
use choose::ClientKey;
use prefixes::Prefixes;
use tally::Tally;

/// An ordered list of rules.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name, unique among those of a database.
    pub name: String,
    /// The rules; names are unique within the policy.
    pub rules: Vec<Rule>,
    /// Which Autonomous System an address belongs to; without it no rule about them matches.
    pub routes: Option<Arc<RouteTable>>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Whom it is for.
    pub matches: Match,
    /// Where they are sent; none: wherever they would go without it.
    pub pools: Vec<Pool>,
    /// Where they are never sent.
    pub exclude: Vec<Exclusion>,
}

/// What makes a client one of those that a rule is for: all that is named has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// Its address is in one of these.
    pub networks: Vec<IpNet>,
    /// It is in one of these.
    pub countries: Vec<Country>,
    /// Its address belongs to one of these Autonomous Systems.
    pub asns: Vec<u32>,
    /// It asks within this part of the day.
    pub window: Option<TimeWindow>,
}

/// Servers that share clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name: what its share is drawn by, so that it keeps its clients wherever it stands in the list.
    pub name: String,
    /// Its share among the pools of the rule; 0: only what the others cannot take.
    pub weight: u32,
    /// A server that carries this part of what it can, in percent, gets no more clients.
    pub load_percent_max: u8,
    /// Its servers.
    pub servers: Vec<PoolServer>,
}

/// A server of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolServer {
    /// Its name: what its clients are drawn by.
    pub name: String,
    /// Where it serves.
    pub places: Vec<ServerPlace>,
    /// Whether it registers with the database itself, which then hands it out only as long as it is registered.
    pub registers: bool,
    /// Whether it is known to be unable to take clients.
    pub down: bool,
    /// What it carries, in percent of what it can, if that is known.
    pub load_percent: Option<u8>,
}

/// One place of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPlace {
    /// Address and port.
    pub address: SocketAddr,
    /// How clients speak to it.
    pub protocol: Protocol,
}

/// A server that is not handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// Its name.
    pub name: String,
    /// Where it serves.
    pub places: Vec<SocketAddr>,
}

/// What one rule did since it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Name of its policy.
    pub policy: String,
    /// Its name.
    pub rule: String,
    /// About how many clients it was applied to (3 %); a household behind one IPv4 address or one /64 is one.
    pub clients: u64,
    /// In how many answers.
    pub answers: u64,
}

/// The policies of a database, ready to decide.
#[derive(Debug, Default)]
pub struct Policies(Vec<Ready>);

#[derive(Debug)]
struct Ready {
    name: String,
    routes: Option<Arc<RouteTable>>,
    rules: Vec<ReadyRule>,
}

#[derive(Debug)]
struct ReadyRule {
    rule: Rule,
    /// The same as those of the rule, quick to look at.
    networks: Prefixes,
    tally: Arc<Tally>,
}

/// Who asks, as far as rules go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    pub(super) country: Option<Country>,
    pub(super) at: UnixMillis,
}

/// What the policies want.
#[derive(Debug, Default)]
pub(super) struct Decision<'a> {
    /// Places that no tier may hand out.
    excluded: Vec<SocketAddr>,
    /// The servers of the first rule that has some.
    pub(super) servers: Option<Vec<Server>>,
    /// The rules that had a part in it.
    applied: Vec<&'a ReadyRule>,
}

/// Hears what was considered: how far to indent it, and the sentence.
pub(super) type Note<'a> = dyn FnMut(usize, fmt::Arguments<'_>) + 'a;

impl Policies {
    /// Makes policies ready. They are looked at in the order of the list.
    #[must_use]
    pub fn new(policies: Vec<Policy>) -> Self {
        let ready = |rule: Rule| {
            let mut networks = Prefixes::default();
            for network in &rule.matches.networks {
                networks.insert(*network, 0);
            }
            ReadyRule { rule, networks, tally: Arc::default() }
        };
        let policies = policies.into_iter().map(|Policy { name, rules, routes }| Ready {
            name,
            routes,
            rules: rules.into_iter().map(ready).collect(),
        });
        Self(policies.collect())
    }

    /// Takes over the counts of rules that have the same names as before.
    pub(super) fn count_on(&mut self, before: &Self) {
        for policy in &mut self.0 {
            let Some(old) = before.0.iter().find(|old| old.name == policy.name) else { continue };
            for rule in &mut policy.rules {
                if let Some(old) = old.rules.iter().find(|old| old.rule.name == rule.rule.name) {
                    rule.tally = old.tally.clone();
                }
            }
        }
    }

    /// What each rule did, in their order.
    pub fn moved(&self) -> impl Iterator<Item = Moved> {
        self.0.iter().flat_map(|policy| {
            policy.rules.iter().map(|ReadyRule { rule, tally, .. }| Moved {
                policy: policy.name.clone(),
                rule: rule.name.clone(),
                clients: tally.clients(),
                answers: tally.answers(),
            })
        })
    }

    /// Decides about a client. `entry` is what a place looks like in an answer, given whether it has to be registered; `None`:
    /// it is not, or not of the protocol that is asked for.
    pub(super) fn decide(
        &self,
        client: Client,
        servers_max: usize,
        entry: impl Fn(&ServerPlace, bool) -> Option<Server>,
        note: &mut Note<'_>,
    ) -> Decision<'_> {
        let mut decision = Decision::default();
        let mut assigning = Vec::new();
        for policy in &self.0 {
            note(0, format_args!("policy {}", policy.name));
            // Looked up when the first rule wants to know.
            let mut asn = None;
            for ready in &policy.rules {
                let ReadyRule { rule, .. } = ready;
                if let Err(reason) = ready.check(client, || *asn.get_or_insert_with(|| policy.asn_of(client.address))) {
                    note(1, format_args!("rule {}: {reason}", rule.name));
                    continue;
                }
                note(1, format_args!("rule {}: matches", rule.name));
                for Exclusion { name, places } in &rule.exclude {
                    note(2, format_args!("never {name}"));
                    decision.excluded.extend(places);
                }
                if rule.pools.is_empty() {
                    decision.applied.push(ready);
                } else {
                    assigning.push(ready);
                }
            }
        }
        let chosen = assigning.into_iter().find_map(|ready| {
            note(0, format_args!("pools of rule {}", ready.rule.name));
            Some((ready, decision.choose(client, ready, servers_max, &entry, note)?))
        });
        if let Some((ready, servers)) = chosen {
            decision.applied.push(ready);
            decision.servers = Some(servers);
        }
        decision
    }
}

impl Ready {
    fn asn_of(&self, address: IpAddr) -> Option<u32> {
        self.routes.as_ref()?.asn_of(address)
    }
}

/// Why a rule is not for a client.
#[derive(Debug)]
enum Mismatch<'a> {
    Network(IpAddr),
    Country(Option<Country>, &'a [Country]),
    Asn(IpAddr, Option<u32>, &'a [u32]),
    Window(UnixMillis, &'a TimeWindow),
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => write!(f, "{address} is in none of its networks"),
            Self::Country(None, _) => f.write_str("the country is not known"),
            Self::Country(Some(country), of) => write!(f, "{country} is not one of {}", List(of)),
            Self::Asn(address, None, _) => write!(f, "the Autonomous System of {address} is not known"),
            Self::Asn(_, Some(asn), of) => write!(f, "AS {asn} is not one of {}", List(of)),
            Self::Window(at, window) => write!(f, "it is {}, which is not in {window}", window.clock(*at)),
        }
    }
}

/// The first few of a list.
pub(in crate::hierarchy) struct List<'a, T>(pub(in crate::hierarchy) &'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (index, value) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{value}", if index == 0 { "" } else { ", " })?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

impl ReadyRule {
    fn check(&self, client: Client, mut asn: impl FnMut() -> Option<u32>) -> Result<(), Mismatch<'_>> {
        let Match { networks, countries, asns, window } = &self.rule.matches;
        if !networks.is_empty() && self.networks.around(client.address).is_none() {
            return Err(Mismatch::Network(client.address));
        }
        if !countries.is_empty() && client.country.is_none_or(|country| !countries.contains(&country)) {
            return Err(Mismatch::Country(client.country, countries));
        }
        if !asns.is_empty() {
            let asn = asn();
            if asn.is_none_or(|asn| !asns.contains(&asn)) {
                return Err(Mismatch::Asn(client.address, asn, asns));
            }
        }
        match window {
            Some(window) if !window.contains(client.at) => Err(Mismatch::Window(client.at, window)),
            _ => Ok(()),
        }
    }
}

impl Decision<'_> {
    /// Whether a place may not be handed out.
    pub(super) fn excludes(&self, place: SocketAddr) -> bool {
        self.excluded.contains(&place)
    }

    /// Counts what the rules did for this client.
    pub(super) fn count(&self, address: IpAddr) {
        for ready in &self.applied {
            ready.tally.count(ClientKey::new(address));
        }
    }

    /// The servers of the first pool that has any, best first.
    fn choose(
        &self,
        client: Client,
        ready: &ReadyRule,
        servers_max: usize,
        entry: &impl Fn(&ServerPlace, bool) -> Option<Server>,
        note: &mut Note<'_>,
    ) -> Option<Vec<Server>> {
        let key = ClientKey::new(client.address);
        let mut pools: Vec<&Pool> = ready.rule.pools.iter().collect();
        key.by_weight(&mut pools, |pool| (&pool.name, pool.weight));
        pools.into_iter().find_map(|pool| {
            note(1, format_args!("pool {}, weight {}", pool.name, pool.weight));
            let mut servers: Vec<&PoolServer> = pool.servers.iter().collect();
            key.rank(&mut servers, |server| &server.name);
            if servers.is_empty() {
                note(2, format_args!("has no server"));
            }
            let mut found = Vec::new();
            for server in servers {
                match self.rows(server, pool, entry) {
                    Ok(rows) => {
                        note(2, format_args!("{}: {}", server.name, Condition(server)));
                        found.extend(rows);
                    }
                    Err(reason) => note(2, format_args!("{}: {reason}", server.name)),
                }
            }
            found.truncate(servers_max);
            (!found.is_empty()).then_some(found)
        })
    }

    /// What an answer says of a server; why it says nothing.
    fn rows(
        &self,
        server: &PoolServer,
        pool: &Pool,
        entry: &impl Fn(&ServerPlace, bool) -> Option<Server>,
    ) -> Result<Vec<Server>, String> {
        let PoolServer { places, registers, down, load_percent, .. } = server;
        if *down {
            return Err("is down".to_owned());
        }
        if let Some(load) = load_percent.filter(|load| *load >= pool.load_percent_max) {
            return Err(format!(
                "carries {load} % of what it can, and gets no more from {} % on",
                pool.load_percent_max
            ));
        }
        let allowed: Vec<&ServerPlace> = places.iter().filter(|place| !self.excludes(place.address)).collect();
        if allowed.is_empty() {
            return Err(if places.is_empty() { "runs nowhere" } else { "is excluded" }.to_owned());
        }
        let rows: Vec<Server> = allowed.into_iter().filter_map(|place| entry(place, *registers)).collect();
        match (rows.is_empty(), registers) {
            (false, _) => Ok(rows),
            (true, true) => Err("is not registered here, or not with this PROTOCOL".to_owned()),
            (true, false) => Err("does not serve this PROTOCOL".to_owned()),
        }
    }
}

/// How a server that is handed out is.
struct Condition<'a>(&'a PoolServer);

impl fmt::Display for Condition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.registers { "registered" } else { "named by the policy" })?;
        match self.0.load_percent {
            Some(load) => write!(f, ", carries {load} % of what it can"),
            None => Ok(()),
        }
    }
}

impl ServerPlace {
    /// What an answer says of it when nobody registered it.
    pub(super) fn to_server(&self) -> Server {
        Server {
            address: self.address.ip(),
            port: self.address.port(),
            entry_type: EntryType::TunnelServer,
            protocol: Some(self.protocol.clone()),
            prefix_len: None,
            fed_by: Vec::new(),
            scheme: Scheme::Http,
        }
    }
}

#[cfg(test)]
mod tests;
