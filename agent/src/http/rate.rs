//! How many requests an address may make, and how many wrong passwords a login may get, in tables of fixed size.
//!
//! A bucket is a moment: that at which it is full again. Each request puts it off by the time that one request takes to be earned
//! anew; one that would put it off beyond a minute from now has to wait (the generic cell rate algorithm of ITU-T I.371).

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses remembered. When a flood from more than these comes, those beyond share a few buckets.
const SOURCES_MAX: usize = 65_536;
/// In so long, as many requests may be made as are allowed a minute, at once or one by one.
const MINUTE_NANOS: u64 = 60_000_000_000;
/// A host holds a whole IPv6 network of this length.
const IPV6_PREFIX_LEN: u32 = 64;

/// Tables side by side, so that requests of different sources do not wait for each other.
const SHARDS: usize = 16;
/// Buckets that one key can have, one of which it gets.
const WAYS: usize = 8;
/// So many of these in each shard.
const SETS: usize = SOURCES_MAX / SHARDS / WAYS;

/// A limit for each key: an address, or a login.
#[derive(Debug)]
pub(crate) struct Rate<K> {
    /// What one request costs: a minute, divided by how many may be made in it.
    cost_nanos: AtomicU64,
    origin: Instant,
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    keys: PhantomData<fn(K)>,
}

/// Moments are nanoseconds since the origin.
#[derive(Debug, Default)]
struct Shard {
    /// None until somebody asks.
    sets: Vec<Set>,
    /// When that of all others is full.
    overflow_full_at: u64,
}

/// Two lines of a cache, which come together: whoever was not here for long waits for memory once.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(128))]
struct Set([Bucket; WAYS]);

/// A bucket that is full is as good as none: its place is free.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Of the key, which is known by it alone. It is a secret hash of 64 bits: nobody can have two keys share a bucket.
    hash: u64,
    full_at: u64,
}

impl<K: Hash> Rate<K> {
    /// So many requests at once, and as many in each minute.
    pub(crate) fn new(per_minute: u32, now: Instant) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let cost_nanos = AtomicU64::new(cost_nanos(per_minute));
        Self { cost_nanos, origin: now, shards, hasher: RandomState::new(), keys: PhantomData }
    }

    pub(crate) fn set(&self, per_minute: u32) {
        self.cost_nanos.store(cost_nanos(per_minute), Ordering::Relaxed);
    }

    /// Takes one request, or says how long to wait for it.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        self.look_and(key, now, |full_at, put_off_to| *full_at = put_off_to)
    }

    /// Whether a request would be taken.
    pub(crate) fn look(&self, key: K, now: Instant) -> Result<(), Duration> {
        self.look_and(key, now, |_, _| {})
    }

    /// The key is hashed once, for the table and for its place in it.
    fn look_and(&self, key: K, now: Instant, then: impl FnOnce(&mut u64, u64)) -> Result<(), Duration> {
        let now = u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        let hash = self.hasher.hash_one(key);
        let number = usize::try_from(hash % SHARDS as u64).expect("below 16");
        // What is inside is whole between any two statements that can panic.
        let mut shard = self.shards[number].lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = shard.full_at(hash, now);
        let put_off_to = (*full_at).max(now).saturating_add(self.cost_nanos.load(Ordering::Relaxed));
        match put_off_to.saturating_sub(now.saturating_add(MINUTE_NANOS)) {
            0 => {
                then(full_at, put_off_to);
                Ok(())
            }
            beyond => Err(Duration::from_nanos(beyond)),
        }
    }

    /// Buckets that are not full: for tests.
    #[cfg(test)]
    fn len(&self, now: Instant) -> usize {
        let now = u64::try_from(now.duration_since(self.origin).as_nanos()).unwrap();
        let of_shard = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap();
            shard.sets.iter().flat_map(|Set(set)| set).filter(|bucket| bucket.full_at > now).count()
        };
        self.shards.iter().map(of_shard).sum()
    }
}

impl Shard {
    fn full_at(&mut self, hash: u64, now: u64) -> &mut u64 {
        if self.sets.is_empty() {
            self.sets = vec![Set::default(); SETS];
        }
        let number = usize::try_from(hash / SHARDS as u64 % SETS as u64).expect("few sets");
        let Set(set) = &mut self.sets[number];
        let known = set.iter().position(|bucket| bucket.hash == hash);
        let Some(at) = known.or_else(|| set.iter().position(|bucket| bucket.full_at <= now)) else {
            return &mut self.overflow_full_at;
        };
        set[at].hash = hash;
        &mut set[at].full_at
    }
}

/// Rounded down: all requests of a minute fit into it. There is nobody who may never ask.
const fn cost_nanos(per_minute: u32) -> u64 {
    MINUTE_NANOS / (if per_minute == 0 { 1 } else { per_minute as u64 })
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
    fn so_many_may_come_at_once_whatever_the_number_and_another_number_holds_at_once() {
        let start = Instant::now();
        let source = IpAddr::from([192, 0, 2, 1]);
        for per_minute in [1, 7, 59, 600, 1_000_000] {
            let rate = Rate::new(per_minute, start);
            let taken = (0..=per_minute).filter(|_| rate.take(source, start).is_ok());
            assert_eq!(taken.count(), usize::try_from(per_minute).unwrap());
            assert!(rate.take(source, start + 60 * SECOND / per_minute).is_ok(), "{per_minute}");
        }
        let rate = Rate::new(1, start);
        assert!(rate.take(source, start).is_ok() && rate.take(source, start).is_err());
        rate.set(600);
        assert_eq!(rate.take(source, start), Err(SECOND / 10));
        assert!(rate.take(source, start + SECOND / 10).is_ok());
        let never = Rate::new(0, start);
        assert!(never.take(source, start).is_ok() && never.take(source, start + 60 * SECOND).is_ok());
        // What came before the table was made is as if it came then.
        assert!(never.take(source, start.checked_sub(SECOND).unwrap()).is_err());
    }

    #[test]
    fn the_table_is_bounded_and_strangers_beyond_it_share_a_bucket() {
        let start = Instant::now();
        let rate = Rate::new(60, start);
        let flood = || (0..4 * SOURCES_MAX).map(|n| IpAddr::V4(u32::try_from(n).unwrap().into()));
        // So many that every place is taken.
        for source in flood() {
            let _ = rate.take(source, start);
        }
        assert_eq!(rate.len(start), SOURCES_MAX);
        let strangers = (0..=255_u8).filter(|n| rate.take(IpAddr::from([192, 0, 2, *n]), start).is_ok());
        assert_eq!(strangers.count(), 0, "others came before them");
        let again = flood().filter(|source| rate.take(*source, start).is_ok());
        assert_eq!(again.count(), SOURCES_MAX, "who has a place keeps it");
        let later = start + 3 * SECOND;
        assert_eq!(rate.len(later), 0, "those who were quiet are forgotten");
        assert!(rate.take(IpAddr::from([192, 0, 2, 200]), later).is_ok());
        assert_eq!(rate.len(later), 1);
    }

    /// A few thousand customers are far from a flood.
    #[test]
    fn hardly_anybody_shares_a_bucket_while_a_third_of_the_places_is_taken() {
        let start = Instant::now();
        let rate = Rate::new(1, start);
        let taken = (0..20_000_u32).filter(|n| rate.take(IpAddr::V4((*n).into()), start).is_ok()).count();
        assert!(taken > 19_900, "{taken}");
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
