//! How often strangers are answered: per source and in total.
//!
//! A Membership Query is longer than the Request that it answers, and RFC 7450 has no way around that. What goes to an
//! address that somebody else wrote into a Request is therefore bounded by these two rates (RFC 7450 §6.1).

use super::super::table::Table;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// So many in a row, and so many a second after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Answers a second.
    pub per_second: NonZeroU32,
    /// Answers at once, after a time of rest.
    pub burst: NonZeroU32,
}

impl Rate {
    const fn interval(self) -> Duration {
        Duration::from_nanos(1_000_000_000 / self.per_second.get() as u64)
    }

    /// How far the clock of a bucket may be ahead.
    fn tolerance(self) -> Duration {
        self.interval() * (self.burst.get() - 1)
    }
}

/// The clock of one rate: when it would be at rest. Every admission moves it one interval on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket(Instant);

impl Bucket {
    pub(super) fn new(now: Instant) -> Self {
        Self(now)
    }

    pub(super) fn admit(&mut self, now: Instant, rate: Rate) -> bool {
        let at_rest = self.0.max(now);
        let is_admitted = at_rest - now <= rate.tolerance();
        if is_admitted {
            self.0 = at_rest + rate.interval();
        }
        is_admitted
    }
}

/// Why a stranger is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limited {
    Source,
    Total,
}

/// Both rates together.
#[derive(Debug)]
pub(super) struct Limiter {
    sources: Table<IpAddr, Bucket>,
    total: Bucket,
}

impl Limiter {
    pub(super) fn new(key: [u8; 16], sources: usize, now: Instant) -> Self {
        Self { sources: Table::new(key, sources), total: Bucket::new(now) }
    }

    /// How many sources there is room for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Takes an answer to `source` as sent, or says which rate forbids it.
    pub(super) fn admit(&mut self, now: Instant, source: IpAddr, per_source: Rate, total: Rate) -> Result<(), Limited> {
        let bucket = self.sources.entry(site(source), |bucket| bucket.0, || Bucket::new(now));
        if !bucket.admit(now, per_source) {
            return Err(Limited::Source);
        }
        if !self.total.admit(now, total) {
            return Err(Limited::Total);
        }
        Ok(())
    }
}

/// What counts as one source: an IPv4 address, or the 64 bits of IPv6 inside of which a host chooses freely.
fn site(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    #[test]
    fn a_source_has_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut limiter = Limiter::new([1; 16], 64, start);
        let source = IpAddr::from([192, 0, 2, 1]);
        let mut admit = |millis| {
            let now = start + Duration::from_millis(millis);
            limiter.admit(now, source, rate(10, 4), rate(1000, 1000)).is_ok()
        };
        assert_eq!((0..9).filter(|_| admit(0)).count(), 4);
        assert_eq!((0..9).filter(|_| admit(100)).count(), 1);
        assert_eq!((0..9).filter(|_| admit(10_000)).count(), 4, "rest restores the burst and no more");
    }

    #[test]
    fn all_sources_together_have_the_rate_in_total() {
        let start = Instant::now();
        let mut limiter = Limiter::new([1; 16], 64, start);
        let mut admitted = 0;
        for number in 0..10_000_u32 {
            let now = start + Duration::from_micros(100) * number;
            let admission = limiter.admit(now, IpAddr::from(number.to_be_bytes()), rate(10, 4), rate(100, 50));
            admitted += u32::from(admission.is_ok());
            assert_ne!(admission, Err(Limited::Source));
        }
        assert_eq!(admitted, 50 + 99, "the burst, and a second's rate less the first interval");
    }

    #[test]
    fn a_host_gains_nothing_by_the_lower_half_of_its_ipv6_address() {
        let start = Instant::now();
        let mut limiter = Limiter::new([1; 16], 64, start);
        let admitted = (0..100_u128).filter(|low| {
            let source = IpAddr::from(Ipv6Addr::from(0x2001_0db8_u128 << 96 | low));
            limiter.admit(start, source, rate(10, 4), rate(1000, 1000)).is_ok()
        });
        assert_eq!(admitted.count(), 4);
    }
}
