//! What holds without running the product: format, lints, documentation, licences, generated files.

use crate::{deps, shell, tools};
use anyhow::{Context, Result, bail};

/// A named check; `Err` says what is wrong.
pub type Check = (&'static str, fn() -> Result<()>);

/// Checks that need nothing but Rust.
pub const QUICK: &[Check] = &[
    ("rustfmt", rustfmt),
    ("dependency rules", deps::check),
    ("clippy", clippy),
    ("the program builds by itself", program),
    ("documentation builds without warnings", documentation),
    ("no machine paths in files", no_machine_paths),
    ("docs/conformance.md names tests that exist", conformance),
];

/// Checks that build a tool first.
pub const FULL: &[Check] = &[("cargo deny", cargo_deny)];

fn rustfmt() -> Result<()> {
    shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    shell::run(&mut shell::cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))
}

/// As the README starts it: beside the whole workspace a dependency may have a feature that the program forgot to ask for.
fn program() -> Result<()> {
    shell::run(&mut shell::cargo(&["check", "--package", "castgate-cli", "--locked", "--quiet"]))
}

fn documentation() -> Result<()> {
    let mut doc = shell::cargo(&["doc", "--workspace", "--no-deps", "--locked", "--quiet"]);
    shell::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Bans, licences and sources; the advisory database needs the internet and is not asked here.
fn cargo_deny() -> Result<()> {
    let mut deny = tools::cargo_deny()?;
    shell::run(deny.args(["--log-level", "error", "--locked", "check", "bans", "licenses", "sources"]))
}

/// A path of one machine in a file is useless on every other.
fn no_machine_paths() -> Result<()> {
    let files = shell::stdout(&mut shell::command("git", &["ls-files", "-z"]))?;
    let wrong: Vec<&str> = files
        .split_terminator('\0')
        .filter(|file| !file.contains("/corpus/"))
        .filter(|file| std::fs::read_to_string(shell::root().join(file)).is_ok_and(|text| text.contains(&needle())))
        .collect();
    if wrong.is_empty() { Ok(()) } else { bail!("these files name a path of one machine: {}", wrong.join(", ")) }
}

/// Every name in backquotes that is made of words with underscores has to be a test or a function of the tree.
fn conformance() -> Result<()> {
    let text = std::fs::read_to_string(shell::root().join("docs/conformance.md")).context("docs/conformance.md")?;
    let files = shell::stdout(&mut shell::command("git", &["ls-files", "*.rs"]))?;
    let sources: String =
        files.lines().filter_map(|file| std::fs::read_to_string(shell::root().join(file)).ok()).collect();
    let missing = missing_tests(&text, &sources);
    if missing.is_empty() { Ok(()) } else { bail!("these tests do not exist: {}", missing.join(", ")) }
}

fn missing_tests<'a>(document: &'a str, sources: &str) -> Vec<&'a str> {
    let names =
        document.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_name = |name: &&str| {
        name.contains('_')
            && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
    };
    names.filter(is_name).filter(|name| !sources.contains(&format!("fn {name}("))).collect()
}

/// The clone's own place, when it is not a place that every text may name.
fn needle() -> String {
    format!("{}/", shell::root().display())
}

/// Writes the generated files again: one custom resource definition a file.
pub fn generate() -> Result<()> {
    let arguments = [
        "run",
        "--quiet",
        "--package",
        "castgate-cli",
        "--bin",
        "castgate",
        "--",
        "crds",
        "--output",
        "charts/castgate-crds/templates",
    ];
    shell::run(&mut shell::cargo(&arguments)).context("the custom resource definitions were not written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_only_named_is_found_out() {
        let document = "| rule | `there_is_one`, `there_is_none` |\nprose names `no_test` at all";
        assert_eq!(missing_tests(document, "fn there_is_one() {}"), ["there_is_none"]);
    }
}
