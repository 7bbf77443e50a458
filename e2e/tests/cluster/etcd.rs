//! A database on Kubernetes whose replicas share an etcd: three members on hosts of the nodes' network, as an operator has them.

use crate::hierarchy::Guests;
use crate::stage::{LONG, NAMESPACE, SOON, installed, ready, root, until};
use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::cluster::{Cluster, LAN};
use castgate_e2e::lab::Host;
use castgate_e2e::peers::etcd::{CLIENT_PORT, Etcd};
use castgate_e2e::scenario;
use serde_json::json;
use std::net::Ipv4Addr;
use std::sync::Arc;

pub const SCENARIOS: &[Scenario] =
    &[scenario!(a_database_with_an_etcd_is_scaled_up_and_down_and_loses_a_member_of_it_without_a_lost_entry)
        .needs_own_cluster()];

/// Where the members stand; `examples/hierarchy/etcd` knows them by the names of a Service.
const MEMBERS: [(&str, Ipv4Addr); 3] = [
    ("etcd0", Ipv4Addr::new(10, 77, 0, 140)),
    ("etcd1", Ipv4Addr::new(10, 77, 0, 141)),
    ("etcd2", Ipv4Addr::new(10, 77, 0, 142)),
];
/// Port of the database on the nodes that run it.
const SHARED: u16 = 30_660;
/// Objects of the example, those above last.
const OBJECTS: [&str; 4] = ["ts/everywhere", "tacc/everywhere", "tdb/shared", "secret/everywhere"];

fn a_database_with_an_etcd_is_scaled_up_and_down_and_loses_a_member_of_it_without_a_lost_entry(
    world: &mut World,
) -> Result<()> {
    installed(world)?;
    let cluster = &world.cluster;
    let hosts = MEMBERS.map(|(name, address)| cluster.host(name, address));
    let hosts: Vec<Arc<Host>> = hosts.into_iter().collect::<Result<_>>()?;
    let hosts: Vec<&Host> = hosts.iter().map(Arc::as_ref).collect();
    let mut etcd = Etcd::new(&hosts, LAN, &[])?;
    etcd.start_all()?;
    name_members(cluster)?;
    let folder = root().join("examples/hierarchy/etcd").display().to_string();
    cluster.kubectl(&["apply", "-f", &folder])?;
    cluster.kubectl(&["scale", "tdb/shared", "-n", NAMESPACE, "--replicas=1"])?;
    ready(cluster, "tdb/shared")?;
    let before = Guests::invited(cluster, "shared", SHARED)?;
    let promised = before.under_registrations(|| {
        before.scaled_up()?;
        etcd.kill(1)?;
        // All of them still promise, with two members of three.
        for node in cluster.nodes() {
            before.register_at(node.address()).with_context(|| format!("at {} without a member", node.name()))?;
        }
        before.scaled_down()?;
        ready(cluster, "tdb/shared")
    })?;
    before.are_kept(&promised)?;
    // It comes back, and the next one goes.
    etcd.start([1])?;
    etcd.wait_serving(1)?;
    etcd.kill(0)?;
    before.are_kept(&promised)?;
    until("a registration without the first member", SOON, || {
        cluster.nodes().iter().any(|node| before.register_at(node.address()).is_ok()).then_some(())
    })?;

    // Nothing of a database with a store of its own was made, and to the fleet it was one all the time.
    let made = cluster.kubectl(&["get", "pvc,secrets", "-n", NAMESPACE, "-o", "name"])?;
    ensure!(!made.contains("tdb-shared"), "{made}");
    let server = until("the registration of the server", LONG, || {
        let server = cluster.get(&["ts", "everywhere", "-n", NAMESPACE]).ok()?;
        (server["status"]["registrations"] == "1/1").then_some(())
    });
    server.with_context(|| cluster.kubectl(&["get", "ts,tep", "-n", NAMESPACE, "-o", "yaml"]).unwrap_or_default())?;
    let refused = cluster.kubectl(&[
        "patch",
        "tdb/shared",
        "-n",
        NAMESPACE,
        "--type=merge",
        "--patch",
        r#"{"spec":{"store":{"prefix":"/other/"}}}"#,
    ]);
    let refused = refused.err().context("another prefix was taken")?.to_string();
    ensure!(refused.contains("type and prefix never change"), "{refused}");

    cluster.kubectl(&["delete", "tacc,secret", before.account(), "-n", NAMESPACE])?;
    for object in OBJECTS {
        cluster.kubectl(&["delete", object, "-n", NAMESPACE, "--timeout=90s"])?;
    }
    cluster.kubectl(&["delete", "service,endpointslice", "etcd", "-n", NAMESPACE]).map(drop)
}

/// `etcd-0.etcd.castgate.svc` and so on, as pods of an etcd would be called.
fn name_members(cluster: &Cluster) -> Result<()> {
    let metadata = json!({"name": "etcd", "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "etcd"}});
    let port = json!({"name": "client", "port": CLIENT_PORT, "protocol": "TCP"});
    let endpoint = |(index, (_, address)): (usize, (&str, Ipv4Addr))| json!({"addresses": [address], "hostname": format!("etcd-{index}"), "conditions": {"ready": true}});
    let endpoints: Vec<_> = MEMBERS.into_iter().enumerate().map(endpoint).collect();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": "None", "ports": [port]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
        "endpoints": endpoints, "ports": [port],
    });
    for object in [service, slice] {
        cluster.kubectl_stdin(&["apply", "-f", "-"], &object.to_string())?;
    }
    Ok(())
}
