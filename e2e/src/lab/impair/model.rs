//! What happens to each frame: a pure function of the seed and the frames before it.

use crate::lab::random::Random;
use anyhow::{Context, Error, Result, bail, ensure};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// What a rate-limited link holds before it drops: as long as a home router's buffer, far above any burst of the tests.
const QUEUE_MAX: Duration = Duration::from_secs(1);

/// How a link treats IP frames. ARP is always spared: a lost ARP costs seconds and tests nothing of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Impairment {
    /// Fraction that is dropped.
    pub loss: f64,
    /// Fraction that arrives twice.
    pub duplicate: f64,
    /// Time on the way.
    pub delay: Duration,
    /// Added to the delay, evenly between nothing and this: what reorders.
    pub jitter: Duration,
    /// Octets of a frame take their time at this rate.
    pub rate_bits_per_second: Option<u64>,
    /// Start of the dice.
    pub seed: u64,
    /// Whether loss and duplication meet UDP alone, so that TCP beside it is not what a test measures.
    pub only_udp: bool,
}

/// What becomes of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Dropped,
    /// The queue before the rate limit is full: it never arrives.
    QueueFull,
    /// It arrives at this time, and once more at the second.
    Passes(Instant, Option<Instant>),
}

/// One direction of a link.
#[derive(Debug)]
pub struct Model {
    impairment: Impairment,
    random: Random,
    /// When the frames before are all on the wire.
    free_at: Option<Instant>,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate_bits_per_second: None,
            seed: 1,
            only_udp: false,
        }
    }
}

impl Impairment {
    /// A link on which nothing passes.
    #[must_use]
    pub fn cut() -> Self {
        Self { loss: 1.0, ..Self::default() }
    }
}

impl FromStr for Impairment {
    type Err = Error;

    /// Words such as `loss=2% duplicate=1% delay=20ms jitter=10ms rate=50mbit seed=7 only=udp`.
    fn from_str(text: &str) -> Result<Self> {
        let mut impairment = Self::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').with_context(|| format!("`{word}` is not key=value"))?;
            match key {
                "loss" => impairment.loss = percent(value)?,
                "duplicate" => impairment.duplicate = percent(value)?,
                "delay" => impairment.delay = milliseconds(value)?,
                "jitter" => impairment.jitter = milliseconds(value)?,
                "rate" => impairment.rate_bits_per_second = Some(rate(value)?),
                "seed" => impairment.seed = value.parse().with_context(|| format!("`{value}` is no seed"))?,
                "only" if value == "udp" => impairment.only_udp = true,
                _ => bail!("`{word}` is nothing a link can do"),
            }
        }
        Ok(impairment)
    }
}

impl Model {
    /// A direction that has carried nothing yet. `direction` keeps the dice of both directions apart.
    #[must_use]
    pub fn new(impairment: Impairment, direction: u64) -> Self {
        // Far apart in the sequence: neighbouring seeds are unrelated for this generator.
        let random = Random::new(impairment.seed.wrapping_mul(2).wrapping_add(direction));
        Self { impairment, random, free_at: None }
    }

    /// Decides about a frame that entered the link at `now`.
    pub fn handle(&mut self, now: Instant, frame_octets: usize, is_udp: bool) -> Fate {
        // The dice are thrown for every frame alike, so that one kind of traffic does not change the fate of another.
        let (lost, doubled) = (self.random.chance(self.impairment.loss), self.random.chance(self.impairment.duplicate));
        let (late, later) = (self.random.fraction(), self.random.fraction());
        let spared = self.impairment.only_udp && !is_udp;
        if lost && !spared {
            return Fate::Dropped;
        }
        let on_the_wire = match self.impairment.rate_bits_per_second {
            None => now,
            Some(rate) => {
                let start = self.free_at.map_or(now, |free| free.max(now));
                if start.duration_since(now) > QUEUE_MAX {
                    return Fate::QueueFull;
                }
                let end = start + Duration::from_nanos(frame_octets as u64 * 8 * 1_000_000_000 / rate);
                self.free_at = Some(end);
                end
            }
        };
        let arrives = |share: f64| on_the_wire + self.impairment.delay + self.impairment.jitter.mul_f64(share);
        Fate::Passes(arrives(late), (doubled && !spared).then(|| arrives(later)))
    }
}

fn percent(value: &str) -> Result<f64> {
    let number = value.strip_suffix('%').with_context(|| format!("`{value}` has no %"))?;
    let percent: f64 = number.parse().with_context(|| format!("`{value}` is not a percentage"))?;
    ensure!((0.0..=100.0).contains(&percent), "`{value}` is not between 0% and 100%");
    Ok(percent / 100.0)
}

fn milliseconds(value: &str) -> Result<Duration> {
    let number = value.strip_suffix("ms").with_context(|| format!("`{value}` is not in ms"))?;
    Ok(Duration::from_millis(number.parse().with_context(|| format!("`{value}` is not a time"))?))
}

fn rate(value: &str) -> Result<u64> {
    let number = value.strip_suffix("mbit").with_context(|| format!("`{value}` is not in mbit"))?;
    let rate: u64 = number.parse().with_context(|| format!("`{value}` is not a rate"))?;
    ensure!(rate > 0, "a rate of 0 is a cut: say loss=100%");
    Ok(rate * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_decides_the_same() {
        let now = Instant::now();
        let run = |seed| {
            let text = format!("loss=20% duplicate=10% delay=5ms jitter=9ms seed={seed}");
            let mut model = Model::new(text.parse().unwrap(), 0);
            (0..200).map(|_| model.handle(now, 100, true)).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn delay_and_jitter_stay_between_their_bounds_and_reorder() {
        let now = Instant::now();
        let mut model = Model::new("delay=20ms jitter=10ms".parse().unwrap(), 0);
        let times: Vec<Duration> = (0..500)
            .map(|_| match model.handle(now, 100, true) {
                Fate::Passes(at, None) => at.duration_since(now),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(times.iter().all(|time| (20..=30).contains(&time.as_millis())));
        assert!(times.windows(2).any(|pair| pair[1] < pair[0]));
    }

    #[test]
    fn a_rate_spaces_frames_and_its_queue_is_bounded() {
        let now = Instant::now();
        let mut model = Model::new("rate=1mbit".parse().unwrap(), 0);
        let fates: Vec<Fate> = (0..200).map(|_| model.handle(now, 1_250, true)).collect();
        assert_eq!(fates[0], Fate::Passes(now + Duration::from_millis(10), None));
        assert_eq!(fates[1], Fate::Passes(now + Duration::from_millis(20), None));
        assert_eq!(fates.iter().filter(|fate| **fate == Fate::QueueFull).count(), 99);
    }

    #[test]
    fn udp_alone_suffers_when_the_link_says_so() {
        let mut model = Model::new("loss=100% only=udp".parse().unwrap(), 0);
        assert_eq!(model.handle(Instant::now(), 100, true), Fate::Dropped);
        assert!(matches!(model.handle(Instant::now(), 100, false), Fate::Passes(..)));
    }
}
