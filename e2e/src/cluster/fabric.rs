//! The network of a cluster: one bridge, on which nodes and hosts stand, in a namespace that routes between pods.

use super::layout::{API_SERVICE, FABRIC, LAN};
use crate::lab::Host;
use crate::lab::netns::{self, Namespace};
use crate::lab::process::Outputs;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

const BRIDGE: &str = "bridge";

/// The namespace with the bridge, and the names of those plugged into it.
#[derive(Debug, Clone)]
pub(super) struct Fabric {
    prefix: String,
    namespace: Namespace,
}

impl Fabric {
    /// The fabric of the cluster whose namespaces start with `prefix`.
    pub(super) fn named(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), namespace: Namespace::named(format!("{prefix}fabric")) }
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The namespace of a node or host.
    pub(super) fn member(&self, name: &str) -> Namespace {
        Namespace::named(format!("{}{name}", self.prefix))
    }

    /// Makes namespace and bridge, and the routes to the pods of nodes.
    pub(super) fn create(&self, pods: &[(String, Ipv4Addr)]) -> Result<()> {
        netns::ip_batch(&[], &format!("netns add {}\n", self.namespace.name()))
            .context("namespaces cannot be made: is this root?")?;
        self.namespace.set("ipv6/conf/all/disable_ipv6", "1")?;
        // Without snooping multicast reaches every port from the first packet, whatever querier there is.
        let routes = pods.iter().map(|(subnet, node)| format!("route add {subnet} via {node}\n"));
        self.namespace.ip(&format!(
            "link set lo up\naddr add {API_SERVICE}/32 dev lo\n\
             link add {BRIDGE} type bridge mcast_snooping 0 stp_state 0\naddr add {FABRIC}/24 dev {BRIDGE}\n\
             link set {BRIDGE} up\n{}",
            routes.collect::<String>()
        ))?;
        self.namespace.set("ipv4/ip_forward", "1")
    }

    /// Gives a node or host its namespace and a cable to the bridge.
    pub(super) fn plug(&self, name: &str, interface: &str, address: Ipv4Addr) -> Result<Namespace> {
        let member = self.member(name);
        netns::ip_batch(&[], &format!("netns add {}\n", member.name()))?;
        // One segment a frame: what crosses a cable is what a wire would carry, also where tshark looks.
        self.namespace.ip(&format!(
            "link add {name} type veth peer name {interface} netns {}\n\
             link set {name} gso_max_segs 1 master {BRIDGE} up\n",
            member.name()
        ))?;
        member.ip(&format!(
            "link set lo up\nlink set {interface} gso_max_segs 1\naddr add {address}/24 dev {interface}\n\
             link set {interface} up\nroute add default via {FABRIC}\n"
        ))?;
        Ok(member)
    }

    /// Pulls a cable out, or puts it back.
    pub(super) fn set_cable(&self, name: &str, up: bool) -> Result<()> {
        self.namespace.ip(&format!("link set {name} {}\n", if up { "up" } else { "down" }))
    }

    /// A host as the lab has them. It may be there already, made by an earlier process.
    pub(super) fn host(&self, name: &str, address: Ipv4Addr, outputs: Arc<Outputs>) -> Result<Host> {
        let namespace = self.member(name);
        if netns::list(|other| other == namespace.name()).is_empty() {
            self.plug(name, LAN, address).with_context(|| format!("host {name}"))?;
            namespace.set("ipv6/conf/all/disable_ipv6", "1")?;
        }
        Ok(Host::new(name.to_owned(), namespace, BTreeMap::from([(LAN.to_owned(), address)]), outputs))
    }

    /// Every namespace of this cluster.
    pub(super) fn namespaces(&self) -> Vec<Namespace> {
        netns::list(|name| name.starts_with(&self.prefix))
    }
}
