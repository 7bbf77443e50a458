//! A node: namespaces of every kind over the machine's root, with private folders where a machine would have its own.
//!
//! ```text
//!   fabric's bridge ── veth ── eth0 │ net, mount, pid, uts, ipc, cgroup namespaces
//!                                   │   node-init.sh (pid 1) ── containerd ── pods
//!                                   │        ├── kubelet
//!                                   │        └── kube-proxy
//! ```

use super::cgroups;
use super::daemon::Daemon;
use super::fabric::Fabric;
use super::layout::{self, Layout, Tools};
use crate::lab::netns;
use crate::lab::wait;
use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a node may take until its containerd, kubelet and images are there.
const LONGEST_BOOT: Duration = Duration::from_mins(1);
/// Puts a shell into the groups whose folders are its arguments up to `--`, then becomes the rest.
const ENTER_GROUPS: &str =
    r#"while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@""#;

/// A node of our own cluster.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    index: u8,
    layout: Layout,
    tools: Tools,
    fabric: Fabric,
}

impl Node {
    /// Node number `index`, from 1.
    pub(super) fn new(index: u8, layout: &Layout, tools: &Tools, fabric: &Fabric) -> Self {
        let name = format!("n{index}");
        Self { name, index, layout: layout.clone(), tools: tools.clone(), fabric: fabric.clone() }
    }

    /// Its name in Kubernetes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the fabric.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        layout::node_address(self.index)
    }

    /// The addresses of its pods.
    #[must_use]
    pub fn pod_subnet(&self) -> String {
        layout::pod_subnet(self.index)
    }

    /// Switches it on. What it wrote before a power loss is still there.
    ///
    /// # Errors
    /// When it does not come up; with the end of its log.
    pub fn boot(&self) -> Result<()> {
        self.begin_boot()?;
        self.await_boot()
    }

    pub(super) fn begin_boot(&self) -> Result<()> {
        let folder = self.folder();
        std::fs::create_dir_all(folder.join("log")).with_context(|| format!("{} cannot be made", folder.display()))?;
        std::fs::remove_file(folder.join("ready")).ok();
        let namespace = self.fabric.plug(&self.name, "eth0", self.address())?;
        cgroups::create(namespace.name())?;
        let subnet = [("SUBNET", layout::pod_subnet(self.index))];
        let network = layout::fill(include_str!("../../cluster/pods.conflist"), &subnet);
        layout::write(&folder.join("root/etc/cni/net.d/10-pods.conflist"), &network)?;
        let mut boot = self.in_groups();
        boot.args(["ip", "netns", "exec", namespace.name(), "unshare", "--mount", "--propagation", "private"]);
        boot.args(["--uts", "--ipc", "--cgroup", "--pid", "--fork", "--kill-child"]);
        boot.arg("bash").arg(self.layout.folder().join("node-init.sh"));
        boot.arg(&self.name).arg(self.address().to_string()).arg(&folder);
        boot.arg(self.layout.folder()).arg(self.tools.bin());
        self.daemon().start(boot).map(drop)
    }

    pub(super) fn await_boot(&self) -> Result<()> {
        let ready = self.folder().join("ready");
        let booted = wait::until(&format!("boot of {}", self.name), LONGEST_BOOT, || {
            (ready.exists() || self.daemon().pid().is_none()).then_some(())
        });
        booted
            .and_then(|()| {
                ensure!(ready.exists(), "{} went off while it booted", self.name);
                Ok(())
            })
            .with_context(|| std::fs::read_to_string(self.daemon().log()).unwrap_or_default())
    }

    /// Power loss: everything on it is gone at once, but for what lies on its disk.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn kill(&self) -> Result<()> {
        let namespace = self.fabric.member(&self.name);
        // The dead do not die while frozen.
        cgroups::freeze(namespace.name(), false)?;
        self.daemon().kill()?;
        // With the first process of its pid namespace went all others; what is left stands in its network alone.
        netns::remove(std::slice::from_ref(&namespace))?;
        cgroups::remove(namespace.name())
    }

    /// Pulls its network cable out.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn cut(&self) -> Result<()> {
        self.fabric.set_cable(&self.name, false)
    }

    /// Puts it back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mend(&self) -> Result<()> {
        self.fabric.set_cable(&self.name, true)
    }

    /// Stops every process on it in its tracks, pods among them. Its kernel goes on: it still answers a ping.
    ///
    /// # Errors
    /// When one does not stop.
    pub fn freeze(&self) -> Result<()> {
        cgroups::freeze(self.fabric.member(&self.name).name(), true)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        cgroups::freeze(self.fabric.member(&self.name).name(), false)
    }

    /// Whether it is switched on, frozen or not.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.daemon().pid().is_some()
    }

    /// A program that will run on it, with the cluster's programs (`ctr`, …) on its PATH.
    ///
    /// # Errors
    /// When it is off.
    pub fn command(&self, program: impl AsRef<Path>) -> Result<Command> {
        let pid = self.first_process().with_context(|| format!("{} is off", self.name))?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.in_groups();
        command.args(["nsenter", "-t", &pid.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "env"]);
        command.arg(format!("PATH={}:{path}", self.tools.bin().display())).arg(program.as_ref());
        Ok(command)
    }

    /// Gives it an image from an archive.
    ///
    /// # Errors
    /// When containerd does not take it.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let mut import = self.command("ctr")?;
        import.args(["-n", "k8s.io", "images", "import"]).arg(archive);
        let output = import.output().context("ctr does not start")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} does not take {}: {}", self.name, archive.display(), complaint.trim());
        Ok(())
    }

    /// What its programs printed, by name.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder().join("log")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log")).collect()
    }

    /// The first process of its pid namespace, by the number it has outside.
    fn first_process(&self) -> Option<u32> {
        let outer = self.daemon().pid()?;
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// A program that will run in the node's control groups; the rest is up to its arguments.
    fn in_groups(&self) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", ENTER_GROUPS, "enter-groups"]);
        command.args(cgroups::folders(self.fabric.member(&self.name).name())).arg("--");
        command
    }

    fn daemon(&self) -> Daemon {
        Daemon::new(&self.folder().join("log"), "init")
    }

    fn folder(&self) -> PathBuf {
        self.layout.node(&self.name)
    }
}
