//! `castgate status`, `tunnels`, `diagnose` and `sysdump` against a cluster, also as a plugin of kubectl.

use super::stage::{self, agents_ready, isp};
use anyhow::{Context, Result, ensure};
use castgate_e2e::cluster::Cluster;
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::lab::wait;
use castgate_e2e::programs::program;
use castgate_e2e::receive::Receive;
use castgate_e2e::scenario;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

pub const SCENARIOS: &[Scenario] = &[
    scenario!(status_tells_at_a_glance_whether_it_works),
    scenario!(status_names_what_is_wrong_and_what_to_do),
    scenario!(tunnels_lists_who_is_connected_where),
    scenario!(diagnose_passes_every_check_of_a_healthy_cluster),
    scenario!(diagnose_names_an_operator_that_is_gone),
    scenario!(a_sysdump_holds_logs_and_reports_and_no_secret),
    scenario!(kubectl_finds_the_plugin),
];

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 102);
const LONG: Duration = Duration::from_secs(60);

fn status_tells_at_a_glance_whether_it_works(world: &mut World) -> Result<()> {
    isp(world)?;
    agents_ready(&world.cluster)?;
    let page = succeed(castgate(&world.cluster, &["status", "-n", "castgate"])?)?;
    ensure!(page.starts_with("1 server, Ready; 1 database, Ready; "), "{page}");
    let row = page.lines().find(|line| line.starts_with("castgate/edge ")).context("no row of the server")?;
    ensure!(row.contains(" yes ") && row.contains(" 2/2 "), "{row}");
    let value: Value = serde_json::from_str(&succeed(castgate(&world.cluster, &["status", "-A", "--json"])?)?)?;
    ensure!(value["ready"] == true && value["problems"] == json!([]), "{value}");
    let agents = value["endpoints"].as_array().context("no endpoints")?;
    ensure!(agents.iter().filter(|agent| agent["role"] == "Server").count() == 2, "{value}");
    Ok(())
}

fn status_names_what_is_wrong_and_what_to_do(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let server = json!({
        "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelServer", "metadata": {"name": "nowhere", "namespace": "castgate"},
        "spec": {"interfaces": [{"name": "eth0"}], "umtp": {"port": 10_199}, "nodeSelector": {"castgate.dev/pool": "nowhere"}},
    });
    cluster.kubectl_stdin(&["apply", "-f", "-"], &server.to_string())?;
    let told = wait::until("status to name the pool without nodes", LONG, || {
        let output = castgate(cluster, &["status", "-n", "castgate"]).ok()?;
        let page = text(&output.stdout);
        (page.contains("castgate/nowhere: NoNodes")).then_some((output.status.code(), page))
    });
    cluster.kubectl(&["delete", "tunnelserver", "nowhere", "-n", "castgate", "--timeout=60s"])?;
    let (code, page) = told?;
    ensure!(code == Some(1), "it ended with {code:?}");
    ensure!(page.contains("-> kubectl label node NODE castgate.dev/pool=nowhere"), "{page}");
    Ok(())
}

fn tunnels_lists_who_is_connected_where(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let endpoints = cluster.get(&["tunnelendpoints", "-n", "castgate"])?;
    let endpoints = endpoints["items"].as_array().context("no endpoints")?;
    let endpoint = endpoints.iter().find(|endpoint| endpoint["spec"]["role"] == "Server").context("no agent")?;
    let (address, node) = (&endpoint["status"]["address"], &endpoint["spec"]["node"]);
    let address = address.as_str().context("the agent has no address")?;
    let client = cluster.host("viewer", CLIENT)?;
    let mut receive = Receive::start(&client, "ham:ip:239.1.2.4:5004", &["--server", address, "--silence", "off"])?;
    let found = wait::until("the client in the list", LONG, || {
        let listed = succeed(castgate(cluster, &["tunnels", "edge", "-n", "castgate", "--json"]).ok()?).ok()?;
        let rows = listed.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>().ok()?;
        let row = rows.into_iter().find(|row| row["node"] == *node)?;
        row["tunnels"].as_array()?.iter().find(|tunnel| tunnel["channels"] == json!(["239.1.2.4:5004"])).cloned()
    });
    let page = castgate(cluster, &["tunnels", "-n", "castgate"]);
    receive.process().kill()?;
    let found = found?;
    ensure!(!cluster.is_own() || text_of(&found["address"]).starts_with("10.77.0.102:"), "{found}");
    let page = succeed(page?)?;
    let row = page.lines().find(|line| line.contains(text_of(&found["address"]))).context("no row of the client")?;
    ensure!(row.starts_with("castgate/edge ") && row.contains(text_of(node)) && row.ends_with("sports"), "{row}");
    Ok(())
}

fn diagnose_passes_every_check_of_a_healthy_cluster(world: &mut World) -> Result<()> {
    isp(world)?;
    agents_ready(&world.cluster)?;
    let rows = succeed(castgate(&world.cluster, &["diagnose", "-n", "castgate", "--json"])?)?;
    let rows = rows.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    ensure!(rows.len() == 10 && rows.iter().all(|row| row["verdict"] == "ok"), "{rows:#?}");
    Ok(())
}

fn diagnose_names_an_operator_that_is_gone(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let scale =
        |replicas: &str| cluster.kubectl(&["scale", "deployment/castgate-operator", "-n", "castgate-system", replicas]);
    scale("--replicas=0")?;
    let told = wait::until("diagnose to miss the operator", LONG, || {
        let output = castgate(cluster, &["diagnose", "-n", "castgate"]).ok()?;
        let page = text(&output.stdout);
        page.lines()
            .any(|line| line.starts_with("operator") && line.contains("FAILED"))
            .then_some((output.status.code(), page))
    });
    scale("--replicas=2")?;
    let (code, page) = told?;
    ensure!(code == Some(1), "it ended with {code:?}: {page}");
    ensure!(page.contains("castgate-system/castgate-operator is scaled to 0"), "{page}");
    let operator = ["deployment/castgate-operator", "-n", "castgate-system", "--timeout=60s"];
    cluster.kubectl(&[&["rollout", "status"], operator.as_slice()].concat())?;
    // What endpoints say is old until each agent has found one of the new replicas.
    wait::until("every agent at a new replica", LONG, || {
        let labels = "app.kubernetes.io/component=operator";
        let replicas = cluster.get(&["pods", "-n", "castgate-system", "-l", labels]).ok()?;
        let replicas: Vec<&Value> = replicas["items"].as_array()?.iter().map(|pod| &pod["metadata"]["name"]).collect();
        let endpoints = cluster.get(&["tunnelendpoints", "-n", "castgate"]).ok()?;
        let mut holders =
            endpoints["items"].as_array()?.iter().map(|endpoint| &endpoint["status"]["stream"]["replica"]);
        holders.all(|holder| replicas.contains(&holder)).then_some(())
    })?;
    wait::until("a cluster that is well again", LONG, || {
        castgate(cluster, &["diagnose", "-n", "castgate"]).ok()?.status.success().then_some(())
    })
}

fn a_sysdump_holds_logs_and_reports_and_no_secret(world: &mut World) -> Result<()> {
    isp(world)?;
    let cluster = &world.cluster;
    let folder = tempfile::tempdir().context("a folder for the dump")?;
    let output = folder.path().display().to_string();
    succeed(castgate(cluster, &["sysdump", "-n", "castgate", "--output", &output])?)?;
    let files = files(folder.path())?;
    ensure!(files.iter().all(|(name, _)| name != "missing.txt"), "something is missing: {files:?}");
    for wanted in [
        "castgate/tunnelservers.json",
        "castgate/pods.json",
        "castgate-system/leases.json",
        "status.txt",
        "diagnose.txt",
    ] {
        ensure!(files.iter().any(|(name, _)| name == wanted), "{wanted} is missing");
    }
    let count = |part: &str| files.iter().filter(|(name, _)| name.contains(part)).count();
    ensure!(count("castgate-system/logs/castgate-operator-") >= 2, "logs of both replicas");
    ensure!(
        count("castgate/reports/ts-edge-") == 2 && count("castgate/logs/ts-edge-") >= 2,
        "reports and logs of both agents"
    );
    let secrets = cluster.get(&["secrets", "-A"])?;
    let mut compared = 0;
    for secret in secrets["items"].as_array().context("no list of secrets")? {
        for (key, value) in secret["data"].as_object().into_iter().flatten() {
            let encoded = text_of(value);
            let decoded = decode(encoded).with_context(|| format!("{} of {}", key, secret["metadata"]["name"]))?;
            let decoded = String::from_utf8_lossy(&decoded).trim().to_owned();
            // Certificates are public, a login stands in its account, and Helm's releases are archives of the chart.
            if key.ends_with(".crt") || key == "login" || secret["type"] == "helm.sh/release.v1" || decoded.len() < 8 {
                continue;
            }
            let leak = files.iter().find(|(_, text)| text.contains(encoded) || text.contains(&decoded));
            ensure!(
                leak.is_none(),
                "{} holds {key} of Secret {}",
                leak.map_or("", |(name, _)| name),
                secret["metadata"]["name"]
            );
            compared += 1;
        }
    }
    ensure!(compared >= 3, "password, keys of the CA and of the adapter: only {compared} were compared");
    Ok(())
}

fn kubectl_finds_the_plugin(world: &mut World) -> Result<()> {
    isp(world)?;
    let folder = tempfile::tempdir().context("a folder for the link")?;
    std::os::unix::fs::symlink(program("castgate")?, folder.path().join("kubectl-castgate"))?;
    // `env` sets the PATH where kubectl runs, in front of the one that finds kubectl.
    let script = format!("PATH={}:$PATH exec kubectl castgate \"$@\"", folder.path().display());
    let plugin = |words: &[&str]| world.cluster.command("sh").args(["-c", &script, "sh"]).args(words).output();
    let page = succeed(plugin(&["status", "-n", "castgate"])?)?;
    ensure!(page.starts_with("1 server, Ready"), "{page}");
    let help = succeed(plugin(&["status", "--help"])?)?;
    ensure!(help.contains("Usage: kubectl castgate status"), "{help}");
    Ok(())
}

/// Types `castgate` where the API server is reached.
fn castgate(cluster: &Cluster, words: &[&str]) -> Result<Output> {
    cluster
        .command(program("castgate")?)
        .args(words)
        .current_dir(stage::root())
        .output()
        .context("castgate does not start")
}

fn succeed(output: Output) -> Result<String> {
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "it ended with {}: {said}{complained}", output.status);
    Ok(said)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Every file below a folder: its path there, and its text.
fn files(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder)?.display().to_string();
                files.push((name, text(&std::fs::read(&path)?)));
            }
        }
    }
    Ok(files)
}

/// Base64 as a Secret has it.
fn decode(text: &str) -> Result<Vec<u8>> {
    let mut octets = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes().take_while(|&letter| letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => anyhow::bail!("{letter:?} is no letter of base64"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            octets.push(u8::try_from(bits >> count & 0xff).expect("eight bits"));
        }
    }
    Ok(octets)
}
