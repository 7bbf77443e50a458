//! `cargo xtask images`: our programs as container images, from static binaries and without a container engine.
//!
//! ```text
//!   cargo build --target ARCH-unknown-linux-musl ──▶ static programs ──▶ one layer each ──▶ DIR/{agent,operator,cli}.tar
//! ```

use crate::archive::{self, Image};
use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

/// What each image holds.
const IMAGES: &[Content] = &[
    // The pod says who it runs as: a capability for somebody else than root would need a file capability.
    Content { name: "agent", package: "castgate-agent", program: "castgate-agent", user: None },
    Content {
        name: "operator",
        package: "castgate-operator",
        program: "castgate-operator",
        user: Some(archive::NONROOT),
    },
    Content { name: "cli", package: "castgate-cli", program: "castgate", user: Some(archive::NONROOT) },
];

/// Where the tests' images lie in the target directory, by default.
const FOLDER: &str = "images";

/// Of the images that the test suite builds.
const TEST_PROFILE: &str = "image";

struct Content {
    name: &'static str,
    package: &'static str,
    program: &'static str,
    user: Option<&'static str>,
}

/// What to build and what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    profile: String,
    output: PathBuf,
    prefix: String,
    tag: String,
    /// Names of images; all when empty.
    only: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: "release".to_owned(),
            output: target_directory().join(FOLDER),
            prefix: "castgate.local".to_owned(),
            tag: "dev".to_owned(),
            only: Vec::new(),
        }
    }
}

impl Options {
    /// What the tests use: quick to build.
    pub fn for_tests() -> Self {
        Self { profile: TEST_PROFILE.to_owned(), output: target_directory().join("test-images"), ..Self::default() }
    }

    /// Reads `[--profile NAME] [--output DIR] [--prefix HOST/PATH] [--tag TAG] [IMAGE]...`.
    pub fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = arguments.iter();
        while let Some(&word) = words.next() {
            let mut value =
                || words.next().map(|value| (*value).to_owned()).with_context(|| format!("{word} needs a value"));
            match word {
                "--profile" => options.profile = value()?,
                "--output" => options.output = PathBuf::from(value()?),
                "--prefix" => options.prefix = value()?,
                "--tag" => options.tag = value()?,
                name if IMAGES.iter().any(|image| image.name == name) => options.only.push(name.to_owned()),
                other => bail!("`{other}` is neither an option nor one of the images agent, operator and cli"),
            }
        }
        Ok(options)
    }
}

/// Builds the images; gives the folder of their archives.
pub fn build(options: &Options) -> Result<PathBuf> {
    let target = target();
    ensure_target(&target)?;
    std::fs::create_dir_all(&options.output).with_context(|| format!("{} cannot be made", options.output.display()))?;
    let is_asked = |image: &&Content| options.only.is_empty() || options.only.iter().any(|name| name == image.name);
    let contents: Vec<&Content> = IMAGES.iter().filter(is_asked).collect();
    // Alone, as people get it: built together, one could live on a feature that only another asked for. The tests build what
    // the crates share once; `cargo xtask deps` looks at each alone.
    let step = if options.profile == TEST_PROFILE { contents.len() } else { 1 };
    contents.chunks(step.max(1)).try_for_each(|contents| compile(contents, &target, &options.profile))?;
    for content in contents {
        let program = program(content, &target, &options.profile)?;
        let image = Image {
            reference: format!("{}/{}:{}", options.prefix, content.name, options.tag),
            programs: vec![(program, content.program.to_owned())],
            entrypoint: vec![format!("/{}", content.program)],
            user: content.user,
        };
        let archive = options.output.join(format!("{}.tar", content.name));
        archive::write(&image, &archive)?;
        println!("images: {} {}", image.reference, archive.display());
    }
    Ok(options.output.clone())
}

fn compile(contents: &[&Content], target: &str, profile: &str) -> Result<()> {
    let mut cargo = shell::cargo(&["build", "--quiet", "--locked", "--target", target, "--profile", profile]);
    for content in contents {
        cargo.args(["--package", content.package, "--bin", content.program]);
    }
    // The C code of the cryptography has to be of the same C library.
    cargo.env(format!("CC_{}", target.replace('-', "_")), "musl-gcc");
    shell::run(&mut cargo)
}

/// Where cargo put it.
fn program(content: &Content, target: &str, profile: &str) -> Result<PathBuf> {
    // The profile `dev` has another name on disk.
    let folder = if profile == "dev" { "debug" } else { profile };
    let program = target_directory().join(target).join(folder).join(content.program);
    ensure!(program.is_file(), "{} was built and is not there", program.display());
    Ok(program)
}

/// Rust's name of a static program for this machine.
fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

fn ensure_target(target: &str) -> Result<()> {
    ensure!(
        shell::on_path("musl-gcc"),
        "static programs are built with musl-gcc: install the package musl-tools (e2e/tools.txt)"
    );
    let library = shell::stdout(&mut shell::command("rustc", &["--print", "target-libdir", "--target", target]))?;
    if Path::new(library.trim()).is_dir() {
        return Ok(());
    }
    shell::run(&mut shell::command("rustup", &["target", "add", target]))
        .with_context(|| format!("the standard library for {target} is missing"))
}

fn target_directory() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty());
    named.map_or_else(|| shell::root().join("target"), |folder| shell::root().join(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_nonsense_is_named() {
        let options = Options::parse(&["--profile", "image", "agent", "--tag", "1.0", "cli"]).unwrap();
        assert_eq!((options.profile.as_str(), options.tag.as_str()), ("image", "1.0"));
        assert_eq!(options.only, ["agent", "cli"]);
        assert_eq!(Options::parse(&[]).unwrap(), Options::default());
        assert!(Options::parse(&["operators"]).unwrap_err().to_string().contains("`operators`"));
        assert!(Options::parse(&["--tag"]).unwrap_err().to_string().contains("--tag needs a value"));
    }
}
