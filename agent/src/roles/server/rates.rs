//! Rates of channels from their counters, whoever asks how often.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use castgate_wire::umtp::Channel;

/// Two looks that are closer together share one sample: over a shorter time the rate would only show single packets.
const WINDOW_MIN: Duration = Duration::from_millis(500);

/// The last sample and the rates it gave.
#[derive(Debug, Default)]
pub(super) struct Rates {
    sampled_at: Option<Instant>,
    bytes: HashMap<Channel, u64>,
    bits_per_second: HashMap<Channel, u64>,
}

impl Rates {
    /// Takes the counters of all channels at one time. A channel that is new counts from its first sample.
    pub(super) fn sample(&mut self, now: Instant, bytes: impl Iterator<Item = (Channel, u64)>) {
        let window = self.sampled_at.map(|before| now.saturating_duration_since(before));
        if window.is_some_and(|window| window < WINDOW_MIN) {
            return;
        }
        let bytes: HashMap<_, _> = bytes.collect();
        self.bits_per_second = window.map_or_else(HashMap::new, |window| {
            let rate = |(channel, count): (&Channel, &u64)| {
                let since = count.saturating_sub(*self.bytes.get(channel)?);
                let rate = u128::from(since) * 8 * 1_000_000 / window.as_micros();
                Some((*channel, u64::try_from(rate).unwrap_or(u64::MAX)))
            };
            bytes.iter().filter_map(rate).collect()
        });
        self.sampled_at = Some(now);
        self.bytes = bytes;
    }

    /// The rate over the time between the last two samples; 0 when there is only one.
    pub(super) fn of(&self, channel: Channel) -> u64 {
        self.bits_per_second.get(&channel).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_came_between_two_samples() {
        let channel: Channel = "239.1.2.3:5004".parse().unwrap();
        let start = Instant::now();
        let mut rates = Rates::default();
        rates.sample(start, [(channel, 1_000_000)].into_iter());
        assert_eq!(rates.of(channel), 0);
        rates.sample(start + Duration::from_secs(2), [(channel, 1_250_000)].into_iter());
        assert_eq!(rates.of(channel), 1_000_000);
    }

    #[test]
    fn a_second_look_at_once_sees_the_same_rate() {
        let channel: Channel = "239.1.2.3:5004".parse().unwrap();
        let start = Instant::now();
        let mut rates = Rates::default();
        rates.sample(start, [(channel, 0)].into_iter());
        rates.sample(start + Duration::from_secs(1), [(channel, 1000)].into_iter());
        rates.sample(start + Duration::from_millis(1_001), [(channel, 1000)].into_iter());
        assert_eq!(rates.of(channel), 8_000);
    }

    #[test]
    fn a_channel_that_comes_back_with_smaller_counters_has_no_rate_yet() {
        let channel: Channel = "239.1.2.3:5004".parse().unwrap();
        let start = Instant::now();
        let mut rates = Rates::default();
        rates.sample(start, [(channel, 9000)].into_iter());
        rates.sample(start + Duration::from_secs(1), [(channel, 10)].into_iter());
        assert_eq!(rates.of(channel), 0);
    }
}
