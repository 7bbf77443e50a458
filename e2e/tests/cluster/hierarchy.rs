//! A hierarchy of databases as Kubernetes runs it: operators in namespaces of their own, and replicas that come and go.

use crate::stage::{CUSTOMER, LONG, NAMESPACE, SOON, address, condition, installed, ready, root, until};
use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::Cluster;
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::lab::Host;
use castgate_e2e::programs::program;
use castgate_e2e::registry::{Answer, ask, tell};
use castgate_e2e::scenario;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const SCENARIOS: &[Scenario] = &[
    scenario!(a_root_a_country_and_an_isp_of_another_namespace_find_each_other_by_kubectl_apply),
    scenario!(a_database_is_scaled_up_and_down_under_registrations_without_a_lost_entry).needs_own_cluster(),
    scenario!(a_port_that_is_taken_is_named_in_the_status_until_it_is_another_one),
    scenario!(a_password_is_changed_without_turning_anybody_away_and_the_hierarchy_goes),
];

/// `examples/hierarchy/cluster` applies it.
const APPLIED: &str = "examples/hierarchy/cluster is applied";
/// The ISP's namespace.
const ISP: &str = "castgate-isp";
/// A client whom the ISP does not serve: its customers are 10.77.0.64/26.
pub const ABROAD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 130);
/// Who registers from outside of the cluster, for the client abroad alone.
const GUEST: &str = "guest";
const GUEST_PASSWORD: &str = "example-only-guest";
const GUEST_NETWORK: &str = "10.77.0.130/32";
/// Servers that somebody registers at one node: all of them together fit into one answer.
const GUESTS_MAX: usize = 75;
/// Between two of them.
const PACE: Duration = Duration::from_secs(1);
/// Port of the root on the nodes that run it.
pub const ROOT: u16 = 30_650;
/// One that nobody has.
const FREE: u16 = 30_654;
/// Ports of the servers.
pub const PUBLIC: u16 = 10_201;
pub const BELGIAN: u16 = 10_202;
const ISP_SERVER: u16 = 10_203;

fn folder() -> String {
    root().join("examples/hierarchy/cluster").display().to_string()
}

/// `examples/hierarchy/cluster` runs.
pub fn hierarchy(world: &mut World) -> Result<()> {
    installed(world)?;
    world.once(APPLIED, |world| {
        let cluster = &world.cluster;
        cluster.make_volumes(&["tree-1", "tree-2", "tree-3"])?;
        cluster.kubectl(&["apply", "-f", &folder()])?;
        ["tdb/root", "tdb/belgium", "ts/public", "ts/belgian"].iter().try_for_each(|object| ready(cluster, object))?;
        ["tdb/provider", "ts/isp-server"].iter().try_for_each(|object| ready_of_isp(cluster, object))
    })
}

fn ready_of_isp(cluster: &Cluster, object: &str) -> Result<()> {
    let waited = cluster.kubectl(&["wait", "-n", ISP, "--for=condition=Ready", object, "--timeout=180s"]);
    waited.map(drop).with_context(|| format!("{object} is not ready"))
}

fn a_root_a_country_and_an_isp_of_another_namespace_find_each_other_by_kubectl_apply(world: &mut World) -> Result<()> {
    hierarchy(world)?;
    let cluster = &world.cluster;
    for (database, namespace) in [("root", NAMESPACE), ("belgium", NAMESPACE), ("provider", ISP)] {
        let found = cluster.get(&["statefulset", &format!("tdb-{database}"), "-n", namespace])?;
        ensure!(found["status"]["readyReplicas"] == 1, "{database}: {}", found["status"]);
    }
    // All that the ISP has of anybody else is the login that he was given.
    let secrets = cluster.kubectl(&["get", "secrets", "-n", ISP, "-o", "name"])?;
    let secrets: BTreeSet<&str> = secrets.lines().map(|line| line.trim_start_matches("secret/")).collect();
    ensure!(secrets == BTreeSet::from(["castgate-adapter", "isp-at-belgium", "isp-server"]), "{secrets:?}");

    let customer = cluster.host("customer", CUSTOMER)?;
    let abroad = cluster.host("abroad", ABROAD)?;
    let root = place(cluster, "root", ROOT)?;
    for (host, country, port) in [
        (&abroad, "JP", PUBLIC),
        (&abroad, "BE", BELGIAN),
        (&customer, "BE", ISP_SERVER),
        // Who says that he is elsewhere is served as those there are: by the neighbours of a country without servers, or by all.
        (&customer, "FR", BELGIAN),
        (&customer, "JP", PUBLIC),
    ] {
        let servers = until(&format!("the server at {port} for a client of {country}"), SOON, || {
            let servers = located(host, root, country).ok()?;
            (servers.len() == 1 && servers[0].port() == port).then_some(servers)
        });
        let servers = servers.with_context(|| format!("{:?}", located(host, root, country)))?;
        let nodes: Vec<Ipv4Addr> = cluster.nodes().iter().map(castgate_e2e::cluster::Node::address).collect();
        ensure!(nodes.is_empty() || nodes.iter().any(|node| servers[0].ip() == *node), "{servers:?} is no node");
    }
    Ok(())
}

fn a_database_is_scaled_up_and_down_under_registrations_without_a_lost_entry(world: &mut World) -> Result<()> {
    hierarchy(world)?;
    let cluster = &world.cluster;
    let customer = cluster.host("customer", CUSTOMER)?;
    let before = Guests::invited(cluster, "root", ROOT)?;
    let promised = before.under_registrations(|| {
        cluster.make_volumes(&["tree-4", "tree-5"])?;
        before.scaled_up()?;
        // Everybody inside registers with each of them.
        let public = until("the registrations of the public server", LONG, || {
            let server = cluster.get(&["ts", "public", "-n", NAMESPACE]).ok()?;
            (server["status"]["registrations"] == "3/3").then_some(())
        });
        public.with_context(|| cluster.kubectl(&["get", "tep", "-A", "-o", "yaml"]).unwrap_or_default())?;
        before.scaled_down()?;
        let claims = cluster.kubectl(&["get", "pvc", "-n", NAMESPACE, "-o", "name"])?;
        ensure!(claims.matches("state-tdb-root-").count() == 1, "old volumes would bring old entries back: {claims}");
        ready(cluster, "tdb/root")
    })?;
    before.are_kept(&promised)?;
    // What the cluster itself registered is there as before.
    let servers = located(&customer, place(cluster, "root", ROOT)?, "BE")?;
    ensure!(servers.iter().any(|server| server.port() == ISP_SERVER), "{servers:?}");
    Ok(())
}

fn a_port_that_is_taken_is_named_in_the_status_until_it_is_another_one(world: &mut World) -> Result<()> {
    hierarchy(world)?;
    let cluster = &world.cluster;
    cluster.make_volumes(&["late"])?;
    let database = |port: u16| {
        json!({
            "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelDatabase",
            "metadata": {"name": "late", "namespace": NAMESPACE},
            "spec": {"service": {"type": "NodePort", "nodePort": port}},
        })
    };
    cluster.kubectl_stdin(&["apply", "-f", "-"], &database(ROOT).to_string())?;
    until("the sentence that names the port", SOON, || {
        let (status, reason, message) = condition(&cluster.get(&["tdb", "late", "-n", NAMESPACE]).ok()?, "Ready");
        let is_named =
            message.contains("the API server refuses Service tdb-late") && message.contains(&ROOT.to_string());
        (status == "False" && reason == "NotReady" && is_named).then_some(())
    })
    .with_context(|| cluster.kubectl(&["get", "tdb", "late", "-n", NAMESPACE, "-o", "yaml"]).unwrap_or_default())?;
    cluster.kubectl_stdin(&["apply", "-f", "-"], &database(FREE).to_string())?;
    ready(cluster, "tdb/late")?;
    cluster.kubectl(&["delete", "-n", NAMESPACE, "tdb/late"])?;
    cluster.kubectl(&["delete", "-n", NAMESPACE, "pvc/state-tdb-late-0"]).map(drop)
}

/// Somebody who registers servers from outside of the cluster, and what a database promised him.
pub struct Guests<'a> {
    cluster: &'a Cluster,
    database: &'static str,
    port: u16,
    /// Name of their account.
    account: String,
    abroad: Arc<Host>,
    /// What was promised before anything happens.
    known: BTreeSet<u16>,
}

impl<'a> Guests<'a> {
    /// Registers the first of them at a database of one replica, whose port is open on its node.
    pub fn invited(cluster: &'a Cluster, database: &'static str, port: u16) -> Result<Self> {
        let account = grant_guest(cluster, database)?;
        let abroad = cluster.host("abroad", ABROAD)?;
        let first = place(cluster, database, port)?;
        let known: BTreeSet<u16> = (20_000..20_020).collect();
        for port in &known {
            // The first comes a moment after his account.
            until("a registration", SOON, || registered(&abroad, first, *port).then_some(()))?;
        }
        Ok(Self { cluster, database, port, account, abroad, known })
    }

    /// The name of their account and its Secret.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Lets the first of them register once more, at the replica of one node.
    pub fn register_at(&self, node: Ipv4Addr) -> Result<()> {
        let first = self.known.first().context("nobody was invited")?;
        let answer = register_as(&self.abroad, (node, self.port).into(), *first, GUEST_PASSWORD)?;
        ensure!(answer.status == 200, "it answers {}: {}", answer.status, answer.body.trim());
        Ok(())
    }

    /// Lets more of them come at every node while something happens; gives all that was promised by then.
    pub fn under_registrations(&self, work: impl FnOnce() -> Result<()>) -> Result<BTreeSet<u16>> {
        let promised = Mutex::new(self.known.clone());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (index, node) in (0..).zip(self.cluster.nodes()) {
                let (promised, over) = (&promised, &over);
                // Somebody who knows the address of one node alone, whoever runs there.
                let at = SocketAddr::from((node.address(), self.port));
                scope.spawn(move || {
                    for port in (20_100 + 100 * index..).take(GUESTS_MAX).take_while(|_| !over.load(Ordering::Relaxed))
                    {
                        if registered(&self.abroad, at, port) {
                            promised.lock().expect("nobody panics").insert(port);
                        }
                        std::thread::sleep(PACE);
                    }
                });
            }
            let outcome = work();
            over.store(true, Ordering::Relaxed);
            outcome
        })?;
        Ok(promised.into_inner().expect("nobody panics"))
    }

    /// Three replicas instead of one. Each that comes knows with its first answer what was promised before.
    pub fn scaled_up(&self) -> Result<()> {
        let Self { cluster, database, port, account: _, abroad, known: before } = self;
        let object = format!("tdb/{database}");
        cluster.kubectl(&["scale", &object, "-n", NAMESPACE, "--replicas=3"])?;
        let mut answered: BTreeMap<SocketAddr, BTreeSet<u16>> = BTreeMap::new();
        until("the first answer of three replicas", LONG, || {
            for node in cluster.nodes() {
                let at = SocketAddr::from((node.address(), *port));
                if !answered.contains_key(&at)
                    && let Ok(known) = known(abroad, at)
                {
                    answered.insert(at, known);
                }
            }
            (answered.len() == 3).then_some(())
        })
        .with_context(|| format!("only {:?} answered", answered.keys()))?;
        for (at, known) in &answered {
            let missing: Vec<_> = before.difference(known).collect();
            ensure!(missing.is_empty(), "{at} answered before it knew of {missing:?}");
        }
        ready(cluster, &object)?;
        let database = cluster.get(&["tdb", database, "-n", NAMESPACE])?;
        ensure!(database["status"]["answering"] == "3/3", "{}", database["status"]);
        Ok(())
    }

    /// One replica again.
    pub fn scaled_down(&self) -> Result<()> {
        let Self { cluster, database, .. } = self;
        cluster.kubectl(&["scale", &format!("tdb/{database}"), "-n", NAMESPACE, "--replicas=1"])?;
        until("the end of two replicas", LONG, || {
            let pods = cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"]).ok()?;
            (pods.matches(&format!("tdb-{database}-")).count() == 1).then_some(())
        })
    }

    /// Whether the replica that is left knows all of it.
    pub fn are_kept(&self, promised: &BTreeSet<u16>) -> Result<()> {
        let kept = known(&self.abroad, place(self.cluster, self.database, self.port)?)?;
        let lost: Vec<_> = promised.difference(&kept).collect();
        println!("  {} entries promised, {} known in the end", promised.len(), kept.len());
        ensure!(lost.is_empty(), "promised and lost: {lost:?}");
        Ok(())
    }
}

fn a_password_is_changed_without_turning_anybody_away_and_the_hierarchy_goes(world: &mut World) -> Result<()> {
    hierarchy(world)?;
    let cluster = &world.cluster;
    let secret = grant_guest(cluster, "root")?;
    let abroad = cluster.host("abroad", ABROAD)?;
    let at = place(cluster, "root", ROOT)?;
    let try_one = |password: &str| register_as(&abroad, at, 21_000, password).map(|answer| answer.status);
    until("the account of the guest", SOON, || (try_one(GUEST_PASSWORD).ok()? == 200).then_some(()))?;
    let rotate = |values: Value| {
        let patch = json!({ "stringData": values });
        cluster.kubectl(&["patch", "secret", &secret, "-n", NAMESPACE, "--patch", &patch.to_string()])
    };
    rotate(json!({ "password": "example-only-new", "previous": GUEST_PASSWORD }))?;
    until("the new password", SOON, || (try_one("example-only-new").ok()? == 200).then_some(()))?;
    ensure!(try_one(GUEST_PASSWORD)? == 200, "the password before was turned away");
    until("a word on who used the password before", LONG, || {
        let account = cluster.get(&["tacc", &secret, "-n", NAMESPACE]).ok()?;
        let (status, reason, _) = condition(&account, "PreviousPasswordInUse");
        (status == "True" && reason == "Used" && account["status"]["previousPasswordLastUsed"].is_string())
            .then_some(())
    })?;
    rotate(json!({ "previous": "" }))?;
    until("the end of the password before", SOON, || (try_one(GUEST_PASSWORD).ok()? == 401).then_some(()))?;
    ensure!(try_one("example-only-new")? == 200, "the new password was turned away");
    until("no word on a password that is gone", LONG, || {
        let account = cluster.get(&["tacc", &secret, "-n", NAMESPACE]).ok()?;
        condition(&account, "PreviousPasswordInUse").0.is_empty().then_some(())
    })?;

    cluster.kubectl(&["delete", "tunnelaccount,secret", &secret, "-n", NAMESPACE])?;
    for namespace in [ISP, NAMESPACE] {
        // Those above go last: they are told goodbye.
        let names: &[&str] = if namespace == ISP {
            &["ts/isp-server", "tdb/provider"]
        } else {
            &["ts/public", "ts/belgian", "tdb/belgium", "tdb/root"]
        };
        for name in names {
            cluster.kubectl(&["delete", name, "-n", namespace, "--timeout=90s"])?;
        }
    }
    cluster.kubectl(&["delete", "namespace", ISP, "--timeout=90s"])?;
    world.undone(APPLIED);
    Ok(())
}

/// An account for somebody who registers from outside of the cluster; gives its name, which is that of its Secret.
pub fn grant_guest(cluster: &Cluster, database: &str) -> Result<String> {
    let name = format!("{GUEST}-of-{database}");
    let account = json!({
        "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelAccount",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "databaseRef": {"name": database}, "login": GUEST, "passwordSecretRef": {"name": name},
            "allow": {"types": ["TS"], "networks": [GUEST_NETWORK]},
        },
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": {"password": GUEST_PASSWORD},
    });
    for object in [secret, account] {
        cluster.kubectl_stdin(&["apply", "-f", "-"], &object.to_string())?;
    }
    Ok(name)
}

/// Registers a server of the guest's; whether that was promised to him.
pub fn registered(host: &Host, database: SocketAddr, port: u16) -> bool {
    register_as(host, database, port, GUEST_PASSWORD).is_ok_and(|answer| answer.status == 200)
}

fn register_as(host: &Host, database: SocketAddr, port: u16, password: &str) -> Result<Answer> {
    let entry = format!("TYPE=TS&SOURCE={ABROAD}&PORT={port}&PROTOCOL=UDP&NETWORKS={GUEST_NETWORK}");
    tell(host, database, GUEST, password, &format!("ACTION=REGISTER&{entry}"))
}

/// Ports of the guest's servers that a database gives to the client abroad.
fn known(abroad: &Host, database: SocketAddr) -> Result<BTreeSet<u16>> {
    let answer = ask(abroad, database, "ACTION=QUERY&TYPE=TS")?;
    ensure!(answer.status == 200, "{database} answers {}: {}", answer.status, answer.body.trim());
    let ports = answer.body.split("<PORT>").skip(1).filter_map(|rest| rest.split('<').next()?.parse().ok());
    Ok(ports.filter(|port| *port >= 20_000).collect())
}

/// Where a database with one replica answers: its port is open on the node that runs it.
pub fn place(cluster: &Cluster, database: &str, port: u16) -> Result<SocketAddr> {
    let selector = format!("app.kubernetes.io/component=database,castgate.dev/owner={database}");
    let pods = cluster.get(&["pods", "-n", NAMESPACE, "-l", &selector])?;
    let pods = pods["items"].as_array().context("no pods")?;
    let node = pods.iter().find_map(|pod| pod["spec"]["nodeName"].as_str());
    let node = node.with_context(|| format!("no pod of {database} is on a node"))?;
    Ok(SocketAddr::from((address(cluster, node), port)))
}

/// The servers that a client gets, in their order.
pub fn located(host: &Host, tds: SocketAddr, country: &str) -> Result<Vec<SocketAddr>> {
    let found = locate(host, &["--tds", &tds.to_string(), "--country", country])?;
    let servers = found["servers"].as_array().context("no servers")?;
    servers.iter().map(|server| Ok(server["server"].as_str().context("a server without address")?.parse()?)).collect()
}

/// What `castgate locate` prints.
pub fn locate(host: &Host, words: &[&str]) -> Result<Value> {
    let mut command = host.command(program("castgate")?);
    command.arg("locate").args(words).arg("--json");
    let printed = host.run("castgate locate", command, LONG)?;
    Ok(serde_json::from_str(printed.lines().last().context("it prints nothing")?)?)
}
