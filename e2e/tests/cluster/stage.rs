//! What most scenarios stand on: castgate installed by its charts, the ISP of `examples/isp`, a studio and a customer.

use anyhow::{Context, Result, bail, ensure};
use castgate_e2e::cluster::runner::World;
use castgate_e2e::cluster::{Cluster, LAN};
use castgate_e2e::lab::{Host, Process, wait};
use castgate_e2e::programs::program;
use castgate_e2e::receive::Receive;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the studio's encoder sends from; `examples/isp` names it.
pub const STUDIO: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// A customer outside of the cluster.
pub const CUSTOMER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);
/// The source-specific channel of `examples/isp`.
pub const NEWS: &str = "ham:ip:232.1.2.3@10.77.0.100:5004";
/// The any-source channel of `examples/isp`.
pub const SPORTS: &str = "ham:ip:239.1.2.4:5004";
/// Where customers ask.
pub const DATABASE_PORT: u16 = 30_632;
/// For things that take a moment; a deadline that is reached means that they never happen.
pub const SOON: Duration = Duration::from_secs(15);
/// For pods that start and objects that become ready.
pub const LONG: Duration = Duration::from_secs(90);
/// Between two questions to the API server.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Namespace of objects and agents.
pub const NAMESPACE: &str = "castgate";

/// The charts are installed, and helm has waited for them.
pub fn installed(world: &mut World) -> Result<()> {
    world.once("castgate is installed", |world| {
        let root = root();
        let chart = |name: &str| root.join("charts").join(name).display().to_string();
        world.cluster.helm(&["upgrade", "--install", "castgate-crds", &chart("castgate-crds"), "--wait"])?;
        let wait = ["--wait", "--timeout", "120s"];
        world.cluster.helm(&[&["upgrade", "--install", "castgate", &chart("castgate")], &wait[..]].concat())?;
        Ok(())
    })
}

/// The ISP of the examples serves on two nodes.
pub fn isp(world: &mut World) -> Result<()> {
    installed(world)?;
    world.once("examples/isp is applied", |world| {
        prepare_isp(&world.cluster)?;
        apply_isp(&world.cluster)?;
        await_isp(&world.cluster)
    })
}

/// What the ISP has before it hears of us: two nodes for tunnels, a volume.
pub fn prepare_isp(cluster: &Cluster) -> Result<()> {
    cluster.make_volumes(&["isp"])?;
    label(cluster, &["n1", "n2"])
}

pub fn apply_isp(cluster: &Cluster) -> Result<()> {
    let examples = root().join("examples/isp");
    cluster.kubectl(&["apply", "-f", &examples.display().to_string()]).map(drop)
}

pub fn await_isp(cluster: &Cluster) -> Result<()> {
    ready(cluster, "ts/edge")?;
    ready(cluster, "tdb/isp")?;
    agents_ready(cluster)
}

/// Waits until every agent is ready, and heard by a replica of the operator that lives: for a while after its end, what the one
/// before wrote stands.
pub fn agents_ready(cluster: &Cluster) -> Result<()> {
    let mut last = Value::Null;
    let waited = until("every agent to be ready", LONG, || {
        let labels = "app.kubernetes.io/component=operator";
        let pods = cluster.get(&["pods", "-n", "castgate-system", "-l", labels]).ok()?;
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let replicas: Vec<&Value> =
            pods["items"].as_array()?.iter().filter(stays).map(|pod| &pod["metadata"]["name"]).collect();
        last = cluster.get(&["tunnelendpoints", "-n", NAMESPACE]).ok()?;
        let agents = last["items"].as_array()?;
        let is_ready = |agent: &Value| {
            condition(agent, "Ready").0 == "True" && replicas.contains(&&agent["status"]["stream"]["replica"])
        };
        (!agents.is_empty() && agents.iter().all(is_ready)).then_some(())
    });
    waited.with_context(|| format!("the agents are {last}"))
}

/// Exactly these nodes carry the label of `examples/isp`.
pub fn label(cluster: &Cluster, nodes: &[&str]) -> Result<()> {
    for node in cluster.nodes() {
        let label = if nodes.contains(&node.name()) { "castgate.dev/tunnels=true" } else { "castgate.dev/tunnels-" };
        cluster.kubectl(&["label", "node", node.name(), label, "--overwrite"])?;
    }
    Ok(())
}

/// Waits as a user would.
pub fn ready(cluster: &Cluster, object: &str) -> Result<()> {
    let waited = cluster.kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", object, "--timeout=180s"]);
    waited.map(drop).with_context(|| describe(cluster, object))
}

fn describe(cluster: &Cluster, object: &str) -> String {
    let status = cluster.kubectl(&["get", object, "-n", NAMESPACE, "-o", "jsonpath={.status}"]);
    format!("{object} says {}", status.unwrap_or_else(|error| format!("{error:#}")))
}

/// Waits until the answer to a question about the cluster is liked.
pub fn until<T>(what: &str, longest: Duration, look: impl FnMut() -> Option<T>) -> Result<T> {
    wait::until_every(ASK_AGAIN, what, longest, look)
}

/// An object of the namespace `castgate`.
pub fn object(cluster: &Cluster, kind: &str, name: &str) -> Result<Value> {
    cluster.get(&[kind, name, "-n", NAMESPACE])
}

/// A condition of an object: its status, its reason and its message.
pub fn condition(object: &Value, kind: &str) -> (String, String, String) {
    let all = object["status"]["conditions"].as_array().into_iter().flatten();
    let found = all.into_iter().find(|condition| condition["type"] == kind);
    let text = |field: &str| found.and_then(|found| found[field].as_str()).unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// Every agent of a server: node and endpoint.
pub fn endpoints(cluster: &Cluster, owner: &str) -> Result<Vec<(String, Value)>> {
    let all = cluster.get(&["tunnelendpoints", "-n", NAMESPACE])?;
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let of_owner = items.into_iter().filter(|one| one["spec"]["ownerName"] == owner && one["spec"]["role"] == "Server");
    Ok(of_owner.map(|one| (one["spec"]["node"].as_str().unwrap_or_default().to_owned(), one)).collect())
}

/// The pods of a component: name, uid and restarts, so that two looks can be compared.
pub fn pods(cluster: &Cluster, component: &str) -> Result<Vec<(String, String, String, u64)>> {
    let selector = format!("app.kubernetes.io/name=castgate,app.kubernetes.io/component={component}");
    let all = cluster.get(&["pods", "-A", "-l", &selector])?;
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let mut pods: Vec<_> = items
        .iter()
        .filter(|pod| !pod["metadata"]["deletionTimestamp"].is_string())
        .map(|pod| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
            (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]), text(&pod["spec"]["nodeName"]), restarts)
        })
        .collect();
    pods.sort();
    Ok(pods)
}

/// Uid and restarts of everything that runs for the fleet.
pub fn every_pod(cluster: &Cluster) -> Result<BTreeSet<(String, String, u64)>> {
    let mut all = BTreeSet::new();
    for component in ["database", "server", "adapter", "operator"] {
        let found = pods(cluster, component)?;
        ensure!(!found.is_empty(), "no pod is a {component}");
        all.extend(found.into_iter().map(|(name, uid, _, restarts)| (name, uid, restarts)));
    }
    Ok(all)
}

/// Address of a node.
pub fn address(cluster: &Cluster, node: &str) -> Ipv4Addr {
    cluster.node(node).address()
}

/// The node on which the database runs: its port answers there and nowhere else, so that it sees who asks.
pub fn database(cluster: &Cluster) -> Result<String> {
    let of_isp = |(name, _, node, _): &(String, String, String, u64)| name.starts_with("tdb-isp-") && !node.is_empty();
    let placed = pods(cluster, "database")?.into_iter().find(of_isp);
    let (_, _, node, _) = placed.context("no pod of the database is on a node")?;
    Ok(format!("{}:{DATABASE_PORT}", address(cluster, &node)))
}

/// The studio sends numbered datagrams into a channel until this ends.
pub fn studio_sends(cluster: &Cluster, name: &str) -> Result<Process> {
    let studio = cluster.host("studio", STUDIO)?;
    let mut send = studio.command(program("castgate")?);
    send.args(["send", name, "--via", "native", "--interface", LAN, "--input", "pattern:500kbit"]);
    studio.spawn("castgate send", send)
}

/// The customer receives a channel that he finds through the database. The command is typed again until it works: a database
/// that is about to start refuses connections.
pub fn customer_receives(cluster: &Cluster, name: &str, words: &[&str]) -> Result<Receive> {
    let customer = cluster.host("customer", CUSTOMER)?;
    let tds = database(cluster)?;
    let words = [&["--tds", &tds, "--country", "BE"], words].concat();
    receives(&customer, name, &words)
}

fn receives(customer: &Arc<Host>, name: &str, words: &[&str]) -> Result<Receive> {
    let start = Instant::now();
    loop {
        let mut receive = Receive::start(customer, name, words)?;
        match receive.wait_packets(1, SOON) {
            Ok(_) => return Ok(receive),
            Err(error) if start.elapsed() > LONG => bail!("{name} does not arrive: {error:#}"),
            // It ended with a sentence, which the next one may not.
            Err(_) => drop(receive),
        }
    }
}

/// What a receiver has: nothing lost, nothing twice. Gives the number of packets.
pub fn unharmed(receive: &Receive) -> Result<u64> {
    let report = receive.latest().context("it has reported nothing")?;
    ensure!(report.lost() == 0, "{} packets are lost: {}", report.lost(), report.value());
    Ok(report.packets())
}

/// Waits until packets arrive again, and gives how long that took.
pub fn arrives_again(receive: &mut Receive, longest: Duration) -> Result<Duration> {
    let start = Instant::now();
    let before = receive.latest().context("it has reported nothing")?.packets();
    receive.wait_report("packets again", longest, |report| report.packets() > before)?;
    Ok(start.elapsed())
}

/// The node whose agent serves a receiver.
pub fn node_of(cluster: &Cluster, receive: &Receive) -> Result<String> {
    let report = receive.latest().context("it has reported nothing")?;
    let server = report.server().to_owned();
    let node = cluster.nodes().iter().find(|node| server.starts_with(&format!("{}:", node.address())));
    Ok(node.with_context(|| format!("{server} is no node"))?.name().to_owned())
}

/// The root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the project").to_path_buf()
}
