//! When the payloads of a file may go: by the clock in an MPEG transport stream, or by a rate.
//!
//! ```text
//!   0    1            3      4        5      6
//!   | 47 | flags, PID | ctrl | length | flag | PCR base (33) . (6) extension (9) |   ISO/IEC 13818-1 §2.4.3
//! ```
//! The program clock reference of the first PID that has one says at which moment its packet shall arrive.

use std::time::{Duration, Instant};

const PACKET_BYTES: usize = 188;
const SYNC: u8 = 0x47;
/// The clock of the reference: 27 MHz, of which the base counts 300ths.
const TICKS_PER_MICROSECOND: u64 = 27;
/// Where the clock wraps to 0.
const WRAP: u64 = (1 << 33) * 300;
/// A jump of the clock beyond this is a cut in the stream, not a pause.
const JUMP_MAX: Duration = Duration::from_secs(2);

/// The schedule of one file.
#[derive(Debug)]
pub(super) struct Pace {
    bits_per_second: u64,
    bits: u64,
    started: Instant,
    clock: Option<Clock>,
}

#[derive(Debug)]
struct Clock {
    pid: u16,
    last: u64,
    /// When the packet with the last reference was due.
    due: Instant,
}

impl Pace {
    /// Starts now; the rate is for files without a clock.
    pub(super) fn new(bits_per_second: u64) -> Self {
        Self { bits_per_second, bits: 0, started: Instant::now(), clock: None }
    }

    /// How long to wait before this payload may go.
    pub(super) fn wait(&mut self, payload: &[u8]) -> Duration {
        self.due(payload, Instant::now()).saturating_duration_since(Instant::now())
    }

    /// When this payload is due, at `now`.
    fn due(&mut self, payload: &[u8], now: Instant) -> Instant {
        for (pid, reference) in payload.chunks_exact(PACKET_BYTES).filter_map(clock_reference) {
            match &mut self.clock {
                None => self.clock = Some(Clock { pid, last: reference, due: now }),
                Some(clock) if clock.pid == pid => {
                    let ticks = (reference + WRAP - clock.last) % WRAP;
                    let ahead = Duration::from_micros(ticks / TICKS_PER_MICROSECOND);
                    clock.due = if ahead > JUMP_MAX { now } else { clock.due + ahead };
                    clock.last = reference;
                }
                Some(_other_program) => {}
            }
        }
        if let Some(clock) = &self.clock {
            return clock.due;
        }
        let is_stream = payload.len() >= PACKET_BYTES && payload.chunks(PACKET_BYTES).all(|packet| packet[0] == SYNC);
        if is_stream {
            // Before the first reference there are tables and little else.
            return now;
        }
        let nanos = u128::from(self.bits) * 1_000_000_000 / u128::from(self.bits_per_second);
        self.bits += payload.len() as u64 * 8;
        self.started + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// PID and clock of a transport packet that carries a reference.
fn clock_reference(packet: &[u8]) -> Option<(u16, u64)> {
    let [SYNC, high, low, control, length, flags, b0, b1, b2, b3, b4, b5, ..] = *packet else { return None };
    let has_reference = control & 0x20 != 0 && length >= 7 && flags & 0x10 != 0;
    let base = u64::from(u32::from_be_bytes([b0, b1, b2, b3])) << 1 | u64::from(b4 >> 7);
    let extension = u64::from(b4 & 1) << 8 | u64::from(b5);
    has_reference.then(|| (u16::from_be_bytes([high & 0x1f, low]), base * 300 + extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_stream_goes_by_its_clock_also_over_the_wrap() {
        let now = Instant::now();
        let mut pace = Pace::new(1);
        let start = WRAP - 27_000 * 20;
        let dues: Vec<_> = [0, 20, 40, 41]
            .map(|millis| pace.due(&packet(256, (start + millis * 27_000) % WRAP), now).duration_since(now).as_millis())
            .to_vec();
        assert_eq!(dues, [0, 20, 40, 41]);
    }

    #[test]
    fn another_program_and_packets_without_reference_do_not_move_the_clock() {
        let now = Instant::now();
        let mut pace = Pace::new(1);
        pace.due(&packet(256, 0), now);
        assert_eq!(pace.due(&packet(300, 27_000_000), now), now);
        let mut without = packet(256, 27_000_000);
        without[5] = 0;
        assert_eq!(pace.due(&without, now), now);
    }

    #[test]
    fn a_cut_starts_the_clock_anew() {
        let now = Instant::now();
        let mut pace = Pace::new(1);
        pace.due(&packet(256, 27_000_000 * 100), now);
        let later = now + Duration::from_millis(5);
        assert_eq!(pace.due(&packet(256, 27_000_000), later), later);
        assert_eq!(pace.due(&packet(256, 27_000_000 + 27_000 * 7), later), later + Duration::from_millis(7));
    }

    #[test]
    fn other_files_go_by_the_rate() {
        let now = Instant::now();
        let mut pace = Pace::new(8_000);
        let dues: Vec<_> =
            (0..3).map(|_| pace.due(&[1; 500], now).saturating_duration_since(pace.started).as_millis()).collect();
        assert_eq!(dues, [0, 500, 1_000]);
    }

    fn packet(pid: u16, reference: u64) -> Vec<u8> {
        let mut packet = vec![0xff; PACKET_BYTES];
        let (base, extension) = (reference / 300, reference % 300);
        let [high, low] = pid.to_be_bytes();
        let base_octets = u32::try_from(base >> 1).unwrap().to_be_bytes();
        packet[..6].copy_from_slice(&[SYNC, high, low, 0x20, 183, 0x10]);
        packet[6..10].copy_from_slice(&base_octets);
        packet[10] = u8::try_from((base & 1) << 7 | 0x7e | extension >> 8).unwrap();
        packet[11] = u8::try_from(extension & 0xff).unwrap();
        packet
    }
}
