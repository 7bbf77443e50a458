//! Two tables of fixed size about addresses that have proven nothing: who was answered, and who guesses cookies.
//!
//! Both are set-associative: a keyed hash names a row of [`WAYS`] entries, and in a full row the entry that matters least
//! gives way. A flood of addresses therefore makes them forget, never grow: a forgotten limit costs one answer that is no
//! longer than its question, and a forgotten guesser is found again after another handful of guesses.

use super::cookie::Key;
use castgate_wire::umtp::Cookie;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Entries that share a hash.
const WAYS: usize = 8;
const PURPOSE_ROW: u8 = 2;

/// Rows for at least `entries` entries.
fn rows(entries: usize) -> usize {
    entries.div_ceil(WAYS).max(1)
}

/// The first entry of the row of `peer` in a table of `len` entries.
fn row_start(key: &Key, peer: SocketAddrV4, len: usize) -> usize {
    let rows = (len / WAYS) as u64;
    let row = key.hash(PURPOSE_ROW, peer, 0) % rows;
    usize::try_from(row).expect("a row of a table in memory") * WAYS
}

/// Lets one answer per interval go to each address and port.
#[derive(Debug, Clone)]
pub(super) struct Limiter {
    key: Key,
    entries: Box<[Option<(SocketAddrV4, Instant)>]>,
}

impl Limiter {
    pub(super) fn new(key: Key, entries: usize) -> Self {
        Self { key, entries: vec![None; rows(entries) * WAYS].into() }
    }

    /// Whether `peer` may be answered at `now`; if so, the answer is taken as sent.
    pub(super) fn admit(&mut self, peer: SocketAddrV4, interval: Duration, now: Instant) -> bool {
        let start = row_start(&self.key, peer, self.entries.len());
        let row = &mut self.entries[start..start + WAYS];
        if let Some((_, last)) = row.iter_mut().flatten().find(|(known, _)| *known == peer) {
            let admitted = now.saturating_duration_since(*last) >= interval;
            if admitted {
                *last = now;
            }
            return admitted;
        }
        // `None` sorts before every time: an empty entry first, then the one answered longest ago.
        if let Some(entry) = row.iter_mut().min_by_key(|entry| entry.map(|(_, last)| last)) {
            *entry = Some((peer, now));
        }
        true
    }
}

/// When an address is taken for a guesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GuardRule {
    /// Different guesses that are forgiven per window.
    pub(super) guesses_max: usize,
    pub(super) window: Duration,
    pub(super) ignore_for: Duration,
}

/// What is remembered of an address with wrong cookies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suspect {
    address: Ipv4Addr,
    since: Instant,
    ignored_until: Option<Instant>,
    /// Port and cookie of each different guess. A client that repeats the cookie of a server that is gone learns nothing
    /// from it and is not a guesser, however fast it sends.
    guesses: Vec<(u16, Cookie)>,
}

impl Suspect {
    /// What remembering this one is worth, in ascending order.
    fn weight(&self, now: Instant) -> (Option<Instant>, usize, Instant) {
        (self.ignored_until.filter(|ignored_until| now < *ignored_until), self.guesses.len(), self.since)
    }
}

/// Finds addresses that guess cookies.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    key: Key,
    entries: Box<[Option<Suspect>]>,
}

impl Guard {
    pub(super) fn new(key: Key, entries: usize) -> Self {
        Self { key, entries: vec![None; rows(entries) * WAYS].into() }
    }

    fn row(&mut self, address: Ipv4Addr) -> &mut [Option<Suspect>] {
        let start = row_start(&self.key, SocketAddrV4::new(address, 0), self.entries.len());
        &mut self.entries[start..start + WAYS]
    }

    /// Whether datagrams of `address` are to be ignored at `now`.
    pub(super) fn ignores(&mut self, address: Ipv4Addr, now: Instant) -> bool {
        self.row(address).iter().flatten().any(|suspect| {
            suspect.address == address && suspect.ignored_until.is_some_and(|ignored_until| now < ignored_until)
        })
    }

    /// Counts a wrong cookie; true when the address is ignored from here on.
    pub(super) fn wrong_cookie(&mut self, peer: SocketAddrV4, cookie: Cookie, rule: GuardRule, now: Instant) -> bool {
        let address = *peer.ip();
        let row = self.row(address);
        let found = row.iter().position(|entry| entry.as_ref().is_some_and(|suspect| suspect.address == address));
        let place = found.or_else(|| {
            // An empty entry first; then whoever is not ignored, with the fewest guesses, the longest ago.
            (0..WAYS).min_by_key(|place| row[*place].as_ref().map(|suspect| suspect.weight(now)))
        });
        let Some(entry) = place.map(|place| &mut row[place]) else { return false };
        let is_stale = |suspect: &Suspect| {
            suspect.address != address
                || match suspect.ignored_until {
                    Some(ignored_until) => ignored_until <= now,
                    None => now.saturating_duration_since(suspect.since) >= rule.window,
                }
        };
        if entry.as_ref().is_none_or(is_stale) {
            *entry = Some(Suspect { address, since: now, ignored_until: None, guesses: Vec::new() });
        }
        let Some(suspect) = entry else { return false };
        let guess = (peer.port(), cookie);
        if suspect.guesses.contains(&guess) {
            return false;
        }
        if suspect.guesses.len() < rule.guesses_max {
            suspect.guesses.push(guess);
            return false;
        }
        suspect.ignored_until = Some(now + rule.ignore_for);
        true
    }

    /// Whether an ignored address may prove itself after all: each port that made one of the forgiven guesses has one try.
    ///
    /// Behind one NAT, many clients of a restarted server look like a guesser. They were told the new cookie, and one of them that
    /// returns it speaks for the address. A guesser gets a handful of tries more.
    pub(super) fn last_try(&mut self, peer: SocketAddrV4, cookie: Cookie, is_right: bool) -> bool {
        let address = *peer.ip();
        let suspect = self.row(address).iter_mut().flatten().find(|suspect| suspect.address == address);
        let Some(suspect) = suspect else { return false };
        if suspect.guesses.contains(&(peer.port(), cookie)) {
            return false;
        }
        let tries = suspect.guesses.len();
        suspect.guesses.retain(|(port, _)| *port != peer.port());
        is_right && suspect.guesses.len() < tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: GuardRule =
        GuardRule { guesses_max: 16, window: Duration::from_mins(1), ignore_for: Duration::from_mins(1) };
    const SECOND: Duration = Duration::from_secs(1);

    fn peer(low: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new([192, 0, 2, low].into(), port)
    }

    #[test]
    fn a_source_is_answered_once_per_interval() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Key([1; 16]), 64);
        assert!(limiter.admit(peer(1, 1), SECOND, start));
        assert!(!limiter.admit(peer(1, 1), SECOND, start + Duration::from_millis(999)));
        assert!(limiter.admit(peer(1, 2), SECOND, start));
        assert!(limiter.admit(peer(1, 1), SECOND, start + SECOND));
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_stays_as_large_as_it_was() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Key([1; 16]), WAYS);
        for port in 1..=8 {
            assert!(limiter.admit(peer(1, port), SECOND, start + Duration::from_millis(port.into())));
        }
        assert!(limiter.admit(peer(2, 9), SECOND, start + Duration::from_millis(9)));
        assert!(!limiter.admit(peer(1, 2), SECOND, start + Duration::from_millis(10)), "not the oldest");
        assert!(limiter.admit(peer(1, 1), SECOND, start + Duration::from_millis(11)), "forgotten");
        assert_eq!(limiter.entries.len(), WAYS);
    }

    #[test]
    fn the_seventeenth_different_guess_makes_an_address_ignored_for_a_minute() {
        let start = Instant::now();
        let mut guard = Guard::new(Key([1; 16]), 64);
        for guess in 0..16 {
            assert!(!guard.wrong_cookie(peer(1, guess), Cookie(guess), RULE, start));
        }
        assert!(!guard.ignores(*peer(1, 0).ip(), start));
        assert!(guard.wrong_cookie(peer(1, 0), Cookie(16), RULE, start));
        assert!(guard.ignores(*peer(1, 0).ip(), start + Duration::from_secs(59)));
        assert!(!guard.ignores(*peer(2, 0).ip(), start));
        assert!(!guard.ignores(*peer(1, 0).ip(), start + Duration::from_mins(1)));
    }

    #[test]
    fn each_port_that_was_told_the_cookie_has_one_try_while_its_address_is_ignored() {
        let start = Instant::now();
        let mut guard = Guard::new(Key([1; 16]), 64);
        for guess in 0..=16 {
            guard.wrong_cookie(peer(1, guess), Cookie(0), RULE, start);
        }
        assert!(!guard.last_try(peer(1, 3), Cookie(0), false), "a repeated guess takes nothing away");
        assert!(guard.last_try(peer(1, 3), Cookie(1), true));
        assert!(!guard.last_try(peer(1, 3), Cookie(1), true), "one try");
        assert!(!guard.last_try(peer(1, 4), Cookie(1), false));
        assert!(!guard.last_try(peer(1, 4), Cookie(2), true), "one try, right or wrong");
        assert!(!guard.last_try(peer(1, 16), Cookie(1), true), "never told");
        assert!(!guard.last_try(peer(2, 1), Cookie(1), true), "not ignored");
    }

    #[test]
    fn a_client_that_repeats_the_cookie_of_a_server_that_is_gone_is_not_a_guesser() {
        let start = Instant::now();
        let mut guard = Guard::new(Key([1; 16]), 64);
        for _ in 0..10_000 {
            assert!(!guard.wrong_cookie(peer(1, 1), Cookie(1), RULE, start));
        }
    }

    #[test]
    fn guesses_are_forgiven_after_the_window() {
        let start = Instant::now();
        let mut guard = Guard::new(Key([1; 16]), 64);
        for guess in 0..200 {
            let now = start + Duration::from_secs(4) * u32::from(guess);
            assert!(!guard.wrong_cookie(peer(1, 1), Cookie(guess), RULE, now), "15 guesses a minute");
        }
    }

    #[test]
    fn an_ignored_address_is_not_pushed_out_by_others_that_guessed_once() {
        let start = Instant::now();
        let mut guard = Guard::new(Key([1; 16]), WAYS);
        for guess in 0..=16 {
            guard.wrong_cookie(peer(1, 1), Cookie(guess), RULE, start);
        }
        for low in 2..200 {
            guard.wrong_cookie(peer(low, 1), Cookie(0), RULE, start + SECOND);
        }
        assert!(guard.ignores(*peer(1, 1).ip(), start + SECOND));
        assert_eq!(guard.entries.len(), WAYS);
    }
}
