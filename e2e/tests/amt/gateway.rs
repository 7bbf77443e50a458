//! A gateway of a few lines, for tests that want to decide each of its words: one socket, no timers, nothing repeated.

use crate::SOON;
use anyhow::{Context, Result, bail};
use castgate_e2e::lab::Host;
use castgate_wire::amt::{Nonce, PORT, Repr, RequestFlags, ResponseMac};
use castgate_wire::membership::{Family, Message, Record, RecordType, emit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

/// A gateway that has asked.
#[derive(Debug)]
pub struct Gateway {
    socket: UdpSocket,
    nonce: Nonce,
    mac: ResponseMac,
}

impl Gateway {
    /// Asks a relay and keeps what it needs of the answer.
    pub fn open(host: &Host, lan: &str, relay: Ipv4Addr, family: Family) -> Result<Self> {
        let socket = host.enter(|| UdpSocket::bind((host.address(lan), 0)))??;
        socket.connect(SocketAddr::from((relay, PORT)))?;
        socket.set_read_timeout(Some(SOON))?;
        let nonce = Nonce(0x0102_0304);
        let flags = match family {
            Family::V4 => RequestFlags::IGMP,
            Family::V6 => RequestFlags::MLD,
        };
        socket.send(&Repr::Request { nonce, flags }.to_vec())?;
        let mut buffer = [0; 2_048];
        let len = socket.recv(&mut buffer).context("no Membership Query")?;
        match Repr::parse(&buffer[..len])? {
            Repr::Query { mac, nonce: theirs, .. } if theirs == nonce => Ok(Self { socket, nonce, mac }),
            other => bail!("the relay answers {other:?}"),
        }
    }

    /// Reports one record about a group.
    pub fn report(&self, kind: RecordType, group: IpAddr, sources: &[IpAddr]) -> Result<()> {
        for packet in packets(kind, group, sources) {
            self.socket.send(&Repr::Update { mac: self.mac, nonce: self.nonce, packet: &packet }.to_vec())?;
        }
        Ok(())
    }

    /// Says what a host of version 2 says: that it wants a group, or wants it no more.
    pub fn report_v2(&self, group: Ipv4Addr, wants: bool) -> Result<()> {
        let group = IpAddr::V4(group);
        let message = if wants { Message::OldReport { version: 2, group } } else { Message::OldLeave { group } };
        for packet in emit(&message, Ipv4Addr::UNSPECIFIED.into()) {
            self.socket.send(&Repr::Update { mac: self.mac, nonce: self.nonce, packet: &packet }.to_vec())?;
        }
        Ok(())
    }

    /// Says the same from another socket: what was given to one address and port, from another.
    pub fn report_from(&self, socket: &UdpSocket, kind: RecordType, group: IpAddr, sources: &[IpAddr]) -> Result<()> {
        for packet in packets(kind, group, sources) {
            let datagram = Repr::Update { mac: self.mac, nonce: self.nonce, packet: &packet }.to_vec();
            socket.send_to(&datagram, self.socket.peer_addr()?)?;
        }
        Ok(())
    }

    /// Waits for a packet of a channel.
    pub fn wait_data(&self) -> Result<Vec<u8>> {
        let start = Instant::now();
        let mut buffer = [0; 2_048];
        while start.elapsed() < SOON {
            let len = self.socket.recv(&mut buffer).context("no Multicast Data")?;
            if let Repr::Data { packet } = Repr::parse(&buffer[..len])? {
                return Ok(packet.to_vec());
            }
        }
        bail!("everything but Multicast Data")
    }
}

/// Reports with one record about a group.
fn packets(kind: RecordType, group: IpAddr, sources: &[IpAddr]) -> Vec<Vec<u8>> {
    let record = Record { kind, group, sources: sources.to_vec() };
    let from = match group {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9)),
    };
    emit(&Message::Report(vec![record]), from)
}
