//! From nothing to a channel at a customer's, and what changes while it runs.

use crate::stage::{
    self, CUSTOMER, LONG, NAMESPACE, NEWS, SOON, SPORTS, STUDIO, condition, customer_receives, endpoints, isp, node_of,
    object, pods, studio_sends, unharmed, until,
};
use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::LAN;
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::lab::Host;
use castgate_e2e::media;
use castgate_e2e::programs::program;
use castgate_e2e::receive::Receive;
use castgate_e2e::recorder::Recorder;
use castgate_e2e::scenario;
use castgate_wire::umtp::Channel;
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(from_nothing_a_customer_receives_the_channel_soon_after_apply),
    scenario!(a_film_arrives_bit_for_bit),
    scenario!(the_database_sees_the_address_of_the_customer),
    scenario!(a_channel_more_can_be_received_at_once_and_harms_no_other),
    scenario!(a_label_moves_and_the_agent_and_the_customer_follow),
    scenario!(scaling_activates_nodes_of_the_pool),
    scenario!(objects_that_are_not_served_say_why),
];

/// The promise for a channel that is added.
const TWO_SECONDS: Duration = Duration::from_secs(2);

fn from_nothing_a_customer_receives_the_channel_soon_after_apply(world: &mut World) -> Result<()> {
    stage::installed(world)?;
    let cluster = &world.cluster;
    let _source = studio_sends(cluster, NEWS)?;
    stage::prepare_isp(cluster)?;
    let start = Instant::now();
    stage::apply_isp(cluster)?;
    // The customer asks as soon as there is somebody to ask.
    until("the pod of the database", LONG, || stage::database(cluster).ok())?;
    let receive = customer_receives(cluster, NEWS, &[])?;
    println!("  first packet {:.1} s after `kubectl apply`", start.elapsed().as_secs_f32());
    stage::await_isp(cluster)?;
    world.once("examples/isp is applied", |_| Ok(()))?;
    let cluster = &world.cluster;
    let server = object(cluster, "ts", "edge")?;
    ensure!(server["status"]["nodes"] == "2/2", "nodes are {}", server["status"]["nodes"]);
    ensure!(server["status"]["registrations"] == "2/2", "registered are {}", server["status"]["registrations"]);
    let nodes: Vec<String> = endpoints(cluster, "edge")?.into_iter().map(|(node, _)| node).collect();
    ensure!(nodes == ["n1", "n2"], "agents run on {nodes:?}");
    let table = cluster.kubectl(&["get", "ts,tdb,tep", "-n", NAMESPACE])?;
    ensure!(table.contains("2/2") && table.contains("edge") && table.contains("isp"), "kubectl get says\n{table}");
    ensure!(receive.finish()?.packets() > 0, "nothing arrived");
    Ok(())
}

fn a_film_arrives_bit_for_bit(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let channel: Channel = SPORTS.trim_start_matches("ham:ip:").parse()?;
    let customer = cluster.host("customer", CUSTOMER)?;
    let studio = cluster.host("studio", STUDIO)?;
    // Somebody on the multicast network itself, to compare with.
    let neighbour = cluster.host("neighbour", Ipv4Addr::new(10, 77, 0, 102))?;
    let heard = Recorder::start(&neighbour, LAN, channel)?;
    let copy = cluster.folder().join("customer.ts");
    let output = format!("file:{}", copy.display());
    let tds = stage::database(cluster)?;
    let words = ["--tds", &tds, "--country", "BE", "--output", &output];
    let mut receive = Receive::start(&customer, SPORTS, &words)?;
    await_member(cluster, channel.group)?;
    let status = media::send(&studio, LAN, channel)?.wait(SOON * 2)?;
    ensure!(status.success(), "ffmpeg ended with {status}");
    let sent = heard.heard();
    ensure!(sent.len() > 400, "only {} datagrams were sent", sent.len());
    receive.wait_packets(sent.len() as u64, SOON)?;
    receive.finish()?;
    let sent: Vec<u8> = sent.into_iter().flat_map(|datagram| datagram.payload).collect();
    ensure!(std::fs::read(&copy)? == sent, "the customer's film is another one");
    media::check_plays(&copy)
}

/// Waits until the kernel of some node has joined a group.
fn await_member(cluster: &castgate_e2e::cluster::Cluster, group: Ipv4Addr) -> Result<()> {
    let wanted = format!("{:08X}", u32::from_ne_bytes(group.octets()));
    until(&format!("a node that has joined {group}"), SOON, || {
        cluster.nodes().iter().find_map(|node| {
            let output = node.command("cat").ok()?.arg("/proc/net/igmp").output().ok()?;
            String::from_utf8_lossy(&output.stdout).contains(&wanted).then_some(())
        })
    })
}

fn the_database_sees_the_address_of_the_customer(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let tds = stage::database(cluster)?;
    let (customer, studio) = (cluster.host("customer", CUSTOMER)?, cluster.host("studio", STUDIO)?);
    // A server for the customer's very address: whoever asks from there gets it, and nobody else.
    let entry = ["--type", "TS", "--source", "192.0.2.99", "--port", "10100", "--protocol", "UDP", "--login", "edge"];
    let network = format!("{CUSTOMER}/32");
    tds_command(&studio, &tds, &[&["register", "--networks", &network][..], &entry].concat())?;
    let asks = |host: &Host| tds_command(host, &tds, &["query", "--country", "BE"]);
    let (to_customer, to_studio) = (asks(&customer), asks(&studio));
    tds_command(&studio, &tds, &[&["bye"][..], &entry].concat())?;
    let (to_customer, to_studio) = (to_customer?, to_studio?);
    ensure!(to_customer.contains("192.0.2.99"), "the customer is told {to_customer}");
    ensure!(!to_studio.contains("192.0.2.99") && to_studio.contains("10.77.0."), "the studio is told {to_studio}");
    ensure!(!asks(&customer)?.contains("192.0.2.99"), "the entry is still there after BYE");
    Ok(())
}

fn tds_command(host: &Host, tds: &str, words: &[&str]) -> Result<String> {
    let mut command = host.command(program("castgate")?);
    command.args(["tds", words[0], "--tds", tds]).args(&words[1..]).env("CASTGATE_PASSWORD", "example-only-edge");
    host.run("castgate tds", command, SOON)
}

fn a_channel_more_can_be_received_at_once_and_harms_no_other(world: &mut World) -> Result<()> {
    const MORE: &str = "ham:ip:239.1.2.5:5004";
    isp(world)?;
    let cluster = &world.cluster;
    let (_news, _more) = (studio_sends(cluster, NEWS)?, studio_sends(cluster, MORE)?);
    let news = customer_receives(cluster, NEWS, &[])?;
    let before = pods(cluster, "server")?;
    let add = json!([{"op": "add", "path": "/spec/channels/-", "value": {"name": "more", "group": "239.1.2.5", "port": 5004}}]);
    cluster.kubectl(&["patch", "cb", "tv", "-n", NAMESPACE, "--type=json", "-p", &add.to_string()])?;
    let start = Instant::now();
    let more = customer_receives(cluster, MORE, &[])?;
    let took = start.elapsed();
    println!("  the new channel arrived {:.2} s after the bundle was changed", took.as_secs_f32());
    ensure!(took < TWO_SECONDS, "the new channel took {took:?}");
    ensure!(more.finish()?.packets() > 0, "nothing of it arrived");
    ensure!(pods(cluster, "server")? == before, "a pod was restarted: {:?}", pods(cluster, "server")?);
    unharmed(&news)?;
    let remove = json!([{"op": "remove", "path": "/spec/channels/2"}]);
    cluster.kubectl(&["patch", "cb", "tv", "-n", NAMESPACE, "--type=json", "-p", &remove.to_string()])?;
    let total = news.finish()?;
    ensure!(total.lost() == 0 && total.duplicated() == 0, "{}", total.value());
    Ok(())
}

fn a_label_moves_and_the_agent_and_the_customer_follow(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let _source = studio_sends(cluster, NEWS)?;
    let mut receive = customer_receives(cluster, NEWS, &[])?;
    let left = node_of(cluster, &receive)?;
    let stays = if left == "n1" { "n2" } else { "n1" };
    let old = stage::address(cluster, &left).to_string();
    stage::label(cluster, &[stays, "n3"])?;
    let start = Instant::now();
    receive.wait_report("another server", SOON, |report| {
        !report.server().is_empty() && !report.server().starts_with(&format!("{old}:"))
    })?;
    stage::arrives_again(&mut receive, SOON)?;
    println!("  the customer followed after {:.1} s", start.elapsed().as_secs_f32());
    until("the new endpoint and the old one's end", LONG, || {
        let nodes: Vec<String> = endpoints(cluster, "edge").ok()?.into_iter().map(|(node, _)| node).collect();
        (nodes == [stays, "n3"]).then_some(())
    })?;
    stage::ready(cluster, "ts/edge")?;
    let studio = cluster.host("studio", STUDIO)?;
    let told = tds_command(&studio, &stage::database(cluster)?, &["query", "--country", "BE"])?;
    ensure!(
        !told.contains(&format!("{old} "))
            && !told.contains(&format!("{old}:"))
            && !told.contains(&format!("\"{old}\"")),
        "the old one did not say BYE: {told}"
    );
    receive.finish()?;
    stage::label(cluster, &["n1", "n2"])?;
    until("the first two nodes again", LONG, || {
        let nodes: Vec<String> = endpoints(cluster, "edge").ok()?.into_iter().map(|(node, _)| node).collect();
        (nodes == ["n1", "n2"]).then_some(())
    })?;
    stage::ready(cluster, "ts/edge")
}

fn scaling_activates_nodes_of_the_pool(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let before = pods(cluster, "server")?;
    let active = || -> Option<Vec<String>> {
        let all = endpoints(cluster, "edge").ok()?;
        Some(all.into_iter().filter(|(_, one)| one["status"]["active"] == true).map(|(node, _)| node).collect())
    };
    let scale = |count: &str| cluster.kubectl(&["scale", "-n", NAMESPACE, "ts/edge", &format!("--replicas={count}")]);
    let settled = |wanted: usize| {
        until(&format!("{wanted} active nodes"), LONG, || {
            let server = object(cluster, "ts", "edge").ok()?;
            let there = active()?;
            (there.len() == wanted && server["status"]["nodes"] == format!("{wanted}/{wanted}")).then_some(there)
        })
    };
    scale("1")?;
    let first = settled(1)?;
    scale("2")?;
    let both = settled(2)?;
    scale("1")?;
    let last = settled(1)?;
    ensure!(both.contains(&first[0]) && both.contains(&last[0]), "{first:?}, {both:?}, {last:?}");
    let scale_object = cluster.kubectl(&[
        "get",
        "--raw",
        "/apis/castgate.dev/v1alpha1/namespaces/castgate/tunnelservers/edge/scale",
    ])?;
    ensure!(
        scale_object.contains("\"replicas\":1") && scale_object.contains("castgate.dev/owner=edge"),
        "{scale_object}"
    );
    cluster.kubectl(&[
        "patch",
        "ts",
        "edge",
        "-n",
        NAMESPACE,
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/spec/replicas"}]"#,
    ])?;
    settled(2)?;
    ensure!(pods(cluster, "server")? == before, "scaling restarted a pod");
    stage::ready(cluster, "ts/edge")
}

fn objects_that_are_not_served_say_why(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let strict = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    cluster.kubectl_stdin(&["apply", "-f", "-"], &strict.to_string())?;
    let server = |namespace: &str, bundle: &str| {
        json!({
            "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelServer", "metadata": {"name": "misplaced", "namespace": namespace},
            "spec": {"interfaces": [{"name": "eth0"}], "umtp": {"port": 10200}, "nodeSelector": {"none": "such"}, "bundles": [{"name": bundle}]},
        })
    };
    let mut in_strict = server("strict", "x");
    in_strict["spec"]["bundles"] = json!([]);
    cluster.kubectl_stdin(&["apply", "-f", "-"], &in_strict.to_string())?;
    cluster.kubectl_stdin(&["apply", "-f", "-"], &server("castgate", "nowhere").to_string())?;
    let says = |namespace: &str, reason: &str, part: &str| {
        until(&format!("Accepted=False {reason} in {namespace}"), SOON, || {
            let object = cluster.get(&["ts", "misplaced", "-n", namespace]).ok()?;
            let (status, why, message) = condition(&object, "Accepted");
            (status == "False" && why == reason && message.contains(part)).then_some(())
        })
    };
    says("strict", "HostNetworkForbidden", "hostNetwork")?;
    says("castgate", "Invalid", "ChannelBundle castgate/nowhere")?;
    let others = cluster.get(&["ts", "edge", "-n", NAMESPACE])?;
    ensure!(condition(&others, "Ready").0 == "True", "a bad object harmed a good one: {}", others["status"]);
    cluster.kubectl(&["delete", "ts", "misplaced", "-n", "castgate"])?;
    cluster.kubectl(&["delete", "namespace", "strict"]).map(drop).context("the namespace stays")
}
