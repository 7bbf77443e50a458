//! From a handful of packets of one source and group to all its endpoints.
//!
//! ```text
//!   packets  a b c d | e        equal lengths and traffic classes (the last of a run may be shorter): one run
//!   block    [06 00 a 06 00 b 06 00 c 06 00 d]      copied once, when it goes to several
//!   leg 0    [block] [e]                            one message a run, one piece of memory a message
//!   leg 1    [block] [e]
//!   leg 2    a is too long for this tunnel: the IPv4 packets that may be cut go in fragments, see `small`
//! ```

use super::settings::AmtSettings;
use super::table::{AmtLeg, Endpoint, GroupEntry, Legs};
use super::whole::{DATA, Whole, is_source_specific};
use crate::DropReason;
use crate::counters::Traffic;
use crate::worker::Context;
use castgate_udp::{DATAGRAM_BYTES_MAX, Errno, Filling, Gso, Head, Outcome, SendBatch};
use castgate_wire::ipv4;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// Messages in one system call: enough to make the call itself cheap.
const MESSAGES: usize = 64;
/// Pieces of memory in one system call.
const DATAGRAMS: usize = 512;
/// Octets of all blocks: a few full messages. What finds no room goes in pieces.
const BLOCK_BYTES_MAX: usize = 4 * DATAGRAM_BYTES_MAX;
/// Legs from which on copying once is cheaper than having the kernel gather for each.
const BLOCK_LEGS_MIN: usize = 4;
/// Octets of all fragments that are made at once. Room for a batch of full Ethernet frames in a tunnel of 576 octets, and for
/// the longest packet that there is; what finds no room is dropped and counted.
const FRAGMENT_BYTES_MAX: usize = 4 * DATAGRAM_BYTES_MAX;
/// How long a tunnel's limit that stands in the way is believed. The kernel forgets what ICMP said after ten minutes.
const MTU_SECONDS: u32 = 60;

/// The sending half for whole packets.
#[derive(Debug)]
pub(crate) struct Encap {
    batch: SendBatch,
    segments_max: usize,
    runs: Vec<Run>,
    blocks: Vec<u8>,
    small: Small,
}

/// Legs whose tunnels do not take everything in one piece.
#[derive(Debug)]
struct Small {
    /// Limit of the tunnel and place of the leg.
    legs: Vec<(usize, usize)>,
    /// What goes into tunnels of one limit, in order.
    units: Vec<Unit>,
    fragments: Vec<u8>,
    runs: Vec<Run>,
}

/// A datagram for a small tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unit {
    /// A packet that fits.
    Packet(usize),
    /// A fragment, with the header of its message, and its traffic class.
    Fragment(Range<usize>, u8),
}

/// Datagrams that may go in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    units: Range<usize>,
    /// Octets of the first datagram.
    segment_bytes: usize,
    bytes: usize,
    traffic_class: u8,
    /// Where they stand side by side.
    block: Option<Range<usize>>,
}

/// What `send` sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) context: &'a Context,
    pub(crate) amt: &'a AmtSettings,
    pub(crate) entry: &'a GroupEntry,
    pub(crate) legs: Legs<'a>,
    /// Of one source and group, at most a batch.
    pub(crate) packets: &'a [Whole<'a>],
}

/// What the messages to some legs hold.
#[derive(Clone, Copy)]
struct Content<'a, F> {
    runs: &'a [Run],
    blocks: &'a [u8],
    octets_of: F,
}

/// What one message holds, and for which leg: a tag of [`SendBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag {
    leg: usize,
    run: usize,
    /// One unit of the run alone.
    is_single: bool,
}

impl Encap {
    pub(crate) fn new(gso: Gso, amt: Option<&AmtSettings>) -> Self {
        let gso = if amt.is_some_and(|amt| amt.zero_checksum) { Gso::OFF } else { gso };
        let with_room = |bytes| Vec::with_capacity(if amt.is_some() { bytes } else { 0 });
        Self {
            batch: SendBatch::new(MESSAGES, DATAGRAMS),
            segments_max: gso.segments_max(),
            runs: Vec::new(),
            blocks: with_room(BLOCK_BYTES_MAX),
            small: Small {
                legs: Vec::new(),
                units: Vec::new(),
                fragments: with_room(FRAGMENT_BYTES_MAX),
                runs: Vec::new(),
            },
        }
    }

    /// Sends each packet to each leg.
    pub(crate) fn send(&mut self, job: Job<'_>) {
        let Job { context, legs, packets, .. } = job;
        let Self { batch, segments_max, runs, blocks, small } = self;
        let sizes = packets.iter().map(|packet| (packet.octets.len(), packet.traffic_class));
        let longest = sizes.clone().map(|(bytes, _)| bytes).max().unwrap_or(0);
        split(sizes, *segments_max, runs);
        blocks.clear();
        if legs.len_max() >= BLOCK_LEGS_MIN {
            lay_side_by_side(runs, packets, blocks);
        }
        small.legs.clear();
        let content = Content { runs, blocks, octets_of: |unit: usize| packets[unit].octets };
        let mut total = Traffic::default();
        for listener in 0..context.shared.amt.listeners.len() {
            let of_listener = legs.iter().filter(|(_, leg)| leg.listener == listener);
            let takes_all = of_listener.filter(|(place, leg)| {
                let mtu = leg.endpoint.mtu_for(longest - DATA.len(), job, leg);
                let takes_all = longest <= mtu + DATA.len();
                if !takes_all {
                    small.legs.push((mtu, *place));
                }
                takes_all
            });
            total += send_runs(batch, job, listener, takes_all, content);
        }
        if !small.legs.is_empty() {
            total += small.send(batch, *segments_max, job);
        }
        context.cells().flows.tunnels_out.add(total);
        job.entry.flows.tunnels_out.add(total);
    }
}

impl Small {
    fn send(&mut self, batch: &mut SendBatch, segments_max: usize, job: Job<'_>) -> Traffic {
        let Job { context, packets, .. } = job;
        let Self { legs, units, fragments, runs } = self;
        legs.sort_unstable();
        let mut total = Traffic::default();
        let mut smallest = None;
        for same in legs.chunk_by(|a, b| a.0 == b.0) {
            let mtu = same[0].0;
            fragments.clear();
            units.clear();
            let mut dropped = 0;
            for (number, packet) in packets.iter().enumerate() {
                if cut(number, packet, mtu, units, fragments).is_err() {
                    dropped += same.len() as u64;
                    smallest = smallest.or(Some((packet, mtu)));
                }
            }
            context.cells().drop_packets(DropReason::TooLong, dropped);
            let sizes = units.iter().map(|unit| match unit {
                Unit::Packet(number) => (packets[*number].octets.len(), packets[*number].traffic_class),
                Unit::Fragment(range, traffic_class) => (range.len(), *traffic_class),
            });
            split(sizes, segments_max, runs);
            let octets_of = |unit: usize| match &units[unit] {
                Unit::Packet(number) => packets[*number].octets,
                Unit::Fragment(range, _) => &fragments[range.clone()],
            };
            let content = Content { runs, blocks: &[], octets_of };
            for listener in 0..context.shared.amt.listeners.len() {
                let legs = same.iter().map(|(_, place)| (*place, job.legs.at(*place)));
                let of_listener = legs.filter(|(_, leg)| leg.listener == listener);
                total += send_runs(batch, job, listener, of_listener, content);
            }
        }
        // RFC 7450 §5.3.3.6.2: one message with the smallest limit, for a source-specific group.
        if let Some((packet, mtu)) = smallest.filter(|(packet, _)| is_source_specific(packet.group)) {
            context.shared.too_big.tell(packet, mtu);
        }
        total
    }
}

/// Adds what goes into a tunnel of this limit of one packet: the packet, its fragments, or nothing.
fn cut(
    number: usize,
    packet: &Whole<'_>,
    mtu: usize,
    units: &mut Vec<Unit>,
    fragments: &mut Vec<u8>,
) -> Result<(), ()> {
    if packet.packet().len() <= mtu {
        units.push(Unit::Packet(number));
        return Ok(());
    }
    if packet.dont_fragment {
        return Err(());
    }
    let parts = ipv4::fragment(packet.packet(), mtu).map_err(|_| ())?;
    let (units_before, bytes_before) = (units.len(), fragments.len());
    for part in parts {
        let start = fragments.len();
        let end = start + DATA.len() + part.buffer_len();
        if end > fragments.capacity() {
            // All fragments of a packet or none.
            units.truncate(units_before);
            fragments.truncate(bytes_before);
            return Err(());
        }
        fragments.extend_from_slice(&DATA);
        fragments.extend_from_slice(part.header());
        fragments.extend_from_slice(part.payload());
        units.push(Unit::Fragment(start..end, packet.traffic_class));
    }
    Ok(())
}

/// Sends all runs to some legs of one listener.
fn send_runs<'a, F: Fn(usize) -> &'a [u8] + Copy>(
    batch: &mut SendBatch,
    job: Job<'a>,
    listener: usize,
    legs: impl Iterator<Item = (usize, &'a AmtLeg)>,
    content: Content<'a, F>,
) -> Traffic {
    let Content { runs, blocks, octets_of } = content;
    let socket = &job.context.shared.amt.listeners[listener].sockets[job.context.index];
    let mut sent = Sent { job, runs, octets_of, total: Traffic::default() };
    let mut filling = batch.fill();
    for (place, leg) in legs {
        let segment_bytes_max = leg.endpoint.segment_bytes_max.load(Relaxed);
        for (number, run) in runs.iter().enumerate() {
            let head = leg.head(job.amt, run.traffic_class);
            let tag = Tag { leg: place, run: number, is_single: false };
            let is_whole = run.segment_bytes <= segment_bytes_max || run.units.len() == 1;
            if is_whole && filling.has_room(if run.block.is_some() { 1 } else { run.units.len() }) {
                fill(&mut filling, head, tag, run, &content);
                continue;
            }
            filling.send(socket, |outcome| sent.count(outcome));
            filling = batch.fill();
            if is_whole {
                fill(&mut filling, head, tag, run, &content);
                continue;
            }
            for unit in run.units.clone() {
                if !filling.has_room(1) {
                    filling.send(socket, |outcome| sent.count(outcome));
                    filling = batch.fill();
                }
                filling.message_with(head, Tag { run: unit, is_single: true, ..tag }.into());
                filling.datagram(octets_of(unit), None);
            }
        }
    }
    filling.send(socket, |outcome| sent.count(outcome));
    debug_assert!(blocks.len() <= BLOCK_BYTES_MAX);
    sent.total
}

fn fill<'a, F: Fn(usize) -> &'a [u8] + Copy>(
    filling: &mut Filling<'_, 'a>,
    head: Head,
    tag: Tag,
    run: &Run,
    content: &Content<'a, F>,
) {
    filling.message_with(head, tag.into());
    match &run.block {
        Some(block) => {
            let segment_bytes = u16::try_from(run.segment_bytes).expect("a run of several is at most 65507 octets");
            filling.block(&content.blocks[block.clone()], segment_bytes);
        }
        None => run.units.clone().for_each(|unit| filling.datagram((content.octets_of)(unit), None)),
    }
}

/// Cuts datagrams, given by length and traffic class, into runs, in order.
fn split(sizes: impl Iterator<Item = (usize, u8)>, segments_max: usize, runs: &mut Vec<Run>) {
    runs.clear();
    let mut closed = true;
    for (unit, (bytes, traffic_class)) in sizes.enumerate() {
        match runs.last_mut() {
            Some(run)
                if !closed
                    && bytes <= run.segment_bytes
                    && traffic_class == run.traffic_class
                    && run.units.len() < segments_max
                    && run.bytes + bytes <= DATAGRAM_BYTES_MAX =>
            {
                run.units.end = unit + 1;
                run.bytes += bytes;
                closed = bytes < run.segment_bytes;
            }
            _ => {
                runs.push(Run { units: unit..unit + 1, segment_bytes: bytes, bytes, traffic_class, block: None });
                closed = false;
            }
        }
    }
}

/// Copies the runs of several into `blocks`, as far as there is room.
fn lay_side_by_side(runs: &mut [Run], packets: &[Whole<'_>], blocks: &mut Vec<u8>) {
    for run in runs.iter_mut().filter(|run| run.units.len() > 1) {
        let start = blocks.len();
        if start + run.bytes > blocks.capacity() {
            return;
        }
        for packet in &packets[run.units.clone()] {
            blocks.extend_from_slice(packet.octets);
        }
        run.block = Some(start..blocks.len());
    }
}

impl AmtLeg {
    fn head(&self, amt: &AmtSettings, inner: u8) -> Head {
        let traffic_class = Some(amt.dscp.outer(inner, self.ecn)).filter(|class| *class != 0);
        Head { from: self.from, traffic_class, ..Head::to(self.endpoint.remote) }
    }
}

impl Endpoint {
    /// The limit of the tunnel, looked at again where it stands in the way of a packet of `bytes`.
    fn mtu_for(&self, bytes: usize, job: Job<'_>, leg: &AmtLeg) -> usize {
        let mtu = self.mtu.load(Relaxed);
        if bytes <= mtu {
            return mtu;
        }
        let is_fresh = job.context.second().saturating_sub(self.mtu_second.load(Relaxed)) < MTU_SECONDS;
        if mtu != 0 && is_fresh { mtu } else { self.learn_mtu(job, leg) }
    }

    /// Looks at it: a few system calls, once for an endpoint that ICMP leaves alone.
    fn learn_mtu(&self, job: Job<'_>, leg: &AmtLeg) -> usize {
        let listener = job.context.shared.amt.listeners[leg.listener].address.ip();
        let mtu = job.amt.mtu.look_up(leg.from.unwrap_or(listener), self.remote);
        self.mtu.store(mtu, Relaxed);
        self.mtu_second.store(job.context.second(), Relaxed);
        mtu
    }
}

/// Counts what became of the messages.
struct Sent<'a, F> {
    job: Job<'a>,
    runs: &'a [Run],
    octets_of: F,
    total: Traffic,
}

impl<'a, F: Fn(usize) -> &'a [u8]> Sent<'a, F> {
    fn count(&mut self, outcome: Outcome) {
        let Outcome { tag, sent, failed, error, segmentation_refused } = outcome;
        let Tag { leg, run, is_single } = tag.into();
        let leg = self.job.legs.at(leg);
        let header_bytes = sent * DATA.len();
        let bytes = if is_single {
            (self.octets_of)(run).len() * sent
        } else {
            // Where some of a run failed, the octets are taken to be spread evenly.
            self.runs[run].bytes * sent / (sent + failed)
        };
        let traffic = Traffic { packets: sent as u64, bytes: bytes.saturating_sub(header_bytes) as u64 };
        leg.endpoint.sent.add(traffic);
        self.total += traffic;
        if let Some(error) = error {
            self.job.context.cells().drop_packets(DropReason::of_send(error), failed as u64);
        }
        if error == Some(Errno::MSGSIZE) {
            // ICMP has told the kernel. What is lost is lost; what comes next is cut or answered.
            leg.endpoint.learn_mtu(self.job, leg);
        } else if segmentation_refused && !is_single {
            leg.endpoint.segment_bytes_max.fetch_min(self.runs[run].segment_bytes - 1, Relaxed);
        }
    }
}

impl From<Tag> for u64 {
    fn from(tag: Tag) -> Self {
        ((tag.leg << 32) | (tag.run << 1) | usize::from(tag.is_single)) as Self
    }
}

impl From<u64> for Tag {
    fn from(tag: u64) -> Self {
        let tag = usize::try_from(tag).expect("made from a usize");
        Self { leg: tag >> 32, run: (tag & 0xffff_ffff) >> 1, is_single: tag & 1 == 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    #[test]
    fn another_length_or_traffic_class_begins_another_run() {
        let runs = |sizes: &[(usize, u8)]| {
            let mut runs = Vec::new();
            split(sizes.iter().copied(), 64, &mut runs);
            runs.into_iter().map(|run| run.units).collect::<Vec<_>>()
        };
        assert_eq!(runs(&[(100, 0), (100, 0), (40, 0), (100, 0)]), [0..3, 3..4]);
        assert_eq!(runs(&[(100, 0), (100, 1), (100, 1)]), [0..1, 1..3]);
        assert_eq!(runs(&[(1346, 0); 60]), [0..48, 48..60]);
        assert_eq!(runs(&[]), []);
    }

    #[test]
    fn a_tag_tells_leg_and_content() {
        for tag in [
            Tag { leg: 0, run: 63, is_single: false },
            Tag { leg: 99_999, run: 0, is_single: true },
            Tag { leg: 7, run: 8000, is_single: true },
        ] {
            assert_eq!(Tag::from(u64::from(tag)), tag);
        }
    }

    #[test]
    fn a_packet_that_finds_no_room_for_its_fragments_leaves_none() {
        let octets = datagram(3000);
        let packet = Whole::parse(&octets).unwrap();
        let (mut units, mut fragments) = (Vec::new(), Vec::with_capacity(4000));
        cut(0, &packet, 576, &mut units, &mut fragments).unwrap();
        let (units_before, bytes_before) = (units.clone(), fragments.len());
        cut(1, &packet, 576, &mut units, &mut fragments).unwrap_err();
        assert_eq!((units, fragments.len()), (units_before, bytes_before));
    }

    proptest! {
        #[test]
        fn runs_hold_every_datagram_once_in_order_and_obey_the_kernel(
            sizes in proptest::collection::vec((prop_oneof![Just(1346_usize), 20..65_507_usize], 0..2_u8), 0..200),
            segments_max in 1..=64_usize,
        ) {
            let mut runs = Vec::new();
            split(sizes.iter().copied(), segments_max, &mut runs);
            let mut next = 0;
            for run in runs {
                prop_assert_eq!(run.units.start, next);
                next = run.units.end;
                let sizes = &sizes[run.units];
                prop_assert!((1..=segments_max).contains(&sizes.len()));
                prop_assert!(sizes[..sizes.len() - 1].iter().all(|size| *size == (run.segment_bytes, run.traffic_class)));
                prop_assert!(sizes[sizes.len() - 1].0 <= run.segment_bytes);
                prop_assert_eq!(sizes.iter().map(|(bytes, _)| bytes).sum::<usize>(), run.bytes);
                prop_assert!(run.bytes <= DATAGRAM_BYTES_MAX);
            }
            prop_assert_eq!(next, sizes.len());
        }
    }

    fn datagram(payload_bytes: usize) -> Vec<u8> {
        let repr = ipv4::Repr {
            tos: 0,
            identification: 7,
            fragment: ipv4::Fragment::default(),
            ttl: 9,
            protocol: 17,
            source: Ipv4Addr::new(192, 0, 2, 7),
            destination: Ipv4Addr::new(232, 1, 2, 3),
            options: &[],
            payload: &vec![7; payload_bytes],
        };
        let mut octets = vec![0; 2 + repr.buffer_len()];
        octets[..2].copy_from_slice(&DATA);
        repr.emit(&mut octets[2..]);
        octets
    }
}
