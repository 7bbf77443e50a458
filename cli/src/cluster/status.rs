//! `castgate status`: is it working, for how many, what is wrong and what to do.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::access::{Cluster, ClusterArgs};
use super::fleet::{Fleet, Object, Problem, ServerStatus, Status};
use super::table::Table;

/// Show servers, databases and agents of a cluster, and what is wrong
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  castgate status
  kubectl castgate status -A
  castgate status -n castgate --json

Exit status 1 when something is not Ready.")]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the tables; fails when something is not Ready.
pub(crate) async fn run(args: Args) -> Result<()> {
    let cluster = Cluster::connect(&args.cluster).await?;
    let fleet = Fleet::read(&cluster).await?;
    if fleet.is_empty() && !args.json {
        bail!(
            "there is no TunnelServer and no TunnelDatabase in {}: kubectl apply some, or name another by -n",
            cluster.scope
        );
    }
    let text = if args.json { format!("{}\n", serde_json::to_string(&as_json(&fleet))?) } else { in_words(&fleet) };
    write!(std::io::stdout(), "{text}").context("standard output is closed")?;
    match fleet.problems().len() {
        0 if fleet.is_empty() => bail!("there is no TunnelServer and no TunnelDatabase in {}", cluster.scope),
        0 => Ok(()),
        count => bail!("{}", count_of(count, "thing is", "things are") + " not as it should be"),
    }
}

/// The whole page. Nothing that is well needs a second look, so the summary comes first and trouble last.
pub(crate) fn in_words(fleet: &Fleet) -> String {
    let mut servers = Table::new(&["SERVER", "READY", "NODES", "TUNNELS", "GATEWAYS", "CHANNELS", "REGISTERED"]);
    for server in &fleet.servers {
        let status = &server.status;
        servers.row([
            server.title(),
            readiness(server),
            known(status.nodes.as_ref()),
            status.tunnels.to_string(),
            gateways(status),
            status.channels.to_string(),
            known(status.registrations.as_ref()),
        ]);
    }
    let heading = ["RELAY", "READY", "NODES", "UPSTREAM", "TUNNELS", "GATEWAYS", "CHANNELS", "REGISTERED"];
    let mut relays = Table::new(&heading);
    for relay in &fleet.relays {
        let status = &relay.status;
        relays.row([
            relay.title(),
            readiness(relay),
            known(status.nodes.as_ref()),
            known(status.upstream.as_ref()),
            status.tunnels.to_string(),
            gateways(status),
            status.channels.to_string(),
            known(status.registrations.as_ref()),
        ]);
    }
    let mut databases = Table::new(&["DATABASE", "READY", "ENTRIES", "REGISTERED", "SERVICE"]);
    for database in &fleet.databases {
        let status = &database.status;
        databases.row([
            database.title(),
            readiness(database),
            status.entries.to_string(),
            known(status.registrations.as_ref()),
            known(status.service.as_ref()),
        ]);
    }
    let heading = [
        "AGENT",
        "ROLE",
        "NODE",
        "READY",
        "ADDRESS",
        "TUNNELS",
        "CHANNELS",
        "MBIT/S",
        "DROPPED",
        "REGISTERED",
        "VERSION",
    ];
    let mut agents = Table::new(&heading);
    for endpoint in &fleet.endpoints {
        let status = &endpoint.status;
        agents.row([
            endpoint.title(),
            endpoint.spec.role.clone(),
            endpoint.spec.node.clone(),
            if status.active || !endpoint.is_ready() { readiness(endpoint) } else { "stands by".to_owned() },
            known(status.address.as_ref()),
            status.tunnels.to_string(),
            status.channels.to_string(),
            status.megabits_per_second.clone().unwrap_or_else(|| "0".to_owned()),
            status.dropped.to_string(),
            known(status.registered.as_ref()),
            known(status.version.as_ref()),
        ]);
    }
    let mut text = summary(fleet) + "\n";
    for table in [&servers, &relays, &databases, &agents].into_iter().filter(|table| !table.is_empty()) {
        text += "\n";
        text += &table.render();
    }
    let problems = fleet.problems();
    if !problems.is_empty() {
        text += "\nWhat is wrong, and what to do:\n";
    }
    for Problem { object, reason, message, advice } in problems {
        let comma = if message.is_empty() { "" } else { ", " };
        writeln!(
            text,
            "  {object}: {reason}{comma}{message}
      -> {advice}"
        )
        .expect("a text takes what is written to it");
    }
    text
}

/// One line: is it working, and for how many.
fn summary(fleet: &Fleet) -> String {
    let ready = |all: usize, ready: usize| if all == ready { "Ready".to_owned() } else { format!("{ready} Ready") };
    let mut words = Vec::new();
    let (all, good) = (fleet.servers.len(), fleet.servers.iter().filter(|server| server.is_ready()).count());
    words.push(format!("{}, {}", count_of(all, "server", "servers"), ready(all, good)));
    let (all, good) = (fleet.relays.len(), fleet.relays.iter().filter(|relay| relay.is_ready()).count());
    if all > 0 {
        words.push(format!("{}, {}", count_of(all, "relay", "relays"), ready(all, good)));
    }
    let (all, good) = (fleet.databases.len(), fleet.databases.iter().filter(|database| database.is_ready()).count());
    words.push(format!("{}, {}", count_of(all, "database", "databases"), ready(all, good)));
    let all = || fleet.servers.iter().chain(&fleet.relays).map(|server| &server.status);
    let tunnels: i64 = all().map(|status| status.tunnels).sum();
    words.push(count_of(usize::try_from(tunnels).unwrap_or_default(), "tunnel", "tunnels"));
    if let Some(gateways) = all().filter_map(|status| status.endpoints).reduce(|sum, one| sum + one) {
        words.push(count_of(usize::try_from(gateways).unwrap_or_default(), "gateway", "gateways"));
    }
    words.join("; ")
}

fn as_json(fleet: &Fleet) -> Value {
    #[derive(Serialize)]
    struct Row<'a> {
        namespace: &'a str,
        name: &'a str,
        ready: bool,
        reason: Option<String>,
        message: Option<String>,
        #[serde(flatten)]
        rest: Value,
    }
    fn row<S, T: Status>(object: &Object<S, T>, rest: Value) -> Value {
        let (reason, message) = object.trouble().unzip();
        let (namespace, name) = (&object.metadata.namespace, &object.metadata.name);
        json!(Row { namespace, name, ready: reason.is_none(), reason, message, rest })
    }
    let servers = fleet.servers.iter().map(|server| {
        let status = &server.status;
        row(server, carried(status))
    });
    let relays = fleet.relays.iter().map(|relay| {
        let mut rest = carried(&relay.status);
        rest["upstream"] = json!(relay.status.upstream);
        row(relay, rest)
    });
    let databases = fleet.databases.iter().map(|database| {
        let status = &database.status;
        row(
            database,
            json!({"entries": status.entries, "registrations": status.registrations, "service": status.service}),
        )
    });
    let endpoints = fleet.endpoints.iter().map(|endpoint| {
        let (spec, status) = (&endpoint.spec, &endpoint.status);
        let rest = json!({
            "role": spec.role, "owner": spec.owner_name, "node": spec.node, "active": status.active, "address": status.address,
            "pod": status.pod, "version": status.version, "tunnels": status.tunnels, "channels": status.channels,
            "megabits_per_second": status.megabits_per_second, "dropped": status.dropped, "entries": status.entries,
            "registered": status.registered,
        });
        row(endpoint, rest)
    });
    let problems = fleet.problems();
    json!({
        "ready": problems.is_empty() && !fleet.is_empty(),
        "servers": servers.collect::<Vec<_>>(),
        "relays": relays.collect::<Vec<_>>(),
        "databases": databases.collect::<Vec<_>>(),
        "endpoints": endpoints.collect::<Vec<_>>(),
        "problems": problems,
    })
}

/// What a server or relay carries, for JSON.
fn carried(status: &ServerStatus) -> Value {
    let ServerStatus { nodes, tunnels, endpoints, channels, registrations, .. } = status;
    json!({
        "nodes": nodes, "tunnels": tunnels, "gateways": endpoints, "channels": channels, "registrations": registrations,
    })
}

fn gateways(status: &ServerStatus) -> String {
    status.endpoints.map_or_else(|| "-".to_owned(), |endpoints| endpoints.to_string())
}

fn readiness<S, T: Status>(object: &Object<S, T>) -> String {
    object.trouble().map_or_else(|| "yes".to_owned(), |(reason, _)| reason)
}

fn known(value: Option<&String>) -> String {
    value.cloned().unwrap_or_else(|| "-".to_owned())
}

/// `1 server`, `2 servers`.
pub(crate) fn count_of(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fleet::tests::isp;

    #[test]
    fn a_page_says_what_works_and_what_to_do_about_the_rest() {
        let page = in_words(&isp());
        let expected = "\
2 servers, 1 Ready; 1 relay, 0 Ready; 1 database, Ready; 1207 tunnels; 33 gateways

SERVER             READY    NODES  TUNNELS  GATEWAYS  CHANNELS  REGISTERED
castgate/brussels  yes      2/2       1204  31              14  2/2
castgate/ghent     NoNodes  0/0          0  -                0  -

RELAY           READY       NODES  UPSTREAM  TUNNELS  GATEWAYS  CHANNELS  REGISTERED
castgate/namur  NoUpstream  1/1    0/1             3         2         1  -

DATABASE       READY  ENTRIES  REGISTERED  SERVICE
castgate/root  yes          2  -           tdb-root

AGENT                    ROLE      NODE  READY       ADDRESS          TUNNELS  CHANNELS  MBIT/S  DROPPED  REGISTERED  VERSION
castgate/ts-brussels-n1  Server    n1    yes         192.0.2.1:10100      802        14    48.2        0  1/1         0.1.0
castgate/ts-brussels-n2  Server    n2    StreamLost  192.0.2.2:10100      402         9    31.0       17  0/1         0.1.0
castgate/tdb-root-n1     Database  n1    yes         10.77.1.4:5632         0         0       0        0  -           0.1.0

What is wrong, and what to do:
  TunnelServer castgate/ghent: NoNodes, no node has all labels of nodeSelector
      -> kubectl label node NODE castgate.dev/pool=ghent
  TunnelRelay castgate/namur: NoUpstream, 0 of 1 nodes have the server above that they need; n4: connecting 192.0.2.9:2268: unanswered
      -> open UDP from its nodes to the server above, or name another in spec.upstream; the agents go on looking
  TunnelEndpoint castgate/ts-brussels-n2: StreamLost, the agent has not been heard since its stream ended
      -> kubectl get pods -n castgate -o wide; the agent goes on with what it carries
";
        assert_eq!(page, expected);
    }

    #[test]
    fn json_carries_the_same_verdict() {
        let value = as_json(&isp());
        assert_eq!(value["ready"], false);
        assert_eq!(value["servers"][0]["ready"], true);
        assert_eq!(value["servers"][1]["reason"], "NoNodes");
        assert_eq!(value["endpoints"][1]["node"], "n2");
        assert_eq!(value["relays"][0]["upstream"], "0/1");
        assert_eq!(value["problems"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_fleet_without_objects_is_not_ready() {
        assert_eq!(as_json(&Fleet::default())["ready"], false);
    }
}
