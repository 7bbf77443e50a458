//! A host of the lab: a place where programs run and sockets open.

use super::netns::{self, Namespace};
use super::process::{Outputs, Process};
use super::wait;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A host of the topology.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Namespace,
    addresses: BTreeMap<String, Ipv4Addr>,
    outputs: Arc<Outputs>,
}

impl Host {
    pub(crate) fn new(
        name: String,
        namespace: Namespace,
        addresses: BTreeMap<String, Ipv4Addr>,
        outputs: Arc<Outputs>,
    ) -> Self {
        Self { name, namespace, addresses, outputs }
    }

    /// Its name in the topology.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder of the lab, for what programs on this host keep.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.outputs.folder().join(format!("{}-home", self.name))
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its address in a LAN.
    ///
    /// # Panics
    /// When it is no member of that LAN.
    #[must_use]
    pub fn address(&self, lan: &str) -> Ipv4Addr {
        let address = self.addresses.get(lan);
        *address.unwrap_or_else(|| panic!("{} is not a member of `{lan}`", self.name))
    }

    /// Does `work` on this host; see [`Namespace::enter`].
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace.enter(work)
    }

    /// A program that will run on this host.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::path::Path>) -> Command {
        self.namespace.command(program)
    }

    /// Starts a program made by [`command`](Self::command). `label` names it in messages; its output goes to files that
    /// are shown when the test fails.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(&self, label: &str, command: Command) -> Result<Process> {
        self.spawn_reading(label, command, Stdio::null())
    }

    /// The same for a program that reads its standard input.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn_reading(&self, label: &str, command: Command, stdin: Stdio) -> Result<Process> {
        Process::spawn(&format!("{label}@{}", self.name), command, stdin, &self.outputs)
    }

    /// Runs a program to its end and gives what it printed.
    ///
    /// # Errors
    /// When it fails or takes longer than `longest`.
    pub fn run(&self, label: &str, command: Command, longest: Duration) -> Result<String> {
        let mut process = self.spawn(label, command)?;
        let status = process.wait(longest)?;
        ensure!(status.success(), "{label} ended with {status}: {}", process.stderr().trim());
        Ok(process.stdout())
    }

    /// Applies lines of `ip` commands on this host.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.namespace.ip(lines)
    }

    /// Applies nftables rules on this host.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn nft(&self, rules: &str) -> Result<()> {
        netns::feed(self.command("nft").args(["-f", "-"]), rules).with_context(|| format!("nft on {}", self.name))
    }

    /// Waits until a UDP socket is bound to `port`.
    ///
    /// # Errors
    /// When it is not there in time.
    pub fn wait_udp(&self, port: u16, longest: Duration) -> Result<()> {
        wait::until(&format!("UDP port {port} on {}", self.name), longest, || {
            wait::lists_port(&self.proc_net("udp"), port).then_some(())
        })
    }

    /// Waits until somebody listens on TCP `port`.
    ///
    /// # Errors
    /// When nobody does in time.
    pub fn wait_tcp(&self, port: u16, longest: Duration) -> Result<()> {
        wait::until(&format!("TCP port {port} on {}", self.name), longest, || {
            wait::lists_listener(&self.proc_net("tcp"), port).then_some(())
        })
    }

    /// Whether a program of this host holds a TCP connection to a port elsewhere.
    #[must_use]
    pub fn has_connection_to(&self, port: u16) -> bool {
        wait::lists_connection(&self.proc_net("tcp"), port)
    }

    /// Whether the kernel of this host is a member of a group, for whatever program.
    #[must_use]
    pub fn is_member(&self, group: Ipv4Addr) -> bool {
        wait::lists_group(&self.proc_net("igmp"), group)
    }

    /// Waits until a program on this host has joined a group.
    ///
    /// # Errors
    /// When none has in time.
    pub fn wait_member(&self, group: Ipv4Addr, longest: Duration) -> Result<()> {
        wait::until(&format!("member of {group} on {}", self.name), longest, || self.is_member(group).then_some(()))
    }

    /// Waits until nobody on this host is a member of a group.
    ///
    /// # Errors
    /// When somebody still is.
    pub fn wait_no_member(&self, group: Ipv4Addr, longest: Duration) -> Result<()> {
        wait::until(&format!("no member of {group} on {}", self.name), longest, || {
            (!self.is_member(group)).then_some(())
        })
    }

    fn proc_net(&self, table: &str) -> String {
        // A process's /proc/net is that of its first thread; the thread that entered has its own.
        let read = || std::fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        self.enter(read).ok().and_then(Result::ok).unwrap_or_default()
    }
}
