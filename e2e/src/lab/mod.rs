//! A lab: LANs, hosts, an internet with NAT and loss, built from a short text in network namespaces, gone afterwards.
//!
//! ```text
//!   host = namespace            LAN = namespace with a bridge           host = namespace
//!  ┌──────────────────┐        ┌──────────────────────────────┐       ┌──────────────────┐
//!  │ if "studio" ─────┼─ veth ─┼─▶ port ── bridge ── port ◀───┼─ TAP ─┼── if "studio"    │
//!  └──────────────────┘        └──────────────────────────────┘   │   └──────────────────┘
//!                                                        our shuttle: loss, delay, …
//! ```
//! Nothing is left behind, in three layers: [`Lab`]'s drop (success, failure, panic), a reaper process that outlives us
//! (Ctrl-C, SIGKILL), and a sweep at the start of the next lab (a machine that lost both).

mod build;
pub(crate) mod host;
pub mod impair;
pub(crate) mod names;
mod nat;
pub mod netns;
pub(crate) mod process;
pub mod random;
pub(crate) mod reaper;
pub(crate) mod scenario;
pub mod topology;
pub mod wait;

pub use host::Host;
pub use process::Process;
pub use scenario::{Scenario, require};

use anyhow::{Context, Result};
use impair::Link;
use netns::Namespace;
use process::Outputs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use topology::Topology;

/// A lab that stands. Dropping it removes everything that was built and ends whatever still runs in it.
#[derive(Debug)]
pub struct Lab {
    hosts: BTreeMap<String, Host>,
    lans: BTreeMap<String, Namespace>,
    links: BTreeMap<(String, String), Link>,
    nats: BTreeMap<String, nat::Nat>,
    outputs: Arc<Outputs>,
    folder: PathBuf,
}

impl Lab {
    /// Builds the lab that the text describes; see [`topology`].
    ///
    /// # Errors
    /// When the text is wrong, or the kernel or a tool refuses (root is needed). What stood by then is removed.
    pub fn build(text: &str) -> Result<Self> {
        let topology = Topology::parse(text)?;
        netns::sweep()?;
        sweep_folders();
        reaper::ensure()?;
        let prefix = names::lab_prefix();
        let folder = std::env::temp_dir().join(&prefix);
        std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let mut lab = Self {
            hosts: BTreeMap::new(),
            lans: BTreeMap::new(),
            links: BTreeMap::new(),
            nats: BTreeMap::new(),
            outputs: Arc::new(Outputs::new(folder.clone())),
            folder,
        };
        // From here on an error drops `lab`, and with it what was built so far.
        lab.erect(&prefix, &topology)?;
        Ok(lab)
    }

    /// A host of the text.
    ///
    /// # Panics
    /// When the text has no such host: a test knows its own lab.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.get(name).unwrap_or_else(|| panic!("the topology has no host `{name}`"))
    }

    /// Every host, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// The namespace of a LAN's bridge.
    ///
    /// # Panics
    /// When the text has no such LAN.
    #[must_use]
    pub fn lan(&self, name: &str) -> &Namespace {
        self.lans.get(name).unwrap_or_else(|| panic!("the topology has no LAN `{name}`"))
    }

    /// The impaired link between a host and a LAN.
    ///
    /// # Panics
    /// When the text has no such `link` line.
    #[must_use]
    pub fn link(&self, host: &str, lan: &str) -> &Link {
        let link = self.links.get(&(host.to_owned(), lan.to_owned()));
        link.unwrap_or_else(|| panic!("the topology has no line `link {host} {lan}: …`"))
    }

    /// Makes a NAT forget its mappings and choose other ports from now on, as home routers do when they feel like it.
    ///
    /// # Errors
    /// When the kernel refuses.
    ///
    /// # Panics
    /// When the text has no `nat` line for the host.
    pub fn rebind_nat(&self, host: &str) -> Result<()> {
        let nat = self.nats.get(host).unwrap_or_else(|| panic!("the topology has no line `nat {host}: …`"));
        nat.rebind(self.host(host))
    }

    /// A folder of this lab's own; it goes with the lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Prints the end of what every process printed, for whoever looks into a failure.
    pub fn show_outputs(&self) {
        self.outputs.show();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_outputs();
        }
        // The ends of links first: their interfaces disappear with them.
        self.links.clear();
        let namespaces: Vec<Namespace> =
            self.hosts.values().map(|host| host.namespace().clone()).chain(self.lans.values().cloned()).collect();
        if let Err(error) = netns::remove(&namespaces) {
            eprintln!("lab: {error:#}");
        }
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// Folders of labs whose program is dead.
pub(crate) fn sweep_folders() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        // A folder's name is a lab's prefix; any host makes it a namespace's name.
        let owner = name.to_str().and_then(|name| names::Owner::of_name(&format!("{name}x")));
        if owner.is_some_and(|owner| !owner.is_alive()) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}
