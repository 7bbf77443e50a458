//! The programs of the test cluster: a whole Kubernetes and its container runtime, built from the Go modules that
//! `e2e/cluster/modules` pins, and the two images that every cluster needs. Kept in the cache folder.
//!
//! ```text
//!   e2e/cluster/modules/*/go.{mod,sum} ──▶ go build ──▶ cache/cluster/bin/{kube-apiserver, kubelet, etcd, containerd, …}
//!   e2e/cluster/pause/pause.c ──▶ musl-gcc ──▶ cache/cluster/images/{pause,coredns}.tar
//! ```
//! A stamp holds the hash of everything that goes in; whoever finds it right builds nothing and needs no Go. Go's own caches
//! stay where Go keeps them.

use crate::archive::{self, Image};
use crate::{shell, tools};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Kubernetes asks for it in its `go.mod`.
const GO_VERSION_MIN: (u32, u32) = (1, 26);
const KUBERNETES_VERSION: &str = "v1.36.3";
const CONTAINERD_VERSION: &str = "v2.2.1";
const GO_FLAGS: &str = "-trimpath -buildvcs=false -mod=readonly";
/// Files that decide what is built, below `e2e/cluster`.
const INPUTS: &[&str] = &[
    "modules/kube/go.mod",
    "modules/kube/go.sum",
    "modules/runtime/go.mod",
    "modules/runtime/go.sum",
    "pause/pause.c",
];

/// A module of `e2e/cluster/modules`; its `tool` lines name the programs.
struct Module {
    name: &'static str,
    linker_flags: String,
}

/// Makes sure that the programs and images are there; gives their folder.
pub fn ensure() -> Result<PathBuf> {
    let folder = tools::cache().join("cluster");
    let modules = modules();
    let stamp = stamp(&modules)?;
    let stamp_file = folder.join("stamp");
    if std::fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
        return Ok(folder);
    }
    check_go()?;
    println!("tools: building Kubernetes {KUBERNETES_VERSION} for the test cluster (ten minutes on two cores, once)");
    let start = Instant::now();
    let (bin, images) = (folder.join("bin"), folder.join("images"));
    for folder in [&bin, &images] {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    std::fs::remove_file(&stamp_file).ok();
    for module in &modules {
        module.build(&bin)?;
    }
    pause_image(&folder)?;
    coredns_image(&folder)?;
    std::fs::write(&stamp_file, stamp).with_context(|| format!("{} cannot be written", stamp_file.display()))?;
    println!("tools: the cluster's programs took {} s", start.elapsed().as_secs());
    Ok(folder)
}

/// `cargo xtask cluster …`: the cluster that stays until it is told to go, for trying things by hand.
pub fn command(arguments: &[&str]) -> Result<()> {
    let folder = ensure()?;
    if arguments == ["tools"] {
        println!("{}", folder.display());
        return Ok(());
    }
    let mut run = shell::cargo(&["run", "--quiet", "--package", "castgate-e2e", "--bin", "castgate-cluster", "--"]);
    shell::run(run.args(arguments).env("CASTGATE_CLUSTER", folder))
}

fn modules() -> [Module; 2] {
    let version = KUBERNETES_VERSION.trim_start_matches('v');
    let mut parts = version.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let stamps = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"].map(|package| {
        format!(
            " -X {package}.gitVersion={KUBERNETES_VERSION} -X {package}.gitMajor={major} -X {package}.gitMinor={minor} \
             -X {package}.gitTreeState=clean -X {package}.buildDate=1970-01-01T00:00:00Z"
        )
    });
    let containerd = format!("-s -w -X github.com/containerd/containerd/v2/version.Version={CONTAINERD_VERSION}");
    [
        Module { name: "kube", linker_flags: format!("-s -w{}", stamps.concat()) },
        Module { name: "runtime", linker_flags: containerd },
    ]
}

impl Module {
    /// Builds every `tool` of the module.
    fn build(&self, bin: &Path) -> Result<()> {
        let packages = shell::stdout(self.go(&["list", "-f", "{{.ImportPath}}", "tool"]).env("GOFLAGS", GO_FLAGS))?;
        for package in packages.lines() {
            let output = bin.join(program_name(package));
            // Only a Kubernetes program knows the variables of its version; the linker ignores them elsewhere.
            let mut build = self.go(&["build", "-ldflags", &self.linker_flags, "-o"]);
            shell::run(build.arg(&output).arg(package))?;
        }
        Ok(())
    }

    fn go(&self, arguments: &[&str]) -> std::process::Command {
        let mut go = shell::command("go", arguments);
        go.current_dir(inputs().join("modules").join(self.name));
        // Static programs: they run in images without a C library.
        go.env("CGO_ENABLED", "0").env("GOFLAGS", GO_FLAGS).env("GOWORK", "off");
        go
    }
}

/// `.../cmd/helm` is helm; the package of etcd ends in its major version.
fn program_name(package: &str) -> &str {
    let last = package.rsplit('/').next().unwrap_or(package);
    if package == "go.etcd.io/etcd/server/v3" { "etcd" } else { last }
}

fn pause_image(folder: &Path) -> Result<()> {
    let program = folder.join("bin/pause");
    let mut compile = shell::command("musl-gcc", &["-static", "-Os", "-s", "-o"]);
    shell::run(compile.arg(&program).arg(inputs().join("pause/pause.c")))?;
    image(folder, "pause", "cluster.local/pause:1", &program)
}

fn coredns_image(folder: &Path) -> Result<()> {
    image(folder, "coredns", "cluster.local/coredns:1", &folder.join("bin/coredns"))
}

fn image(folder: &Path, name: &str, reference: &str, program: &Path) -> Result<()> {
    let image = Image {
        reference: reference.to_owned(),
        programs: vec![(program.to_path_buf(), name.to_owned())],
        entrypoint: vec![format!("/{name}")],
        user: Some(archive::NONROOT),
    };
    archive::write(&image, &folder.join("images").join(format!("{name}.tar")))
}

fn check_go() -> Result<()> {
    let (major, minor) = GO_VERSION_MIN;
    ensure!(
        shell::on_path("go"),
        "the test cluster is built with Go {major}.{minor} or later, which is not on the PATH: Debian has none that is new \
         enough, take it from go.dev/dl"
    );
    let found = shell::stdout(shell::command("go", &["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))?;
    match go_version(found.trim()) {
        Some(version) if version >= GO_VERSION_MIN => Ok(()),
        _ => bail!("the test cluster is built with Go {major}.{minor} or later; the PATH has {}", found.trim()),
    }
}

/// `go1.26.5` is (1, 26).
fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("go")?.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The hash of everything that decides what comes out.
fn stamp(modules: &[Module]) -> Result<String> {
    let mut all = format!("1 {GO_FLAGS}\n").into_bytes();
    for module in modules {
        all.extend_from_slice(module.linker_flags.as_bytes());
    }
    for name in INPUTS {
        let path = inputs().join(name);
        let octets = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        all.extend_from_slice(archive::hex_sha256(&octets).as_bytes());
    }
    Ok(archive::hex_sha256(&all))
}

fn inputs() -> PathBuf {
    shell::root().join("e2e/cluster")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read_from_what_it_prints() {
        assert_eq!(go_version("go1.26.5"), Some((1, 26)));
        assert_eq!(go_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(go_version("devel"), None);
    }

    #[test]
    fn programs_are_named_after_their_packages() {
        assert_eq!(program_name("k8s.io/kubernetes/cmd/kubelet"), "kubelet");
        assert_eq!(program_name("go.etcd.io/etcd/server/v3"), "etcd");
        assert_eq!(program_name("github.com/coredns/coredns"), "coredns");
    }

    #[test]
    fn the_stamp_changes_with_the_flags() {
        let mut other = modules();
        other[0].linker_flags.push_str(" -X a.b=c");
        assert_ne!(stamp(&modules()).unwrap(), stamp(&other).unwrap());
    }
}
