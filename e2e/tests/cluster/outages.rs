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
use serde_json::Value;
use std::time::{Duration, Instant};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(the_operator_is_away_for_a_minute_and_no_packet_is_lost).needs_own_cluster(),
    scenario!(the_api_server_is_away_for_a_minute_and_no_packet_is_lost).needs_own_cluster(),
    scenario!(the_database_is_away_for_a_minute_and_no_packet_is_lost),
    scenario!(two_replicas_serve_agents_and_the_status_is_true),
    scenario!(a_kubelet_stands_still_and_the_replica_on_its_node_keeps_its_agents).needs_own_cluster(),
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

/// The replica that has the Lease.
fn leader(cluster: &Cluster) -> Option<String> {
    let lease = cluster.get(&["lease", "castgate-operator", "-n", "castgate-system"]).ok()?;
    let holder = lease["spec"]["holderIdentity"].as_str()?;
    (!holder.is_empty()).then(|| holder.to_owned())
}

/// An agent finds either replica: those of the leader are sent away until all of them are at the follower, whose name this gives.
fn agents_at_the_follower(cluster: &Cluster) -> Result<String> {
    until("agents at the follower alone", LONG * 2, || {
        let leader = leader(cluster)?;
        let all = endpoints(cluster, "edge").ok()?;
        let replicas: Vec<&str> =
            all.iter().filter_map(|(_, one)| one["status"]["stream"]["replica"].as_str()).collect();
        let of_leader = all.iter().zip(&replicas).filter(|(_, replica)| **replica == leader);
        let of_leader: Vec<&String> = of_leader.map(|((node, _), _)| node).collect();
        match (&of_leader[..], &replicas[..]) {
            ([], [one, other]) if one == other => return Some((*one).to_owned()),
            (nodes, _) => nodes.iter().try_for_each(|node| replace_agent(cluster, node)).ok()?,
        }
        None
    })
}

fn two_replicas_serve_agents_and_the_status_is_true(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    agents_at_the_follower(cluster)?;
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
    let before = leader(cluster).context("nobody leads")?;
    cluster.kubectl(&["delete", "pod", &before, "-n", "castgate-system"])?;
    until("another leader", LONG, || leader(cluster).filter(|holder| *holder != before))?;
    stage::await_isp(cluster)?;
    let _source = studio_sends(cluster, NEWS)?;
    let mut receive = customer_receives(cluster, NEWS, &[])?;
    arrives_again(&mut receive, SOON)?;
    receive.finish().map(drop)
}

/// The leader takes the replica for gone, as it would one whose node has died, and learns that it lives. Its agents say nothing
/// new meanwhile: nobody receives anything.
fn a_kubelet_stands_still_and_the_replica_on_its_node_keeps_its_agents(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let follower = agents_at_the_follower(cluster)?;
    let replicas = pods(cluster, "operator")?;
    let (_, _, node, _) = replicas.iter().find(|(name, ..)| *name == follower).context("the follower has no pod")?;
    let kubelet = |signal: &str| -> Result<()> {
        let told = cluster.node(node).command("pkill")?.args([signal, "-x", "kubelet"]).status()?;
        ensure!(told.success(), "no kubelet runs on {node}");
        Ok(())
    };
    let epochs = || -> Result<Vec<(String, String, i64, String)>> {
        let hold = |(on, endpoint): (String, Value)| {
            let stream = &endpoint["status"]["stream"];
            let replica = stream["replica"].as_str().unwrap_or_default().to_owned();
            let (connected, ..) = stage::condition(&endpoint, "Connected");
            (on, replica, stream["epoch"].as_i64().unwrap_or_default(), connected)
        };
        Ok(endpoints(cluster, "edge")?.into_iter().map(hold).collect())
    };
    let before = epochs()?;
    kubelet("-STOP")?;
    let outcome = (|| {
        let written_off = until("endpoints that the leader writes off", LONG, || {
            let now = epochs().ok()?;
            let is_later = now.iter().zip(&before).all(|((.., now, _), (.., before, _))| now > before);
            is_later.then_some(())
        });
        written_off.with_context(|| format!("{before:?} became {:?}", epochs()))?;
        let back = until("endpoints that the follower has taken back", SOON, || {
            let now = epochs().ok()?;
            now.iter().all(|(_, replica, _, connected)| *replica == follower && connected == "True").then_some(now)
        });
        let back = back.with_context(|| format!("{before:?} became {:?}", epochs()))?;
        // Neither writes against the other from now on, for longer than either waits between two looks.
        let start = Instant::now();
        while start.elapsed() < SOON {
            let now = epochs()?;
            ensure!(now == back, "{back:?} became {now:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
        let object = cluster.get(&["node", node])?;
        let (ready, ..) = stage::condition(&object, "Ready");
        ensure!(ready == "Unknown", "{node} is ready: {ready}");
        Ok(())
    })();
    kubelet("-CONT")?;
    outcome?;
    cluster.await_nodes(LONG)?;
    stage::await_isp(cluster)
}
