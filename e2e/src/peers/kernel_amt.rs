//! Linux's own AMT driver as a peer, in a machine that takes the place of a host.
//!
//! ```text
//!   gateway:  tunnel LAN ── eth0 ◀═ amt ═ bridge ── eth1 ── native LAN    reports of its hosts go into the tunnel, data comes out
//!   relay:    tunnel LAN ── eth0 ◀═ amt ═ bridge ── eth1 ── native LAN    multicast of its hosts goes into the tunnels
//! ```
//! So members and sources are plain sockets of hosts on the native LAN ([`native`](super::native)). The outer addresses are IPv4:
//! the driver knows no others. What else it does in its own way is known and the tests count on it: P, L and G at the other end of
//! their octet, a new Request every two seconds, a relay that forwards by group alone and takes a gateway for its address alone.

use super::machine::{Booting, Machine};
use crate::lab::{Host, wait};
use anyhow::{Context, Result};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Full, since the shell of the machine prefers a lesser one of its own.
const IP: &str = "/sbin/ip";
/// Between two looks at the driver: each is a line and an answer on a slow machine.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The LANs of the host in whose place the machine stands.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'a> {
    /// Where the other end of the tunnel is.
    pub tunnel: &'a str,
    /// Where members or sources are.
    pub native: &'a str,
}

/// A peer that boots; several may at once.
#[derive(Debug)]
pub struct Starting<'a> {
    booting: Booting<'a>,
    lines: Vec<String>,
}

/// A peer that stands.
#[derive(Debug)]
pub struct KernelAmt<'a> {
    machine: Machine<'a>,
}

impl<'a> KernelAmt<'a> {
    /// Starts a gateway in the place of `host`; it discovers its relay by sending to `relay`.
    ///
    /// # Errors
    /// When the emulator does not start.
    pub fn gateway(host: &'a Host, sides: Sides, relay: Ipv4Addr) -> Result<Starting<'a>> {
        let local = host.address(sides.tunnel);
        Self::start(host, sides, &format!("mode gateway local {local} discovery {relay} gateway_port 2268"))
    }

    /// Starts a relay in the place of `host`, at that host's address.
    ///
    /// # Errors
    /// When the emulator does not start.
    pub fn relay(host: &'a Host, sides: Sides) -> Result<Starting<'a>> {
        let local = host.address(sides.tunnel);
        Self::start(host, sides, &format!("mode relay local {local} max_tunnels 32"))
    }

    fn start(host: &'a Host, sides: Sides, mode: &str) -> Result<Starting<'a>> {
        let (booting, attachments) = Booting::start(host, &[sides.tunnel, sides.native])?;
        let mut lines = Vec::new();
        for (number, attachment) in attachments.iter().enumerate() {
            // The native side is a port of a bridge: its address would be of no use there.
            if number == 0 {
                lines.push(format!("{IP} addr add {}/{} dev eth0", attachment.address, attachment.prefix_len));
            }
            lines.push(format!("{IP} link set eth{number} up"));
            if let Some(gateway) = attachment.gateway.filter(|_| number == 0) {
                lines.push(format!("{IP} route add default via {gateway}"));
            }
        }
        lines.extend([
            format!("{IP} link add br0 type bridge mcast_snooping 0 stp_state 0"),
            format!("{IP} link set eth1 master br0"),
            format!("{IP} link set br0 up"),
            format!("{IP} link add amt master br0 type amt {mode} dev eth0 relay_port 2268"),
            // A relay asks in IPv6 only from an address of this interface, and gives itself none while it is a port.
            "echo 0 > /proc/sys/net/ipv6/conf/amt/disable_ipv6".to_owned(),
            format!("{IP} link set amt addrgenmode none up"),
            format!("{IP} addr add fe80::{}/64 dev amt nodad", attachments[0].address.octets()[3]),
        ]);
        Ok(Starting { booting, lines })
    }

    /// The host in whose place it stands.
    #[must_use]
    pub fn host(&self) -> &'a Host {
        self.machine.host()
    }

    /// Waits until the gateway has found this relay.
    ///
    /// # Errors
    /// When it has not in time.
    pub fn wait_relay(&self, relay: Ipv4Addr, longest: Duration) -> Result<()> {
        let wanted = format!("remote {relay} ");
        wait::until_every(LOOK_AGAIN, &format!("relay {relay} at the kernel"), longest, || {
            self.dump().ok()?.contains(&wanted).then_some(())
        })
    }

    /// The driver's interface in all detail, with counters.
    ///
    /// # Errors
    /// When the machine does not answer.
    pub fn dump(&self) -> Result<String> {
        self.shell(&format!("{IP} -d -s link show amt"))
    }

    /// Runs a line in the machine's shell and gives what it printed.
    ///
    /// # Errors
    /// When it fails or the machine does not answer.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.machine.shell(line)
    }

    /// Turns it off without a word to anybody.
    ///
    /// # Errors
    /// When it was off.
    pub fn kill(&self) -> Result<()> {
        self.machine.kill()
    }
}

impl<'a> Starting<'a> {
    /// Waits until it stands.
    ///
    /// # Errors
    /// When it does not in time, or its kernel refuses a setting.
    pub fn ready(self) -> Result<KernelAmt<'a>> {
        let machine = self.booting.ready()?;
        for line in &self.lines {
            machine.shell(line).context("the machine is not set up")?;
        }
        Ok(KernelAmt { machine })
    }
}
