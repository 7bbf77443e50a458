//! `cargo xtask test`: every check and every test, then one count line.
//!
//! ```text
//!   tools ──▶ checks (format, lints, rules, docs, licences) ──▶ cargo test, the lab among it when root ──▶ images
//!                                                                       count line ◀── cluster ◀────────────┘
//! ```
//! A check counts as one test. A test that cannot run appends a line to the file named in `CASTGATE_SKIP_FILE`: it is
//! printed with its reason and counted as skipped, never as passed.

use crate::{checks, cluster, guest, images, shell, tools};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// How much to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What needs no root.
    Quick,
    /// Everything.
    Everything,
}

/// Runs the suite; `Err` when anything failed or, under `CI`, was skipped.
pub fn run(scope: Scope) -> Result<()> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let skip_file = SkipFile::new()?;

    if scope == Scope::Everything {
        if !shell::is_root() {
            bail!("the lab builds network namespaces: run `cargo xtask test` as root, or `cargo xtask test --quick`");
        }
        tools::ensure_debian_packages()?;
    }
    let extra = if scope == Scope::Everything { checks::FULL } else { &[] };
    for (name, check) in checks::QUICK.iter().chain(extra) {
        let began = Instant::now();
        let outcome = check();
        println!(
            "check {name}: {} ({:.0} s)",
            if outcome.is_ok() { "ok" } else { "FAILED" },
            began.elapsed().as_secs_f32()
        );
        tally.add(&outcome);
        if let Err(error) = outcome {
            tally.failures.push(format!("check {name}: {error:#}"));
        }
    }

    // One call builds everything with the same features, the real programs among it, before the first test runs.
    let without_lab: &[&str] = if scope == Scope::Everything { &[] } else { &["--exclude", "castgate-e2e"] };
    let mut tests = shell::cargo(&[&["test", "--workspace"], without_lab].concat());
    if scope == Scope::Everything {
        match guest::ensure() {
            Ok(folder) => drop(tests.env("CASTGATE_GUEST", folder)),
            Err(error) => {
                tally.failed += 1;
                tally.failures.push(format!("the machine whose kernel speaks AMT: {error:#}"));
            }
        }
        // The lab has an etcd as well.
        match cluster::ensure() {
            Ok(folder) => drop(tests.env("CASTGATE_ETCD", folder.join("bin/etcd"))),
            Err(error) => {
                tally.failed += 1;
                tally.failures.push(format!("the etcd of the lab: {error:#}"));
            }
        }
    }
    cargo_test(&mut tests, &skip_file, &mut tally)?;
    if scope == Scope::Everything {
        cluster_test(&skip_file, &mut tally)?;
    }

    let skipped = skip_file.take()?;
    // A test that skipped itself came back as passed.
    tally.passed = tally.passed.saturating_sub(skipped.len());
    tally.skipped += skipped.len();
    for line in &skipped {
        println!("SKIPPED: {line}");
    }
    for line in &tally.failures {
        println!("FAILED: {line}");
    }
    for name in &tally.failed_tests {
        println!("FAILED: {name}");
    }
    println!("took {} s", start.elapsed().as_secs());
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    if tally.failed > 0 {
        bail!("{} of {} failed", tally.failed, tally.passed + tally.failed);
    }
    if tally.skipped > 0 && std::env::var_os("CI").is_some() {
        bail!("{} skipped: CI allows none", tally.skipped);
    }
    Ok(())
}

/// The tests on a real Kubernetes, after those of the lab: each wants the machine to itself.
fn cluster_test(skip_file: &SkipFile, tally: &mut Tally) -> Result<()> {
    let made = cluster::ensure().and_then(|tools| Ok((tools, images::build(&images::Options::for_tests())?)));
    match made {
        Ok((tools, images)) => {
            // Of the whole workspace, so that nothing is built again with other features.
            let mut tests = shell::cargo(&["test", "--workspace", "--test", "kubernetes"]);
            tests.env("CASTGATE_CLUSTER", tools).env("CASTGATE_IMAGES", images);
            cargo_test(&mut tests, skip_file, tally)
        }
        Err(error) => {
            tally.failed += 1;
            tally.failures.push(format!("the cluster's programs and images: {error:#}"));
            Ok(())
        }
    }
}

/// Runs one `cargo test` and reads its result lines while they pass by.
fn cargo_test(command: &mut Command, skip_file: &SkipFile, tally: &mut Tally) -> Result<()> {
    command.args(["--locked", "--no-fail-fast", "--quiet"]).env("CASTGATE_SKIP_FILE", &skip_file.path);
    println!("run {}", shell::line(command));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cargo test does not start")?;
    let stdout = child.stdout.take().expect("standard output was piped");
    let before = tally.clone();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cargo test printed something other than text")?;
        let is_progress = line.starts_with("running ")
            || line.starts_with("all doctests ran")
            || line.chars().all(|letter| matches!(letter, '.' | 'i' | 'F' | ' ' | '/' | '0'..='9'));
        if !tally.read(&line) && !is_progress {
            println!("{line}");
        }
    }
    let status = child.wait().context("cargo test cannot be waited for")?;
    println!("  {} passed, {} failed", tally.passed - before.passed, tally.failed - before.failed);
    if !status.success() && tally.failed == before.failed {
        // It did not build, or a test program died before its result line.
        tally.failed += 1;
        tally.failures.push(format!("`{}` ended with {status} without a count", shell::line(command)));
    }
    if status.success() && tally.passed == before.passed {
        bail!("`{}` ran no test", shell::line(command));
    }
    Ok(())
}

/// What has happened so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<String>,
    /// Names of the tests among them, as their programs list them.
    failed_tests: Vec<String>,
    /// In the list of those names.
    in_list: bool,
}

impl Tally {
    fn add(&mut self, outcome: &Result<()>) {
        if outcome.is_ok() { self.passed += 1 } else { self.failed += 1 }
    }

    /// Takes a `test result: …` line; says whether it was one. Remembers the names in a list of failures: whoever sees only
    /// the end of the output wants to know them.
    fn read(&mut self, line: &str) -> bool {
        let name = line.strip_prefix("    ").filter(|name| self.in_list && !name.starts_with(' '));
        self.failed_tests.extend(name.map(str::to_owned));
        self.in_list = line == "failures:" || (self.in_list && name.is_some());
        let Some(counts) = line.strip_prefix("test result: ") else { return false };
        let count = |word: &str| {
            let number =
                counts.split(&[';', '.'][..]).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok());
            number.unwrap_or(0_usize)
        };
        self.passed += count("passed");
        self.failed += count("failed");
        self.skipped += count("ignored");
        true
    }
}

/// Where tests write why they could not run.
struct SkipFile {
    path: PathBuf,
}

impl SkipFile {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("castgate-skipped-{}", std::process::id()));
        std::fs::write(&path, "").with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self { path })
    }

    fn take(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&self.path).context("the list of skipped tests is gone")?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for SkipFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_counted_and_others_are_not() {
        let mut tally = Tally::default();
        assert!(!tally.read("running 3 tests"));
        assert!(
            tally
                .read("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s")
        );
        assert!(tally.read("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out"));
        assert_eq!((tally.passed, tally.failed, tally.skipped), (14, 3, 1));
    }

    #[test]
    fn the_names_of_failed_tests_are_remembered_and_what_they_printed_is_not() {
        let mut tally = Tally::default();
        let said =
            "failures:\n\n---- one::fails stdout ----\n    left: 1\n\nfailures:\n    one::fails\n    two\n\n    three";
        for line in said.lines() {
            assert!(!tally.read(line));
        }
        assert_eq!(tally.failed_tests, ["one::fails", "two"]);
    }
}
