//! Manifests that are wrong in one way each: the API server itself refuses them and names the field.
//!
//! They lie in `manifests/bad`, whose README says how each file states what is said about it.

use anyhow::{Context, Result, bail, ensure};
use castgate_e2e::cluster::Cluster;
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::scenario;
use std::path::{Path, PathBuf};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(every_bad_manifest_is_refused_with_a_sentence_that_names_the_field),
    scenario!(the_definitions_are_taken_without_a_warning),
    scenario!(the_largest_bundle_stays_within_what_a_rule_may_cost),
];

/// Where bad objects would be made; nobody else looks there.
const NAMESPACE: &str = "bad-manifests";
/// What the issue asks for; there are more.
const LEAST_FILES: usize = 20;

fn every_bad_manifest_is_refused_with_a_sentence_that_names_the_field(world: &mut World) -> Result<()> {
    defined(world)?;
    let files = files()?;
    ensure!(files.len() >= LEAST_FILES, "there are only {} bad manifests", files.len());
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{ name: {NAMESPACE} }}\n");
    world.cluster.kubectl_stdin(&["apply", "-f", "-"], &namespace)?;
    let mut wrong = Vec::new();
    for file in files {
        if let Err(error) = try_file(&world.cluster, &file) {
            wrong.push(format!("{}: {error:#}", file.display()));
        }
    }
    world.cluster.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"])?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A warning today is a refusal of a later version.
fn the_definitions_are_taken_without_a_warning(world: &mut World) -> Result<()> {
    defined(world)?;
    let definitions = world.cluster.helm(&["template", "castgate-crds", &chart()])?;
    let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    let output = world.cluster.try_kubectl_stdin(&arguments, &definitions)?;
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && complained.is_empty(), "{complained}");
    Ok(())
}

/// What a rule costs is known only when it runs: these bundles cost the most that the definition allows.
fn the_largest_bundle_stays_within_what_a_rule_may_cost(world: &mut World) -> Result<()> {
    defined(world)?;
    let header =
        "apiVersion: castgate.dev/v1alpha1\nkind: ChannelBundle\nmetadata: { name: large }\nspec:\n  channels:\n";
    let bundle = |count: u32, row: fn(u32) -> String| {
        (0..count).fold(header.to_owned(), |text, index| format!("{text}    - {{ name: c{index}, {} }}\n", row(index)))
    };
    let sources = |index: u32| format!("group: 232.111.222.233, source: 192.168.201.{}, port: 5004", index + 1);
    let ranges = |index: u32| match index {
        0..32 => {
            let first = 2_000 + 10 * index;
            format!("group: 239.111.222.233, source: 192.168.201.1, ports: {{ first: {first}, last: {} }}", first + 9)
        }
        _ => format!("group: 239.111.222.233, source: 192.168.201.1, port: {}", 10_000 + index),
    };
    for (what, text) in [
        ("128 sources of one group", bundle(128, sources)),
        ("250 sources of one group", bundle(250, sources)),
        ("32 ranges beside 224 ports", bundle(256, ranges)),
    ] {
        let arguments = ["create", "--dry-run=server", "-f", "-"];
        world.cluster.kubectl_stdin(&arguments, &text).context(what)?;
    }
    Ok(())
}

/// The definitions are there, by the name under which everybody else installs them.
fn defined(world: &mut World) -> Result<()> {
    world.once("the definitions are installed", |world| {
        world.cluster.helm(&["upgrade", "--install", "castgate-crds", &chart(), "--wait"]).map(drop)
    })
}

fn try_file(cluster: &Cluster, file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    let says =
        text.lines().next().and_then(|line| line.strip_prefix("# says: ")).context("does not state what is said")?;
    let documents: Vec<&str> = text.split("---\n").collect();
    match documents[..] {
        [bad] => refused(cluster, "create", bad, says),
        [good, bad] => {
            cluster.kubectl_stdin(&["apply", "-n", NAMESPACE, "-f", "-"], good).context("the good one")?;
            let refused = refused(cluster, "apply", bad, says);
            cluster.kubectl_stdin(&["delete", "-n", NAMESPACE, "--wait=false", "-f", "-"], good)?;
            refused
        }
        _ => bail!("has {} documents", documents.len()),
    }
}

fn refused(cluster: &Cluster, verb: &str, manifest: &str, says: &str) -> Result<()> {
    let arguments = [verb, "-n", NAMESPACE, "--dry-run=server", "-f", "-"];
    let output = cluster.try_kubectl_stdin(&arguments, manifest)?;
    let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(!output.status.success(), "is taken");
    ensure!(said.contains(says), "`{says}` is not in `{said}`");
    Ok(())
}

fn files() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/manifests/bad");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/castgate-crds").display().to_string()
}
