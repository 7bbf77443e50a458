//! UMTP endpoints without sockets and clocks: draft-finlayson-umtp-09, with its holes closed as `docs/conformance.md` says.
//!
//! ```text
//!              ┌───────────── driver: owns the socket and the clock ─────────────┐
//!   datagram ──▶ handle_datagram(now, from, octets)            poll_output() ────▶ datagrams, table edits, events
//!   time ──────▶ handle_timeout(now)                          next_timeout() ────▶ when to wake
//!              └─────────────────────────────────────────────────────────────────┘
//! ```
//! [`server::Server`] is the slave of the draft for any number of tunnels; [`client::Client`] is the master, with an ordered
//! list of servers of which it uses one. Roles are fixed: a server never asks for a channel and a client never grants one.
//!
//! The contract of both, in the order in which a driver meets it:
//! * whatever depends on time takes `now`; time never runs backwards;
//! * after each call, call `poll_output` until it returns `None`, and carry the outputs out in that order;
//! * then sleep until `next_timeout` at the latest and call `handle_timeout`; calling it early is harmless;
//! * nothing that comes from the network panics, and nothing that an unproven address sends makes state grow.

pub mod client;
mod cookie;
mod limiter;
pub mod server;

pub use cookie::Key;

use castgate_wire::umtp::{Channel, Trailer};
use std::net::Ipv4Addr;

/// Why a channel can never cross a tunnel, whoever asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unfit {
    /// The group is outside 224.0.0.0/4.
    #[error("group {0} is not a multicast address")]
    NotMulticast(Ipv4Addr),
    /// The group is in 224.0.0.0/24, which stays on its link.
    #[error("group {0} never leaves its link")]
    LinkLocal(Ipv4Addr),
    /// Port 0 means raw tunnelling, which base UMTP does not have.
    #[error("port 0 asks for raw tunnelling")]
    RawPort,
    /// An RTP pair on port 65535 has no second port.
    #[error("an RTP pair cannot start at port 65535")]
    NoRtcpPort,
    /// The source of a source-specific channel is not the address of a host.
    #[error("source {0} is not the address of a host")]
    BadSource(Ipv4Addr),
}

impl Unfit {
    /// The channel itself, or the reason why it is refused.
    ///
    /// # Errors
    /// [`Unfit`], the first that applies.
    pub fn check(channel: Channel) -> Result<Channel, Self> {
        if !channel.is_multicast() {
            return Err(Self::NotMulticast(channel.group));
        }
        if channel.is_link_local() {
            return Err(Self::LinkLocal(channel.group));
        }
        if channel.port == 0 {
            return Err(Self::RawPort);
        }
        match channel.source {
            Some(source) if source.is_multicast() || source.is_unspecified() || source.is_broadcast() => {
                Err(Self::BadSource(source))
            }
            _ => Ok(channel),
        }
    }

    /// The second channel of an RTP pair that starts at `channel`.
    ///
    /// # Errors
    /// [`Unfit::NoRtcpPort`] for port 65535 (castgate UMTP notes: the sum must not wrap to port 0).
    pub fn check_rtcp(channel: Channel) -> Result<Channel, Self> {
        channel.rtcp().ok_or(Self::NoRtcpPort)
    }
}

/// What a native multicast packet brings about whose source is the address of the other end of a tunnel.
///
/// The draft tears down every tunnel of that address. Behind one NAT, or on one machine, that hits the innocent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LoopCheck {
    /// Nothing: the packet is relayed like any other.
    Off,
    /// `TEAR_DOWN` to the tunnels of that address that have the group joined.
    #[default]
    Endpoint,
    /// `TEAR_DOWN` to all tunnels of that address (draft-finlayson-umtp-09, local event 4).
    Address,
}

/// A payload and its trailer as one datagram.
fn datagram(trailer: &Trailer, head: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(head.len() + trailer.buffer_len());
    octets.extend_from_slice(head);
    trailer.append_to(&mut octets);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Channel, Unfit> {
        Unfit::check(text.parse().unwrap())
    }

    #[test]
    fn what_may_not_cross_a_tunnel_is_refused_with_its_reason() {
        assert!(check("239.1.2.3:5004").is_ok());
        assert!(check("232.1.2.3@192.0.2.10:5004").is_ok());
        assert_eq!(check("224.0.0.5:1"), Err(Unfit::LinkLocal(Ipv4Addr::new(224, 0, 0, 5))));
        assert_eq!(check("239.1.2.3:0"), Err(Unfit::RawPort));
        let host = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(Unfit::check(Channel::any_source(host, 1)), Err(Unfit::NotMulticast(host)));
        let group = Ipv4Addr::new(232, 1, 1, 1);
        assert_eq!(Unfit::check(Channel::source_specific(group, group, 1)), Err(Unfit::BadSource(group)));
    }

    #[test]
    fn an_rtp_pair_does_not_wrap_to_port_zero() {
        let channel = Channel::any_source(Ipv4Addr::new(239, 1, 2, 3), 65535);
        assert_eq!(Unfit::check_rtcp(channel), Err(Unfit::NoRtcpPort));
    }
}
