//! AMT on the cluster: a server with a relay, a `TunnelRelay` below it, customers of both tunnels, and the zone that tells of them.

use crate::charts::install;
use crate::stage::{
    CUSTOMER, LONG, NAMESPACE, NEWS, SOON, SPORTS, address, database, isp, object, ready, studio_sends, until,
};
use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::Cluster;
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::receive::Receive;
use castgate_e2e::scenario;
use serde_json::{Value, json};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(a_relay_below_an_amt_server_carries_its_channels_and_tells_of_both).needs_own_cluster(),
    scenario!(a_relay_finds_the_server_above_it_by_the_database_and_is_found_there_itself).needs_own_cluster(),
    scenario!(the_operator_serves_the_zone_that_leads_to_the_amt_server).needs_own_cluster(),
];

/// An AMT relay beside the UMTP of a server of its own, on the node that carries no tunnels.
fn above() -> Value {
    json!({
        "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelServer", "metadata": {"name": "amt", "namespace": NAMESPACE},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "n3"}, "interfaces": [{"name": "eth0"}],
            "umtp": {"port": 10300}, "amt": {}, "bundles": [{"name": "tv"}],
        },
    })
}

/// A relay on a node of the ISP's, which takes its channels from there.
fn below(cluster: &Cluster) -> Value {
    json!({
        "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelRelay", "metadata": {"name": "branch", "namespace": NAMESPACE},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "n1"}, "umtp": {"port": 10400}, "amt": {}, "bundles": [{"name": "tv"}],
            "upstream": {"discovery": "Static", "servers": [address(cluster, "n3").to_string()]},
        },
    })
}

/// What the pods of a workload may do beyond the ordinary.
fn capabilities(cluster: &Cluster, daemon_set: &str) -> Result<Vec<String>> {
    let found = cluster.get(&["daemonset", daemon_set, "-n", NAMESPACE])?;
    let given = &found["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["add"];
    let names = given.as_array().into_iter().flatten();
    Ok(names.filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

fn apply(cluster: &Cluster, object: &Value) -> Result<()> {
    cluster.kubectl_stdin(&["apply", "-f", "-"], &object.to_string()).map(drop)
}

fn a_relay_below_an_amt_server_carries_its_channels_and_tells_of_both(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    apply(cluster, &above())?;
    apply(cluster, &below(cluster))?;
    ready(cluster, "ts/amt")?;
    ready(cluster, "tunnelrelay/branch")?;
    let _source = studio_sends(cluster, NEWS)?;
    let customer = cluster.host("customer", CUSTOMER)?;
    let branch = address(cluster, "n1");
    let mut by_amt = Receive::start(&customer, NEWS, &["--via", "amt", "--relay", &branch.to_string()])?;
    let mut by_umtp = Receive::start(&customer, NEWS, &["--server", &format!("{branch}:10400")])?;
    for viewer in [&mut by_amt, &mut by_umtp] {
        viewer.wait_packets(100, SOON)?;
    }
    until("both kinds of clients and the server above in the status", LONG, || {
        let relay = object(cluster, "tunnelrelay", "branch").ok()?;
        let status = &relay["status"];
        (status["tunnels"] == 1 && status["endpoints"] == 1 && status["upstream"] == "1/1").then_some(())
    })?;
    let server = until("the relay as the server's gateway", LONG, || {
        let server = object(cluster, "ts", "amt").ok()?;
        (server["status"]["endpoints"] == 1).then_some(server)
    })?;
    ensure!(server["status"]["tunnels"] == 0, "two tunnels for one channel: {}", server["status"]);
    let page = cluster.kubectl(&["get", "tunnelrelays", "-n", NAMESPACE])?;
    ensure!(page.contains("branch") && page.contains("1/1"), "kubectl get says\n{page}");
    // Whole packets are heard where they come from the network; a relay takes them from a tunnel.
    ensure!(capabilities(cluster, "ts-amt")? == ["NET_RAW"], "{:?}", capabilities(cluster, "ts-amt")?);
    ensure!(capabilities(cluster, "tr-branch")?.is_empty(), "{:?}", capabilities(cluster, "tr-branch")?);
    by_amt.finish()?;
    by_umtp.finish()?;
    until("no gateway any more", LONG, || {
        (object(cluster, "ts", "amt").ok()?["status"]["endpoints"] == 0).then_some(())
    })
}

/// A relay that knows nothing but the name of the database. It is registered there for one customer.
fn found() -> Value {
    json!({
        "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelRelay", "metadata": {"name": "found", "namespace": NAMESPACE},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "n3"}, "umtp": {"port": 10500}, "bundles": [{"name": "tv"}],
            "upstream": {"protocol": "UMTP", "discovery": "Hierarchy", "databaseRef": {"name": "isp"}},
            "hierarchy": {
                "country": "BE", "networks": [format!("{CUSTOMER}/32")],
                "parents": [{"databaseRef": {"name": "isp"}, "credentialsSecretRef": {"name": "edge-at-isp"}}],
            },
        },
    })
}

fn a_relay_finds_the_server_above_it_by_the_database_and_is_found_there_itself(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    apply(cluster, &found())?;
    ready(cluster, "tunnelrelay/found")?;
    let status = || {
        let all = cluster.get(&["tunnelendpoints", "-n", NAMESPACE]).ok()?;
        let agent = all["items"].as_array()?.iter().find(|agent| agent["spec"]["ownerName"] == "found")?.clone();
        Some(agent["status"].clone())
    };
    until("its entry in the database", LONG, || (status()?["registered"] == "1/1").then_some(()))?;
    let _source = studio_sends(cluster, SPORTS)?;
    let customer = cluster.host("customer", CUSTOMER)?;
    let mut viewer = Receive::start(&customer, SPORTS, &["--tds", &database(cluster)?, "--country", "BE"])?;
    let report = viewer.wait_packets(100, SOON)?;
    let relay = format!("{}:10500", address(cluster, "n3"));
    ensure!(report.server() == relay, "the customer is served by {}", report.server());
    let servers = ["n1", "n2"].map(|node| format!("{}:10100", address(cluster, node)));
    let mut last = None;
    let waited = until("the server above in the status", LONG, || {
        last = status();
        servers.iter().any(|server| last.as_ref().is_some_and(|last| last["upstream"] == **server)).then_some(())
    });
    waited.with_context(|| format!("the relay says {last:?}"))?;
    viewer.finish()?;
    cluster.kubectl(&["delete", "tunnelrelay/found", "-n", NAMESPACE, "--timeout=60s"]).map(drop)
}

fn the_operator_serves_the_zone_that_leads_to_the_amt_server(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    apply(cluster, &above())?;
    ready(cluster, "ts/amt")?;
    install(cluster, &["zone.names={77.10.in-addr.arpa}"])?;
    let service = cluster.get(&["service", "castgate-zone", "-n", "castgate-system"])?;
    let at = format!("@{}", service["spec"]["clusterIP"].as_str().unwrap_or_default());
    let expected = format!("10 1 1 {}", address(cluster, "n3"));
    until("the record of the studio's relay", LONG, || {
        let mut dig = cluster.node("n2").command("dig").ok()?;
        let words = ["+short", "+time=2", "+tries=1", &at, "100.0.77.10.in-addr.arpa", "TYPE260"];
        let answer = dig.args(words).output().ok()?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        // As dig writes a type that it knows, or does not know.
        let generic = format!("\\# 6 0A81{:08X}", u32::from(address(cluster, "n3")));
        (text.trim() == expected || text.trim() == generic).then_some(())
    })?;
    install(cluster, &[])?;
    for object in ["tunnelrelay/branch", "ts/amt"] {
        cluster.kubectl(&["delete", object, "-n", NAMESPACE, "--ignore-not-found", "--timeout=60s"])?;
    }
    Ok(())
}
