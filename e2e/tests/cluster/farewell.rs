//! Objects that are deleted: registrations are taken back, nothing is left, and a database that is down holds nobody up.

use crate::stage::{LONG, NAMESPACE, SOON, endpoints, isp, object, until};
use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::Cluster;
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::lab::{Host, Process};
use castgate_e2e::programs::program;
use castgate_e2e::scenario;
use serde_json::json;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(a_deleted_server_takes_its_registrations_back_and_leaves_nothing),
    scenario!(a_parent_that_is_down_holds_a_deletion_up_for_a_bounded_time),
];

/// A database of somebody else, outside of the cluster.
const PARENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 110);
/// How long a deletion waits at most, by the chart's default, and a little for the rest.
const BOUND: Duration = Duration::from_secs(20 + 10);

/// The hash of `example-only-guest`, as its operator would keep it.
const GUEST_HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$Y2FzdGdhdGUtZ3Vlc3Q$wgo3k92wgnS8wizffT04U7tsSBmeok5fBR76ZukmMko";

/// The parent runs on a host of its own, from a file.
fn parent(cluster: &Cluster) -> Result<(Arc<Host>, Process)> {
    let host = cluster.host("parent", PARENT)?;
    let folder = cluster.folder().join("parent");
    std::fs::create_dir_all(&folder)?;
    let config = folder.join("agent.yaml");
    let snapshot = format!(
        "agent: foreign/parent\ndatabase:\n  listen: {PARENT}:5632\n  accounts:\n  - login: guest\n    \
         passwordHash: {GUEST_HASH}\n    allow: {{types: [TS], networks: [0.0.0.0/0]}}\n"
    );
    std::fs::write(&config, snapshot)?;
    let mut agent = host.command(program("castgate-agent")?);
    agent.args(["--config", &config.display().to_string(), "--state", &folder.display().to_string()]);
    let agent = host.spawn("the foreign database", agent)?;
    host.wait_tcp(5632, SOON)?;
    Ok((host, agent))
}

fn apply_guest(cluster: &Cluster) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "guest-at-parent", "namespace": NAMESPACE},
        "stringData": {"login": "guest", "password": "example-only-guest"},
    });
    let server = json!({
        "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelServer", "metadata": {"name": "guest", "namespace": NAMESPACE},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": "n3"}, "interfaces": [{"name": "eth0"}], "umtp": {"port": 10300},
            "hierarchy": {
                "networks": ["0.0.0.0/0"],
                "parents": [{"url": format!("http://{PARENT}:5632"), "credentialsSecretRef": {"name": "guest-at-parent"}}],
            },
        },
    });
    cluster.kubectl_stdin(&["apply", "-f", "-"], &secret.to_string())?;
    cluster.kubectl_stdin(&["apply", "-f", "-"], &server.to_string())?;
    let waited = cluster.kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "ts/guest", "--timeout=90s"]);
    waited.map(drop).with_context(|| format!("{:?}", object(cluster, "ts", "guest").map(|it| it["status"].to_string())))
}

fn asks(host: &Host) -> Result<String> {
    let mut command = host.command(program("castgate")?);
    command.args(["tds", "query", "--tds", &PARENT.to_string()]);
    host.run("castgate tds query", command, SOON)
}

/// Deletes it as a user would, and gives how long `kubectl` took.
fn delete_guest(cluster: &Cluster) -> Result<Duration> {
    let start = Instant::now();
    cluster.kubectl(&["delete", "ts", "guest", "-n", NAMESPACE, "--timeout=60s"])?;
    let took = start.elapsed();
    until("the end of workload, pods and endpoints", LONG, || {
        let workload = cluster.kubectl(&["get", "ds,pods", "-n", NAMESPACE, "-o", "name"]).ok()?;
        let gone = !workload.contains("ts-guest") && endpoints(cluster, "guest").ok()?.is_empty();
        gone.then_some(())
    })?;
    Ok(took)
}

fn a_deleted_server_takes_its_registrations_back_and_leaves_nothing(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let (host, _parent) = parent(cluster)?;
    apply_guest(cluster)?;
    ensure!(asks(&host)?.contains("10.77.0.13"), "a foreign database does not know the server");
    let held = object(cluster, "ts", "guest")?;
    ensure!(held["metadata"]["finalizers"][0] == "castgate.dev/registrations", "it is not held: {}", held["metadata"]);
    let took = delete_guest(cluster)?;
    println!("  deleted in {:.1} s", took.as_secs_f32());
    let told = asks(&host);
    ensure!(!told.as_deref().unwrap_or_default().contains("10.77.0.13"), "the registration is still there: {told:?}");
    Ok(())
}

fn a_parent_that_is_down_holds_a_deletion_up_for_a_bounded_time(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let (host, mut process) = parent(cluster)?;
    apply_guest(cluster)?;
    ensure!(asks(&host)?.contains("10.77.0.13"), "a foreign database does not know the server");
    process.kill()?;
    let took = delete_guest(cluster)?;
    println!("  let go after {:.1} s", took.as_secs_f32());
    ensure!(took < BOUND, "the deletion took {took:?}");
    until("an event that says so", SOON, || {
        let events = cluster.get(&["events.events.k8s.io", "-n", NAMESPACE]).ok()?;
        let items = events["items"].as_array()?;
        let said = |event: &&serde_json::Value| {
            event["regarding"]["name"] == "guest" && event["reason"] == "RegistrationsLeft"
        };
        items.iter().find(said).map(drop)
    })
}
