//! What a receiver counts, and the report it becomes. Owns no clock and no socket: the caller says when a packet came.
//!
//! ```text
//!   payload ──▶ pattern? ──▶ stream, sequence, sent time ──▶ Sequence, Histogram ─┐
//!           └─▶ RTP?     ──▶ SSRC, sequence              ──▶ Sequence             ├──▶ Report
//!           └─▶ neither  ──▶ packets, octets, gaps only ──────────────────────────┘
//! ```
//! A sender that starts again uses another stream id, so its numbers never look like loss of the old ones.

mod histogram;
mod sequence;

pub use histogram::Histogram;

use std::time::{Duration, Instant};

use castgate_wire::{pattern, rtp};
use serde::Serialize;

use crate::event::Path;
use crate::name::GroupName;
use sequence::Sequence;

/// Streams counted apart at the same time; the one heard least recently is closed when one more appears. A channel has
/// one, an any-source group a few; the bound keeps a flood of random stream ids from filling the memory.
const STREAMS_MAX: usize = 16;

/// Where RTP's 16-bit numbers start on our line, so that late packets of the first cycle have room below.
const RTP_BASE: u64 = 1 << 32;

/// Counters of one received channel.
#[derive(Debug)]
pub struct Statistics {
    started: Instant,
    packets: u64,
    bytes: u64,
    first_at: Option<Instant>,
    last_at: Option<Instant>,
    longest_gap: Duration,
    handovers: u64,
    delays: Histogram,
    streams: Vec<Stream>,
    closed: Counts,
}

/// What of a stream's numbering is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    numbered: bool,
    lost: u64,
    duplicated: u64,
    reordered: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamId {
    Pattern(u64),
    Rtp(u32),
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    heard_at: Instant,
    sequence: Sequence,
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The channel's name.
    pub name: String,
    /// The path the packets take; `None` before one was chosen.
    pub via: Option<Path>,
    /// The tunnel server, where there is one.
    pub server: Option<String>,
    /// Datagrams received.
    pub packets: u64,
    /// Octets of payload received.
    pub bytes: u64,
    /// Distinct numbers missing between the first and the last packet; `None` when the payload carries no numbers.
    pub lost: Option<u64>,
    /// Packets whose number had come before.
    pub duplicated: Option<u64>,
    /// Packets whose number is lower than one that came before.
    pub reordered: Option<u64>,
    /// The longest time without a packet since the first one, the present silence included, in milliseconds.
    pub longest_gap_ms: Option<f64>,
    /// Time from sending to receiving by the two hosts' clocks; `None` when the payload carries no time.
    pub delay_ms: Option<DelayMillis>,
    /// From the start to the first packet, in milliseconds.
    pub joined_ms: Option<f64>,
    /// Times the receiver went on with another server.
    pub handovers: u64,
}

/// Percentiles of the delay in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DelayMillis {
    /// Half of the packets were not slower.
    pub p50: f64,
    /// 99 of 100 packets were not slower.
    pub p99: f64,
    /// The slowest packet.
    pub max: f64,
}

impl Statistics {
    /// Starts counting; `started` is the moment the join was asked for.
    #[must_use]
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            packets: 0,
            bytes: 0,
            first_at: None,
            last_at: None,
            longest_gap: Duration::ZERO,
            handovers: 0,
            delays: Histogram::default(),
            streams: Vec::with_capacity(STREAMS_MAX),
            closed: Counts::default(),
        }
    }

    /// Counts one datagram that came at `now`, which by the wall clock is `unix_nanos` after 1970.
    pub fn record(&mut self, now: Instant, unix_nanos: u64, payload: &[u8]) {
        self.packets += 1;
        self.bytes += payload.len() as u64;
        if let Some(last) = self.last_at {
            self.longest_gap = self.longest_gap.max(now.saturating_duration_since(last));
        }
        self.first_at.get_or_insert(now);
        self.last_at = Some(now);
        if let Some(packet) = pattern::Repr::parse(payload) {
            // Two clocks may disagree: a packet from the future has taken no time rather than an age.
            self.delays.record(unix_nanos.saturating_sub(packet.sent_nanos));
            self.number(now, StreamId::Pattern(packet.stream), |_| packet.sequence);
        } else if let Some(packet) = rtp::Repr::parse(payload) {
            self.number(now, StreamId::Rtp(packet.ssrc), |highest| extend(highest, packet.sequence));
        }
    }

    /// Notes that another server has taken over.
    pub fn hand_over(&mut self) {
        self.handovers += 1;
    }

    /// Datagrams so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The counters as they stand at `now`.
    #[must_use]
    pub fn report(&self, now: Instant, name: &GroupName, via: Option<Path>, server: Option<String>) -> Report {
        let counts = self.streams.iter().map(Stream::counts).fold(self.closed, Counts::plus);
        let numbered = |count: u64| counts.numbered.then_some(count);
        let silence = self.last_at.map(|last| now.saturating_duration_since(last));
        Report {
            name: name.to_string(),
            via,
            server,
            packets: self.packets,
            bytes: self.bytes,
            lost: numbered(counts.lost),
            duplicated: numbered(counts.duplicated),
            reordered: numbered(counts.reordered),
            longest_gap_ms: silence.map(|silence| millis(self.longest_gap.max(silence))),
            delay_ms: self.delay(),
            joined_ms: self.first_at.map(|first| millis(first.saturating_duration_since(self.started))),
            handovers: self.handovers,
        }
    }

    fn delay(&self) -> Option<DelayMillis> {
        Some(DelayMillis {
            p50: millis(self.delays.percentile(50)?),
            p99: millis(self.delays.percentile(99)?),
            max: millis(self.delays.max()?),
        })
    }

    fn number(&mut self, now: Instant, id: StreamId, sequence: impl FnOnce(Option<u64>) -> u64) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            stream.heard_at = now;
            let number = sequence(Some(stream.sequence.highest()));
            stream.sequence.record(number);
            return;
        }
        if self.streams.len() == STREAMS_MAX
            && let Some(oldest) = (0..STREAMS_MAX).min_by_key(|index| self.streams[*index].heard_at)
        {
            self.closed = self.closed.plus(self.streams.swap_remove(oldest).counts());
        }
        self.streams.push(Stream { id, heard_at: now, sequence: Sequence::new(sequence(None)) });
    }
}

impl Stream {
    /// A pattern proves itself by its filler. RTP has no such mark: only a second packet of the same source makes it one.
    fn counts(&self) -> Counts {
        let proven = matches!(self.id, StreamId::Pattern(_)) || self.sequence.packets() > 1;
        if !proven {
            return Counts::default();
        }
        Counts {
            numbered: true,
            lost: self.sequence.lost(),
            duplicated: self.sequence.duplicated(),
            reordered: self.sequence.reordered(),
        }
    }
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            numbered: self.numbered || other.numbered,
            lost: self.lost.saturating_add(other.lost),
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
        }
    }
}

/// Puts a 16-bit number on the long line, as near to the highest one as it can be (RFC 3550 appendix A.1).
fn extend(highest: Option<u64>, sequence: u16) -> u64 {
    let Some(highest) = highest else { return RTP_BASE + u64::from(sequence) };
    let [.., high, low] = highest.to_be_bytes();
    let ahead = sequence.wrapping_sub(u16::from_be_bytes([high, low])).cast_signed();
    highest.saturating_add_signed(i64::from(ahead))
}

/// Milliseconds with three decimals, which is what the clocks are good for.
fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn a_pattern_is_counted_with_loss_and_delay() {
        let mut lab = Lab::new();
        for sequence in [5, 6, 6, 9, 8] {
            lab.receive(&pattern_packet(1, sequence), Duration::from_millis(2));
        }
        let report = lab.report();
        assert_eq!((report.packets, report.bytes), (5, 500));
        assert_eq!((report.lost, report.duplicated, report.reordered), (Some(1), Some(1), Some(1)));
        let delay = report.delay_ms.unwrap();
        assert!((delay.max - 2.0).abs() < 0.001 && delay.p50 <= delay.max, "{delay:?}");
    }

    #[test]
    fn a_restarted_sender_is_a_new_stream_and_no_loss() {
        let mut lab = Lab::new();
        for (stream, sequence) in [(1, 100), (1, 102), (2, 0), (2, 1)] {
            lab.receive(&pattern_packet(stream, sequence), Duration::ZERO);
        }
        assert_eq!(lab.report().lost, Some(1));
    }

    #[test]
    fn closing_old_streams_keeps_their_counts() {
        let mut lab = Lab::new();
        for stream in 0..100 {
            lab.receive(&pattern_packet(stream, 0), Duration::ZERO);
            lab.receive(&pattern_packet(stream, 2), Duration::ZERO);
        }
        assert_eq!(lab.report().lost, Some(100));
    }

    #[test]
    fn rtp_is_counted_over_the_wrap_of_its_numbers_and_has_no_delay() {
        let mut lab = Lab::new();
        for sequence in [65_534, 65_535, 1, 0, 3] {
            lab.receive(&rtp_packet(7, sequence), Duration::ZERO);
        }
        let report = lab.report();
        assert_eq!((report.lost, report.duplicated, report.reordered), (Some(1), Some(0), Some(1)));
        assert_eq!(report.delay_ms, None);
    }

    #[test]
    fn one_packet_that_looks_like_rtp_proves_nothing() {
        let mut lab = Lab::new();
        (0..40).for_each(|ssrc| lab.receive(&rtp_packet(ssrc, 17), Duration::ZERO));
        assert_eq!(lab.report().lost, None);
    }

    #[test]
    fn what_other_payloads_do_not_tell_is_null() {
        let mut lab = Lab::new();
        lab.receive(b"plain words", Duration::ZERO);
        let json = serde_json::to_value(lab.report()).unwrap();
        for key in ["lost", "duplicated", "reordered", "delay_ms", "server"] {
            assert!(json[key].is_null(), "{key}: {json}");
        }
        assert_eq!((&json["packets"], &json["via"]), (&1.into(), &"umtp".into()));
    }

    #[test]
    fn the_gap_counts_the_present_silence_and_joining_counts_to_the_first_packet() {
        let mut lab = Lab::new();
        lab.now += Duration::from_millis(30);
        lab.receive(b"a", Duration::ZERO);
        lab.now += Duration::from_millis(70);
        lab.receive(b"b", Duration::ZERO);
        lab.now += Duration::from_millis(250);
        let report = lab.report();
        assert_eq!((report.joined_ms, report.longest_gap_ms), (Some(30.0), Some(250.0)));
    }

    struct Lab {
        now: Instant,
        statistics: Statistics,
    }

    impl Lab {
        fn new() -> Self {
            let now = Instant::now();
            Self { now, statistics: Statistics::new(now) }
        }

        fn receive(&mut self, payload: &[u8], delay: Duration) {
            let nanos = u64::try_from(delay.as_nanos()).unwrap();
            self.statistics.record(self.now, SENT + nanos, payload);
        }

        fn report(&self) -> Report {
            let name = "ham:ip:232.1.2.3@127.0.1.1:5004".parse().unwrap();
            self.statistics.report(self.now, &name, Some(Path::Umtp), None)
        }
    }

    fn pattern_packet(stream: u64, sequence: u64) -> Vec<u8> {
        let mut payload = vec![0; 100];
        pattern::Repr { stream, sequence, sent_nanos: SENT }.emit(&mut payload);
        payload
    }

    fn rtp_packet(ssrc: u32, sequence: u16) -> Vec<u8> {
        let mut payload = vec![0x80, 33];
        payload.extend(sequence.to_be_bytes());
        payload.extend([0; 4]);
        payload.extend(ssrc.to_be_bytes());
        payload.extend([0x47; 188]);
        payload
    }
}
