//! Receiving one channel, by whichever path brings it.
//!
//! ```text
//!                    ┌─ native ──▶ kernel join on an interface
//!   Receiver::open ──┼─ umtp   ──▶ tunnel
//!                    ├─ amt    ──▶ tunnel to a relay
//!                    └─ auto   ──▶ native for LISTEN, if an interface is named ──nothing heard──▶ tunnel
//! ```
//! The tunnel of `auto` is UMTP where a server is known and the channel is of IPv4, and AMT otherwise. `auto` is that simple on purpose: a network that has the channel shows it within a moment, since a join makes routers
//! send at once, and without a named interface nobody claimed that there is multicast around.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::time::timeout_at;

use crate::amt::{AmtSettings, AmtTunnel, Unfit};
use crate::event::{Datagram, Event, Path};
use crate::interface::find_interface;
use crate::name::GroupName;
use crate::native::NativeGroup;
use crate::tunnel::{Tunnel, TunnelError, TunnelSettings};

/// How long `auto` listens natively before it takes the tunnel: IGMP's unsolicited report interval, one second, and half
/// of that again for the packets to come.
const LISTEN: Duration = Duration::from_millis(1_500);

/// Which path a receiver may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Native where an interface is named and the channel is heard on it, otherwise a tunnel.
    Auto,
    /// The kernel joins, nothing else.
    Native,
    /// A UMTP tunnel, nothing else.
    Umtp,
    /// An AMT tunnel, nothing else.
    Amt,
}

/// Settings of a receiver.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// The channel.
    pub name: GroupName,
    /// Which path may be taken.
    pub via: Via,
    /// The interface for the native path, by name or address.
    pub interface: Option<String>,
    /// The UMTP tunnel, where servers are known.
    pub tunnel: Option<TunnelSettings>,
    /// The AMT tunnel, where it may be taken.
    pub amt: Option<AmtSettings>,
}

/// Why nothing can be received.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// Neither an interface nor servers.
    #[error(
        "nothing says where {0} is to be had: name a tunnel database, a tunnel server, an AMT relay, or an interface"
    )]
    NoPath(GroupName),
    /// A tunnel is wanted, and no server is known.
    #[error("nothing says which tunnel server to use: name a tunnel database or a tunnel server")]
    NoServer,
    /// The kernel did not join.
    #[error("cannot join {name} natively: {error}")]
    Native {
        /// The channel.
        name: GroupName,
        /// What the kernel said.
        error: io::Error,
    },
    /// A channel of IPv6, which UMTP does not know.
    #[error("UMTP cannot carry {0}: take amt or native")]
    Ipv6(GroupName),
    /// The tunnel cannot be built.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// AMT is wanted, and nothing says how.
    #[error("nothing says how to find an AMT relay")]
    NoAmt,
    /// A channel that no relay may carry.
    #[error("AMT cannot carry {name}: {reason}")]
    Unfit {
        /// The channel.
        name: GroupName,
        /// Why.
        reason: Unfit,
    },
    /// Sockets cannot be waited for any more.
    #[error("the AMT tunnel failed: {0}")]
    Amt(io::Error),
}

/// A joined channel.
#[derive(Debug)]
pub struct Receiver {
    name: GroupName,
    source: Source,
    /// The path was decided and nobody was told yet.
    untold: Option<Path>,
}

#[derive(Debug)]
enum Source {
    Native { group: Box<NativeGroup>, fallback: Option<Fallback> },
    Tunnel(Box<Tunnel>),
    Amt(Box<AmtTunnel>),
}

/// Settings of the tunnel that is to be taken.
#[derive(Debug, Clone)]
enum Tunnels {
    Umtp(TunnelSettings),
    Amt(Box<AmtSettings>),
}

/// What follows when nothing was heard natively until then.
#[derive(Debug)]
struct Fallback {
    until: Instant,
    tunnel: Box<Tunnels>,
}

impl Receiver {
    /// Joins the channel.
    ///
    /// # Errors
    /// [`ReceiveError`] when there is no path or the kernel refuses. A server that is not found yet is searched for as long as
    /// [`receive`](Self::receive) is called.
    #[expect(clippy::unused_async, reason = "it takes a Tokio runtime, and a path may have to be waited for one day")]
    pub async fn open(settings: ReceiverSettings) -> Result<Self, ReceiveError> {
        let ReceiverSettings { name, via, interface, tunnel, amt } = settings;
        let native = |fallback| {
            let index =
                interface.as_deref().map_or(Ok(0), |interface| find_interface(interface).map(|found| found.index));
            match index.and_then(|index| NativeGroup::join(&name, index)) {
                Ok(group) => Ok(Source::Native { group: Box::new(group), fallback }),
                Err(error) => Err(ReceiveError::Native { name, error }),
            }
        };
        let amt = amt.map(|amt| Tunnels::Amt(Box::new(amt)));
        let tunnel = match via {
            Via::Native => None,
            Via::Umtp => Some(Tunnels::Umtp(tunnel.ok_or(ReceiveError::NoServer)?)),
            Via::Amt => Some(amt.ok_or(ReceiveError::NoAmt)?),
            Via::Auto => match tunnel.map(Tunnels::Umtp) {
                Some(umtp) if name.channel().is_some() => Some(umtp),
                umtp => amt.or(umtp),
            },
        };
        let source = match (via, interface.is_some(), tunnel) {
            (Via::Native, _, _) | (Via::Auto, true, None) => native(None)?,
            (Via::Auto, true, Some(tunnel)) => {
                native(Some(Fallback { until: Instant::now() + LISTEN, tunnel: Box::new(tunnel) }))?
            }
            (Via::Auto | Via::Umtp | Via::Amt, _, Some(tunnel)) => tunnel.open(&name)?,
            (Via::Auto | Via::Umtp | Via::Amt, _, None) => return Err(ReceiveError::NoPath(name)),
        };
        let mut receiver = Self { name, source, untold: None };
        receiver.untold = receiver.path();
        Ok(receiver)
    }

    /// The channel.
    #[must_use]
    pub fn name(&self) -> GroupName {
        self.name
    }

    /// The path taken; `None` while that is not decided.
    #[must_use]
    pub fn path(&self) -> Option<Path> {
        match &self.source {
            Source::Native { fallback: Some(_), .. } => None,
            Source::Native { fallback: None, .. } => Some(Path::Native),
            Source::Tunnel(_) => Some(Path::Umtp),
            Source::Amt(_) => Some(Path::Amt),
        }
    }

    /// The tunnel server or relay in use.
    #[must_use]
    pub fn server(&self) -> Option<SocketAddr> {
        match &self.source {
            Source::Tunnel(tunnel) => tunnel.server().map(SocketAddr::V4),
            Source::Amt(tunnel) => tunnel.relay(),
            Source::Native { .. } => None,
        }
    }

    /// Why no packet has come so far, as far as that can be known.
    #[must_use]
    pub fn silence_reason(&self) -> String {
        match &self.source {
            Source::Native { .. } => "this network does not carry the channel".to_owned(),
            Source::Tunnel(tunnel) => tunnel.silence_reason(),
            Source::Amt(tunnel) => tunnel.silence_reason(),
        }
    }

    /// Waits until something has happened. Datagrams go to `sink`, in order and without a copy; an event is returned.
    /// Cancelling loses nothing, and nothing moves while nobody waits: call it again and again.
    ///
    /// # Errors
    /// [`ReceiveError`] when the path is broken for good.
    pub async fn receive(&mut self, mut sink: impl FnMut(Datagram<'_>)) -> Result<Option<Event>, ReceiveError> {
        if let Some(path) = self.untold.take() {
            return Ok(Some(Event::PathChosen(path)));
        }
        let name = self.name;
        let failed = |error| ReceiveError::Native { name, error };
        match &mut self.source {
            Source::Tunnel(tunnel) => return Ok(tunnel.receive(|received| sink(received.into())).await?),
            Source::Amt(tunnel) => return tunnel.receive(sink).await.map_err(ReceiveError::Amt),
            Source::Native { group, fallback: None } => {
                group.readable().await.map_err(failed)?;
                group.take(|datagram| sink(native_datagram(datagram))).map_err(failed)?;
            }
            Source::Native { group, fallback: fallback @ Some(_) } => {
                let until = fallback.as_ref().map_or_else(Instant::now, |fallback| fallback.until);
                if let Ok(readable) = timeout_at(until.into(), group.readable()).await {
                    readable.map_err(failed)?;
                    if group.take(|datagram| sink(native_datagram(datagram))).map_err(failed)? > 0 {
                        *fallback = None;
                        self.untold = Some(Path::Native);
                    }
                } else if let Some(fallback) = fallback {
                    // The settings stay where they are until the tunnel stands: this wait may be cancelled, too.
                    let tunnel = fallback.tunnel.clone();
                    self.source = tunnel.open(&name)?;
                    self.untold = self.path();
                }
            }
        }
        Ok(None)
    }

    /// Leaves the channel; a tunnel server is told so.
    pub async fn close(self) {
        match self.source {
            Source::Tunnel(tunnel) => tunnel.shut_down().await,
            Source::Amt(tunnel) => tunnel.shut_down().await,
            Source::Native { .. } => {}
        }
    }
}

impl Tunnels {
    fn open(self, name: &GroupName) -> Result<Source, ReceiveError> {
        match self {
            Self::Umtp(settings) => {
                let channel = name.channel().ok_or(ReceiveError::Ipv6(*name))?;
                let mut tunnel = Tunnel::open(settings)?;
                tunnel.join(channel);
                Ok(Source::Tunnel(Box::new(tunnel)))
            }
            Self::Amt(settings) => match AmtTunnel::open(name, &settings) {
                Ok(tunnel) => Ok(Source::Amt(Box::new(tunnel))),
                Err(reason) => Err(ReceiveError::Unfit { name: *name, reason }),
            },
        }
    }
}

fn native_datagram(datagram: castgate_udp::Datagram<'_>) -> Datagram<'_> {
    let castgate_udp::Datagram { source, ttl, payload, .. } = datagram;
    Datagram { source: Some(source.ip()), ttl, payload }
}
