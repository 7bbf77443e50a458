//! `castgate diagnose`: checks in the order in which things depend on each other, one sentence each.

mod checks;
mod facts;

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use castgate_client::dns::RESOLVER_VARIABLE;
use castgate_client::{CacheFolder, DatabaseAddress, Dns, Locator, Trust, locate, probe};
use castgate_wire::registry::Country;
use serde::Serialize;

pub(crate) use checks::checks;
pub(crate) use facts::Facts;

use super::access::{Cluster, ClusterArgs};
use super::status::count_of;
use super::table::Table;
use crate::args::{TrustArg, country};

/// Find out why something does not work on a cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  castgate diagnose
  kubectl castgate diagnose -n castgate --json
  castgate diagnose --tds 192.0.2.1:30563 --country BE

Checks, in this order: the kinds, the operator, its Lease, the CA that agents trust, the objects, their pods, the agents'
streams, what agents refused, registrations, databases. With --tds it also asks that database from here, as a client would, and
probes the servers it names. Exit status 1 when a check fails.")]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Tunnel database to ask from here
    #[arg(long, value_name = "TDS")]
    tds: Vec<DatabaseAddress>,
    #[command(flatten)]
    trust: TrustArg,
    /// Country to ask it for, two letters
    #[arg(long, value_name = "CC", value_parser = country, requires = "tds")]
    country: Option<Country>,
    /// Print JSON, one object a check
    #[arg(long)]
    json: bool,
}

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    Failed,
    /// Nothing to check, or not allowed to look.
    Skipped,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    #[serde(rename = "check")]
    pub(crate) name: &'static str,
    pub(crate) verdict: Verdict,
    /// What was found, in one sentence.
    pub(crate) says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

impl Check {
    pub(crate) fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self { name: check, verdict: Verdict::Ok, says: says.into(), advice: None }
    }

    pub(crate) fn skipped(check: &'static str, says: impl Into<String>) -> Self {
        Self { name: check, verdict: Verdict::Skipped, says: says.into(), advice: None }
    }

    pub(crate) fn failed(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: check, verdict: Verdict::Failed, says: says.into(), advice: Some(advice.into()) }
    }
}

/// Checks, prints, and fails when one failed.
pub(crate) async fn run(args: Args) -> Result<()> {
    let cluster = Cluster::connect(&args.cluster).await?;
    // Without an answer every check would fail for this one reason.
    cluster.version().await?;
    let mut checks = checks(&Facts::read(&cluster).await);
    if !args.tds.is_empty() {
        checks.push(from_here(args.tds, args.country, args.trust.trust()).await);
    }
    let text = if args.json { as_json(&checks)? } else { in_words(&checks) };
    write!(std::io::stdout(), "{text}").context("standard output is closed")?;
    match checks.iter().filter(|check| check.verdict == Verdict::Failed).count() {
        0 => Ok(()),
        failed => bail!("{} of {} failed", failed, count_of(checks.len(), "check", "checks")),
    }
}

/// The table, and the advice below the rows that need it.
pub(crate) fn in_words(checks: &[Check]) -> String {
    let mut table = Table::new(&["CHECK", "VERDICT", "SAYS"]);
    for Check { name, verdict, says, advice } in checks {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        };
        table.row([(*name).to_owned(), verdict.to_owned(), says.clone()]);
        if let Some(advice) = advice {
            table.row([String::new(), String::new(), format!("-> {advice}")]);
        }
    }
    table.render()
}

fn as_json(checks: &[Check]) -> Result<String> {
    let mut text = String::new();
    for check in checks {
        text += &serde_json::to_string(check)?;
        text += "\n";
    }
    Ok(text)
}

/// What a client at this place would meet.
async fn from_here(roots: Vec<DatabaseAddress>, country: Option<Country>, trust: Trust) -> Check {
    const NAME: &str = "from here";
    let dns = match Dns::from_environment() {
        Ok(dns) => dns,
        Err(error) => return Check::failed(NAME, error.to_string(), format!("correct {RESOLVER_VARIABLE}")),
    };
    let found = match Locator::new(roots, country, dns, CacheFolder::none()).trusting(trust).locate().await {
        Ok(found) => found,
        Err(error) => {
            let advice = "does the Service of the database reach this place (spec.service), and did a server register for \
                          this network or country?";
            return Check::failed(NAME, format!("no server is named: {error}"), advice);
        }
    };
    let servers = locate::ipv4_servers(&found);
    for server in &servers {
        if let Ok(took) = probe(*server, None).await {
            let millis = took.as_secs_f64() * 1e3;
            return Check::ok(NAME, format!("{server}, one of {} named, answers after {millis:.1} ms", servers.len()));
        }
    }
    let names: Vec<_> = servers.iter().map(ToString::to_string).collect();
    let says = format!("the database names {}, and none answers", names.join(", "));
    Check::failed(NAME, says, "does a firewall between here and the nodes let the UDP port pass?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_stands_below_its_check() {
        let checks = [Check::ok("kinds", "7 kinds"), Check::failed("lease", "nobody holds it", "look at the operator")];
        let expected = "\
CHECK  VERDICT  SAYS
kinds  ok       7 kinds
lease  FAILED   nobody holds it
                -> look at the operator
";
        assert_eq!(in_words(&checks), expected);
        assert_eq!(
            as_json(&checks[1..]).unwrap(),
            "{\"check\":\"lease\",\"verdict\":\"failed\",\"says\":\"nobody holds it\",\"advice\":\"look at the operator\"}\n"
        );
    }
}
