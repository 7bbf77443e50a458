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
    ("documentation builds without warnings", documentation),
    ("no machine paths in files", no_machine_paths),
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
        "crds/generated",
    ];
    shell::run(&mut shell::cargo(&arguments)).context("the custom resource definitions were not written")
}
