//! A network that delays, loses, duplicates, reorders and cuts, all from one seed.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::random::Random;

impl Random {
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// Delay of every datagram.
    pub delay: Duration,
    /// Up to so much more, drawn for each: what makes datagrams overtake each other.
    pub jitter: Duration,
    pub loss_permille: u64,
    pub duplicate_permille: u64,
}

impl Link {
    pub const GOOD: Self =
        Self { delay: Duration::from_millis(10), jitter: Duration::ZERO, loss_permille: 0, duplicate_permille: 0 };
}

type Datagram = (SocketAddrV4, SocketAddrV4, Vec<u8>);

pub struct Net {
    pub random: Random,
    pub link: Link,
    /// Nothing passes at all.
    pub is_cut: bool,
    pub lost: u64,
    under_way: BTreeMap<(Instant, u64), Datagram>,
    carried: u64,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self { random: Random(seed), link: Link::GOOD, is_cut: false, lost: 0, under_way: BTreeMap::new(), carried: 0 }
    }

    pub fn carry(&mut self, now: Instant, from: SocketAddrV4, to: SocketAddrV4, datagram: &[u8]) {
        let copies = if self.random.chance(self.link.duplicate_permille) { 2 } else { 1 };
        for _ in 0..copies {
            if self.is_cut || self.random.chance(self.link.loss_permille) {
                self.lost += 1;
                continue;
            }
            let jitter_micros = u64::try_from(self.link.jitter.as_micros()).unwrap();
            let jitter = Duration::from_micros(self.random.below(jitter_micros + 1));
            self.carried += 1;
            self.under_way.insert((now + self.link.delay + jitter, self.carried), (from, to, datagram.to_vec()));
        }
    }

    pub fn next_arrival(&self) -> Option<Instant> {
        self.under_way.keys().next().map(|(at, _)| *at)
    }

    pub fn arrive(&mut self, now: Instant) -> Option<Datagram> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
