//! tshark as a second opinion: what really was on the wire.

use crate::lab::{Host, Process, wait};
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(15);

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

/// A UDP datagram as tshark read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Sender.
    pub from: SocketAddrV4,
    /// Receiver.
    pub to: SocketAddrV4,
    /// Hops left.
    pub ttl: u8,
    /// The octets.
    pub payload: Vec<u8>,
}

impl Capture {
    /// Captures what matches `filter` (as tcpdump spells it) on a host's interface to a LAN. Returns when it captures.
    ///
    /// # Errors
    /// When tshark does not start in time.
    pub fn start(host: &Host, lan: &str, filter: &str, folder: &std::path::Path) -> Result<Self> {
        let file = folder.join(format!("{}-{lan}.pcapng", host.name()));
        // That of an earlier capture there would be taken for this one's.
        std::fs::remove_file(&file).ok();
        let mut tshark = host.command("tshark");
        tshark.args(["-q", "-n", "-i", lan, "-f", filter, "-w"]).arg(&file);
        let process = host.spawn("tshark", tshark)?;
        // The file gets its header when the interface is open and the filter is set.
        wait::until("the capture's file", LONG, || {
            std::fs::metadata(&file).is_ok_and(|metadata| metadata.len() > 0).then_some(())
        })
        .with_context(|| process.stderr())?;
        Ok(Self { process, file })
    }

    /// Waits until so many packets are in the capture's file: what tshark has not written when it is stopped is lost.
    ///
    /// # Errors
    /// When they have not come in time.
    pub fn wait_packets(&self, count: usize, longest: Duration) -> Result<()> {
        let seen = || count_packets(&std::fs::read(&self.file).unwrap_or_default());
        wait::until(&format!("{count} captured packets"), longest, || (seen() >= count).then_some(()))
            .with_context(|| format!("{} captured", seen()))
    }

    /// Ends the capture and gives its file.
    ///
    /// # Errors
    /// When tshark had ended before.
    pub fn finish(mut self) -> Result<PathBuf> {
        self.process.interrupt(LONG)?;
        Ok(self.file)
    }

    /// Ends the capture and reads every UDP datagram of it.
    ///
    /// # Errors
    /// When tshark fails or prints what it never prints.
    pub fn stop(self) -> Result<Vec<Captured>> {
        let file = self.finish()?;
        let output = Command::new("tshark")
            .args(["-n", "-r"])
            .arg(&file)
            .args(["-Y", "udp && ip", "-T", "fields", "-E", "separator=;"])
            .args(["ip.src", "udp.srcport", "ip.dst", "udp.dstport", "ip.ttl", "udp.payload"].map(|f| format!("-e{f}")))
            .output()
            .context("tshark does not start")?;
        anyhow::ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).context("tshark printed something other than text")?;
        text.lines().map(|line| captured(line).with_context(|| format!("tshark printed `{line}`"))).collect()
    }
}

/// How many whole packets a file in the form `pcapng` holds: each is a block of its own, written in this machine's order.
///
/// # Source
/// draft-ietf-opsawg-pcapng §3.1: type, length of the block, content, length again; §4.3: Enhanced Packet Block.
fn count_packets(mut octets: &[u8]) -> usize {
    const ENHANCED_PACKET: u32 = 6;
    const HEAD_LEN: usize = 8;
    let mut count = 0;
    while let Some(&[a, b, c, d, e, f, g, h]) = octets.first_chunk::<HEAD_LEN>() {
        let (kind, len) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        let rest = usize::try_from(len).ok().filter(|len| *len > HEAD_LEN).and_then(|len| octets.get(len..));
        let Some(rest) = rest else { break };
        count += usize::from(kind == ENHANCED_PACKET);
        octets = rest;
    }
    count
}

fn captured(line: &str) -> Option<Captured> {
    let fields: Vec<&str> = line.split(';').collect();
    let [source, source_port, destination, destination_port, ttl, payload] = fields.as_slice() else { return None };
    let address = |ip: &str, port: &str| Some(SocketAddrV4::new(ip.parse::<Ipv4Addr>().ok()?, port.parse().ok()?));
    Some(Captured {
        from: address(source, source_port)?,
        to: address(destination, destination_port)?,
        ttl: ttl.parse().ok()?,
        payload: unhex(payload)?,
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|octet| *octet != b':').collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_packets_are_counted_and_one_that_is_being_written_is_not() {
        let block = |kind: u32| [kind.to_ne_bytes(), 12_u32.to_ne_bytes(), 12_u32.to_ne_bytes()].concat();
        let file = [block(0x0a0d_0d0a), block(1), block(6), block(6)].concat();
        assert_eq!((count_packets(&file), count_packets(&file[..file.len() - 1])), (2, 1));
        assert_eq!(count_packets(&[0; 64]), 0);
    }

    #[test]
    fn a_line_of_fields_is_a_datagram() {
        let datagram = captured("192.0.2.1;4000;192.0.2.2;10100;63;0392089f").unwrap();
        assert_eq!(datagram.to, "192.0.2.2:10100".parse().unwrap());
        assert_eq!((datagram.ttl, datagram.payload), (63, vec![0x03, 0x92, 0x08, 0x9f]));
        assert_eq!(captured("192.0.2.1;4000"), None);
    }
}
