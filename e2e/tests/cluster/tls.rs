//! Databases over https on Kubernetes: a Secret is all it takes, and a new one disturbs nobody.

use crate::hierarchy::{hierarchy, locate, place};
use crate::stage::{CUSTOMER, LONG, NAMESPACE, SOON, every_pod, ready, until};
use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::cluster::{Cluster, Node};
use castgate_e2e::lab::Host;
use castgate_e2e::registry::ask;
use castgate_e2e::scenario;
use serde_json::{Value, json};
use std::net::SocketAddr;

pub const SCENARIOS: &[Scenario] =
    &[scenario!(a_database_speaks_https_by_its_secret_and_another_certificate_restarts_nothing)];

/// Port of the database on the node that runs it, and of its server.
const DATABASE: u16 = 30_653;
const SERVER: u16 = 10_204;
const UNTRUSTED: &str = "has a certificate that nobody has signed whom we trust";

fn a_database_speaks_https_by_its_secret_and_another_certificate_restarts_nothing(world: &mut World) -> Result<()> {
    hierarchy(world)?;
    let cluster = &world.cluster;
    cluster.make_volumes(&["guarded"])?;
    let first = Certificate::by_authority("first", cluster)?;
    apply(cluster, &first.secret())?;
    for object in objects() {
        apply(cluster, &object)?;
    }
    ready(cluster, "tdb/guarded")?;
    ready(cluster, "ts/guarded")?;
    registered(cluster)?;
    let customer = cluster.host("customer", CUSTOMER)?;
    let database = place(cluster, "guarded", DATABASE)?;
    finds_the_server(&customer, database, &first)?;
    let in_the_clear = ask(&customer, database, "ACTION=QUERY&TYPE=TS&COUNTRY=BE")?;
    ensure!(in_the_clear.status == 400 && in_the_clear.body.contains("https is spoken here"), "{in_the_clear:?}");
    let before = every_pod(cluster)?;

    // From somebody else altogether: whoever goes by the old one is told so, and the server goes by the new one with its Secret.
    let second = Certificate::by_authority("second", cluster)?;
    apply(cluster, &second.secret())?;
    until("the new certificate", LONG, || {
        let said = located(&customer, database, &first).ok()?;
        said["hops"][0]["outcome"].as_str()?.contains(UNTRUSTED).then_some(())
    })?;
    finds_the_server(&customer, database, &second)?;
    registered(cluster)?;

    // One that cannot be used changes nothing, and the object says what is wrong.
    let mut wrong = second.secret();
    wrong["stringData"]["tls.key"] = json!(first.key);
    apply(cluster, &wrong)?;
    until("the condition that names the key", LONG, || {
        let database = cluster.get(&["tdb", "guarded", "-n", NAMESPACE]).ok()?;
        database["status"]["conditions"].to_string().contains("certificate and key").then_some(())
    })
    .with_context(|| cluster.kubectl(&["get", "tdb", "guarded", "-n", NAMESPACE, "-o", "yaml"]).unwrap_or_default())?;
    finds_the_server(&customer, database, &second)?;
    apply(cluster, &second.secret())?;
    ready(cluster, "tdb/guarded")?;
    let after = every_pod(cluster)?;
    ensure!(after == before, "pods before: {before:?}\nafter: {after:?}");

    cluster.kubectl(&["delete", "-n", NAMESPACE, "ts/guarded", "tdb/guarded", "tacc/guarded", "secret/guarded"])?;
    cluster.kubectl(&["delete", "-n", NAMESPACE, "secret/guarded-tls", "pvc/state-tdb-guarded-0"])?;
    Ok(())
}

/// A certificate of the database, its key, and who signed it.
struct Certificate {
    authority: String,
    pem: String,
    key: String,
    /// The authority, for `--tds-ca`.
    file: tempfile::NamedTempFile,
}

impl Certificate {
    /// For all names by which the database is asked for, as docs/operations.md has them.
    fn by_authority(name: &str, cluster: &Cluster) -> Result<Self> {
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate()?)?;
        let inside = ["", ".cluster.local"].into_iter().flat_map(|end| {
            ["tdb-guarded", "*.tdb-guarded-pods"].map(|service| format!("{service}.{NAMESPACE}.svc{end}"))
        });
        let nodes = cluster.nodes().iter().map(Node::address).map(|address| address.to_string());
        let params = rcgen::CertificateParams::new(inside.chain(nodes).collect::<Vec<_>>())?;
        let key = rcgen::KeyPair::generate()?;
        let pem = params.signed_by(&key, &authority)?.pem();
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), authority.pem())?;
        Ok(Self { authority: authority.pem(), pem, key: key.serialize_pem(), file })
    }

    fn secret(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "guarded-tls", "namespace": NAMESPACE},
            "stringData": {"tls.crt": self.pem, "tls.key": self.key, "ca.crt": self.authority},
        })
    }
}

/// A database, a server that registers with it, and its account.
fn objects() -> [Value; 4] {
    let api = "castgate.dev/v1alpha1";
    let metadata = json!({"name": "guarded", "namespace": NAMESPACE});
    let database = json!({
        "apiVersion": api, "kind": "TunnelDatabase", "metadata": metadata,
        "spec": {
            "service": {"type": "NodePort", "nodePort": DATABASE},
            "http": {"tls": {"secretRef": {"name": "guarded-tls"}}},
        },
    });
    let password = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata,
        "stringData": {"login": "guarded", "password": "example-only-guarded"},
    });
    let account = json!({
        "apiVersion": api, "kind": "TunnelAccount", "metadata": metadata,
        "spec": {
            "databaseRef": {"name": "guarded"}, "login": "guarded", "passwordSecretRef": {"name": "guarded"},
            "allow": {"types": ["TS"], "countries": ["BE"]},
        },
    });
    let parent = json!({"databaseRef": {"name": "guarded"}, "credentialsSecretRef": {"name": "guarded"}});
    let server = json!({
        "apiVersion": api, "kind": "TunnelServer", "metadata": metadata,
        "spec": {
            "umtp": {"port": SERVER}, "replicas": 1, "interfaces": [{"name": "eth0"}], "bundles": [{"name": "demo"}],
            "hierarchy": {"country": "BE", "parents": [parent]},
        },
    });
    [database, password, account, server]
}

fn apply(cluster: &Cluster, object: &Value) -> Result<()> {
    cluster.kubectl_stdin(&["apply", "-f", "-"], &object.to_string()).map(drop)
}

/// The server stands in the database.
fn registered(cluster: &Cluster) -> Result<()> {
    until("the registration of the server", LONG, || {
        let server = cluster.get(&["ts", "guarded", "-n", NAMESPACE]).ok()?;
        (server["status"]["registrations"] == "1/1").then_some(())
    })
    .with_context(|| cluster.kubectl(&["get", "tep", "-n", NAMESPACE, "-o", "yaml"]).unwrap_or_default())
}

fn finds_the_server(host: &Host, database: SocketAddr, believed: &Certificate) -> Result<()> {
    let mut last = None;
    until("the server over https", SOON, || {
        let found = located(host, database, believed);
        // Not from what it remembers of the time before.
        let is_found = found.as_ref().is_ok_and(|found| {
            let server = found["servers"][0]["server"].as_str().unwrap_or_default();
            found["cache_age_seconds"].is_null() && server.ends_with(&format!(":{SERVER}"))
        });
        last = Some(found);
        is_found.then_some(())
    })
    .with_context(|| format!("{last:?}"))
}

/// What `castgate locate` prints.
fn located(host: &Host, database: SocketAddr, believed: &Certificate) -> Result<Value> {
    let ca = believed.file.path().display().to_string();
    locate(host, &["--tds", &format!("https://{database}"), "--tds-ca", &ca, "--country", "BE"])
}
