//! ICMP to the source of a packet that is too long for a tunnel (RFC 7450 §5.3.3.6.2): seldom, and only where this program may
//! send whole packets.

use super::whole::Whole;
use castgate_udp::whole::WholeSender;
use castgate_wire::{icmp, ip};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

/// A source is told once in this time: it learns from one message.
const PER_SOURCE: Duration = Duration::from_secs(1);
/// Sources that are told in that time. Whoever forges more gets no more out of us.
const SOURCES_MAX: usize = 64;
const SEND_BUFFER_BYTES: usize = 1 << 17;

/// Tells sources; shared by all workers.
#[derive(Debug)]
pub(crate) struct TooBig {
    /// None without the privilege: then sources are left alone.
    sender: Option<WholeSender>,
    told: Mutex<Vec<(IpAddr, Instant)>>,
}

impl TooBig {
    /// One that works where the kernel lets it, or one that never tells anybody.
    pub(crate) fn open(wanted: bool) -> Self {
        let sender = wanted.then(|| WholeSender::open(0, SEND_BUFFER_BYTES)).and_then(|sender| {
            sender.inspect_err(|error| tracing::info!(%error, "sources are not told of packets too long")).ok()
        });
        Self { sender, told: Mutex::new(Vec::with_capacity(SOURCES_MAX)) }
    }

    /// Tells the source of `packet` that `mtu` octets would pass, unless somebody is at it or it was told just now.
    pub(crate) fn tell(&self, packet: &Whole<'_>, mtu: usize) {
        let Some(sender) = &self.sender else { return };
        if !self.is_due(packet.source, Instant::now()) {
            return;
        }
        let Ok(view) = ip::Packet::new_checked(packet.packet()) else { return };
        let told = castgate_udp::address_towards(SocketAddr::new(packet.source, 0)).and_then(|own| {
            let mtu = u32::try_from(mtu).unwrap_or(u32::MAX);
            icmp::too_big(&view, mtu, own).map_or(Ok(()), |message| sender.send(&message))
        });
        if let Err(error) = told {
            tracing::debug!(source = %packet.source, %error, "a source cannot be told of a packet too long");
        }
    }

    fn is_due(&self, source: IpAddr, now: Instant) -> bool {
        let mut told = match self.told.try_lock() {
            Ok(told) => told,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        told.retain(|(_, at)| now.saturating_duration_since(*at) < PER_SOURCE);
        if told.len() >= SOURCES_MAX || told.iter().any(|(of, _)| *of == source) {
            return false;
        }
        told.push((source, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_told_once_a_second_and_not_more_than_a_few_are() {
        let too_big = TooBig::open(false);
        let source = |last: usize| IpAddr::from([192, 0, 2, u8::try_from(last).unwrap()]);
        let now = Instant::now();
        assert!(too_big.is_due(source(0), now) && !too_big.is_due(source(0), now));
        let others = (1..200).filter(|last| too_big.is_due(source(*last), now)).count();
        assert_eq!(others, SOURCES_MAX - 1);
        assert!(too_big.is_due(source(0), now + PER_SOURCE));
    }
}
