//! A cluster: a real Kubernetes of several nodes on this one machine, with hosts on the same network; or one that is there.
//!
//! ```text
//!   namespace "fabric": etcd, API server, controller manager, scheduler
//!        │ bridge 10.77.0.1/24
//!        ├── n1 10.77.0.11   containerd, kubelet, kube-proxy; pods 10.88.11.0/24
//!        ├── n2 10.77.0.12   …
//!        ├── host "client" 10.77.0.101        a lab host: castgate, ffmpeg, plain sockets
//!        └── host "studio" 10.77.0.100        multicast reaches everybody on the bridge
//! ```
//! Nothing is left behind, in the same three layers as in the lab: [`Cluster`]'s drop, the reaper, the next one's sweep.
//! Outside the fabric's namespace 10.77.0.1 is somebody else's address: `kubectl` runs inside.

mod addons;
mod cgroups;
mod client;
mod control_plane;
mod daemon;
mod existing;
mod fabric;
mod layout;
mod node;
mod pki;
pub mod runner;

pub use layout::LAN;
pub use node::Node;

use crate::lab::process::Outputs;
use crate::lab::wait;
use crate::lab::{self, Host, names, netns, reaper};
use anyhow::{Context, Result, ensure};
use control_plane::ControlPlane;
use existing::Existing;
use fabric::Fabric;
use layout::{Layout, Tools};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long the API server may take to answer.
const LONGEST_API_START: Duration = Duration::from_mins(1);
/// How long nodes may take to become ready.
const LONGEST_READY: Duration = Duration::from_mins(1);
/// Between two questions to the API server.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Addresses have room for more; two cores have not.
const NODES_MAX: u8 = 9;

/// A cluster that answers.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    kind: Kind,
    hosts: Mutex<BTreeMap<String, Arc<Host>>>,
    outputs: Arc<Outputs>,
}

#[derive(Debug)]
enum Kind {
    Own(Box<Own>),
    Existing(Existing),
}

/// A cluster that this program, or another of ours, made.
#[derive(Debug)]
struct Own {
    tools: Tools,
    fabric: Fabric,
    control_plane: ControlPlane,
    nodes: Vec<Node>,
    /// Whether it ends with this value.
    is_mine: bool,
}

impl Cluster {
    /// Builds a cluster; `images` are archives that every node shall have.
    ///
    /// # Errors
    /// When this is not root, programs are missing, or it does not come up. What stood by then is removed.
    pub fn up(nodes: u8, images: &[PathBuf]) -> Result<Self> {
        ensure!((1..=NODES_MAX).contains(&nodes), "a cluster has 1 to {NODES_MAX} nodes, not {nodes}");
        cgroups::usable()?;
        let tools = Tools::find()?;
        cgroups::thaw_orphans();
        netns::sweep()?;
        cgroups::sweep()?;
        lab::sweep_folders();
        reaper::ensure()?;
        let prefix = names::lab_prefix();
        let cluster = Self::own(&prefix, nodes, tools, true);
        // From here on an error drops the cluster, and with it what was built so far.
        cluster.erect(images).inspect_err(|_| cluster.show_logs())?;
        Ok(cluster)
    }

    /// The cluster whose files lie in `folder`: made by another process of ours, which also removes it.
    ///
    /// # Errors
    /// When there is none.
    pub fn attach(folder: &Path) -> Result<Self> {
        let prefix = folder.file_name().and_then(|name| name.to_str()).context("a cluster's folder has a name")?;
        let nodes = std::fs::read_dir(folder.join("nodes")).with_context(|| format!("{} is gone", folder.display()))?;
        let nodes = u8::try_from(nodes.count()).context("too many nodes")?;
        Ok(Self::own(prefix, nodes, Tools::find()?, false))
    }

    /// The cluster to which `KUBECONFIG` points, when it is set.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn existing() -> Result<Option<Self>> {
        let Some(existing) = Existing::find()? else { return Ok(None) };
        reaper::ensure()?;
        let folder = std::env::temp_dir().join(names::lab_prefix());
        std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let cluster = Self::new(Layout::new(folder), Kind::Existing(existing));
        cluster.kubectl(&["get", "--raw", "/readyz"]).context("the cluster of KUBECONFIG does not answer")?;
        Ok(Some(cluster))
    }

    fn own(prefix: &str, nodes: u8, tools: Tools, is_mine: bool) -> Self {
        let layout = Layout::new(std::env::temp_dir().join(prefix));
        let fabric = Fabric::named(prefix);
        let control_plane = ControlPlane::new(&layout, &tools, &fabric);
        let nodes = (1..=nodes).map(|index| Node::new(index, &layout, &tools, &fabric)).collect();
        Self::new(layout, Kind::Own(Box::new(Own { tools, fabric, control_plane, nodes, is_mine })))
    }

    fn new(layout: Layout, kind: Kind) -> Self {
        let outputs = Arc::new(Outputs::new(layout.folder().join(format!("outputs-{}", std::process::id()))));
        Self { layout, kind, hosts: Mutex::default(), outputs }
    }

    fn erect(&self, images: &[PathBuf]) -> Result<()> {
        let Kind::Own(own) = &self.kind else { return Ok(()) };
        self.write_files(own)?;
        let names: Vec<String> = own.nodes.iter().map(|node| node.name().to_owned()).collect();
        pki::create(&self.layout, &names)?;
        for image in own.tools.images().iter().chain(images) {
            self.keep_image(image)?;
        }
        let pods = own.nodes.iter().map(|node| (node.pod_subnet(), node.address()));
        own.fabric.create(&pods.collect::<Vec<_>>())?;
        own.control_plane.start_api()?;
        // Their containerd starts while the API server does.
        own.nodes.iter().try_for_each(Node::begin_boot)?;
        self.await_api()?;
        own.control_plane.start_controllers()?;
        addons::install(self)?;
        own.nodes.iter().try_for_each(Node::await_boot)?;
        self.await_nodes(LONGEST_READY)?;
        addons::await_names(self)
    }

    fn write_files(&self, own: &Own) -> Result<()> {
        let (pki, bin) = (self.layout.pki().display().to_string(), own.tools.bin().display().to_string());
        let values = [
            ("PKI", pki),
            ("BIN", bin),
            ("DNS", layout::DNS_SERVICE.to_string()),
            ("API_HOST", layout::FABRIC.to_string()),
            ("API_PORT", layout::API_PORT.to_string()),
            ("POD_NETWORK", layout::POD_NETWORK.to_owned()),
        ];
        let write = |name: &str, template: &str| self.layout.write(name, template, &values).map(drop);
        write("containerd.toml", include_str!("../../cluster/containerd.toml"))?;
        write("kubelet.yaml", include_str!("../../cluster/kubelet.yaml"))?;
        write("node-init.sh", include_str!("../../cluster/node-init.sh"))
    }

    /// Whether it is our own: only then nodes can be cut and the API server stopped.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(self.kind, Kind::Own(_))
    }

    /// A folder of this cluster's; it goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.layout.folder()
    }

    /// The namespace in which the API server can be reached; none for a cluster that is there.
    #[must_use]
    pub fn fabric(&self) -> Option<&netns::Namespace> {
        match &self.kind {
            Kind::Own(own) => Some(own.fabric.namespace()),
            Kind::Existing(_) => None,
        }
    }

    /// The nodes of our own cluster.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        match &self.kind {
            Kind::Own(own) => &own.nodes,
            Kind::Existing(_) => &[],
        }
    }

    /// A node of our own cluster, `n1` the first.
    ///
    /// # Panics
    /// When there is none of that name: a test knows its own cluster.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        let node = self.nodes().iter().find(|node| node.name() == name);
        node.unwrap_or_else(|| panic!("the cluster has no node `{name}` of ours"))
    }

    /// A host on the nodes' network with an interface [`LAN`]; made when first asked for. In a cluster that is there it is
    /// this machine itself, whatever address was asked for.
    ///
    /// # Errors
    /// When it cannot be made.
    ///
    /// # Panics
    /// When another thread did while it made one.
    pub fn host(&self, name: &str, address: Ipv4Addr) -> Result<Arc<Host>> {
        let mut hosts = self.hosts.lock().expect("nobody panics while he makes a host");
        if let Some(host) = hosts.get(name) {
            return Ok(host.clone());
        }
        std::fs::create_dir_all(self.outputs.folder()).context("outputs have no folder")?;
        let host = Arc::new(match &self.kind {
            Kind::Own(own) => own.fabric.host(name, address, self.outputs.clone())?,
            Kind::Existing(existing) => existing.host(self, name, self.outputs.clone())?,
        });
        hosts.insert(name.to_owned(), host.clone());
        Ok(host)
    }

    /// Gives every node an image from an archive.
    ///
    /// # Errors
    /// When one does not take it; always in a cluster that is there, which has its own ways.
    pub fn load(&self, archive: &Path) -> Result<()> {
        ensure!(self.is_own(), "load {} into your cluster yourself (e2e/README.md)", archive.display());
        let kept = self.keep_image(archive)?;
        self.nodes().iter().try_for_each(|node| node.load(&kept))
    }

    /// Stops the API server (SIGKILL).
    ///
    /// # Errors
    /// When it does not end, or is not ours.
    pub fn stop_api_server(&self) -> Result<()> {
        self.control_plane()?.stop_api_server()
    }

    /// Starts it again and waits until it answers.
    ///
    /// # Errors
    /// When it does not, or is not ours.
    pub fn start_api_server(&self) -> Result<()> {
        self.control_plane()?.start_api_server()?;
        self.await_api()
    }

    /// Undoes what a test that failed may have left: cables out, nodes frozen or off, no API server.
    ///
    /// # Errors
    /// When something does not come back.
    pub fn mend_all(&self) -> Result<()> {
        let Kind::Own(own) = &self.kind else { return Ok(()) };
        if !own.control_plane.api_server_runs() {
            self.start_api_server()?;
        }
        for node in &own.nodes {
            if node.is_on() {
                node.thaw()?;
                node.mend()?;
            } else {
                // Half of it may still be there.
                node.kill().ok();
                node.boot()?;
            }
        }
        self.await_nodes(LONGEST_READY)
    }

    /// Waits until every node is ready.
    ///
    /// # Errors
    /// When one is not in time; names them.
    pub fn await_nodes(&self, longest: Duration) -> Result<()> {
        let mut last = String::new();
        let wanted = self.nodes().len();
        wait::until_every(ASK_AGAIN, "ready nodes", longest, || {
            last = self.node_states().unwrap_or_else(|error| format!("{error:#}"));
            let states: Vec<&str> = last.split_whitespace().collect();
            let ready = states.iter().all(|state| state.ends_with("=True"));
            (ready && !states.is_empty() && states.len() >= wanted).then_some(())
        })
        .with_context(|| format!("{wanted} nodes are wanted, there are: {last}"))
    }

    /// Every node and whether it is ready: `n1=True n2=Unknown`.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn node_states(&self) -> Result<String> {
        const PATH: &str =
            r#"jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{" "}{end}"#;
        Ok(self.kubectl(&["get", "nodes", "-o", PATH])?.trim().to_owned())
    }

    /// Prints the end of what everybody printed: hosts' programs, nodes, control plane.
    pub fn show_logs(&self) {
        self.outputs.show();
        for path in self.nodes().iter().flat_map(Node::logs).chain(self.control_plane_logs()) {
            show_end(&path);
        }
    }

    /// Prints the end of what programs on hosts printed.
    pub fn show_outputs(&self) {
        self.outputs.show();
    }

    fn control_plane(&self) -> Result<&ControlPlane> {
        match &self.kind {
            Kind::Own(own) => Ok(&own.control_plane),
            Kind::Existing(_) => anyhow::bail!("the API server of KUBECONFIG is not ours to stop"),
        }
    }

    fn control_plane_logs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.layout.control_plane()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log")).collect()
    }

    fn await_api(&self) -> Result<()> {
        let control_plane = self.control_plane()?;
        wait::until_every(ASK_AGAIN, "an answer of the API server", LONGEST_API_START, || {
            let answers = self.kubectl(&["get", "--raw", "/readyz"]).is_ok();
            (answers || !control_plane.api_server_runs()).then_some(())
        })?;
        ensure!(control_plane.api_server_runs(), "the API server ended while it started");
        Ok(())
    }

    /// Puts an archive where nodes find it when they boot.
    fn keep_image(&self, archive: &Path) -> Result<PathBuf> {
        let name = archive.file_name().with_context(|| format!("{} is no archive", archive.display()))?;
        let kept = self.layout.images().join(name);
        std::fs::create_dir_all(self.layout.images()).context("images have no folder")?;
        std::fs::copy(archive, &kept).with_context(|| format!("{} cannot be read", archive.display()))?;
        Ok(kept)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let removed = match &self.kind {
            Kind::Own(own) if own.is_mine => remove(own),
            Kind::Own(_) => return,
            Kind::Existing(existing) => existing.leave(),
        };
        if let Err(error) = removed {
            eprintln!("cluster: {error:#}");
        }
        std::fs::remove_dir_all(self.layout.folder()).ok();
    }
}

fn remove(own: &Own) -> Result<()> {
    for node in &own.nodes {
        // One that is off already has nothing to remove.
        node.kill().ok();
    }
    netns::remove(&own.fabric.namespaces())
}

fn show_end(path: &Path) {
    const SHOWN_LINES: usize = 12;
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    if !lines.is_empty() {
        eprintln!("--- {} ({} lines)", path.display(), lines.len());
        lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().for_each(|line| eprintln!("{line}"));
    }
}
