//! A home router's NAT: the kernel's own masquerading, and the one thing it does not do by itself: to forget.

use super::host::Host;
use anyhow::{Context, Result, ensure};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::sync::atomic::{AtomicU16, Ordering};

/// The external ports of the first binding; every rebinding takes the next range of this size.
const FIRST_PORT: u16 = 20_000;
const RANGE: u16 = 1_000;
/// After so many ranges the first comes again.
const RANGES: u16 = 40;

/// The NAT of one host.
#[derive(Debug)]
pub(super) struct Nat {
    uplink: String,
    binding: AtomicU16,
}

impl Nat {
    /// Masquerades what leaves `host` through `uplink`.
    pub(super) fn start(host: &Host, uplink: &str) -> Result<Self> {
        let nat = Self { uplink: uplink.to_owned(), binding: AtomicU16::new(0) };
        host.nft(&format!(
            "table ip lab_nat {{\n chain post {{ type nat hook postrouting priority srcnat; }}\n}}\n{}",
            nat.rules(0)
        ))?;
        Ok(nat)
    }

    /// Forgets every mapping; what comes next gets a port of another range.
    pub(super) fn rebind(&self, host: &Host) -> Result<()> {
        let binding = (self.binding.fetch_add(1, Ordering::Relaxed) + 1) % RANGES;
        host.nft(&format!("flush chain ip lab_nat post\n{}", self.rules(binding)))?;
        host.enter(flush_connections)?
    }

    fn rules(&self, binding: u16) -> String {
        let first = FIRST_PORT + binding * RANGE;
        let (last, uplink) = (first + RANGE - 1, &self.uplink);
        format!(
            "add rule ip lab_nat post oifname \"{uplink}\" ip protocol udp masquerade to :{first}-{last}\n\
             add rule ip lab_nat post oifname \"{uplink}\" masquerade\n"
        )
    }
}

/// Deletes every tracked connection of the calling thread's namespace: what `conntrack -F` does, without needing it.
///
/// # Source
/// `linux/netfilter/nfnetlink_conntrack.h`: `IPCTNL_MSG_CT_DELETE` without a tuple flushes the table.
fn flush_connections() -> Result<()> {
    const SUBSYSTEM_CONNTRACK: u16 = 1;
    const MESSAGE_DELETE: u16 = 2;
    const FLAGS_REQUEST_ACK: u16 = 1 | 4;
    const MESSAGE_ERROR: u16 = 2;
    const FAMILY_IPV4: u8 = 2;

    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))
            .context("the connection tracking cannot be reached")?;
    // nlmsghdr (length, type, flags, sequence, port) and nfgenmsg (family, version, resource), in the machine's order.
    let mut request = Vec::with_capacity(20);
    request.extend(20_u32.to_ne_bytes());
    request.extend((SUBSYSTEM_CONNTRACK << 8 | MESSAGE_DELETE).to_ne_bytes());
    request.extend(FLAGS_REQUEST_ACK.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([FAMILY_IPV4, 0, 0, 0]);
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))
        .context("the connection tracking takes no request")?;
    let mut reply = [0; 256];
    let (_, len) = rustix::net::recv(&socket, &mut reply, RecvFlags::empty()).context("no answer to the flush")?;
    let word = |at: usize| {
        reply.get(at..at + 4).map(|octets| i32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]))
    };
    let kind = u16::from_ne_bytes([reply[4], reply[5]]);
    ensure!(len >= 20 && kind == MESSAGE_ERROR, "the connection tracking answered something else");
    let code = word(16).unwrap_or(-1);
    ensure!(code == 0, "the mappings are not forgotten: {}", std::io::Error::from_raw_os_error(-code));
    Ok(())
}
