//! The policies of a database: rules that send clients to certain servers, whatever else is registered.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use castgate_endpoint::hierarchy::policy::routes::Row;
use castgate_endpoint::hierarchy::policy::{
    Exclusion, Match, Policy, Pool, PoolServer, RouteTable, Rule, ServerPlace, TimeWindow,
};
use castgate_wire::registry::{Country, Protocol};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{SnapshotError, words};

/// Most that a share counts: with more, the shares of others would vanish.
const WEIGHT_MAX: u32 = 1_000;

/// An ordered list of rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySnapshot {
    /// Its name; unique within a database.
    pub name: String,
    /// The rules, the first one first.
    pub rules: Vec<RuleSnapshot>,
    /// Which Autonomous System an address belongs to. Default: nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<RoutesSnapshot>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSnapshot {
    /// Its name; unique within the policy.
    pub name: String,
    /// Whom it is for. Default: everybody.
    #[serde(rename = "match", default)]
    pub matches: MatchSnapshot,
    /// Where they are sent. Default: wherever they would go without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolSnapshot>,
    /// Where they are never sent. Default: nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<ExclusionSnapshot>,
}

/// What makes a client one of those that a rule is for: all that is there has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MatchSnapshot {
    /// Its address is in one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNet>,
    /// It is in one of these.
    #[serde(with = "words::list", skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<Country>,
    /// Its address belongs to one of these Autonomous Systems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asns: Vec<u32>,
    /// It asks within this part of the day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_window: Option<TimeWindowSnapshot>,
}

/// A part of every day; one that ends before it starts goes over midnight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimeWindowSnapshot {
    /// As `18:00`.
    pub from: String,
    /// As `23:30`; no longer part of it.
    pub to: String,
    /// As `Europe/Brussels`.
    pub zone: String,
}

/// Servers that share clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolSnapshot {
    /// Its name; unique within the rule.
    pub name: String,
    /// Its share among the pools of the rule; 0: what the others cannot take. Default: 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// A server that carries this part of what it can, in percent, gets no more clients. Default: 100.
    #[serde(default = "all")]
    pub load_percent_max: u8,
    /// Its servers. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<PoolServerSnapshot>,
}

/// A server of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolServerSnapshot {
    /// Its name; unique within the pool.
    pub name: String,
    /// Where it serves.
    pub places: Vec<ServerPlaceSnapshot>,
    /// Whether it registers with this database, which hands it out only as long as it does. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub registers: bool,
    /// Whether it cannot take clients. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub down: bool,
    /// What it carries, in percent of what it can. Default: nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_percent: Option<u8>,
}

/// One place of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerPlaceSnapshot {
    /// Address and port.
    pub address: SocketAddr,
    /// `UDP`, `TCP` or `AMT`.
    #[serde(with = "words::one")]
    pub protocol: Protocol,
}

/// A server that is not handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExclusionSnapshot {
    /// Its name.
    pub name: String,
    /// Where it serves.
    pub places: Vec<SocketAddr>,
}

/// Where the route table is: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RoutesSnapshot {
    /// A file of the agent's machine: `TABLE_DUMP_V2` of MRT or lines of `prefix,asn`, either as it is or packed with gzip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The table itself: `prefix,asn`; AS 0 for what is known to be somebody else's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<String>,
}

impl PolicySnapshot {
    /// The policy as a database works with it. `table` is the file of [`RoutesSnapshot`], which the caller has read.
    ///
    /// # Errors
    /// One sentence that names the first field that breaks a rule.
    pub fn compile(&self, table: Option<Arc<RouteTable>>) -> Result<Policy, SnapshotError> {
        let Self { name, rules, routes } = self;
        named(name)?;
        let rows = routes.as_ref().map(RoutesSnapshot::compile).transpose().map_err(|error| error.within("routes"))?;
        let mut compiled = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let field = format!("rules[{index}]");
            let policy = rule.compile(routes.is_some()).map_err(|error| error.within(&field))?;
            unique(&rule.name, rules[..index].iter().map(|other| other.name.as_str()))
                .map_err(|error| error.within(&field))?;
            compiled.push(policy);
        }
        Ok(Policy { name: name.clone(), rules: compiled, routes: table.or(rows.flatten()) })
    }
}

impl RoutesSnapshot {
    /// The rows as a table; `None` where a file is meant, which the caller reads.
    ///
    /// # Errors
    /// One sentence that names the row.
    pub fn compile(&self) -> Result<Option<Arc<RouteTable>>, SnapshotError> {
        let Self { file, rows } = self;
        match (file, rows.as_slice()) {
            (Some(_), []) => Ok(None),
            (Some(_), _) => Err(SnapshotError::new("rows", "is there beside file: name one of the two")),
            (None, rows) => {
                let row = |(index, row): (usize, &String)| {
                    row.parse::<Row>().map_err(|error| SnapshotError::new(format!("rows[{index}]"), error))
                };
                let rows: Vec<Row> = rows.iter().enumerate().map(row).collect::<Result<_, _>>()?;
                Ok(Some(Arc::new(RouteTable::of_rows(rows))))
            }
        }
    }
}

impl RuleSnapshot {
    fn compile(&self, knows_systems: bool) -> Result<Rule, SnapshotError> {
        let Self { name, matches, pools, exclude } = self;
        named(name)?;
        if pools.is_empty() && exclude.is_empty() {
            return Err(SnapshotError::new("pools", "is empty, and so is exclude: the rule does nothing"));
        }
        let MatchSnapshot { networks, countries, asns, time_window } = matches;
        if !asns.is_empty() && !knows_systems {
            return Err(SnapshotError::new("match.asns", "needs a table in routes"));
        }
        let window = time_window.as_ref().map(TimeWindowSnapshot::compile).transpose();
        let window = window.map_err(|error| error.within("match.timeWindow"))?;
        let mut compiled = Vec::new();
        for (index, pool) in pools.iter().enumerate() {
            let field = format!("pools[{index}]");
            let ready = pool.compile().map_err(|error| error.within(&field))?;
            unique(&pool.name, pools[..index].iter().map(|other| other.name.as_str()))
                .map_err(|error| error.within(&field))?;
            compiled.push(ready);
        }
        let exclude = exclude.iter().cloned().map(|ExclusionSnapshot { name, places }| Exclusion { name, places });
        let (networks, countries, asns) = (networks.clone(), countries.clone(), asns.clone());
        let matches = Match { networks, countries, asns, window };
        Ok(Rule { name: name.clone(), matches, pools: compiled, exclude: exclude.collect() })
    }
}

impl TimeWindowSnapshot {
    /// The window as a database works with it: zones that there are not are refused.
    ///
    /// # Errors
    /// One sentence that names the field.
    pub fn compile(&self) -> Result<TimeWindow, SnapshotError> {
        TimeWindow::new(&self.from, &self.to, &self.zone).map_err(|error| SnapshotError::new(error.field(), error))
    }
}

impl PoolSnapshot {
    fn compile(&self) -> Result<Pool, SnapshotError> {
        let Self { name, weight, load_percent_max, servers } = self;
        named(name)?;
        if *weight > WEIGHT_MAX {
            return Err(SnapshotError::new("weight", format_args!("{weight} is not in 0..={WEIGHT_MAX}")));
        }
        if !(1..=100).contains(load_percent_max) {
            return Err(SnapshotError::new("loadPercentMax", format_args!("{load_percent_max} is not in 1..=100")));
        }
        for (index, server) in servers.iter().enumerate() {
            unique(&server.name, servers[..index].iter().map(|other| other.name.as_str()))
                .map_err(|error| error.within(&format!("servers[{index}]")))?;
        }
        let server = |server: &PoolServerSnapshot| {
            let PoolServerSnapshot { name, places, registers, down, load_percent } = server.clone();
            let place = |ServerPlaceSnapshot { address, protocol }| ServerPlace { address, protocol };
            PoolServer { name, places: places.into_iter().map(place).collect(), registers, down, load_percent }
        };
        Ok(Pool {
            name: name.clone(),
            weight: *weight,
            load_percent_max: *load_percent_max,
            servers: servers.iter().map(server).collect(),
        })
    }
}

fn named(name: &str) -> Result<(), SnapshotError> {
    if name.trim().is_empty() { Err(SnapshotError::new("name", "is empty")) } else { Ok(()) }
}

fn unique<'a>(name: &str, mut others: impl Iterator<Item = &'a str>) -> Result<(), SnapshotError> {
    if others.any(|other| other == name) {
        return Err(SnapshotError::new("name", format_args!("{name:?} is there twice")));
    }
    Ok(())
}

const fn one() -> u32 {
    1
}

const fn all() -> u8 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
name: castgate/evening
rules:
  - name: belgium
    match:
      networks: [10.0.0.0/8]
      countries: [BE]
      asns: [64500]
      timeWindow: {from: '18:00', to: '23:30', zone: Europe/Brussels}
    pools:
      - name: brussels
        weight: 3
        loadPercentMax: 90
        servers:
          - name: brussels@n1
            places: [{address: '192.0.2.1:10100', protocol: UDP}]
            registers: true
            down: true
            loadPercent: 40
      - {name: reserve, weight: 0}
    exclude: [{name: antwerp, places: ['192.0.2.9:10100']}]
routes: {rows: ['10.0.0.0/8,64500']}
";

    fn compiled(from: &str, to: &str) -> Result<Policy, String> {
        assert!(TEXT.contains(from), "{from}");
        let policy: PolicySnapshot =
            serde_saphyr::from_str(&TEXT.replacen(from, to, 1)).map_err(|error| error.to_string())?;
        policy.compile(None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_policy_says_the_same_after_it_was_written_and_read() {
        let policy: PolicySnapshot = serde_saphyr::from_str(TEXT).unwrap();
        let again: PolicySnapshot = serde_saphyr::from_str(&serde_saphyr::to_string(&policy).unwrap()).unwrap();
        assert_eq!(again, policy);
        let ready = policy.compile(None).unwrap();
        assert_eq!(ready.rules[0].pools[1].load_percent_max, 100);
        assert_eq!(ready.routes.unwrap().asn_of([10, 1, 1, 1].into()), Some(64_500));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, sentence) in [
            ("name: belgium", "name: ''", "rules[0].name: is empty"),
            ("'23:30'", "'18:00'", "rules[0].match.timeWindow.to: 18:00 is the same as from: that is no part of a day"),
            (
                "Brussels}",
                "Brugge}",
                "rules[0].match.timeWindow.zone: \"Europe/Brugge\" is not a zone of the tz database, such as Europe/Brussels",
            ),
            ("weight: 3", "weight: 1001", "rules[0].pools[0].weight: 1001 is not in 0..=1000"),
            ("loadPercentMax: 90", "loadPercentMax: 0", "rules[0].pools[0].loadPercentMax: 0 is not in 1..=100"),
            ("name: reserve", "name: brussels", "rules[0].pools[1].name: \"brussels\" is there twice"),
            ("10.0.0.0/8,64500", "10.0.0.0/8", "routes.rows[0]: \"10.0.0.0/8\" is not prefix,asn"),
            ("{rows", "{file: /x, rows", "routes.rows: is there beside file: name one of the two"),
            ("routes: {rows: ['10.0.0.0/8,64500']}", "", "rules[0].match.asns: needs a table in routes"),
        ] {
            assert_eq!(compiled(from, to).unwrap_err(), sentence);
        }
        assert!(compiled("countries: [BE]", "countries: [XXX]").unwrap_err().contains("not a country"));
    }
}
