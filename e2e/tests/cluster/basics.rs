//! The cluster itself: what it promises to the tests that stand on it.

use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::LAN;
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::lab::wait;
use castgate_e2e::scenario;
use serde_json::json;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

pub const SCENARIOS: &[Scenario] = &[
    scenario!(three_nodes_become_ready),
    scenario!(a_pod_of_our_own_image_runs),
    scenario!(a_host_on_the_fabric_reaches_a_pod_through_a_node_port),
    scenario!(a_cut_node_is_seen_and_comes_back).needs_own_cluster(),
    scenario!(a_node_that_lost_its_power_boots_again).needs_own_cluster(),
    scenario!(the_api_server_stops_and_starts).needs_own_cluster(),
];

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);
/// A lost node is seen after the grace period of 12 s.
const LONGEST_LOSS: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(20);

fn three_nodes_become_ready(world: &mut World) -> Result<()> {
    let states = world.cluster.node_states()?;
    let states: Vec<&str> = states.split_whitespace().collect();
    ensure!(states.len() >= 3, "there are only {states:?}");
    ensure!(states.iter().all(|state| state.ends_with("=True")), "{states:?}");
    Ok(())
}

fn a_pod_of_our_own_image_runs(world: &mut World) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "own-image", "namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "castgate",
                "image": "castgate.local/cli:dev",
                "imagePullPolicy": "Never",
                "args": ["--version"],
                "securityContext": {"runAsNonRoot": true, "readOnlyRootFilesystem": true},
            }],
        },
    });
    let cluster = &world.cluster;
    // The namespace's account comes a moment after the namespace.
    wait::until("an account for pods", LONG, || cluster.kubectl(&["get", "serviceaccount", "default"]).ok())?;
    cluster.kubectl_stdin(&["apply", "-f", "-"], &pod.to_string())?;
    cluster.kubectl(&["wait", "pod/own-image", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"])?;
    let printed = cluster.kubectl(&["logs", "own-image"])?;
    ensure!(printed.starts_with("castgate "), "it printed `{printed}`");
    cluster.kubectl(&["delete", "pod", "own-image", "--wait=false"]).map(drop)
}

/// The pod is the cluster's own name server, which every cluster has.
fn a_host_on_the_fabric_reaches_a_pod_through_a_node_port(world: &mut World) -> Result<()> {
    let cluster = &world.cluster;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "names-outside", "namespace": "kube-system"},
        "spec": {
            "type": "NodePort",
            "selector": {"k8s-app": "kube-dns"},
            "ports": [{"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"}],
        },
    });
    cluster.kubectl_stdin(&["apply", "-f", "-"], &service.to_string())?;
    let port = cluster.get(&["service", "names-outside", "-n", "kube-system"])?["spec"]["ports"][0]["nodePort"].clone();
    let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).context("the Service got no port")?;
    let wanted = cluster.get(&["service", "kubernetes"])?["spec"]["clusterIP"].clone();
    let wanted: Ipv4Addr = wanted.as_str().context("no address of the API server")?.parse()?;
    let nodes = cluster.get(&["nodes"])?;
    let client = cluster.host("client", CLIENT)?;
    for node in nodes["items"].as_array().context("no nodes")? {
        let addresses = node["status"]["addresses"].as_array().context("a node has no address")?;
        let address = addresses.iter().find(|address| address["type"] == "InternalIP").context("no address inside")?;
        let address = address["address"].as_str().context("an address is text")?.to_owned();
        let answer = wait::until(&format!("an answer through {address}"), LONG, || {
            let mut answer = [0; 512];
            // Another port each time: one that came before kube-proxy knew the way stays on the wrong one.
            let socket = client.enter(|| UdpSocket::bind((client.address(LAN), 0))).ok()?.ok()?;
            socket.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
            socket.send_to(&question("kubernetes.default.svc.cluster.local"), (address.as_str(), port)).ok()?;
            let len = socket.recv(&mut answer).ok()?;
            Some(answer[..len].to_vec())
        })?;
        ensure!(answer.ends_with(&wanted.octets()), "{address} answers {answer:?}, not {wanted}");
    }
    cluster.kubectl(&["delete", "service", "names-outside", "-n", "kube-system"]).map(drop)
}

fn a_cut_node_is_seen_and_comes_back(world: &mut World) -> Result<()> {
    let cluster = &world.cluster;
    cluster.node("n3").cut()?;
    let state = |wanted: &str| cluster.node_states().ok()?.contains(wanted).then_some(());
    wait::until("the loss of n3", LONGEST_LOSS, || state("n3=Unknown"))?;
    ensure!(cluster.node_states()?.contains("n2=True"), "another node went with it");
    cluster.node("n3").mend()?;
    cluster.await_nodes(LONG)
}

fn a_node_that_lost_its_power_boots_again(world: &mut World) -> Result<()> {
    let cluster = &world.cluster;
    let node = cluster.node("n3");
    node.kill()?;
    ensure!(!node.is_on() && node.command("true").is_err(), "something still runs on it");
    let state = |wanted: &str| cluster.node_states().ok()?.contains(wanted).then_some(());
    wait::until("the loss of n3", LONGEST_LOSS, || state("n3=Unknown"))?;
    node.boot()?;
    cluster.await_nodes(LONG)?;
    let images = node.command("ctr")?.args(["-n", "k8s.io", "images", "ls", "-q"]).output()?;
    let images = String::from_utf8_lossy(&images.stdout).into_owned();
    ensure!(images.contains("castgate.local/cli:dev"), "its disk is not what it was: {images}");
    Ok(())
}

fn the_api_server_stops_and_starts(world: &mut World) -> Result<()> {
    let cluster = &world.cluster;
    cluster.stop_api_server()?;
    ensure!(cluster.kubectl(&["get", "nodes"]).is_err(), "somebody answers for a dead server");
    cluster.start_api_server()?;
    cluster.await_nodes(LONG)
}

/// A DNS question for an address.
fn question(name: &str) -> Vec<u8> {
    const HEADER: [u8; 12] = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    const TYPE_A_CLASS_IN: [u8; 4] = [0, 1, 0, 1];
    let mut question = HEADER.to_vec();
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).expect("a label has at most 63 octets"));
        question.extend_from_slice(label.as_bytes());
    }
    question.push(0);
    question.extend_from_slice(&TYPE_A_CLASS_IN);
    question
}
