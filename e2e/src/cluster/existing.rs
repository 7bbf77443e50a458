//! A cluster that is there already: `KUBECONFIG` points at it, its nodes are not ours to cut.

use super::Cluster;
use crate::lab::Host;
use crate::lab::netns::{self, Namespace};
use crate::lab::process::Outputs;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;

/// Names the cluster that tests shall use.
pub(super) const VARIABLE: &str = "KUBECONFIG";

/// Of the name; the rest is our process id.
const PREFIX: &str = "machine-of-castgate-";

/// What we add to it: a name for this machine's own network.
#[derive(Debug)]
pub(super) struct Existing {
    namespace: Namespace,
}

impl Existing {
    /// The cluster of `KUBECONFIG`, when it is set.
    pub(super) fn find() -> Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none_or(|value| value.is_empty()) {
            return Ok(None);
        }
        forget_dead();
        // Not a lab's name: nobody may take this machine for an orphan and end everything on it.
        let namespace = Namespace::named(format!("{PREFIX}{}", std::process::id()));
        let attach = format!("netns attach {} {}\n", namespace.name(), std::process::id());
        netns::ip_batch(&[], &attach).context("this machine's network has no name: is this root?")?;
        Ok(Some(Self { namespace }))
    }

    /// This machine, as a host whose address is the one that reaches the first node.
    pub(super) fn host(&self, cluster: &Cluster, name: &str, outputs: Arc<Outputs>) -> Result<Host> {
        let path = r#"jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}"#;
        let node = cluster.kubectl(&["get", "nodes", "-o", path])?;
        let node = node.split_whitespace().next().context("the first node has no address")?.to_owned();
        let output = Command::new("ip").args(["-json", "route", "get", &node]).output().context("ip does not start")?;
        let routes: serde_json::Value = serde_json::from_slice(&output.stdout).context("ip printed no JSON")?;
        let word = |field: &str| routes[0][field].as_str().with_context(|| format!("no {field} leads to {node}"));
        let address: Ipv4Addr = word("prefsrc")?.parse().context("the way to the node is not IPv4")?;
        let addresses = BTreeMap::from([(super::LAN.to_owned(), address), (word("dev")?.to_owned(), address)]);
        Ok(Host::new(name.to_owned(), self.namespace.clone(), addresses, outputs))
    }

    /// Forgets the name; never what runs behind it.
    pub(super) fn leave(&self) -> Result<()> {
        netns::ip_batch(&["-force"], &format!("netns del {}\n", self.namespace.name()))
    }
}

/// Names that programs left which were killed.
fn forget_dead() {
    let is_dead = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid: u32| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    };
    let dead = netns::list(is_dead);
    // One whose owner died meanwhile, or that another forgot first, is nothing to fail for.
    netns::ip_batch(&["-force"], &netns::each("netns del", dead.iter())).ok();
}
