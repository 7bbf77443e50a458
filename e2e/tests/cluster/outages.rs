//! What is away for a minute, and what goes on meanwhile: everything that carries packets.

use crate::stage::{
    self, LONG, NAMESPACE, NEWS, SOON, address, arrives_again, customer_receives, endpoints, isp, node_of, object,
    pods, studio_sends, unharmed, until,
};
use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::Cluster;
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::receive::Receive;
use castgate_e2e::scenario;
use std::time::{Duration, Instant};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(the_operator_is_away_for_a_minute_and_no_packet_is_lost).needs_own_cluster(),
    scenario!(the_api_server_is_away_for_a_minute_and_no_packet_is_lost).needs_own_cluster(),
    scenario!(the_database_is_away_for_a_minute_and_no_packet_is_lost),
    scenario!(two_replicas_serve_agents_and_the_status_is_true),
];

/// How long each is away.
const A_MINUTE: Duration = Duration::from_secs(60);

/// Watches a receiver for a time: it must go on without a loss all the while.
fn goes_on(receive: &mut Receive, time: Duration) -> Result<()> {
    let start = Instant::now();
    let mut last = unharmed(receive)?;
    while start.elapsed() < time {
        receive.wait_report("further packets", SOON, |report| report.packets() > last)?;
        last = unharmed(receive)?;
    }
    Ok(())
}

/// Ends the agent of a node as a crash would; its container starts again.
fn crash_agent(cluster: &Cluster, node: &str) -> Result<()> {
    let killed = cluster.node(node).command("pkill")?.args(["-KILL", "-x", "castgate-agent"]).status()?;
    ensure!(killed.success(), "no agent runs on {node}");
    Ok(())
}

/// Gives a node another pod with an agent, and waits until that has a stream. (A container that crashes again and again would
/// be held back, longer each time.)
fn replace_agent(cluster: &Cluster, node: &str) -> Result<()> {
    let all = pods(cluster, "server")?;
    let (name, ..) = all.iter().find(|(_, _, on, _)| on == node).with_context(|| format!("no agent runs on {node}"))?;
    cluster.kubectl(&["delete", "pod", name, "-n", NAMESPACE])?;
    until("the stream of its successor", LONG, || {
        let (_, endpoint) = endpoints(cluster, "edge").ok()?.into_iter().find(|(on, _)| on == node)?;
        let pod = endpoint["status"]["pod"].as_str()?;
        (pod != name && stage::condition(&endpoint, "Connected").0 == "True").then_some(())
    })
}

/// The other of the two nodes with tunnels.
fn other(node: &str) -> &'static str {
    if node == "n1" { "n2" } else { "n1" }
}

/// A second customer, at the agent that is going to crash and at no other.
fn at_agent(cluster: &Cluster, node: &str) -> Result<Receive> {
    let host = cluster.host("second", std::net::Ipv4Addr::new(10, 77, 0, 103))?;
    let mut receive = Receive::start(&host, NEWS, &["--server", &format!("{}:10100", address(cluster, node))])?;
    receive.wait_packets(1, SOON)?;
    Ok(receive)
}

/// Something is away. A channel runs on one node, and the agent of the other one crashes: it has to forward again from what it
/// remembers, and only its own customer has a gap.
fn away(world: &mut World, take: fn(&Cluster) -> Result<()>, give_back: fn(&Cluster) -> Result<()>) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let _source = studio_sends(cluster, NEWS)?;
    let mut receive = customer_receives(cluster, NEWS, &[])?;
    let crashing = other(&node_of(cluster, &receive)?);
    let mut second = at_agent(cluster, crashing)?;
    let start = Instant::now();
    take(cluster)?;
    crash_agent(cluster, crashing)?;
    let before = second.latest().context("it has reported nothing")?.packets();
    second.wait_report("packets of the agent that crashed", LONG, |report| report.packets() > before + 100)?;
    println!("  the agent that crashed forwarded again after {:.1} s", start.elapsed().as_secs_f32());
    goes_on(&mut receive, A_MINUTE.saturating_sub(start.elapsed()))?;
    give_back(cluster)?;
    stage::await_isp(cluster)?;
    goes_on(&mut receive, Duration::from_secs(3))?;
    let total = receive.finish()?;
    ensure!(total.lost() == 0 && total.duplicated() == 0, "{}", total.value());
    second.finish().map(drop)
}

fn the_operator_is_away_for_a_minute_and_no_packet_is_lost(world: &mut World) -> Result<()> {
    fn scale(cluster: &Cluster, replicas: &str) -> Result<()> {
        let replicas = format!("--replicas={replicas}");
        cluster.kubectl(&["scale", "-n", "castgate-system", "deploy/castgate-operator", &replicas]).map(drop)
    }
    away(
        world,
        |cluster| {
            scale(cluster, "0")?;
            until("the end of the operator", SOON * 3, || pods(cluster, "operator").ok()?.is_empty().then_some(()))
        },
        |cluster| scale(cluster, "2"),
    )
}

fn the_api_server_is_away_for_a_minute_and_no_packet_is_lost(world: &mut World) -> Result<()> {
    away(world, Cluster::stop_api_server, |cluster| {
        cluster.start_api_server()?;
        cluster.await_nodes(LONG)
    })
}

fn the_database_is_away_for_a_minute_and_no_packet_is_lost(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let _source = studio_sends(cluster, NEWS)?;
    let mut receive = customer_receives(cluster, NEWS, &[])?;
    cluster.kubectl(&["delete", "tdb", "isp", "-n", NAMESPACE])?;
    until("the end of the database", LONG, || pods(cluster, "database").ok()?.is_empty().then_some(()))?;
    goes_on(&mut receive, A_MINUTE)?;
    let server = object(cluster, "ts", "edge")?;
    let (ready, _, message) = stage::condition(&server, "Ready");
    ensure!(ready == "False" && message.contains("castgate/isp"), "its server says {}", server["status"]);
    stage::apply_isp(cluster)?;
    stage::await_isp(cluster)?;
    let total = receive.finish()?;
    ensure!(total.lost() == 0 && total.duplicated() == 0, "{}", total.value());
    // Its entries were on the volume, or are there again.
    let again = customer_receives(cluster, NEWS, &[])?;
    again.finish().map(drop)
}

fn two_replicas_serve_agents_and_the_status_is_true(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let holder = || -> Option<String> {
        let lease = cluster.get(&["lease", "castgate-operator", "-n", "castgate-system"]).ok()?;
        Some(lease["spec"]["holderIdentity"].as_str()?.to_owned())
    };
    // An agent finds either replica: those of the leader are sent away until all of them are at the follower.
    let followers_only = until("agents at the follower alone", LONG * 2, || {
        let leader = holder()?;
        let all = endpoints(cluster, "edge").ok()?;
        let of_leader: Vec<String> = all
            .iter()
            .filter(|(_, one)| one["status"]["stream"]["replica"] == leader)
            .map(|(node, _)| node.clone())
            .collect();
        if of_leader.is_empty() {
            return Some(all);
        }
        of_leader.iter().try_for_each(|node| replace_agent(cluster, node)).ok()?;
        None
    })?;
    ensure!(followers_only.len() == 2, "{} endpoints", followers_only.len());
    let _source = studio_sends(cluster, NEWS)?;
    let receive = customer_receives(cluster, NEWS, &[])?;
    let node = node_of(cluster, &receive)?;
    until("the tunnel in the status of the endpoint and of the server", LONG, || {
        let all = endpoints(cluster, "edge").ok()?;
        let (_, endpoint) = all.into_iter().find(|(of, _)| *of == node)?;
        let server = object(cluster, "ts", "edge").ok()?;
        (endpoint["status"]["tunnels"] == 1 && endpoint["status"]["channels"] == 1 && server["status"]["tunnels"] == 1)
            .then_some(())
    })?;
    receive.finish()?;
    until("no tunnel any more", LONG, || {
        (object(cluster, "ts", "edge").ok()?["status"]["tunnels"] == 0).then_some(())
    })?;
    // What the follower cannot do is the leader's: it still leads, and nobody was fenced for good.
    arrive_after_leader_change(cluster)
}

/// The leader goes; the other replica leads and the status stays true.
fn arrive_after_leader_change(cluster: &Cluster) -> Result<()> {
    let lease = cluster.get(&["lease", "castgate-operator", "-n", "castgate-system"])?;
    let leader = lease["spec"]["holderIdentity"].as_str().context("nobody leads")?.to_owned();
    cluster.kubectl(&["delete", "pod", &leader, "-n", "castgate-system"])?;
    until("another leader", LONG, || {
        let lease = cluster.get(&["lease", "castgate-operator", "-n", "castgate-system"]).ok()?;
        lease["spec"]["holderIdentity"]
            .as_str()
            .is_some_and(|holder| !holder.is_empty() && holder != leader)
            .then_some(())
    })?;
    stage::await_isp(cluster)?;
    let _source = studio_sends(cluster, NEWS)?;
    let mut receive = customer_receives(cluster, NEWS, &[])?;
    arrives_again(&mut receive, SOON)?;
    receive.finish().map(drop)
}
