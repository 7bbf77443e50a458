//! Where received payloads go: nowhere but the statistics, a stream of octets, a local network, or players over HTTP.
//!
//! ```text
//!                    ┌─ stats             counted only
//!   payload ───────▶ ├─ -  file:P         octets in order, by a writer thread        (writer)
//!                    ├─ udp://G:P         one datagram for one datagram, bit by bit   (remulticast)
//!                    └─ http://:PORT      a player opens it, several at once          (players)
//! ```
//! Taking a payload never waits: what an output cannot take at once is dropped and counted, because waiting here would
//! lose the packets that come next, for every output.

mod players;
mod remulticast;
mod spec;
mod writer;

pub use spec::{OutputSpec, SpecError, UdpTarget};

use std::io;
use std::net::{SocketAddr, SocketAddrV4};

use thiserror::Error;

use crate::name::GroupName;
use players::Players;
use remulticast::Remulticast;
use writer::Writer;

/// An open output.
#[derive(Debug)]
pub struct Output {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Stats,
    Writer(Writer),
    Remulticast(Remulticast),
    Players(Players),
}

/// Why an output cannot be opened or is broken.
#[derive(Debug, Error)]
pub enum OutputError {
    /// A file cannot be made.
    #[error("the file {path} cannot be written: {error}")]
    Open {
        /// The file.
        path: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// A stream of octets does not take any more.
    #[error("{target} takes no more: {error}")]
    Write {
        /// The file or standard output.
        target: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// A stream of octets was slower than the channel.
    #[error("{target} was too slow: {dropped} datagrams were not written")]
    Slow {
        /// The file or standard output.
        target: String,
        /// What is missing.
        dropped: u64,
    },
    /// The socket towards the local network.
    #[error("cannot send to {target}: {error}")]
    Send {
        /// Group and port.
        target: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// No interface was named, and no route says which it is.
    #[error("no route leads to {target} ({error}): name the interface, as in udp://{target}?iface=eth0")]
    NoRoute {
        /// Group and port.
        target: SocketAddrV4,
        /// What the kernel said.
        error: io::Error,
    },
    /// The interface is not there.
    #[error("the output {spec}: {error}")]
    Interface {
        /// The output as written.
        spec: String,
        /// What is wrong.
        error: io::Error,
    },
    /// The HTTP port is taken or not ours to take.
    #[error("cannot listen for players on {address}: {error}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The output would be heard as input.
    #[error("the output {0} is the channel that is received on that interface: it would never end")]
    Loop(String),
}

impl OutputError {
    /// A short word for the cause.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Write { .. } => "write",
            Self::Slow { .. } => "slow",
            Self::Send { .. } => "send",
            Self::NoRoute { .. } => "no_route",
            Self::Interface { .. } => "interface",
            Self::Listen { .. } => "listen",
            Self::Loop(_) => "loop",
        }
    }
}

impl Output {
    /// Opens what was written.
    ///
    /// # Errors
    /// [`OutputError`] when the file, socket or port is not to be had.
    ///
    /// # Panics
    /// Outside a Tokio runtime, where nobody would serve the players.
    pub async fn open(spec: &OutputSpec) -> Result<Self, OutputError> {
        let kind = match spec {
            OutputSpec::Stats => Kind::Stats,
            OutputSpec::Stdout => Kind::Writer(Writer::stdout()),
            OutputSpec::File(path) => Kind::Writer(Writer::file(path)?),
            OutputSpec::Udp(target) => Kind::Remulticast(Remulticast::open(target)?),
            OutputSpec::Http(address) => Kind::Players(Players::listen(*address).await?),
        };
        Ok(Self { kind })
    }

    /// Hands on one payload.
    ///
    /// # Errors
    /// [`OutputError`] when the output is broken for good.
    pub fn write(&mut self, payload: &[u8]) -> Result<(), OutputError> {
        match &mut self.kind {
            Kind::Stats => Ok(()),
            Kind::Writer(writer) => writer.write(payload),
            Kind::Remulticast(remulticast) => remulticast.write(payload),
            Kind::Players(players) => {
                players.write(payload);
                Ok(())
            }
        }
    }

    /// Where players connect to, once open.
    #[must_use]
    pub fn listen_address(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Players(players) => Some(players.address()),
            Kind::Stats | Kind::Writer(_) | Kind::Remulticast(_) => None,
        }
    }

    /// Lets what is queued reach its end.
    ///
    /// # Errors
    /// [`OutputError`] when not everything was taken.
    pub async fn finish(self) -> Result<(), OutputError> {
        match self.kind {
            Kind::Writer(writer) => writer.finish().await,
            Kind::Stats | Kind::Remulticast(_) | Kind::Players(_) => Ok(()),
        }
    }
}

/// Refuses an output that a native receiver of `name` would hear again. A source-specific channel is safe: what we send
/// has another source.
///
/// # Errors
/// [`OutputError::Loop`].
pub fn refuse_loop(spec: &OutputSpec, name: &GroupName) -> Result<(), OutputError> {
    let heard = SocketAddr::new(name.group(), name.port());
    match spec {
        OutputSpec::Udp(target) if name.source().is_none() && SocketAddr::V4(target.address) == heard => {
            Err(OutputError::Loop(spec.to_string()))
        }
        _ => Ok(()),
    }
}
