//! How fast the fan-out is beside the fastest loop that could be written: `castgate bench fanout`.
//!
//! Ours is the path of a worker, unchanged: table lookup, runs, a trailer with each tunnel's own cookies, counters, sendmmsg
//! with UDP GSO. The ceiling is [`BareLoop`]: sendmmsg with UDP GSO over messages that were all prepared beforehand. Both send
//! the same number of datagrams of the same length to the same destinations through sockets of the same kind, in turns.
//!
//! The destinations are addresses in 127/8 with one socket behind all of them that takes segments uncut and throws everything
//! away at the first instruction of its filter. Without a socket each message would cost an ICMP answer, and with a plain one
//! the cutting and queueing of a receiver: both measure somebody else's work, and flatter the ratio.

use crate::amt::whole::{DATA, Whole};
use crate::counters::WorkerCells;
use crate::fanout::{BATCH, Fanout, Packet};
use crate::table::{Cookies, TableBuilder};
use crate::{AmtSettings, Dataplane, Settings, SourceFilter};
use castgate_udp::bare::BareLoop;
use castgate_udp::{Gso, Options, UdpSocket};
use castgate_wire::umtp::{Channel, Cookie, SHORT_TRAILER_LEN};
use castgate_wire::{ipv4, udp};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const GROUP: Ipv4Addr = Ipv4Addr::new(232, 1, 2, 3);
/// Of IP and UDP, inside.
const HEADERS_BYTES: usize = ipv4::HEADER_LEN + udp::HEADER_LEN;

/// What the datagrams are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encap {
    /// A payload and a trailer with the tunnel's own cookies.
    #[default]
    Umtp,
    /// A whole IP packet, the same for everybody.
    Amt,
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct FanoutOptions {
    /// By which protocol. Default: UMTP.
    pub encap: Encap,
    /// Tunnels. Default: 1000.
    pub destinations: usize,
    /// Octets of each payload. Default: 1316, seven packets of an MPEG transport stream.
    pub payload_bytes: usize,
    /// Datagrams for each tunnel at once, a case each; at most 64. Default: 1, 8, 16 and 44.
    pub batches: Vec<usize>,
    /// Turns of each side; the median counts. Default: 9.
    pub rounds: usize,
    /// How long a turn takes at least. Default: 100 ms.
    pub turn: Duration,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What was measured.
    pub bench: &'static str,
    /// Under which circumstances.
    pub case: String,
    /// Our number.
    pub ours: f64,
    /// What is possible.
    pub ceiling: f64,
    /// Of both numbers.
    pub unit: &'static str,
    /// Ours over the ceiling: higher is better, 1 is the ceiling.
    pub ratio: f64,
}

impl Default for FanoutOptions {
    fn default() -> Self {
        Self {
            encap: Encap::Umtp,
            destinations: 1000,
            payload_bytes: 1316,
            batches: vec![1, 8, 16, 44],
            rounds: 9,
            turn: Duration::from_millis(100),
        }
    }
}

/// Measures, a row for each batch size. Needs no privilege.
///
/// # Errors
/// What the kernel says when sockets cannot be had or refuse to send.
///
/// # Panics
/// When a batch is empty or larger than 64, or does not fit into one message of 65507 octets.
pub fn fanout(options: &FanoutOptions) -> io::Result<Vec<Row>> {
    options.batches.iter().map(|&batch| case(options, batch)).collect()
}

fn case(options: &FanoutOptions, batch: usize) -> io::Result<Row> {
    assert!((1..=BATCH).contains(&batch), "a worker sends 1 to {BATCH} datagrams at once");
    let sink = sink()?;
    let port = sink.local_address()?.port();
    let destinations: Vec<_> = destinations(options.destinations, port).collect();
    let (mut ours, overhead, name) = match options.encap {
        Encap::Umtp => {
            let umtp = Umtp::new(&destinations, options.payload_bytes, batch)?;
            (Ours::Umtp(Box::new(umtp)), SHORT_TRAILER_LEN, "")
        }
        Encap::Amt => {
            let amt = Amt::new(&destinations, options.payload_bytes, batch)?;
            (Ours::Amt(Box::new(amt)), DATA.len() + HEADERS_BYTES, "AMT, ")
        }
    };
    let datagram_bytes =
        u16::try_from(options.payload_bytes + overhead).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut bare = Bare {
        socket: sender()?,
        messages: BareLoop::new(
            &destinations.iter().copied().map(Into::into).collect::<Vec<_>>(),
            batch,
            datagram_bytes,
        ),
    };

    // One turn of each beforehand fills caches and the routing table.
    let (mut our_rates, mut bare_rates) = (Vec::new(), Vec::new());
    for round in 0..=options.rounds {
        let (our_rate, bare_rate) = (rate(options.turn, || ours.send())?, rate(options.turn, || bare.send())?);
        if round > 0 {
            our_rates.push(our_rate);
            bare_rates.push(bare_rate);
        }
    }
    let (ours, ceiling) = (median(our_rates), median(bare_rates));
    Ok(Row {
        bench: "fanout",
        case: format!("{name}batch {batch}"),
        ours,
        ceiling,
        unit: "packets/s",
        ratio: ours / ceiling,
    })
}

/// The worker's way.
enum Ours {
    Umtp(Box<Umtp>),
    Amt(Box<Amt>),
}

impl Ours {
    fn send(&mut self) -> io::Result<u64> {
        match self {
            Self::Umtp(umtp) => umtp.send(),
            Self::Amt(amt) => amt.send(),
        }
    }
}

/// A worker's way with whole packets, of a dataplane that has nothing else to do.
struct Amt {
    dataplane: Dataplane,
    table: std::sync::Arc<crate::Table>,
    packets: Vec<Vec<u8>>,
}

impl Amt {
    fn new(destinations: &[SocketAddrV4], payload_bytes: usize, batch: usize) -> io::Result<Self> {
        let any_port = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let settings = Settings {
            workers: NonZeroUsize::MIN,
            amt: Some(AmtSettings::new(vec![any_port.into()])),
            ..Settings::new(any_port, Vec::new())
        };
        let (dataplane, _events) = Dataplane::start(settings).map_err(io::Error::other)?;
        let mut table = dataplane.table();
        let local = dataplane.amt_listen()[0];
        for &destination in destinations {
            table.endpoint_up(destination.into(), local, false);
            table.filter(destination.into(), GROUP.into(), Some(SourceFilter::include([SOURCE.into()])));
        }
        let datagram = udp::Repr { source_port: 5004, destination_port: 5004, payload: &vec![0; payload_bytes] };
        let mut octets = vec![0; datagram.buffer_len()];
        datagram.emit(&mut octets, SOURCE, GROUP);
        let repr = ipv4::Repr {
            tos: 0,
            identification: 0,
            fragment: ipv4::Fragment::default(),
            ttl: 32,
            protocol: ipv4::protocol::UDP,
            source: SOURCE,
            destination: GROUP,
            options: &[],
            payload: &octets,
        };
        let mut packet = DATA.to_vec();
        packet.resize(DATA.len() + repr.buffer_len(), 0);
        repr.emit(&mut packet[DATA.len()..]);
        Ok(Self { dataplane, table: table.build(), packets: vec![packet; batch] })
    }

    fn send(&mut self) -> io::Result<u64> {
        let Self { dataplane, table, packets } = self;
        let mut wholes = [Whole::NONE; BATCH];
        for (whole, octets) in wholes.iter_mut().zip(&*packets) {
            *whole = Whole::parse(octets).map_err(|reason| io::Error::other(reason.label()))?;
        }
        let wanted = dataplane.send_as_worker(table, &wholes[..packets.len()]);
        if wanted == (table.endpoints.iter().count() * packets.len()) as u64 {
            Ok(wanted)
        } else {
            Err(io::Error::other("the kernel did not take everything"))
        }
    }
}

/// The worker's way with payloads.
struct Umtp {
    socket: UdpSocket,
    table: std::sync::Arc<crate::Table>,
    channel: Channel,
    payloads: Vec<Vec<u8>>,
    fanout: Fanout,
    cells: WorkerCells,
}

impl Umtp {
    fn new(destinations: &[SocketAddrV4], payload_bytes: usize, batch: usize) -> io::Result<Self> {
        let channel = Channel::any_source(Ipv4Addr::new(239, 1, 2, 3), 5004);
        let mut table = TableBuilder::new(NonZeroUsize::MIN);
        for (&destination, cookie) in destinations.iter().zip((0..=u16::MAX).cycle()) {
            table.tunnel_up(destination, Cookies { local: Cookie(cookie), previous: None, remote: Cookie(!cookie) });
            table.attach(destination, channel, false, 1);
        }
        Ok(Self {
            socket: sender()?,
            table: table.build(),
            channel,
            payloads: (0..batch).map(|_| vec![0; payload_bytes]).collect(),
            fanout: Fanout::new(Gso::probe()),
            cells: WorkerCells::default(),
        })
    }

    fn send(&mut self) -> io::Result<u64> {
        let before = self.cells.flows.tunnels_out.read().packets;
        let mut packets = [Packet::NONE; BATCH];
        for (packet, payload) in packets.iter_mut().zip(&self.payloads) {
            *packet = Packet { payload, ttl: 31 };
        }
        let entry = self.table.channels.get(&self.channel).expect("attached in new()");
        let legs = &entry.members[0].legs;
        self.fanout.send(&self.socket, entry, legs, None, &packets[..self.payloads.len()], &self.cells);
        let sent = self.cells.flows.tunnels_out.read().packets - before;
        if sent == (legs.len() * self.payloads.len()) as u64 {
            Ok(sent)
        } else {
            Err(io::Error::other("the kernel did not take everything"))
        }
    }
}

/// The ceiling.
struct Bare {
    socket: UdpSocket,
    messages: BareLoop,
}

impl Bare {
    fn send(&mut self) -> io::Result<u64> {
        self.messages.send(&self.socket, 1).map(|sent| sent as u64)
    }
}

/// Datagrams a second of something that says how many it sent.
fn rate(turn: Duration, mut once: impl FnMut() -> io::Result<u64>) -> io::Result<f64> {
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < turn {
        sent += once()?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate of a bench")]
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

fn sink() -> io::Result<UdpSocket> {
    let sink = UdpSocket::bind(&Options::new(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)))?;
    sink.set_receive_offload(true)?;
    sink.discard_input()?;
    Ok(sink)
}

fn sender() -> io::Result<UdpSocket> {
    let options =
        Options { send_buffer_bytes: Some(4 << 20), ..Options::new(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)) };
    UdpSocket::bind(&options)
}

/// 127.1.0.1 and onward: every address of 127/8 is this host.
fn destinations(count: usize, port: u16) -> impl Iterator<Item = SocketAddrV4> {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    (first..).take(count).map(move |address| SocketAddrV4::new(Ipv4Addr::from(address), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_gives_a_row_with_both_numbers_and_their_ratio() {
        let options = FanoutOptions {
            destinations: 10,
            batches: vec![1, 44],
            rounds: 1,
            turn: Duration::from_millis(1),
            ..FanoutOptions::default()
        };
        let mut rows = fanout(&options).unwrap();
        rows.extend(fanout(&FanoutOptions { encap: Encap::Amt, ..options }).unwrap());
        let cases: Vec<_> = rows.iter().map(|row| row.case.as_str()).collect();
        assert_eq!(cases, ["batch 1", "batch 44", "AMT, batch 1", "AMT, batch 44"]);
        for row in rows {
            assert!(row.ours > 0.0 && row.ceiling > 0.0);
            assert!((row.ratio - row.ours / row.ceiling).abs() < 1e-9);
        }
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert!((median(vec![9.0, 1.0, 5.0]) - 5.0).abs() < f64::EPSILON);
    }
}
