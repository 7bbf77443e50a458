//! Nodes that are cut off, frozen or dead: the status tells, and customers find the other server by themselves.

use crate::stage::{
    self, LONG, NEWS, arrives_again, condition, customer_receives, endpoints, isp, node_of, object, studio_sends, until,
};
use anyhow::{Result, ensure};
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::cluster::{Cluster, Node};
use castgate_e2e::scenario;
use std::time::{Duration, Instant};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(a_node_is_cut_off_and_its_customer_moves).needs_own_cluster(),
    scenario!(a_node_freezes_and_its_customer_moves).needs_own_cluster(),
    scenario!(a_node_dies_and_its_customer_moves).needs_own_cluster(),
];

/// The promise for the status.
const TWENTY_SECONDS: Duration = Duration::from_secs(20);
/// The promise for the customer.
const FIVE_SECONDS: Duration = Duration::from_secs(5);

fn a_node_is_cut_off_and_its_customer_moves(world: &mut World) -> Result<()> {
    lose(world, Node::cut, Node::mend)
}

fn a_node_freezes_and_its_customer_moves(world: &mut World) -> Result<()> {
    lose(world, Node::freeze, Node::thaw)
}

fn a_node_dies_and_its_customer_moves(world: &mut World) -> Result<()> {
    lose(world, Node::kill, Node::boot)
}

fn lose(world: &mut World, take: fn(&Node) -> Result<()>, give_back: fn(&Node) -> Result<()>) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let _source = studio_sends(cluster, NEWS)?;
    let mut receive = customer_receives(cluster, NEWS, &[])?;
    let lost = node_of(cluster, &receive)?;
    let start = Instant::now();
    take(cluster.node(&lost))?;
    let outcome = (|| {
        // What was under way still arrives; then it is silent, until the other server is found.
        let silent = receive.latest().map(|report| report.packets()).unwrap_or_default();
        receive.wait_report("the other server", FIVE_SECONDS * 2, |report| {
            report.packets() > silent && !report.server().starts_with(&format!("{}:", cluster.node(&lost).address()))
        })?;
        let moved = start.elapsed();
        let gap = receive.latest().map(|report| report.number("longest_gap_ms")).unwrap_or_default();
        println!("  the customer had moved after {:.1} s, its longest gap is {gap} ms", moved.as_secs_f32());
        ensure!(Duration::from_millis(gap) < FIVE_SECONDS, "the customer waited {gap} ms");
        arrives_again(&mut receive, FIVE_SECONDS)?;
        told(cluster, &lost, start)
    })();
    give_back(cluster.node(&lost))?;
    outcome?;
    receive.finish()?;
    cluster.await_nodes(LONG)?;
    stage::await_isp(cluster)?;
    until("both endpoints connected again", LONG, || {
        let all = endpoints(cluster, "edge").ok()?;
        (all.len() == 2 && all.iter().all(|(_, one)| condition(one, "Connected").0 == "True")).then_some(())
    })
}

/// The statuses say what has happened, in time.
fn told(cluster: &Cluster, lost: &str, start: Instant) -> Result<()> {
    until("the status of the endpoint and of the server", TWENTY_SECONDS.saturating_sub(start.elapsed()), || {
        let all = endpoints(cluster, "edge").ok()?;
        let (_, endpoint) = all.into_iter().find(|(node, _)| node == lost)?;
        let server = object(cluster, "ts", "edge").ok()?;
        let (connected, ..) = condition(&endpoint, "Connected");
        let (ready, _, message) = condition(&server, "Ready");
        (connected == "False" && ready == "False" && message.contains(lost)).then_some(())
    })?;
    println!("  the status told after {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}
