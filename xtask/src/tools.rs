//! The programs that the tests use and Rust does not bring: found, installed when we may, named when we may not.
//!
//! Debian packages are listed in `e2e/tools.txt`, a line each: the program, then the package that holds it.

use crate::shell;
use anyhow::{Context, Result, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A version known to read our `deny.toml`.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Makes sure that every program of `e2e/tools.txt` is there.
pub fn ensure_debian_packages() -> Result<()> {
    let list = shell::root().join("e2e/tools.txt");
    let list = std::fs::read_to_string(&list).with_context(|| format!("{} cannot be read", list.display()))?;
    let missing = missing(&list, shell::on_path);
    if missing.is_empty() {
        return Ok(());
    }
    let programs = missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ");
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    if !shell::is_root() || !shell::on_path("apt-get") {
        bail!("these programs are missing: {programs}; install the packages {} and try again", packages.join(" "));
    }
    refresh_debian_lists()?;
    install_debian_packages(&packages)
}

/// Learns which packages there are today.
pub fn refresh_debian_lists() -> Result<()> {
    shell::run(&mut apt_get(&["update", "-qq"]))
}

/// Installs packages without starting the services in them.
pub fn install_debian_packages(packages: &[&str]) -> Result<()> {
    println!("tools: installing {}", packages.join(" "));
    let _no_services = NoServices::ensure()?;
    let mut install = apt_get(&["install", "-y", "-qq", "--no-install-recommends"]);
    shell::run(install.args(packages))
}

/// Fetches packages into a folder without installing them.
pub fn download_debian_packages(packages: &[&str], folder: &Path) -> Result<()> {
    let mut download = apt_get(&["download", "-qq"]);
    // The folder is ours alone: there is nothing to protect from the download.
    download.args(["-o", "APT::Sandbox::User=root"]).args(packages).current_dir(folder);
    shell::run(&mut download)
}

fn apt_get(arguments: &[&str]) -> Command {
    // Somebody else may be installing at the same moment.
    let mut command = shell::command("apt-get", &["-o", "DPkg::Lock::Timeout=300"]);
    // tshark's package asks whether others may capture; there is nobody to answer.
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(std::process::Stdio::null());
    command
}

/// Keeps packages from starting their services while it lives: the tests start name servers and routers where they need
/// them, and nobody asked for one on the machine itself.
struct NoServices {
    policy: Option<PathBuf>,
}

impl NoServices {
    /// Where Debian's packages ask whether they may start something.
    const POLICY: &str = "/usr/sbin/policy-rc.d";
    /// The status that means "forbidden by policy".
    const ANSWER: &str = "#!/bin/sh\nexit 101\n";

    fn ensure() -> Result<Self> {
        let policy = PathBuf::from(Self::POLICY);
        if policy.exists() {
            // The machine has a policy of its own, as containers do.
            return Ok(Self { policy: None });
        }
        std::fs::write(&policy, Self::ANSWER).with_context(|| format!("{} cannot be written", policy.display()))?;
        let guard = Self { policy: Some(policy.clone()) };
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&policy, mode).with_context(|| format!("{} stays as it was", policy.display()))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.policy {
            std::fs::remove_file(policy).ok();
        }
    }
}

/// `cargo deny`, from the PATH or built once into the cache folder.
pub fn cargo_deny() -> Result<Command> {
    let own = cache().join("tools/bin/cargo-deny");
    if !own.is_file() && !shell::on_path("cargo-deny") {
        println!("tools: building cargo-deny {CARGO_DENY_VERSION}");
        let root = cache().join("tools");
        // A debug build: four times faster to build, and it runs for two seconds.
        let mut install =
            shell::cargo(&["install", "cargo-deny", "--locked", "--debug", "--no-default-features", "--quiet"]);
        install.args(["--version", CARGO_DENY_VERSION, "--root"]).arg(&root);
        install.arg("--target-dir").arg(root.join("target"));
        shell::run(&mut install)?;
        // Only the program is worth keeping.
        std::fs::remove_dir_all(root.join("target")).ok();
    }
    let program = if own.is_file() { own.display().to_string() } else { "cargo-deny".to_owned() };
    Ok(shell::command(&program, &[]))
}

/// Where built tools stay between clones; it may be emptied at any time.
pub fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("CASTGATE_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("castgate-build")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/castgate-build")))
        .unwrap_or_else(|| shell::root().join("target/cache"))
}

fn missing(list: &str, is_there: impl Fn(&str) -> bool) -> Vec<(&str, &str)> {
    let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let pairs = lines.filter_map(|line| line.split_once(char::is_whitespace));
    pairs.map(|(program, package)| (program, package.trim())).filter(|(program, _)| !is_there(program)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_that_are_not_there_are_missing() {
        let list = "# what the lab uses\nip iproute2\nffmpeg ffmpeg   # media\n\nffprobe ffmpeg\n";
        assert_eq!(missing(list, |program| program == "ip"), [("ffmpeg", "ffmpeg"), ("ffprobe", "ffmpeg")]);
    }
}
