//! Response MACs that need no memory (RFC 7450 §5.3.5, §5.3.6).
//!
//! ```text
//!   key ──▶ secret of epoch n ──▶ MAC = 48 bits of SipHash-2-4 over (gateway, port, relay, port, nonce, E flag)
//!
//!   epoch n-1 ──────┤ epoch n: accepts its own, and those of n-1 for two query intervals ├────── epoch n+1
//! ```
//! The E flag of a Request (RFC 9601) is part of its MAC: the Update that returns the MAC tells what the Request had said, and
//! nothing had to be kept in between.

use castgate_wire::amt::{Nonce, ResponseMac};
use siphasher::sip::SipHasher24;
use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// What a MAC is made over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Binding {
    /// The address and port that the Request came to.
    pub(super) local: SocketAddr,
    /// Where it came from.
    pub(super) remote: SocketAddr,
    pub(super) nonce: Nonce,
    /// Whether it had the E flag.
    pub(super) ecn: bool,
}

/// Makes and checks Response MACs.
#[derive(Clone)]
pub(super) struct Secrets {
    key: [u8; 16],
    start: Instant,
    life: Duration,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Secrets {
    /// `life` is the time for which one secret makes MACs.
    pub(super) fn new(key: [u8; 16], life: Duration, now: Instant) -> Self {
        Self { key, start: now, life: life.max(Duration::from_secs(1)) }
    }

    /// The MAC that a Request gets at `now`.
    pub(super) fn mac(&self, now: Instant, binding: &Binding) -> ResponseMac {
        self.mac_of_epoch(self.epoch(now).0, binding)
    }

    /// Whether `mac` was given out for `binding`, with this secret or, for `overlap` after its change, with the one before. The
    /// E flag of `binding` is not looked at: it is what this finds out.
    pub(super) fn check(&self, now: Instant, overlap: Duration, mac: ResponseMac, binding: Binding) -> Option<Binding> {
        let (epoch, age) = self.epoch(now);
        let previous = epoch.checked_sub(1).filter(|_| age < overlap);
        let epochs = [Some(epoch), previous].into_iter().flatten();
        let bindings = epochs.flat_map(|epoch| [false, true].map(|ecn| (epoch, Binding { ecn, ..binding })));
        bindings
            .filter(|(epoch, binding)| number(self.mac_of_epoch(*epoch, binding)) == number(mac))
            .map(|(_, binding)| binding)
            .next()
    }

    /// The number of the secret of `now`, and since when it is in use.
    fn epoch(&self, now: Instant) -> (u64, Duration) {
        let age_nanos = now.saturating_duration_since(self.start).as_nanos();
        let life_nanos = self.life.as_nanos();
        let epoch = u64::try_from(age_nanos / life_nanos).unwrap_or(u64::MAX);
        (epoch, Duration::from_nanos(u64::try_from(age_nanos % life_nanos).unwrap_or(u64::MAX)))
    }

    /// The secret of an epoch, derived rather than drawn: it is 128 bits of which nothing shows the key or another epoch's.
    fn secret(&self, epoch: u64) -> [u8; 16] {
        let half = |part| {
            let mut hasher = SipHasher24::new_with_key(&self.key);
            hasher.write_u8(part);
            hasher.write(&epoch.to_be_bytes());
            hasher.finish()
        };
        (u128::from(half(0)) << 64 | u128::from(half(1))).to_be_bytes()
    }

    fn mac_of_epoch(&self, epoch: u64, binding: &Binding) -> ResponseMac {
        let Binding { local, remote, nonce, ecn } = binding;
        let mut hasher = SipHasher24::new_with_key(&self.secret(epoch));
        for address in [remote, local] {
            // Families differ in length, so no octet of one can pass for an octet of the other.
            match address.ip() {
                IpAddr::V4(address) => hasher.write(&address.octets()),
                IpAddr::V6(address) => hasher.write(&address.octets()),
            }
            hasher.write(&address.port().to_be_bytes());
            hasher.write_u8(u8::from(address.is_ipv6()));
        }
        hasher.write(&nonce.0.to_be_bytes());
        hasher.write_u8(u8::from(*ecn));
        let [mac @ .., _, _] = hasher.finish().to_be_bytes();
        ResponseMac(mac)
    }
}

/// Compared as one number, a MAC does not tell by the time it takes how much of it was right.
fn number(mac: ResponseMac) -> u64 {
    mac.0.into_iter().fold(0, |number, octet| number << 8 | u64::from(octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_hours(1);
    const OVERLAP: Duration = Duration::from_secs(250);

    fn binding() -> Binding {
        Binding {
            local: "198.51.100.1:2268".parse().unwrap(),
            remote: "203.0.113.1:40000".parse().unwrap(),
            nonce: Nonce(0xcafe_babe),
            ecn: false,
        }
    }

    #[test]
    fn a_mac_is_taken_for_its_epoch_and_two_query_intervals_more() {
        let start = Instant::now();
        let secrets = Secrets::new([7; 16], LIFE, start);
        let at = |after| start + after;
        let last = at(LIFE.mul_f64(0.999));
        let mac = secrets.mac(last, &binding());
        assert_eq!(secrets.mac(start, &binding()), mac, "one secret for the whole epoch");
        assert_ne!(secrets.mac(at(LIFE), &binding()), mac, "and another for the next");
        let is_taken = |now| secrets.check(now, OVERLAP, mac, binding()).is_some();
        assert!(is_taken(at(LIFE + OVERLAP.mul_f64(0.999))));
        assert!(!is_taken(at(LIFE + OVERLAP)));
        assert!(!is_taken(at(LIFE * 2)), "not the one before the one before");
    }

    #[test]
    fn a_mac_belongs_to_one_address_port_nonce_and_relay() {
        let start = Instant::now();
        let secrets = Secrets::new([7; 16], LIFE, start);
        let mac = secrets.mac(start, &binding());
        let taken = |binding| secrets.check(start, OVERLAP, mac, binding).is_some();
        assert!(taken(binding()));
        assert!(!taken(Binding { remote: "203.0.113.1:40001".parse().unwrap(), ..binding() }));
        assert!(!taken(Binding { remote: "203.0.113.2:40000".parse().unwrap(), ..binding() }));
        assert!(!taken(Binding { remote: "[::cb00:7101]:40000".parse().unwrap(), ..binding() }));
        assert!(!taken(Binding { local: "198.51.100.2:2268".parse().unwrap(), ..binding() }));
        assert!(!taken(Binding { local: "198.51.100.1:2269".parse().unwrap(), ..binding() }));
        assert!(!taken(Binding { nonce: Nonce(0xcafe_babf), ..binding() }));
        assert!(Secrets::new([8; 16], LIFE, start).check(start, OVERLAP, mac, binding()).is_none());
    }

    #[test]
    fn a_mac_tells_whether_its_request_had_the_e_flag() {
        let start = Instant::now();
        let secrets = Secrets::new([7; 16], LIFE, start);
        for ecn in [false, true] {
            let asked = Binding { ecn, ..binding() };
            let mac = secrets.mac(start, &asked);
            assert_eq!(secrets.check(start, OVERLAP, mac, binding()), Some(asked));
        }
    }

    #[test]
    fn every_octet_of_a_mac_counts() {
        let start = Instant::now();
        let secrets = Secrets::new([7; 16], LIFE, start);
        let ResponseMac(mac) = secrets.mac(start, &binding());
        for place in 0..6 {
            let mut wrong = mac;
            wrong[place] ^= 0x10;
            assert_eq!(secrets.check(start, OVERLAP, ResponseMac(wrong), binding()), None);
        }
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        assert_eq!(format!("{:?}", Secrets::new([7; 16], LIFE, Instant::now())), "Secrets { life: 3600s, .. }");
    }
}
