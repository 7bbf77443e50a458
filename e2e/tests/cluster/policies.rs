//! Policies on Kubernetes: one `kubectl apply` moves clients, and no pod notices.

use crate::hierarchy::{BELGIAN, PUBLIC, ROOT, hierarchy, located, place};
use crate::stage::{CUSTOMER, LONG, NAMESPACE, SOON, every_pod, until};
use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::lab::Host;
use castgate_e2e::registry::ask;
use castgate_e2e::scenario;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

pub const SCENARIOS: &[Scenario] = &[scenario!(a_policy_moves_a_client_within_one_query_and_restarts_nothing)];

/// The client that is moved.
const MOVED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 135);
/// Questions after the first new answer, each of which gets it too.
const AFTERWARDS: u32 = 20;

fn a_policy_moves_a_client_within_one_query_and_restarts_nothing(world: &mut World) -> Result<()> {
    hierarchy(world)?;
    let cluster = &world.cluster;
    let (moved, other) = (cluster.host("moved", MOVED)?, cluster.host("customer", CUSTOMER)?);
    let root = place(cluster, "root", ROOT)?;
    until("the public server for both", SOON, || {
        [&moved, &other].into_iter().all(|host| ports(host, root).is_ok_and(|found| found == [PUBLIC])).then_some(())
    })?;
    let before = every_pod(cluster)?;

    let policy = json!({
        "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelAssignmentPolicy",
        "metadata": {"name": "moving", "namespace": NAMESPACE},
        "spec": {
            "databaseRefs": [{"name": "root"}],
            "rules": [{
                "name": "to-belgium", "match": {"networks": [format!("{MOVED}/32")]},
                "assign": {"pools": [{"serverRef": {"name": "belgian"}}]},
            }],
        },
    });
    let applied = Instant::now();
    cluster.kubectl_stdin(&["apply", "-f", "-"], &policy.to_string())?;
    goes_over(&moved, root, PUBLIC, BELGIAN)?;
    println!("  moved {:.1} s after kubectl began", applied.elapsed().as_secs_f32());
    ensure!(ports(&other, root)? == [PUBLIC], "whom no rule is for was moved too");
    let servers = located(&moved, root, "JP")?;
    ensure!(servers.len() == 1 && servers[0].port() == BELGIAN, "castgate locate finds {servers:?}");

    let told = until("the count in the status of the policy", LONG, || {
        let policy = cluster.get(&["tap", "moving", "-n", NAMESPACE]).ok()?;
        let rule = policy["status"]["rules"][0].clone();
        (rule["answers"].as_u64()? > u64::from(AFTERWARDS)).then_some(rule)
    })?;
    ensure!(told["name"] == "to-belgium" && told["clients"] == 1, "one client was moved: {told}");

    cluster.kubectl(&["delete", "tap/moving", "-n", NAMESPACE])?;
    goes_over(&moved, root, BELGIAN, PUBLIC)?;
    let after = every_pod(cluster)?;
    ensure!(after == before, "pods before: {before:?}\nafter: {after:?}");
    Ok(())
}

/// A client gets one server in every answer up to some moment, and another one in every answer from then on.
fn goes_over(host: &Host, database: SocketAddr, from: u16, to: u16) -> Result<()> {
    until(&format!("the server at {to}"), SOON, || match ports(host, database) {
        Ok(found) if found == [from] => None,
        found => Some(found.and_then(|found| {
            ensure!(found == [to], "{found:?} is neither {from} nor {to}");
            Ok(())
        })),
    })??;
    for _ in 0..AFTERWARDS {
        let found = ports(host, database)?;
        ensure!(found == [to], "after the first new answer came {found:?}");
    }
    Ok(())
}

/// Ports of the servers in an answer.
fn ports(host: &Host, database: SocketAddr) -> Result<Vec<u16>> {
    let answer = ask(host, database, "ACTION=QUERY&TYPE=TS&COUNTRY=JP")?;
    ensure!(answer.status == 200, "{database} answers {}: {}", answer.status, answer.body.trim());
    let ports = answer.body.split("<PORT>").skip(1);
    ports.map(|rest| rest.split('<').next().and_then(|port| port.parse().ok()).context("a port")).collect()
}
