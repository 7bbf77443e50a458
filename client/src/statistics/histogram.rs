//! A histogram of fixed size for delays: any span between one nanosecond and centuries, read back within 1/32.
//!
//! Values below 32 have a bucket each; above, every power of two is cut into 32 buckets of equal width.

use std::time::Duration;

const SUB_BITS: u32 = 5;
const SUB_BUCKETS: usize = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB_BUCKETS;

/// Counts of delays by size.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    max_nanos: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0, max_nanos: 0 }
    }
}

impl Histogram {
    /// Counts one delay.
    pub fn record(&mut self, nanos: u64) {
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.max_nanos = self.max_nanos.max(nanos);
    }

    /// The delay that `percent` of the counted ones do not exceed; `None` when nothing was counted.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<Duration> {
        let wanted = (self.count * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(Duration::from_nanos(upper_edge(index).min(self.max_nanos)));
            }
        }
        None
    }

    /// The longest delay counted.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.max_nanos))
    }
}

fn bucket(nanos: u64) -> usize {
    let exponent = nanos.checked_ilog2().unwrap_or(0);
    if exponent < SUB_BITS {
        return low_bits(nanos);
    }
    let shift = exponent - SUB_BITS;
    (shift as usize + 1) * SUB_BUCKETS + low_bits(nanos >> shift) - SUB_BUCKETS
}

/// The largest value that falls into a bucket.
fn upper_edge(index: usize) -> u64 {
    if index < SUB_BUCKETS {
        return index as u64;
    }
    let shift = index / SUB_BUCKETS - 1;
    let sub = (index % SUB_BUCKETS + SUB_BUCKETS) as u64;
    (sub << shift) | ((1_u64 << shift) - 1)
}

/// A value below 64, which every caller has made sure of, as an index.
fn low_bits(value: u64) -> usize {
    usize::try_from(value).expect("fewer than seven bits fit any index")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_the_edges_are_within_a_thirty_second() {
        let mut previous = 0;
        for shift in 0..64 {
            for low in [0_u64, 1, 3] {
                let value = (1_u64 << shift).saturating_add(low << shift >> 2);
                let index = bucket(value);
                let edge = upper_edge(index);
                assert!(edge >= value && edge - value <= value / 32, "{value} in bucket {index} with edge {edge}");
                assert!(index >= previous || low > 0);
                previous = previous.max(index);
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn percentiles_of_a_hundred_delays_are_those_delays() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|nanos| histogram.record(nanos * 1_000_000));
        let p50 = histogram.percentile(50).unwrap().as_secs_f64() * 1e3;
        assert!((49.9..52.0).contains(&p50), "{p50}");
        let p99 = histogram.percentile(99).unwrap().as_secs_f64() * 1e3;
        assert!((98.9..=100.0).contains(&p99), "{p99}");
        assert_eq!(histogram.max(), Some(Duration::from_millis(100)));
    }

    #[test]
    fn an_empty_histogram_has_no_percentile() {
        assert_eq!(Histogram::default().percentile(99), None);
        assert_eq!(Histogram::default().max(), None);
    }
}
