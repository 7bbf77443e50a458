//! Local cookies that need no memory: a keyed hash of the peer's address, its port and the epoch.
//!
//! A peer that returns the cookie has received at its address, and we kept nothing to find that out. Sixteen bits can be
//! guessed, which is why [`super::limiter::Guard`] counts the wrong ones.

use castgate_wire::umtp::Cookie;
use siphasher::sip::SipHasher24;
use std::fmt;
use std::hash::Hasher;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// 128 secret bits from which every cookie of one endpoint is derived. Draw them at random at every start.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A keyed hash of a peer and a number; `purpose` keeps hashes for different uses apart.
    pub(super) fn hash(&self, purpose: u8, peer: SocketAddrV4, number: u64) -> u64 {
        let mut octets = [0; 15];
        octets[0..4].copy_from_slice(&peer.ip().octets());
        octets[4..6].copy_from_slice(&peer.port().to_be_bytes());
        octets[6] = purpose;
        octets[7..15].copy_from_slice(&number.to_be_bytes());
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&octets);
        hasher.finish()
    }

    /// A cookie for `peer`: the low sixteen bits of the hash.
    pub(super) fn cookie(&self, peer: SocketAddrV4, epoch: u64) -> Cookie {
        let [low, high, ..] = self.hash(PURPOSE_COOKIE, peer, epoch).to_le_bytes();
        Cookie(u16::from_le_bytes([low, high]))
    }
}

const PURPOSE_COOKIE: u8 = 0;
const PURPOSE_PHASE: u8 = 1;

/// The two local cookies that a peer may use at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LocalCookies {
    pub(super) current: Cookie,
    pub(super) previous: Cookie,
    /// When `current` becomes `previous`.
    pub(super) until: Instant,
}

impl LocalCookies {
    pub(super) fn accepts(&self, cookie: Cookie) -> bool {
        cookie == self.current || cookie == self.previous
    }
}

/// Makes cookies that change with every epoch.
#[derive(Debug, Clone)]
pub(super) struct CookieJar {
    key: Key,
    start: Instant,
    epoch: Duration,
}

impl CookieJar {
    pub(super) fn new(key: Key, epoch: Duration, now: Instant) -> Self {
        Self { key, start: now, epoch: epoch.max(Duration::from_secs(1)) }
    }

    /// The cookies of `peer` at `now`.
    ///
    /// Every peer has a phase of its own, so that a hundred thousand cookies do not change in the same instant.
    pub(super) fn cookies(&self, peer: SocketAddrV4, now: Instant) -> LocalCookies {
        let epoch_nanos = self.epoch.as_nanos();
        let phase_nanos = u128::from(self.key.hash(PURPOSE_PHASE, peer, 0)) % epoch_nanos;
        let age_nanos = now.saturating_duration_since(self.start).as_nanos() + phase_nanos;
        let number = u64::try_from(age_nanos / epoch_nanos).unwrap_or(u64::MAX);
        let current = self.key.cookie(peer, number);
        // Nobody can hold a cookie of the time before we started: taking one would only double a guesser's chance.
        let previous = number.checked_sub(1).map_or(current, |number| self.key.cookie(peer, number));
        let left_nanos = u64::try_from(epoch_nanos - age_nanos % epoch_nanos).unwrap_or(u64::MAX);
        LocalCookies { current, previous, until: now + Duration::from_nanos(left_nanos) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Duration = Duration::from_hours(1);

    fn peer(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new([192, 0, 2, 1].into(), port)
    }

    #[test]
    fn a_cookie_lives_for_its_epoch_and_the_next_and_no_longer() {
        let start = Instant::now();
        let jar = CookieJar::new(Key([7; 16]), EPOCH, start);
        let first = jar.cookies(peer(1), start);
        let life = first.until - start;
        assert_eq!(jar.cookies(peer(1), start + life.mul_f64(0.999)), first);
        let second = jar.cookies(peer(1), first.until);
        assert_eq!(second.previous, first.current);
        assert_eq!(second.until, first.until + EPOCH);
        assert!(second.accepts(first.current));
        assert!(!jar.cookies(peer(1), second.until).accepts(first.current));
    }

    #[test]
    fn in_the_first_epoch_one_cookie_of_all_is_right() {
        let start = Instant::now();
        let jar = CookieJar::new(Key([7; 16]), EPOCH, start);
        let first = jar.cookies(peer(1), start);
        assert_eq!((0..=u16::MAX).filter(|guess| first.accepts(Cookie(*guess))).count(), 1);
        let second = jar.cookies(peer(1), first.until);
        assert_eq!((0..=u16::MAX).filter(|guess| second.accepts(Cookie(*guess))).count(), 2);
    }

    #[test]
    fn cookies_differ_by_port_and_by_key() {
        let start = Instant::now();
        let ours = CookieJar::new(Key([7; 16]), EPOCH, start);
        let theirs = CookieJar::new(Key([8; 16]), EPOCH, start);
        assert_ne!(ours.cookies(peer(1), start).current, ours.cookies(peer(2), start).current);
        assert_ne!(ours.cookies(peer(1), start).current, theirs.cookies(peer(1), start).current);
    }

    #[test]
    fn epochs_of_different_peers_end_at_different_times() {
        let start = Instant::now();
        let jar = CookieJar::new(Key([7; 16]), EPOCH, start);
        let ends: std::collections::BTreeSet<_> = (1..=100).map(|port| jar.cookies(peer(port), start).until).collect();
        assert_eq!(ends.len(), 100);
    }

    #[test]
    fn a_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", Key([7; 16])), "Key(..)");
    }
}
