//! How many requests an address may make, and how many wrong passwords a login may get: a bucket that fills with time, in tables
//! of fixed size.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashTable;

/// Addresses remembered. When a flood from more than these comes, those beyond share one bucket.
const SOURCES_MAX: usize = 65_536;
/// The table is searched for buckets that filled up again no more often than this: a flood cannot make us search for each
/// of its packets.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// A host holds a whole IPv6 network of this length.
const IPV6_PREFIX_LEN: u32 = 64;

/// Tables side by side, so that requests of different sources do not wait for each other.
const SHARDS: usize = 16;

/// A limit for each key: an address, or a login.
#[derive(Debug)]
pub(crate) struct Rate<K> {
    per_minute: AtomicU32,
    shards: Box<[Mutex<Shard<K>>]>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Shard<K> {
    buckets: HashTable<(K, Bucket)>,
    overflow: Bucket,
    swept_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In sixtieths of a request: so many are added a second as are allowed a minute.
    level: u64,
    at: Instant,
}

impl<K: Hash + Eq + Copy> Rate<K> {
    /// So many requests at once, and as many in each minute.
    pub(crate) fn new(per_minute: u32, now: Instant) -> Self {
        let shard = || {
            let overflow = Bucket { level: full(per_minute), at: now };
            Mutex::new(Shard { buckets: HashTable::new(), overflow, swept_at: now })
        };
        let shards = (0..SHARDS).map(|_| shard()).collect();
        Self { per_minute: AtomicU32::new(per_minute), shards, hasher: RandomState::new() }
    }

    pub(crate) fn set(&self, per_minute: u32) {
        self.per_minute.store(per_minute, Ordering::Relaxed);
    }

    /// Takes one request, or says how long to wait for it.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let per_minute = self.per_minute.load(Ordering::Relaxed);
        self.bucket(key, per_minute, now, |bucket| bucket.take(per_minute, now))
    }

    /// Whether a request would be taken.
    pub(crate) fn look(&self, key: K, now: Instant) -> Result<(), Duration> {
        let per_minute = self.per_minute.load(Ordering::Relaxed);
        let mut bucket = self.bucket(key, per_minute, now, |bucket| *bucket);
        bucket.take(per_minute, now)
    }

    /// The key is hashed once, for the table and for its place in it.
    fn bucket<T>(&self, key: K, per_minute: u32, now: Instant, then: impl FnOnce(&mut Bucket) -> T) -> T {
        let hash = self.hasher.hash_one(key);
        // The table itself looks at the lowest and the highest bits.
        let number = usize::try_from(hash >> 32 & (SHARDS as u64 - 1)).expect("below 16");
        // What is inside is whole between any two statements that can panic.
        let mut shard = self.shards[number].lock().unwrap_or_else(PoisonError::into_inner);
        then(shard.bucket(key, hash, &self.hasher, per_minute, now))
    }

    /// Buckets that are not full: for tests.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().buckets.len()).sum()
    }
}

impl<K: Hash + Eq + Copy> Shard<K> {
    fn bucket(&mut self, key: K, hash: u64, hasher: &RandomState, per_minute: u32, now: Instant) -> &mut Bucket {
        let absent = match self.buckets.find_entry(hash, |(known, _)| *known == key) {
            Ok(found) => return &mut found.into_mut().1,
            Err(absent) => absent,
        };
        let buckets = absent.into_table();
        if buckets.len() >= SOURCES_MAX / SHARDS {
            if now.duration_since(self.swept_at) >= SWEEP_INTERVAL {
                self.swept_at = now;
                buckets.retain(|(_, bucket)| {
                    bucket.fill(per_minute, now);
                    bucket.level < full(per_minute)
                });
            }
            if buckets.len() >= SOURCES_MAX / SHARDS {
                return &mut self.overflow;
            }
        }
        let fresh = Bucket { level: full(per_minute), at: now };
        &mut buckets.insert_unique(hash, (key, fresh), |(known, _)| hasher.hash_one(known)).into_mut().1
    }
}

const fn full(per_minute: u32) -> u64 {
    per_minute as u64 * 60
}

impl Bucket {
    fn fill(&mut self, per_minute: u32, now: Instant) {
        let per_minute = u64::from(per_minute.max(1));
        let nanos = u64::try_from(now.saturating_duration_since(self.at).as_nanos()).unwrap_or(u64::MAX);
        let gained = nanos / (NANOS_PER_SECOND / per_minute).max(1);
        self.level = self.level.saturating_add(gained).min(per_minute * 60);
        // Only the time that was paid for: whoever asks often does not round the rest away.
        self.at += Duration::from_nanos(gained.saturating_mul(NANOS_PER_SECOND / per_minute).min(nanos));
    }

    fn take(&mut self, per_minute: u32, now: Instant) -> Result<(), Duration> {
        self.fill(per_minute, now);
        if self.level >= 60 {
            self.level -= 60;
            return Ok(());
        }
        let missing = 60 - self.level;
        Err(Duration::from_millis((missing * 1_000).div_ceil(u64::from(per_minute.max(1)))))
    }
}

/// The key of an address. Whoever has an IPv6 network has as many addresses as he likes.
pub(crate) fn host(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> (128 - IPV6_PREFIX_LEN) << (128 - IPV6_PREFIX_LEN)))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_minute_of_requests_may_come_at_once_and_then_one_at_a_time() {
        let start = Instant::now();
        let rate = Rate::new(60, start);
        let source = IpAddr::from([192, 0, 2, 1]);
        assert_eq!((0..100).filter(|_| rate.take(source, start).is_ok()).count(), 60);
        assert_eq!(rate.take(source, start), Err(SECOND));
        assert_eq!(rate.look(source, start), Err(SECOND));
        assert!(rate.take(IpAddr::from([192, 0, 2, 2]), start).is_ok(), "another address is another bucket");
        assert!(rate.take(source, start + SECOND).is_ok());
        assert!(rate.take(source, start + SECOND).is_err());
        let often = (1..=10_000).filter(|n| rate.take(source, start + SECOND + *n * SECOND / 1_000).is_ok());
        assert_eq!(often.count(), 10, "asking often does not empty it, and does not fill it");
    }

    #[test]
    fn the_table_is_bounded_and_strangers_beyond_it_share_a_bucket() {
        let start = Instant::now();
        let rate = Rate::new(60, start);
        // So many that every shard is full.
        for n in 0..2 * SOURCES_MAX {
            let source = IpAddr::V4(u32::try_from(n).unwrap().into());
            let _ = rate.take(source, start);
        }
        assert_eq!(rate.len(), SOURCES_MAX);
        let strangers = (0..=255_u8).filter(|n| rate.take(IpAddr::from([192, 0, 2, *n]), start).is_ok());
        assert_eq!(strangers.count(), 0, "others came before them");
        assert_eq!(rate.len(), SOURCES_MAX);
        let later = start + 2 * SECOND;
        assert!(rate.take(IpAddr::from([192, 0, 2, 200]), later).is_ok());
        assert_eq!(
            rate.len(),
            SOURCES_MAX - SOURCES_MAX / SHARDS + 1,
            "those of its shard who were quiet are forgotten"
        );
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let start = Instant::now();
        let rate = Rate::new(1, start);
        assert!(rate.take(host("2001:db8::1".parse().unwrap()), start).is_ok());
        assert!(rate.take(host("2001:db8::ffff:2".parse().unwrap()), start).is_err());
        assert!(rate.take(host("2001:db8:0:1::1".parse().unwrap()), start).is_ok());
        assert!(rate.take(host("::ffff:192.0.2.1".parse().unwrap()), start).is_ok());
        assert!(rate.take(host("192.0.2.1".parse().unwrap()), start).is_err(), "mapped or not, it is one host");
    }
}
