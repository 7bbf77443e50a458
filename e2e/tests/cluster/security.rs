//! Who may do what: capabilities of pods, tokens of strangers, an upgrade that touches no agent, an operator that is idle.

use crate::stage::{NAMESPACE, SOON, isp, pods, until};
use anyhow::{Context, Result, bail, ensure};
use castgate_e2e::cluster::Cluster;
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::scenario;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

pub const SCENARIOS: &[Scenario] = &[
    scenario!(agents_and_the_operator_hold_no_capability_they_do_not_need).needs_own_cluster(),
    scenario!(strangers_get_no_snapshot),
    scenario!(credentials_of_parents_are_on_no_node_with_agents).needs_own_cluster(),
    scenario!(an_upgrade_of_the_operator_restarts_no_agent),
    scenario!(the_operator_writes_nothing_when_nothing_changes),
];

/// What `/proc/PID/status` says of every process of a name, on every node.
fn processes(cluster: &Cluster, name: &str) -> Result<Vec<(String, BTreeMap<String, String>)>> {
    let mut found = Vec::new();
    for node in cluster.nodes() {
        let list = format!("for pid in $(pgrep -x {name}); do cat /proc/$pid/status; echo; done");
        let output = node.command("sh")?.args(["-c", &list]).output()?;
        for status in String::from_utf8_lossy(&output.stdout).split("\n\n").filter(|status| status.contains("Name:")) {
            let fields = status.lines().filter_map(|line| line.split_once(':'));
            let fields = fields.map(|(field, value)| (field.to_owned(), value.trim().to_owned())).collect();
            found.push((node.name().to_owned(), fields));
        }
    }
    Ok(found)
}

fn agents_and_the_operator_hold_no_capability_they_do_not_need(world: &mut World) -> Result<()> {
    const NONE: &str = "0000000000000000";
    isp(world)?;
    let cluster = &world.cluster;
    // The kernel cuts names at 15 letters.
    let agents = processes(cluster, "castgate-agent")?;
    let operators = processes(cluster, "castgate-operat")?;
    ensure!(agents.len() >= 4 && operators.len() == 2, "{} agents, {} operators", agents.len(), operators.len());
    for (node, fields) in agents.iter().chain(&operators) {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            ensure!(fields[set] == NONE, "{} on {node} has {set} {}", fields["Name"], fields[set]);
        }
        ensure!(fields["NoNewPrivs"] == "1" && fields["Seccomp"] == "2", "{} on {node}: {fields:?}", fields["Name"]);
    }
    for (node, fields) in &operators {
        ensure!(fields["Uid"].starts_with("65532"), "the operator on {node} runs as {}", fields["Uid"]);
    }
    Ok(())
}

/// A pod of the agents' image that says it is somebody, with a token of this kind.
fn stranger(name: &str, account: &str, audience: Option<&str>, says: (&str, &str)) -> Value {
    let (agent, node) = says;
    let mut sources = vec![json!({"configMap": {"name": "castgate-ca"}})];
    if let Some(audience) = audience {
        sources
            .push(json!({"serviceAccountToken": {"path": "token", "audience": audience, "expirationSeconds": 3600}}));
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        // The labels are stolen; the maker of a pod cannot be.
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {
            "app.kubernetes.io/name": "castgate", "app.kubernetes.io/component": "stranger", "castgate.dev/owner": "edge",
        }},
        "spec": {
            "serviceAccountName": account, "automountServiceAccountToken": false,
            "containers": [{
                "name": "agent", "image": "castgate.local/agent:dev", "imagePullPolicy": "Never",
                "args": ["--control", "https://castgate-operator.castgate-system.svc:8443", "--name", agent, "--node", node,
                    "--token", "/var/run/castgate/token", "--ca", "/var/run/castgate/ca.crt", "--state", "/tmp/state",
                    "--socket", "/tmp/agent.sock", "--log", "info"],
                "volumeMounts": [{"name": "identity", "mountPath": "/var/run/castgate"}, {"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [{"name": "identity", "projected": {"sources": sources}}, {"name": "tmp", "emptyDir": {}}],
        },
    })
}

fn strangers_get_no_snapshot(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let says = ("castgate/ts-edge@n1", "n1");
    let victim = pods(cluster, "server")?.into_iter().find(|pod| pod.2 == "n2").context("no agent on n2")?;
    // A token of another node's agent, taken from there.
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", &victim.0];
    let token = ["create", "token", "castgate-agent", "-n", NAMESPACE, "--audience", "castgate-operator"];
    let stolen = cluster.kubectl(&[&token[..], &bound].concat())?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "stolen", "namespace": NAMESPACE},
        "stringData": {"token": stolen.trim()},
    });
    cluster.kubectl_stdin(&["apply", "-f", "-"], &secret.to_string())?;
    let mut thief = stranger("stranger-thief", "castgate-agent", None, says);
    let sources = thief["spec"]["volumes"][0]["projected"]["sources"].as_array_mut().context("it has sources")?;
    sources.push(json!({"secret": {"name": "stolen"}}));
    let strangers = [
        ("stranger-without", stranger("stranger-without", "castgate-agent", None, says)),
        ("stranger-audience", stranger("stranger-audience", "castgate-agent", Some("somebody-else"), says)),
        ("stranger-pod", stranger("stranger-pod", "castgate-agent", Some("castgate-operator"), says)),
        ("stranger-account", stranger("stranger-account", "default", Some("castgate-operator"), says)),
        ("stranger-thief", thief),
    ];
    for (_, pod) in &strangers {
        cluster.kubectl_stdin(&["apply", "-f", "-"], &pod.to_string())?;
    }
    let outcome = strangers.iter().try_for_each(|(name, _)| is_refused(cluster, name));
    for (name, _) in &strangers {
        cluster.kubectl(&["delete", "pod", name, "-n", NAMESPACE, "--wait=false", "--grace-period=1"])?;
    }
    cluster.kubectl(&["delete", "secret", "stolen", "-n", NAMESPACE])?;
    outcome
}

/// Its log says that it was turned away, and it has no snapshot.
fn is_refused(cluster: &Cluster, name: &str) -> Result<()> {
    let log = || cluster.kubectl(&["logs", name, "-n", NAMESPACE]).unwrap_or_default();
    let turned_away = |log: &str| {
        let log = log.to_ascii_lowercase();
        ["unauthenticated", "permission", "refuse", "token"].iter().any(|word| log.contains(word))
    };
    until(&format!("a refusal in the log of {name}"), SOON * 3, || turned_away(&log()).then_some(()))
        .with_context(|| format!("{name} says: {}", log()))?;
    let log = log();
    if log.contains("snapshot in force") {
        bail!("{name} got a snapshot: {log}");
    }
    let asked = cluster.try_kubectl(&[
        "exec",
        name,
        "-n",
        NAMESPACE,
        "--",
        "/castgate-agent",
        "ask",
        "ready",
        "--socket",
        "/tmp/agent.sock",
    ])?;
    ensure!(!asked.status.success(), "{name} says that it is ready");
    Ok(())
}

/// The password of the parent is read in no file of a node's agents: neither in their state nor in their environment.
fn credentials_of_parents_are_on_no_node_with_agents(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    for node in cluster.nodes() {
        let look = "grep -rl example-only-edge /var/lib/castgate; for pid in $(pgrep -x castgate-agent); do \
                    grep -q hostNetwork /dev/null; tr '\\0' '\\n' < /proc/$pid/environ | grep example-only-edge; done; true";
        let output = node.command("sh")?.args(["-c", look]).output()?;
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(found.trim().is_empty(), "{} holds the password: {found}", node.name());
    }
    // The look itself can find something: the state of the agents is there.
    let node = cluster.node("n1");
    let output = node.command("sh")?.args(["-c", "grep -rl ts-edge /var/lib/castgate"]).output()?;
    ensure!(!output.stdout.is_empty(), "there is no state of an agent on n1 to look into");
    Ok(())
}

fn an_upgrade_of_the_operator_restarts_no_agent(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let look = || -> Result<Vec<_>> {
        Ok(["server", "database", "adapter"].into_iter().map(|of| pods(cluster, of)).collect::<Result<Vec<_>>>()?)
    };
    let (before, operators) = (look()?, pods(cluster, "operator")?);
    let chart = crate::stage::root().join("charts/castgate").display().to_string();
    let other = ["--set", "operator.log=debug\\,hyper=info\\,h2=info\\,tower=info\\,kube=info"];
    cluster.helm(&[&["upgrade", "castgate", &chart, "--wait", "--timeout", "120s"], &other[..]].concat())?;
    crate::stage::await_isp(cluster)?;
    let after = pods(cluster, "operator")?;
    ensure!(after.iter().all(|pod| !operators.contains(pod)), "the operator itself was not upgraded: {after:?}");
    ensure!(look()? == before, "agents before: {before:?}, after: {:?}", look()?);
    cluster.helm(&["upgrade", "castgate", &chart, "--wait", "--timeout", "120s"])?;
    ensure!(look()? == before, "agents before: {before:?}, after: {:?}", look()?);
    crate::stage::await_isp(cluster)
}

/// Writes to the API server since its start, by verb and resource. The Lease is what the operator is allowed.
fn writes(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let metrics = cluster.kubectl(&["get", "--raw", "/metrics"])?;
    let mut counts = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| {
            let rest = line.split_once(&format!("{name}=\""))?.1;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let (Some(verb), Some(resource), Some(group)) = (label("verb"), label("resource"), label("group")) else {
            continue;
        };
        let is_write = matches!(verb.as_str(), "APPLY" | "PATCH" | "PUT" | "POST" | "DELETE");
        let ours = group == "castgate.dev"
            || matches!(
                resource.as_str(),
                "daemonsets"
                    | "statefulsets"
                    | "deployments"
                    | "configmaps"
                    | "secrets"
                    | "serviceaccounts"
                    | "poddisruptionbudgets"
                    | "networkpolicies"
                    | "services"
                    | "events"
            );
        let subresource = label("subresource").unwrap_or_default();
        // Controllers of Kubernetes write statuses of workloads; tokens are asked for by kubelets.
        let foreign = matches!(subresource.as_str(), "token") || (group != "castgate.dev" && subresource == "status");
        if is_write && ours && !foreign {
            let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or_default();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
            let count = value as u64;
            *counts.entry(format!("{verb} {group}/{resource}/{subresource}")).or_default() += count;
        }
    }
    ensure!(!counts.is_empty(), "the API server counts no requests");
    Ok(counts)
}

fn the_operator_writes_nothing_when_nothing_changes(world: &mut World) -> Result<()> {
    const WATCHED: Duration = Duration::from_secs(60);
    isp(world)?;
    let cluster = &world.cluster;
    // Whatever earlier scenarios stirred up settles first.
    let mut before = writes(cluster)?;
    until("ten seconds without a write", Duration::from_secs(90), || {
        std::thread::sleep(Duration::from_secs(10));
        let now = writes(cluster).ok()?;
        let quiet = now == before;
        before = now;
        quiet.then_some(())
    })?;
    std::thread::sleep(WATCHED);
    let after = writes(cluster)?;
    let changed: Vec<String> = after
        .iter()
        .filter(|(what, count)| before.get(*what) != Some(count))
        .map(|(what, count)| format!("{what}: {} more", count - before.get(what).copied().unwrap_or_default()))
        .collect();
    ensure!(changed.is_empty(), "in a minute without a change: {}", changed.join(", "));
    Ok(())
}
