//! From a topology to namespaces, bridges, cables and routes.

use super::Lab;
use super::host::Host;
use super::impair::Link;
use super::nat::Nat;
use super::netns::{self, Namespace};
use super::process::Outputs;
use super::topology::{Lan, LinkSpec, Member, Topology};
use anyhow::{Context, Result};
use castgate_udp::tap::Tap;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Frames that may wait for our shuttle: the kernel's default of 500 would drop bursts that the test did not ask for.
const TAP_QUEUE_FRAMES: u32 = 10_000;

impl Lab {
    pub(super) fn erect(&mut self, prefix: &str, topology: &Topology) -> Result<()> {
        for host in topology.hosts() {
            let namespace = Namespace::named(format!("{prefix}{host}"));
            self.hosts.insert(host.to_owned(), new_host(host, namespace, topology, self.outputs.clone()));
        }
        for lan in &topology.lans {
            self.lans.insert(lan.name.clone(), Namespace::named(format!("{prefix}lan.{}", lan.name)));
        }
        let namespaces = || self.hosts.values().map(Host::namespace).chain(self.lans.values());
        netns::ip_batch(&[], &netns::each("netns add", namespaces()))
            .context("namespaces cannot be made: is this root?")?;
        // IPv6 would only add chatter of its own: nothing here uses it.
        namespaces().try_for_each(|namespace| namespace.set("ipv6/conf/all/disable_ipv6", "1"))?;

        for lan in &topology.lans {
            self.cable(lan, &topology.links)?;
        }
        for (name, host) in &self.hosts {
            let mut lines = String::from("link set lo up\n");
            if let Some((gateway, lan)) = topology.gateway(name) {
                writeln!(lines, "route add default via {gateway} dev {lan}").expect("a string takes everything");
            }
            host.namespace().ip(&lines).with_context(|| format!("host {name}"))?;
        }
        for router in &topology.routers {
            let host = self.host(&router.host);
            host.namespace().set("ipv4/ip_forward", "1")?;
            if router.masquerade {
                let nat = Nat::start(host, &router.uplink)?;
                self.nats.insert(router.host.clone(), nat);
            }
        }
        Ok(())
    }

    /// The bridge of a LAN and its members' attachments.
    fn cable(&mut self, lan: &Lan, links: &[LinkSpec]) -> Result<()> {
        let bridge = self.lan(&lan.name).clone();
        // Without a querier a snooping bridge floods anyway; without snooping it does so from the first packet.
        bridge.ip("link add bridge type bridge mcast_snooping 0 stp_state 0\nlink set bridge up\nlink set lo up\n")?;
        for (index, member) in lan.members.iter().enumerate() {
            let port = format!("port{index}");
            let host = self.host(&member.host).namespace().clone();
            let spec = links.iter().find(|link| link.host == member.host && link.lan == lan.name);
            if let Some(spec) = spec {
                let host_end = host.enter(|| Tap::create(&lan.name))?.context("a TAP interface is refused")?;
                let lan_end = bridge.enter(|| Tap::create(&port))?.context("a TAP interface is refused")?;
                bridge.ip(&format!("link set {port} txqueuelen {TAP_QUEUE_FRAMES} master bridge up\n"))?;
                host.ip(&format!("link set {} txqueuelen {TAP_QUEUE_FRAMES}\n", lan.name))?;
                let link = Link::start(host_end, lan_end, &spec.impairment)?;
                self.links.insert((member.host.clone(), lan.name.clone()), link);
            } else {
                // One segment a frame: what crosses a cable is what a wire would carry, also where tshark looks.
                bridge.ip(&format!(
                    "link add {port} type veth peer name {} netns {}\n\
                     link set {port} gso_max_segs 1 master bridge up\n",
                    lan.name,
                    host.name()
                ))?;
                host.ip(&format!("link set {} gso_max_segs 1\n", lan.name))?;
            }
            let Member { address, prefix_len, .. } = member;
            host.ip(&format!("addr add {address}/{prefix_len} dev {0}\nlink set {0} up\n", lan.name))
                .with_context(|| format!("{} in {}", member.host, lan.name))?;
        }
        Ok(())
    }
}

fn new_host(name: &str, namespace: Namespace, topology: &Topology, outputs: Arc<Outputs>) -> Host {
    let attachments = topology.lans.iter().flat_map(|lan| lan.members.iter().map(move |member| (lan, member)));
    let addresses: BTreeMap<String, std::net::Ipv4Addr> = attachments
        .filter(|(_, member)| member.host == name)
        .map(|(lan, member)| (lan.name.clone(), member.address))
        .collect();
    Host::new(name.to_owned(), namespace, addresses, outputs)
}
