//! A source of numbered, time-stamped datagrams on a network interface, at a steady average rate.
//!
//! Owns one thread and one socket. Who counts what arrives is not here: the payload is [`castgate_wire::pattern`].
//!
//! ```text
//!   due:   |     |     |     |     |     |        datagram n is due n * payload / rate after the start
//!   awake:   ^        ^          ^       ^        not more often than once a millisecond: small bursts, right average
//! ```

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use castgate_control::PatternSource;
use castgate_udp::{MulticastOut, Options, UdpSocket};
use castgate_wire::pattern::Repr;

use super::interface::{self, InterfaceError};
use crate::report::PatternReport;

/// Sleeping less costs more than a small burst does harm.
const NAP: Duration = Duration::from_millis(1);
/// A thread that was held up longer than this goes on from now instead of sending everything it missed at once.
const LAG_MAX: Duration = Duration::from_millis(200);
/// Even who asks for one datagram a day is stopped at once: the thread is woken for that, so this only bounds the sum below.
const SLEEP_MAX: Duration = Duration::from_hours(1);

/// Why a pattern source cannot begin: one sentence that names the channel.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// Its interface is not there.
    #[error("pattern {channel}: {source}")]
    Interface {
        /// The channel as the snapshot has it.
        channel: String,
        /// Which interface.
        source: InterfaceError,
    },
    /// Its source is an address that this host does not have.
    #[error("pattern {channel}: {address} is not an address of this host")]
    NotOurs {
        /// The channel as the snapshot has it.
        channel: String,
        /// The source.
        address: std::net::Ipv4Addr,
    },
    /// The kernel refuses the socket or the thread.
    #[error("pattern {channel}: {source}")]
    Socket {
        /// The channel as the snapshot has it.
        channel: String,
        /// What it says.
        source: io::Error,
    },
}

/// A running source; it ends when dropped.
#[derive(Debug)]
pub struct Pattern {
    source: PatternSource,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    go: AtomicBool,
    stop: AtomicBool,
    packets: AtomicU64,
}

impl Pattern {
    /// Opens the socket; nothing is sent before [`begin`](Self::begin).
    ///
    /// # Errors
    /// When the interface or the source address is not ours, or the kernel refuses.
    pub fn prepare(source: PatternSource) -> Result<Self, PatternError> {
        let channel = || source.channel.to_string();
        let socket = open(&source)?;
        let shared = Arc::new(Shared::default());
        let refused = |error| PatternError::Socket { channel: channel(), source: error };
        let stream = getrandom::u64().map_err(|error| refused(io::Error::other(error.to_string())))?;
        let sender = Sender::new(&source, socket, stream, Arc::clone(&shared));
        let thread = thread::Builder::new().name("pattern".to_owned()).spawn(move || sender.run()).map_err(refused)?;
        Ok(Self { source, shared, thread: Some(thread) })
    }

    /// Begins to send.
    pub fn begin(&self) {
        tracing::info!(channel = %self.source.channel, bits_per_second = self.source.rate_bits_per_second, "pattern begins");
        self.shared.go.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// What it was started with.
    #[must_use]
    pub fn source(&self) -> &PatternSource {
        &self.source
    }

    /// What it has sent.
    #[must_use]
    pub fn report(&self) -> PatternReport {
        let packets = self.shared.packets.load(Ordering::Relaxed);
        let bytes = packets * u64::from(self.source.payload_octets.get());
        PatternReport { channel: self.source.channel, packets, bytes }
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It ends within one nap; a panic in it has been printed already.
            let _ = thread.join();
        }
    }
}

fn open(source: &PatternSource) -> Result<UdpSocket, PatternError> {
    let channel = source.channel;
    let refused = |error| PatternError::Socket { channel: channel.to_string(), source: error };
    let interface = interface::find(&source.interface)
        .map_err(|source| PatternError::Interface { channel: channel.to_string(), source })?;
    let address = match channel.source {
        Some(source) => source,
        None => interface::first_address(&interface)
            .map_err(|source| PatternError::Interface { channel: channel.to_string(), source })?,
    };
    let multicast_out = MulticastOut { interface: interface.index, ttl: source.ttl.get(), loopback: true };
    let options = Options { multicast_out: Some(multicast_out), ..Options::new(SocketAddrV4::new(address, 0)) };
    match UdpSocket::bind(&options) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            Err(PatternError::NotOurs { channel: channel.to_string(), address })
        }
        other => other.map_err(refused),
    }
}

struct Sender {
    socket: UdpSocket,
    to: SocketAddrV4,
    stream: u64,
    payload: Vec<u8>,
    bits_per_second: u64,
    shared: Arc<Shared>,
}

impl Sender {
    fn new(source: &PatternSource, socket: UdpSocket, stream: u64, shared: Arc<Shared>) -> Self {
        let octets = source.payload_octets.get();
        Self {
            socket,
            to: SocketAddrV4::new(source.channel.group, source.channel.port),
            stream,
            payload: vec![0; usize::from(octets)],
            bits_per_second: source.rate_bits_per_second.get(),
            shared,
        }
    }

    fn run(mut self) {
        while !self.shared.go.load(Ordering::Relaxed) && !self.shared.stop.load(Ordering::Relaxed) {
            thread::park();
        }
        let mut pace = Pace::new(self.bits_per_second, self.payload.len(), Instant::now());
        let mut sequence = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            for _ in 0..pace.due(Instant::now()) {
                if !self.send(sequence) {
                    break;
                }
                sequence += 1;
                pace.sent();
                self.shared.packets.store(sequence, Ordering::Relaxed);
            }
            // Woken early or late: what is due is computed from the clock, never from the sleep.
            thread::park_timeout(pace.until_next(Instant::now()).max(NAP));
        }
    }

    /// Whether the kernel took it. What it did not take gets its number later: nothing was lost in the network.
    fn send(&mut self, sequence: u64) -> bool {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let sent_nanos = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        Repr { stream: self.stream, sequence, sent_nanos }.emit(&mut self.payload);
        match self.socket.send_to(&self.payload, self.to) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(to = %self.to, %error, "pattern not sent");
                false
            }
        }
    }
}

/// When datagrams are due. No clock of its own.
#[derive(Debug)]
struct Pace {
    start: Instant,
    /// Datagrams since `start`.
    sent: u64,
    bits_per_second: u64,
    bits: u64,
}

impl Pace {
    fn new(bits_per_second: u64, payload_octets: usize, start: Instant) -> Self {
        Self { start, sent: 0, bits_per_second, bits: payload_octets as u64 * 8 }
    }

    /// How many are due at `now`, the first one at the start.
    fn due(&mut self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.time_of(self.sent)) > LAG_MAX {
            self.start = now;
            self.sent = 0;
        }
        let elapsed_nanos = now.saturating_duration_since(self.start).as_nanos();
        let bits_due = elapsed_nanos * u128::from(self.bits_per_second) / 1_000_000_000;
        let due = u64::try_from(bits_due / u128::from(self.bits)).unwrap_or(u64::MAX).saturating_add(1);
        due.saturating_sub(self.sent)
    }

    fn sent(&mut self) {
        self.sent += 1;
    }

    fn until_next(&self, now: Instant) -> Duration {
        self.time_of(self.sent).saturating_duration_since(now).min(SLEEP_MAX)
    }

    /// When datagram `number` is due, rounded up so that [`due`](Self::due) agrees.
    fn time_of(&self, number: u64) -> Instant {
        let nanos =
            (u128::from(number) * u128::from(self.bits) * 1_000_000_000).div_ceil(u128::from(self.bits_per_second));
        let after = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.start.checked_add(after).unwrap_or(self.start + SLEEP_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_carries_the_rate_whenever_the_thread_wakes() {
        // 1 Mbit/s of 1000 octets: 125 datagrams a second, and the one at the start.
        for nap_millis in [1, 3, 7, 150] {
            let start = Instant::now();
            let mut pace = Pace::new(1_000_000, 1000, start);
            let mut sent = 0;
            for millis in (0..=10_000_u64).step_by(nap_millis) {
                for _ in 0..pace.due(start + Duration::from_millis(millis)) {
                    pace.sent();
                    sent += 1;
                }
            }
            assert!((1_230..=1_251).contains(&sent), "{sent} with naps of {nap_millis} ms");
        }
    }

    #[test]
    fn a_thread_that_was_held_up_does_not_send_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000_000, 1000, start);
        assert_eq!(pace.due(start + Duration::from_mins(1)), 1);
    }

    proptest! {
        #[test]
        fn at_the_time_a_datagram_is_due_it_is_due(rate in 1u64.., octets in 32usize..1456, number in 0u64..1_000_000) {
            let start = Instant::now();
            let mut pace = Pace::new(rate, octets, start);
            for _ in 0..number.min(50) {
                pace.sent();
            }
            let wait = pace.until_next(start);
            prop_assume!(wait < SLEEP_MAX);
            prop_assert!(pace.due(start + wait) >= 1);
            if let Some(earlier) = wait.checked_sub(Duration::from_nanos(1)) {
                prop_assert_eq!(pace.due(start + earlier), 0);
            }
        }
    }
}
