//! `docs/operations.md` as a reader follows it: its marked commands, in their order, from an empty cluster to an empty cluster.
//!
//! A mark is a comment, `<!-- test: WHAT -->` or `<!-- test: WHAT, on the HOST -->`, directly above a block of `sh`. What one
//! block sets, the next one has. A block on a host runs there; `send` goes on while the others run.

use super::stage;
use anyhow::{Context, Result, bail, ensure};
use castgate_e2e::cluster::runner::{Scenario, World};
use castgate_e2e::cluster::{Cluster, LAN};
use castgate_e2e::lab::{Host, Process};
use castgate_e2e::programs::program;
use castgate_e2e::scenario;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

pub const SCENARIOS: &[Scenario] = &[scenario!(the_walk_through_operations_works_from_install_to_removal)];

/// What the document must not lose.
const MARKED: &[&str] =
    &["install", "apply", "database", "send", "receive", "helm test", "look", "change", "upgrade", "remove"];
/// The nodes as the document calls them.
const DOCUMENTED_NODES: [&str; 2] = ["n2", "n3"];
/// The address of the studio there.
const DOCUMENTED_STUDIO: &str = "10.77.0.100";
const LONG: Duration = Duration::from_secs(240);

/// One block of commands.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    what: String,
    host: Option<String>,
    script: String,
}

fn the_walk_through_operations_works_from_install_to_removal(world: &mut World) -> Result<()> {
    let document = std::fs::read_to_string(stage::root().join("docs/operations.md")).context("docs/operations.md")?;
    let blocks = blocks(&document)?;
    let marks: Vec<&str> = blocks.iter().map(|block| block.what.as_str()).collect();
    ensure!(marks == MARKED, "the document has the blocks {marks:?}");
    let nodes = last_nodes(&world.cluster)?;
    let remove = blocks.last().context("no block removes anything")?;
    // An earlier scenario may have installed the charts already; a reader begins with nothing.
    let walk = Walk::new(&world.cluster, nodes)?;
    if world.cluster.kubectl(&["get", "namespace", "castgate"]).is_ok() {
        walk.run(remove).context("an earlier installation cannot be removed")?;
    }
    walk.renew_volume()?;
    let mut sending: Option<Process> = None;
    for block in &blocks {
        let done = match (&block.host, block.what.as_str()) {
            (Some(_), "send") => walk.start(block).map(|process| sending = Some(process)),
            _ => walk.run(block),
        };
        done.with_context(|| format!("the block `{}` of docs/operations.md", block.what))?;
    }
    if let Some(mut sending) = sending {
        sending.kill()?;
    }
    let left = world.cluster.kubectl(&["get", "namespaces,crds,clusterroles", "-o", "name"])?;
    ensure!(!left.contains("castgate"), "left: {left}");
    walk.renew_volume()?;
    for undone in ["castgate is installed", "examples/isp is applied"] {
        world.undone(undone);
    }
    Ok(())
}

/// A reader with a shell in each place.
struct Walk<'a> {
    cluster: &'a Cluster,
    nodes: [String; 2],
    /// Holds the links to our program, and what the blocks have set.
    folder: tempfile::TempDir,
}

impl<'a> Walk<'a> {
    fn new(cluster: &'a Cluster, nodes: [String; 2]) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for a reader")?;
        for name in ["castgate", "kubectl-castgate"] {
            std::os::unix::fs::symlink(program("castgate")?, folder.path().join(name))?;
        }
        Ok(Self { cluster, nodes, folder })
    }

    /// Runs a block to its end.
    fn run(&self, block: &Block) -> Result<()> {
        let host = self.host(block)?;
        let mut command = host.as_ref().map_or_else(|| self.cluster.command("sh"), |host| host.command("sh"));
        let output =
            command.args(["-euc", &self.script(block, host.as_deref())]).current_dir(stage::root()).output()?;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        ensure!(output.status.success(), "it ended with {}: {said}", output.status);
        Ok(())
    }

    /// Starts a block that goes on.
    fn start(&self, block: &Block) -> Result<Process> {
        let host = self.host(block)?.context("only a block on a host goes on")?;
        let mut command: Command = host.command("sh");
        command.args(["-euc", &self.script(block, Some(&host))]).current_dir(stage::root());
        host.spawn(&block.what, command)
    }

    fn host(&self, block: &Block) -> Result<Option<Arc<Host>>> {
        let address = match block.host.as_deref() {
            None => return Ok(None),
            Some("studio") => stage::STUDIO,
            Some("customer") => stage::CUSTOMER,
            Some(other) => bail!("nobody knows the host `{other}`"),
        };
        self.cluster.host(block.host.as_deref().unwrap_or_default(), address).map(Some)
    }

    /// The block with the real names and addresses, after what was set before it; what it sets is kept.
    fn script(&self, block: &Block, host: Option<&Host>) -> String {
        let mut commands = block.script.clone();
        for (documented, real) in DOCUMENTED_NODES.iter().zip(&self.nodes) {
            commands = commands.replace(&format!(" {documented} "), &format!(" {real} "));
        }
        if let Some(host) = host {
            commands = commands.replace(DOCUMENTED_STUDIO, &host.address(LAN).to_string());
        }
        let folder = self.folder.path().display();
        let mut script = format!("PATH={folder}:$PATH\n[ ! -f {folder}/set ] || . {folder}/set\n{commands}");
        for name in block.script.lines().filter_map(assigned) {
            script += &format!("echo \"{name}='${name}'\" >> {folder}/set\n");
        }
        script
    }

    /// A claim does not get a volume that another one had.
    fn renew_volume(&self) -> Result<()> {
        if self.cluster.is_own() {
            let timeout = format!("--timeout={}s", LONG.as_secs());
            self.cluster.kubectl(&["delete", "persistentvolume", "isp", "--ignore-not-found", &timeout])?;
        }
        self.cluster.make_volumes(&["isp"])
    }
}

/// The marked blocks in their order.
fn blocks(document: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(mark) = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        ensure!(lines.next() == Some("```sh"), "the mark `{mark}` stands above no block of sh");
        let mut script = String::new();
        for line in lines.by_ref().take_while(|&line| line != "```") {
            writeln!(script, "{line}").expect("a text takes what is written to it");
        }
        let (what, host) = match mark.split_once(", on the ") {
            Some((what, host)) => (what, Some(host.to_owned())),
            None => (mark, None),
        };
        blocks.push(Block { what: what.to_owned(), host, script });
    }
    Ok(blocks)
}

/// The name that a line sets.
fn assigned(line: &str) -> Option<&str> {
    let (name, _) = line.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|letter| letter.is_ascii_uppercase() || letter == b'_');
    is_name.then_some(name)
}

fn last_nodes(cluster: &Cluster) -> Result<[String; 2]> {
    let nodes = cluster.get(&["nodes"])?;
    let nodes = nodes["items"].as_array().context("no list of nodes")?;
    let mut names = nodes.iter().rev().filter_map(|node| node["metadata"]["name"].as_str());
    let (last, one_before) = names.next().zip(names.next()).context("two nodes are needed")?;
    Ok([one_before.to_owned(), last.to_owned()])
}
