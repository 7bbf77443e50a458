//! The tests of a cluster: one after the other, in one cluster, with everything shown that a failure needs.
//!
//! ```text
//!   xtask images ──▶ CASTGATE_IMAGES ──▶ Cluster::up, or the one of KUBECONFIG, or (--attach) the one that was kept
//!                                              │
//!                          World ──▶ scenario ──▶ scenario ──▶ … ──▶ failures whole, then one line that is counted
//! ```
//! Scenarios share the cluster and what earlier ones installed: each asks for what it needs by [`World::once`], so that any
//! of them runs alone, too. After a failure the cluster is mended, so that the next finds every node.

use super::{Cluster, layout};
use crate::lab::scenario;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How many nodes the tests have.
const NODES: u8 = 3;
/// Names the folder with the archives of our images.
const IMAGES_VARIABLE: &str = "CASTGATE_IMAGES";
/// What a failure shows of the cluster; each may fail itself.
const QUESTIONS: &[&[&str]] = &[
    &["get", "nodes,pods", "-A", "-o", "wide"],
    &["get", "all,pvc,secrets,configmaps", "-n", "castgate", "-o", "wide"],
    &["get", "castgate", "-A", "-o", "yaml", "--show-managed-fields=false"],
    &["get", "events", "-A", "--sort-by=.lastTimestamp"],
];

/// A test of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    name: &'static str,
    run: fn(&mut World) -> Result<()>,
    needs_own_cluster: bool,
}

impl Scenario {
    /// A test whose name is a sentence; see [`scenario!`](crate::scenario).
    #[must_use]
    pub const fn new(name: &'static str, run: fn(&mut World) -> Result<()>) -> Self {
        Self { name, run, needs_own_cluster: false }
    }

    /// It cuts nodes or stops the API server: left out, and not counted as skipped, where the cluster is somebody else's.
    #[must_use]
    pub const fn needs_own_cluster(self) -> Self {
        Self { needs_own_cluster: true, ..self }
    }
}

/// A [`Scenario`](crate::cluster::runner::Scenario) with the name of its function.
#[macro_export]
macro_rules! scenario {
    ($function:ident) => {
        $crate::cluster::runner::Scenario::new(stringify!($function), $function)
    };
}

/// What a scenario stands in.
#[derive(Debug)]
pub struct World {
    /// The cluster, with our images in it.
    pub cluster: Cluster,
    done: BTreeSet<&'static str>,
}

impl World {
    /// Does something that several scenarios need, such as installing the charts, when nobody has done it yet.
    ///
    /// # Errors
    /// When `work` fails; the next who needs it tries again.
    pub fn once(&mut self, what: &'static str, work: fn(&mut World) -> Result<()>) -> Result<()> {
        if !self.done.contains(what) {
            work(self).context(what)?;
            self.done.insert(what);
        }
        Ok(())
    }

    /// Says that it has to be done again, because a scenario undid it.
    pub fn undone(&mut self, what: &'static str) {
        self.done.remove(what);
    }
}

/// Runs the scenarios that the command line asks for: words are parts of their names, `--list` lists them, `--attach` uses
/// the cluster that `cargo xtask cluster up` keeps.
#[must_use]
pub fn main(scenarios: &[&[Scenario]]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (options, words): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| argument.starts_with('-'));
    let asked = |scenario: &&Scenario| words.is_empty() || words.iter().any(|word| scenario.name.contains(word));
    let chosen: Vec<Scenario> = scenarios.iter().copied().flatten().filter(asked).copied().collect();
    if options.contains(&"--list") {
        for scenario in &chosen {
            println!("{}: test", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    let start = Instant::now();
    let count = scenarios.iter().map(|scenarios| scenarios.len()).sum::<usize>();
    let outcome = if chosen.is_empty() {
        Ok(Outcome::default())
    } else if let Some(reason) = missing(options.contains(&"--attach")) {
        for scenario in &chosen {
            scenario::skip_named(scenario.name, &reason);
        }
        // Counted as passed here and taken back by whoever reads the list of skipped tests.
        Ok(Outcome { passed: chosen.len(), ..Outcome::default() })
    } else {
        run(&chosen, options.contains(&"--attach"))
    };
    let outcome = outcome.unwrap_or_else(|error| {
        println!("the cluster does not stand: {error:#}");
        Outcome { failures: vec![("the cluster".to_owned(), format!("{error:#}"))], ..Outcome::default() }
    });
    finish(&outcome, count, start.elapsed())
}

#[derive(Debug, Default)]
struct Outcome {
    passed: usize,
    failures: Vec<(String, String)>,
}

fn run(scenarios: &[Scenario], attach: bool) -> Result<Outcome> {
    let start = Instant::now();
    let mut world = World { cluster: cluster(attach)?, done: BTreeSet::new() };
    println!("cluster: {} after {:.1} s", world.cluster.node_states()?, start.elapsed().as_secs_f32());
    let mut outcome = Outcome::default();
    let is_own = world.cluster.is_own();
    for scenario in scenarios.iter().filter(|scenario| is_own || !scenario.needs_own_cluster) {
        let start = Instant::now();
        let mark = world.cluster.outputs.mark();
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| (scenario.run)(&mut world)));
        let seconds = start.elapsed().as_secs_f32();
        match ended.unwrap_or_else(|panic| Err(anyhow::anyhow!("panicked: {}", words_of(panic.as_ref())))) {
            Ok(()) => {
                println!("test {} ... ok ({seconds:.1} s)", scenario.name);
                outcome.passed += 1;
            }
            Err(error) => {
                println!("test {} ... FAILED ({seconds:.1} s): {error:#}", scenario.name);
                let shown = diagnose(&world.cluster, mark);
                outcome.failures.push((scenario.name.to_owned(), format!("{error:#}\n\n{shown}")));
                if let Err(error) = world.cluster.mend_all() {
                    println!("the cluster stays broken: {error:#}");
                }
            }
        }
    }
    Ok(outcome)
}

/// The cluster that the tests use, with our images in it.
fn cluster(attach: bool) -> Result<Cluster> {
    let images = images()?;
    if attach {
        let cluster = Cluster::kept()?;
        images.iter().try_for_each(|image| cluster.load(image))?;
        return Ok(cluster);
    }
    match Cluster::existing()? {
        Some(cluster) => Ok(cluster),
        None => Cluster::up(NODES, &images),
    }
}

/// Why nothing can run here.
fn missing(attach: bool) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a cluster's nodes need root".to_owned());
    }
    if std::env::var_os(super::existing::VARIABLE).is_some_and(|value| !value.is_empty()) {
        return None;
    }
    let reason = super::cgroups::usable().and_then(|()| layout::Tools::find().map(drop)).and_then(|()| {
        ensure!(
            attach || std::env::var_os(IMAGES_VARIABLE).is_some(),
            "{IMAGES_VARIABLE} names no folder of images: `cargo xtask images --profile image --output DIR` makes them"
        );
        Ok(())
    });
    reason.err().map(|error| format!("{error:#}"))
}

fn images() -> Result<Vec<PathBuf>> {
    let Some(folder) = std::env::var_os(IMAGES_VARIABLE) else { return Ok(Vec::new()) };
    let entries = std::fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut images: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "tar"))
        .collect();
    images.sort_unstable();
    ensure!(!images.is_empty(), "{} holds no archive of an image", folder.display());
    Ok(images)
}

/// What the cluster looked like when a scenario failed: objects, events, our pods' logs, the outputs of its programs.
fn diagnose(cluster: &Cluster, mark: usize) -> String {
    let mut shown = String::new();
    let mut ask = |question: &[&str]| {
        let answer = cluster.kubectl(&[question, &["--request-timeout=10s"]].concat());
        let answer = answer.unwrap_or_else(|error| format!("{error:#}\n"));
        writeln!(shown, "--- kubectl {}\n{answer}", question.join(" ")).expect("a string takes everything");
    };
    for question in QUESTIONS {
        ask(question);
    }
    for pod in pods(cluster) {
        let (namespace, name) = pod.split_once('/').unwrap_or(("default", &pod));
        ask(&["logs", "-n", namespace, name, "--all-containers", "--tail=40", "--ignore-errors"]);
        ask(&["logs", "-n", namespace, name, "--all-containers", "--tail=40", "--ignore-errors", "--previous"]);
    }
    shown + &cluster.outputs.text_since(mark)
}

/// `namespace/name` of every pod that is not the cluster's own.
fn pods(cluster: &Cluster) -> Vec<String> {
    let path = r#"jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}"#;
    let text = cluster.kubectl(&["get", "pods", "-A", "-o", path, "--request-timeout=10s"]).unwrap_or_default();
    text.lines().filter(|line| !line.starts_with("kube-")).map(str::to_owned).collect()
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn finish(outcome: &Outcome, count: usize, took: Duration) -> ExitCode {
    for (name, shown) in &outcome.failures {
        println!("\n==== {name} ====\n{shown}");
    }
    if !outcome.failures.is_empty() {
        println!("\nfailures:");
    }
    for (name, shown) in &outcome.failures {
        println!("    {name}: {}", shown.lines().next().unwrap_or_default());
    }
    println!("{}", result_line(outcome, count, took));
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The line that every Rust test program ends with.
fn result_line(outcome: &Outcome, count: usize, took: Duration) -> String {
    let word = if outcome.failures.is_empty() { "ok" } else { "FAILED" };
    let failed = outcome.failures.len();
    let out = count.saturating_sub(outcome.passed + failed);
    format!(
        "test result: {word}. {} passed; {failed} failed; 0 ignored; 0 measured; {out} filtered out; finished in {:.2}s",
        outcome.passed,
        took.as_secs_f32()
    )
}

/// Where `castgate-cluster up` says which cluster it keeps.
#[must_use]
pub fn pointer() -> PathBuf {
    std::env::temp_dir().join("castgate-cluster-up")
}

impl Cluster {
    /// The cluster that `cargo xtask cluster up` keeps.
    ///
    /// # Errors
    /// When there is none.
    pub fn kept() -> Result<Self> {
        let folder = std::fs::read_to_string(pointer()).context("no cluster is up: `cargo xtask cluster up`")?;
        Self::attach(Path::new(folder.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_one_that_is_counted() {
        let failures = vec![("one".to_owned(), "why".to_owned())];
        let line = result_line(&Outcome { passed: 2, failures }, 5, Duration::from_millis(1_500));
        assert_eq!(
            line,
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.50s"
        );
    }
}
