//! The charts as Helm installs, tests, upgrades and removes them.

use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::Cluster;
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::lab::wait;
use castgate_e2e::scenario;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

use super::stage::{self, await_isp, installed, isp};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(helm_installs_both_charts_and_both_namespaces_are_labelled),
    scenario!(helm_test_without_a_ready_server_says_so_in_one_sentence),
    scenario!(nobody_but_the_operator_writes_endpoints),
    scenario!(helm_test_joins_a_channel_and_leaves_nothing_behind),
    scenario!(helm_test_fails_when_nothing_arrives),
    scenario!(an_operator_of_one_namespace_does_its_work),
    scenario!(the_first_chart_is_upgraded_to_this_one),
];

/// The chart of issue 4's first commit, packaged: what an upgrade starts from until there is a release.
const FIRST_CHART: &str = "e2e/tests/cluster/charts/castgate-0.1.0-first.tgz";
/// Helm's own patience; everything is there, so most of it is never needed.
const PATIENCE: &str = "--timeout=120s";
const LONG: Duration = Duration::from_secs(60);

/// Installs or upgrades both charts with these values beside the defaults.
pub fn install(cluster: &Cluster, settings: &[&str]) -> Result<()> {
    let kinds = path("charts/castgate-crds");
    cluster.helm(&["upgrade", "--install", "castgate-crds", &kinds, "--wait", PATIENCE])?;
    let chart = path("charts/castgate");
    let words = ["upgrade", "--install", "castgate", &chart, "--reset-values", "--wait", PATIENCE];
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    cluster.helm(&[&words, settings.as_slice()].concat()).map(drop)
}

fn helm_installs_both_charts_and_both_namespaces_are_labelled(world: &mut World) -> Result<()> {
    installed(world)?;
    let cluster = &world.cluster;
    for (namespace, level) in [("castgate-system", "restricted"), ("castgate", "privileged")] {
        let labels = cluster.get(&["namespace", namespace])?["metadata"]["labels"].clone();
        ensure!(labels["pod-security.kubernetes.io/enforce"] == level, "{namespace} has {labels}");
    }
    let operator = cluster.get(&["deployment", "castgate-operator", "-n", "castgate-system"])?;
    ensure!(operator["status"]["readyReplicas"] == 2, "helm waited for nothing: {}", operator["status"]);
    let pods = operator_pods(cluster)?;
    let nodes: std::collections::BTreeSet<_> = pods.iter().map(|pod| pod["spec"]["nodeName"].to_string()).collect();
    ensure!(nodes.len() == 2, "both replicas are on {nodes:?}");
    Ok(())
}

fn helm_test_without_a_ready_server_says_so_in_one_sentence(world: &mut World) -> Result<()> {
    installed(world)?;
    let cluster = &world.cluster;
    // The test looks where the chart's objects are; that namespace is another and empty one for a moment.
    install(cluster, &["agents.namespace.name=castgate-empty"])?;
    let said = failed_test(cluster);
    install(cluster, &[])?;
    cluster.kubectl(&["delete", "namespace", "castgate-empty", "--wait=false"])?;
    let sentence =
        "castgate: no TunnelServer is Ready in namespace castgate-empty: apply one, or wait for it, and test again";
    let said = said?;
    ensure!(said.lines().any(|line| line.trim() == sentence), "it said: {said}");
    Ok(())
}

fn nobody_but_the_operator_writes_endpoints(world: &mut World) -> Result<()> {
    installed(world)?;
    let endpoint = json!({
        "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelEndpoint",
        "metadata": {"name": "ts-forged-n1", "namespace": "castgate"},
        "spec": {"role": "Server", "ownerName": "forged", "node": "n1"},
    });
    let refused = || -> Result<Option<String>> {
        let output = world.cluster.try_kubectl_stdin(&["apply", "-f", "-"], &endpoint.to_string())?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            world.cluster.kubectl(&["delete", "tunnelendpoint", "ts-forged-n1", "-n", "castgate"])?;
        }
        Ok((!output.status.success()).then_some(complaint))
    };
    // A policy is in force a moment after it was made.
    let complaint = wait::until("a refusal", LONG, || refused().transpose())??;
    ensure!(complaint.contains("only the castgate operator writes TunnelEndpoints"), "{complaint}");
    Ok(())
}

fn helm_test_joins_a_channel_and_leaves_nothing_behind(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let before = bundles(cluster)?;
    let said = cluster.helm(&["test", "castgate", "--logs", PATIENCE])?;
    ensure!(said.contains("umtp from"), "a test that joined says how: {said}");
    ensure!(bundles(cluster)? == before, "the server has {} left", bundles(cluster)?);
    ensure!(
        cluster.kubectl(&["get", "channelbundle", "castgate-selftest", "-n", "castgate"]).is_err(),
        "its bundle is left"
    );
    // The pod stays for its log; its rights do not.
    let left = cluster.kubectl(&["get", "serviceaccounts,roles,rolebindings", "-A", "-o", "name"])?;
    ensure!(!left.contains("castgate-test"), "left: {left}");
    Ok(())
}

fn helm_test_fails_when_nothing_arrives(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    // Carried by the bundle of the example, and nobody sends into it.
    install(cluster, &["test.channel=ham:ip:239.1.2.4:5004", "test.seconds=4", "test.server=edge"])?;
    let said = failed_test(cluster)?;
    install(cluster, &[])?;
    ensure!(said.contains("castgate: ham:ip:239.1.2.4:5004 did not come through any tunnel"), "it said: {said}");
    Ok(())
}

fn an_operator_of_one_namespace_does_its_work(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let (operators, agents) = (pod_lives(&operator_pods(cluster)?), agent_lives(cluster)?);
    install(cluster, &["scope.namespaces={castgate}"])?;
    wait_for_other_pods(cluster, &operators)?;
    let account = "--as=system:serviceaccount:castgate-system:castgate-operator";
    let may = |namespace: &str| -> Result<bool> {
        let asked = cluster.try_kubectl(&["auth", "can-i", "list", "secrets", "-n", namespace, account])?;
        Ok(asked.status.success())
    };
    ensure!(may("castgate")? && !may("default")?, "its rights end at the namespace");
    // It still writes: a change of the object is observed.
    let name = "tunnelserver/edge";
    cluster.kubectl(&["patch", name, "-n", "castgate", "--type=merge", "-p", r#"{"spec":{"limits":{"ttl":62}}}"#])?;
    let generation = cluster.get(&[name, "-n", "castgate"])?["metadata"]["generation"].clone();
    let seen = || {
        let server = cluster.get(&[name, "-n", "castgate"]).ok()?;
        (server["status"]["observedGeneration"] == generation).then_some(())
    };
    wait::until("the operator to observe a change", LONG, seen)?;
    ensure!(agent_lives(cluster)? == agents, "an agent was restarted");
    install(cluster, &[])?;
    await_isp(cluster)
}

fn the_first_chart_is_upgraded_to_this_one(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    // Back to the first one as `helm upgrade` goes there: same release, other chart.
    cluster.helm(&["upgrade", "castgate", &path(FIRST_CHART), "--reset-values", "--wait", PATIENCE])?;
    await_isp(cluster)?;
    let agents = agent_lives(cluster)?;
    install(cluster, &[])?;
    await_isp(cluster)?;
    ensure!(agent_lives(cluster)? == agents, "agents before {agents:?} and after {:?}", agent_lives(cluster)?);
    Ok(())
}

/// Runs `helm test`, which has to fail, and gives what its pod said.
fn failed_test(cluster: &Cluster) -> Result<String> {
    let test = cluster.helm(&["test", "castgate", PATIENCE]);
    ensure!(test.is_err(), "helm test passed: {test:?}");
    cluster.kubectl(&["logs", "pod/castgate-test"])
}

/// The bundles that the server of the example names.
fn bundles(cluster: &Cluster) -> Result<Value> {
    Ok(cluster.get(&["tunnelserver", "edge", "-n", "castgate"])?["spec"]["bundles"].clone())
}

fn operator_pods(cluster: &Cluster) -> Result<Vec<Value>> {
    let labels = "app.kubernetes.io/component=operator";
    let pods =
        cluster.get(&["pods", "-n", "castgate-system", "-l", labels, "--field-selector=status.phase=Running"])?;
    Ok(pods["items"].as_array().context("no list of pods")?.clone())
}

fn wait_for_other_pods(cluster: &Cluster, before: &BTreeMap<String, u64>) -> Result<()> {
    wait::until("only new pods of the operator", LONG, || {
        let now = pod_lives(&operator_pods(cluster).ok()?);
        (!now.is_empty() && now.keys().all(|pod| !before.contains_key(pod))).then_some(())
    })
}

/// Every pod of an agent by its identity, with how often it was restarted.
fn agent_lives(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let labels = "app.kubernetes.io/managed-by=castgate-operator";
    let pods = cluster.get(&["pods", "-n", "castgate", "-l", labels])?;
    let lives = pod_lives(pods["items"].as_array().context("no list of pods")?);
    ensure!(lives.len() >= 4, "two servers, a database and an adapter run, not {lives:?}");
    Ok(lives)
}

fn pod_lives(pods: &[Value]) -> BTreeMap<String, u64> {
    let life = |pod: &Value| {
        let name = format!("{} {}", pod["metadata"]["name"], pod["metadata"]["uid"]);
        (name, pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default())
    };
    pods.iter().map(life).collect()
}

/// A path of this checkout as Helm and kubectl take it.
fn path(relative: &str) -> String {
    stage::root().join(relative).display().to_string()
}
