//! A UMTP peer made by hand: it says exactly what a test tells it, right or wrong, and keeps what it hears.

use crate::lab::{Host, wait};
use crate::recorder::{Datagram, Recorder};
use anyhow::{Context, Result};
use castgate_wire::umtp::{Channel, Command, Cookie, Trailer};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

const OWN_COOKIE: Cookie = Cookie(0x0914);
const TRIES: u32 = 10;

/// A peer at one port of one host.
#[derive(Debug)]
pub struct Peer {
    socket: UdpSocket,
    server: SocketAddrV4,
    recorder: Recorder,
}

/// The channel field of commands that use none.
#[must_use]
pub fn no_channel() -> Channel {
    Channel { group: Ipv4Addr::UNSPECIFIED, source: None, port: 0 }
}

impl Peer {
    /// Opens a port on a host, for talks with `server`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(host: &Host, server: SocketAddrV4) -> Result<Self> {
        let socket = host.enter(|| UdpSocket::bind("0.0.0.0:0"))?.context("no port")?;
        let recorder = Recorder::record(socket.try_clone().context("no second handle of a socket")?);
        Ok(Self { socket, server, recorder })
    }

    /// Sends a command with this destination cookie, and octets before the trailer.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn say(&self, command: Command, channel: Channel, ttl: u8, cookie: Cookie, head: &[u8]) -> Result<()> {
        let trailer = Trailer { source_cookie: OWN_COOKIE, destination_cookie: cookie, channel, ttl, command };
        let mut datagram = head.to_vec();
        trailer.append_to(&mut datagram);
        self.socket.send_to(&datagram, self.server).context("the kernel takes no datagram")?;
        Ok(())
    }

    /// Learns the server's cookie as an honest client would: `PROBE`, `PROBE_ACK`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn learn_cookie(&self) -> Result<Cookie> {
        for _ in 0..TRIES {
            self.say(Command::Probe, no_channel(), 0, Cookie(0), &[])?;
            let found = wait::until("a PROBE_ACK", Duration::from_millis(1_200), || {
                self.heard(Command::ProbeAck).last().map(|(trailer, _)| trailer.source_cookie)
            });
            if let Ok(cookie) = found {
                return Ok(cookie);
            }
        }
        anyhow::bail!("the server answers no PROBE")
    }

    /// The datagrams of one command that came so far: their trailers and what stood before them.
    #[must_use]
    pub fn heard(&self, command: Command) -> Vec<(Trailer, Vec<u8>)> {
        let parse = |datagram: &Datagram| {
            let (head, trailer) = Trailer::parse(&datagram.payload).ok()?;
            (trailer.command == command).then(|| (trailer, head.to_vec()))
        };
        self.recorder.heard().iter().filter_map(parse).collect()
    }

    /// Everything that came so far.
    #[must_use]
    pub fn everything(&self) -> Vec<Datagram> {
        self.recorder.heard()
    }
}
