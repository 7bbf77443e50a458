//! Sending into one channel: upstream through a tunnel, or natively on an interface.
//!
//! A tunnel carries upstream what a member sends (draft-finlayson-umtp-09, local event 3), so a sender joins its channel,
//! hears the others, and leaves in the end like a receiver.

use std::io;
use std::net::SocketAddr;

use castgate_endpoint::umtp::client;
use castgate_wire::umtp::Channel;
use thiserror::Error;

use crate::event::{Datagram, Event, Path};
use crate::interface::find_interface;
use crate::name::GroupName;
use crate::native::NativeSender;
use crate::tunnel::{Tunnel, TunnelError, TunnelSettings};

/// Settings of a sender.
#[derive(Debug, Clone)]
pub struct SenderSettings {
    /// The channel.
    pub name: GroupName,
    /// TTL of each packet, as an application sets it: on its way through a tunnel it has one hop less.
    pub ttl: u8,
    /// How to send.
    pub to: SendTo,
}

/// The path of a sender.
#[derive(Debug, Clone)]
pub enum SendTo {
    /// On this interface, by name or address; the routing table's choice when `None`.
    Native(Option<String>),
    /// Through this tunnel.
    Tunnel(TunnelSettings),
}

/// Why nothing can be sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// The kernel does not send.
    #[error("cannot send {name} natively: {error}")]
    Native {
        /// The channel.
        name: GroupName,
        /// What the kernel said.
        error: io::Error,
    },
    /// A channel of IPv6, into which only a network that has it natively takes packets: UMTP knows IPv4 alone, and nobody sends
    /// through AMT (RFC 7450 §1).
    #[error("no tunnel takes packets for {0}: UMTP carries IPv4 only; send it natively")]
    Ipv6(GroupName),
    /// The tunnel cannot be built.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// This payload was not sent.
    #[error("not sent: {0}")]
    Payload(#[from] client::SendError),
}

/// A channel to send into.
#[derive(Debug)]
pub struct Sender {
    name: GroupName,
    ttl: u8,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Native(NativeSender),
    Tunnel(Box<Tunnel>, Channel),
}

impl Sender {
    /// Gets ready to send.
    ///
    /// # Errors
    /// [`SendError`] when the kernel refuses. A server that is not found yet is searched for as long as [`drive`](Self::drive) is
    /// called.
    #[expect(clippy::unused_async, reason = "it takes a Tokio runtime, and a path may have to be waited for one day")]
    pub async fn open(settings: SenderSettings) -> Result<Self, SendError> {
        let SenderSettings { name, ttl, to } = settings;
        let target = match to {
            SendTo::Native(interface) => {
                let index = interface.map_or(Ok(0), |interface| find_interface(&interface).map(|found| found.index));
                let sender = index
                    .and_then(|index| NativeSender::open(&name, index, ttl))
                    .map_err(|error| SendError::Native { name, error })?;
                Target::Native(sender)
            }
            SendTo::Tunnel(settings) => {
                let channel = name.channel().ok_or(SendError::Ipv6(name))?;
                let mut tunnel = Tunnel::open(settings)?;
                tunnel.join(channel);
                Target::Tunnel(Box::new(tunnel), channel)
            }
        };
        Ok(Self { name, ttl, target })
    }

    /// The path taken.
    #[must_use]
    pub fn path(&self) -> Path {
        match &self.target {
            Target::Native(_) => Path::Native,
            Target::Tunnel(..) => Path::Umtp,
        }
    }

    /// The tunnel server in use.
    #[must_use]
    pub fn server(&self) -> Option<SocketAddr> {
        match &self.target {
            Target::Native(_) => None,
            Target::Tunnel(tunnel, _) => tunnel.server().map(SocketAddr::V4),
        }
    }

    /// Whether a payload given now has somewhere to go.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.target {
            Target::Native(_) => true,
            Target::Tunnel(tunnel, _) => tunnel.server().is_some(),
        }
    }

    /// Why there is nowhere to send to, as far as that can be known.
    #[must_use]
    pub fn silence_reason(&self) -> String {
        match &self.target {
            Target::Native(_) => "nothing was given to send".to_owned(),
            Target::Tunnel(tunnel, _) => tunnel.silence_reason(),
        }
    }

    /// Sends one payload now.
    ///
    /// # Errors
    /// [`SendError`] when it was not sent: no server at this moment, too long, or what the kernel says.
    pub fn send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        match &mut self.target {
            Target::Native(sender) => {
                sender.send(payload).map_err(|error| SendError::Native { name: self.name, error })
            }
            Target::Tunnel(tunnel, channel) => Ok(tunnel.send(*channel, self.ttl, payload)?),
        }
    }

    /// Keeps the tunnel alive and brings what the others send. Call it again and again between sends; cancelling loses
    /// nothing. Natively there is nothing to wait for, and it never returns.
    ///
    /// # Errors
    /// [`SendError`] when the path is broken for good.
    pub async fn drive(&mut self, mut sink: impl FnMut(Datagram<'_>)) -> Result<Option<Event>, SendError> {
        match &mut self.target {
            Target::Native(_) => std::future::pending().await,
            Target::Tunnel(tunnel, _) => Ok(tunnel.receive(|received| sink(received.into())).await?),
        }
    }

    /// Leaves the channel; a tunnel server is told so.
    pub async fn close(self) {
        if let Target::Tunnel(tunnel, _) = self.target {
            tunnel.shut_down().await;
        }
    }
}
