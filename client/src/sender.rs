//! Sending into one channel: upstream through a tunnel, or natively on an interface.
//!
//! A tunnel carries upstream what a member sends (draft-finlayson-umtp-09, local event 3), so a sender joins its channel,
//! hears the others, and leaves in the end like a receiver.

use std::io;
use std::net::SocketAddrV4;

use castgate_endpoint::umtp::client;
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
    Tunnel(Box<Tunnel>),
}

impl Sender {
    /// Gets ready to send.
    ///
    /// # Errors
    /// [`SendError`] when the kernel refuses or no server is found.
    pub async fn open(settings: SenderSettings) -> Result<Self, SendError> {
        let SenderSettings { name, ttl, to } = settings;
        let target = match to {
            SendTo::Native(interface) => {
                let index = interface.map_or(Ok(0), |interface| find_interface(&interface).map(|found| found.index));
                let sender = index
                    .and_then(|index| NativeSender::open(&name.channel(), index, ttl))
                    .map_err(|error| SendError::Native { name, error })?;
                Target::Native(sender)
            }
            SendTo::Tunnel(settings) => {
                let mut tunnel = Tunnel::open(settings).await?;
                tunnel.join(name.channel());
                Target::Tunnel(Box::new(tunnel))
            }
        };
        Ok(Self { name, ttl, target })
    }

    /// The path taken.
    #[must_use]
    pub fn path(&self) -> Path {
        match &self.target {
            Target::Native(_) => Path::Native,
            Target::Tunnel(_) => Path::Umtp,
        }
    }

    /// The tunnel server in use.
    #[must_use]
    pub fn server(&self) -> Option<SocketAddrV4> {
        match &self.target {
            Target::Native(_) => None,
            Target::Tunnel(tunnel) => tunnel.server(),
        }
    }

    /// Whether a payload given now has somewhere to go.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.target {
            Target::Native(_) => true,
            Target::Tunnel(tunnel) => tunnel.server().is_some(),
        }
    }

    /// Why there is nowhere to send to, as far as that can be known.
    #[must_use]
    pub fn silence_reason(&self) -> String {
        match &self.target {
            Target::Native(_) => "nothing was given to send".to_owned(),
            Target::Tunnel(tunnel) => tunnel.silence_reason(),
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
            Target::Tunnel(tunnel) => Ok(tunnel.send(self.name.channel(), self.ttl, payload)?),
        }
    }

    /// Keeps the tunnel alive and brings what the others send. Call it again and again between sends; cancelling loses
    /// nothing. Natively there is nothing to wait for, and it never returns.
    ///
    /// # Errors
    /// [`SendError`] when the path is broken for good.
    pub async fn drive(&mut self, sink: impl FnMut(Datagram<'_>)) -> Result<Option<Event>, SendError> {
        match &mut self.target {
            Target::Native(_) => std::future::pending().await,
            Target::Tunnel(tunnel) => Ok(tunnel.receive(sink).await?),
        }
    }

    /// Leaves the channel; a tunnel server is told so.
    pub async fn close(self) {
        if let Target::Tunnel(tunnel) = self.target {
            tunnel.shut_down().await;
        }
    }
}
