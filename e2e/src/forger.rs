//! An attacker who writes whatever source address he likes, and sees what the victim answers to those addresses.
//!
//! ```text
//!   LAN bridge ── TAP "forger" ◀── frames with forged sources, at a given rate
//!        │             └─────────▶ everything the victim sends to the forged network: counted, PROBE_ACKs read
//!     victim: route to the forged network through the forger
//! ```
//! A real attacker would not see the answers; the test does, to count them and to leave out the cookies that are right.

use crate::lab::impair::{Udp, frame};
use crate::lab::random::Random;
use crate::lab::{Host, Lab};
use anyhow::{Context, Result};
use castgate_udp::tap::Tap;
use castgate_wire::umtp::{Command, Cookie, Trailer};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The network of the forged addresses (RFC 2544: for tests, never routed); half of it is used.
const NETWORK: &str = "198.18.0.0/15";
const NETWORK_FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// The forger's own hardware address; locally administered.
const MAC: [u8; 6] = [0x02, 0xbb, 0, 0, 0, 1];
/// Frames written without a look at the clock.
const SLICE: u64 = 50;

/// An attacker attached to a LAN.
#[derive(Debug)]
pub struct Forger {
    tap: Arc<Tap>,
    victim_mac: [u8; 6],
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

/// What the victim sent to forged addresses.
#[derive(Debug, Default)]
struct Seen {
    stop: AtomicBool,
    datagrams: AtomicU64,
    octets: AtomicU64,
    /// DATA among it: what must never come.
    data: AtomicU64,
    cookies: Mutex<HashMap<SocketAddrV4, Cookie>>,
}

/// Octets of UDP payload in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams sent to the victim.
    pub sent: u64,
    /// Octets in them.
    pub sent_octets: u64,
    /// How long that took.
    pub took: Duration,
}

/// What the victim sent to forged addresses since the forger started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// Datagrams.
    pub datagrams: u64,
    /// Octets in them.
    pub octets: u64,
    /// DATA among them.
    pub data: u64,
}

impl Traffic {
    /// Datagrams sent in a second, on average.
    #[must_use]
    pub fn per_second(&self) -> u64 {
        let milliseconds = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX).max(1);
        self.sent * 1_000 / milliseconds
    }
}

impl Forger {
    /// Attaches a forger to a LAN; the victim sends through him whatever goes to forged addresses. `gateway` is a free
    /// address of the LAN.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(lab: &Lab, lan: &str, gateway: Ipv4Addr, victim: &Host) -> Result<Self> {
        let bridge = lab.lan(lan);
        let tap = Arc::new(bridge.enter(|| Tap::create("forger"))?.context("a TAP interface is refused")?);
        bridge.ip("link set forger txqueuelen 10000 master bridge up\n")?;
        let mac = MAC.map(|octet| format!("{octet:02x}")).join(":");
        victim.ip(&format!(
            "neigh replace {gateway} lladdr {mac} dev {lan} nud permanent\nroute add {NETWORK} via {gateway} dev {lan}\n"
        ))?;
        let victim_mac = hardware_address(victim, lan)?;
        let seen = Arc::<Seen>::default();
        let thread = std::thread::spawn({
            let (tap, seen) = (tap.clone(), seen.clone());
            move || watch(&tap, &seen)
        });
        Ok(Self { tap, victim_mac, seen, thread: Some(thread) })
    }

    /// Sends one datagram that claims to come from `from`.
    ///
    /// # Errors
    /// When the interface does not take it.
    pub fn send(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Result<()> {
        let built = frame::build(self.victim_mac, MAC, &Udp { from, to, ttl: 60, payload });
        self.tap.write(&built).context("the forger's interface takes no frame")?;
        Ok(())
    }

    /// Sends what `next` makes, evenly at a rate, for a time.
    ///
    /// # Errors
    /// When the interface does not take it.
    pub fn flood(
        &self,
        to: SocketAddrV4,
        rate_per_second: u64,
        span: Duration,
        mut next: impl FnMut(u64) -> (SocketAddrV4, Vec<u8>),
    ) -> Result<Traffic> {
        let start = Instant::now();
        let (mut sent, mut sent_octets) = (0, 0);
        while start.elapsed() < span {
            let due = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_mul(rate_per_second)
                / 1_000_000;
            if sent + SLICE > due {
                // The pace of the flood itself, not a wait for something to happen.
                std::thread::sleep(Duration::from_micros(200));
                continue;
            }
            for _ in 0..SLICE {
                let (from, payload) = next(sent);
                self.send(from, to, &payload)?;
                sent += 1;
                sent_octets += payload.len() as u64;
            }
        }
        Ok(Traffic { sent, sent_octets, took: start.elapsed() })
    }

    /// What came back so far.
    #[must_use]
    pub fn answers(&self) -> Answers {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Answers { datagrams: read(&self.seen.datagrams), octets: read(&self.seen.octets), data: read(&self.seen.data) }
    }

    /// The cookies that the victim's `PROBE_ACK`s told, by forged address.
    #[must_use]
    pub fn cookies(&self) -> HashMap<SocketAddrV4, Cookie> {
        lock(&self.seen.cookies).clone()
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A forged address and port, from dice.
pub fn forged_address(random: &mut Random) -> SocketAddrV4 {
    let address = Ipv4Addr::from(u32::from(NETWORK_FIRST) | u32::from(random.bits16()));
    SocketAddrV4::new(address, 1_024 | random.bits16())
}

/// Reads what the victim sends to forged addresses until the forger is dropped.
fn watch(tap: &Tap, seen: &Seen) {
    let mut buffer = [0; 2_048];
    while !seen.stop.load(Ordering::Relaxed) {
        let Ok(len) = tap.read(&mut buffer) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        // The bridge floods other frames here too until it knows better.
        if buffer[..6] != MAC {
            continue;
        }
        let Some(datagram) = frame::udp(&buffer[..len]) else { continue };
        seen.datagrams.fetch_add(1, Ordering::Relaxed);
        seen.octets.fetch_add(datagram.payload.len() as u64, Ordering::Relaxed);
        match Trailer::parse(datagram.payload) {
            Ok((_, trailer)) if trailer.command == Command::ProbeAck => {
                lock(&seen.cookies).insert(datagram.to, trailer.source_cookie);
            }
            Ok((_, trailer)) if trailer.command == Command::Data => {
                seen.data.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

fn hardware_address(host: &Host, lan: &str) -> Result<[u8; 6]> {
    let mut cat = host.command("cat");
    cat.arg(format!("/sys/class/net/{lan}/address"));
    let text = host.run("cat", cat, Duration::from_secs(5))?;
    let octets: Vec<u8> = text
        .trim()
        .split(':')
        .map(|pair| u8::from_str_radix(pair, 16))
        .collect::<Result<_, _>>()
        .with_context(|| format!("`{}` is no hardware address", text.trim()))?;
    octets.try_into().ok().context("a hardware address has six octets")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while he adds a cookie")
}
