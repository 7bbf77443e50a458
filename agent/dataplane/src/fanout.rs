//! From a handful of datagrams of one channel to all its tunnels: the path that everything else exists for.
//!
//! ```text
//!   packets  a b c d | e          equal lengths (the last of a run may be shorter): one run = one message a tunnel
//!   leg 0    [a t0 b t0 c t0 d t0] [e t0]
//!   leg 1    [a t1 b t1 c t1 d t1] [e t1]      payloads shared, trailers with the tunnel's cookies
//! ```

use crate::DropReason;
use crate::counters::{FlowCells, Traffic, WorkerCells};
use crate::table::{ChannelEntry, Leg};
use castgate_udp::{DATAGRAM_BYTES_MAX, Errno, Filling, Gso, Outcome, SendBatch, UdpSocket};
use castgate_wire::umtp::{Channel, Command, Trailer};
use std::net::SocketAddrV4;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// Datagrams that are taken in at once, and so the most that go to a tunnel at once.
pub(crate) const BATCH: usize = 64;
/// Messages in one system call: enough to make the call itself cheap.
const MESSAGES: usize = 64;
/// Datagrams in one system call. Their parts fill half a first-level cache; filling more of them gains nothing.
const DATAGRAMS: usize = 512;

/// A payload on its way, with the TTL that its trailer shall carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) ttl: u8,
}

/// The sending half of a worker.
#[derive(Debug)]
pub(crate) struct Fanout {
    batch: SendBatch,
    segments_max: usize,
    runs: Vec<Run>,
}

/// Packets that may go in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    packets: Range<usize>,
    /// Octets of the first datagram, trailer included.
    segment_bytes: usize,
    payload_bytes: usize,
}

/// What one message holds, and for which leg: a tag of [`SendBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag {
    leg: usize,
    content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Run(usize),
    Packet(usize),
}

impl Packet<'_> {
    /// What an array of packets is filled with before there are any.
    pub(crate) const NONE: Self = Self { payload: &[], ttl: 0 };
}

impl Fanout {
    pub(crate) fn new(gso: Gso) -> Self {
        Self {
            batch: SendBatch::new(MESSAGES, DATAGRAMS),
            segments_max: gso.segments_max(),
            runs: Vec::with_capacity(BATCH),
        }
    }

    /// Sends each of `packets`, at most [`BATCH`], to each of `legs` except the tunnel that they came from.
    pub(crate) fn send(
        &mut self,
        socket: &UdpSocket,
        channel: &ChannelEntry,
        legs: &[Leg],
        except: Option<SocketAddrV4>,
        packets: &[Packet<'_>],
        cells: &WorkerCells,
    ) {
        let Self { batch, segments_max, runs } = self;
        split(packets, trailer_bytes(&channel.channel), *segments_max, runs);
        let mut sent = Sent { runs, legs, packets, cells, total: Traffic::default() };
        let mut filling = batch.fill();
        for (index, leg) in legs.iter().enumerate() {
            if except == Some(leg.tunnel.address) {
                continue;
            }
            let segment_bytes_max = leg.tunnel.segment_bytes_max.load(Relaxed);
            for (number, run) in runs.iter().enumerate() {
                let packets = &packets[run.packets.clone()];
                if !filling.has_room(packets.len()) {
                    filling.send(socket, |outcome| sent.count(outcome));
                    filling = batch.fill();
                }
                if run.segment_bytes <= segment_bytes_max {
                    filling.message(leg.tunnel.address, None, Tag { leg: index, content: Content::Run(number) }.into());
                    append(&mut filling, &channel.channel, leg, packets);
                    continue;
                }
                for (offset, packet) in packets.iter().enumerate() {
                    if !filling.has_room(1) {
                        filling.send(socket, |outcome| sent.count(outcome));
                        filling = batch.fill();
                    }
                    let content = Content::Packet(run.packets.start + offset);
                    filling.message(leg.tunnel.address, None, Tag { leg: index, content }.into());
                    append(&mut filling, &channel.channel, leg, std::slice::from_ref(packet));
                }
            }
        }
        filling.send(socket, |outcome| sent.count(outcome));
        sent.finish(&channel.flows);
    }
}

/// Octets of the trailer of DATA in this channel.
fn trailer_bytes(channel: &Channel) -> usize {
    if channel.source.is_some() {
        castgate_wire::umtp::LONG_TRAILER_LEN
    } else {
        castgate_wire::umtp::SHORT_TRAILER_LEN
    }
}

/// Adds datagrams to the message just begun. Most batches have one TTL and so one trailer a message.
fn append<'data>(filling: &mut Filling<'_, 'data>, channel: &Channel, leg: &Leg, packets: &[Packet<'data>]) {
    let (source_cookie, destination_cookie) = leg.tunnel.outgoing_cookies();
    let mut written = None;
    for packet in packets {
        let tail = match written {
            Some((ttl, tail)) if ttl == packet.ttl => tail,
            _ => {
                let trailer = Trailer {
                    source_cookie,
                    destination_cookie,
                    channel: *channel,
                    ttl: packet.ttl,
                    command: Command::Data,
                };
                filling.tail(&trailer.to_octets())
            }
        };
        written = Some((packet.ttl, tail));
        filling.datagram(packet.payload, Some(tail));
    }
}

/// Cuts `packets` into runs, in order.
fn split(packets: &[Packet<'_>], trailer_bytes: usize, segments_max: usize, runs: &mut Vec<Run>) {
    runs.clear();
    let mut closed = true;
    for (index, packet) in packets.iter().enumerate() {
        let bytes = packet.payload.len() + trailer_bytes;
        match runs.last_mut() {
            Some(run)
                if !closed
                    && bytes <= run.segment_bytes
                    && run.packets.len() < segments_max
                    && run.payload_bytes + packet.payload.len() + (run.packets.len() + 1) * trailer_bytes
                        <= DATAGRAM_BYTES_MAX =>
            {
                run.packets.end = index + 1;
                run.payload_bytes += packet.payload.len();
                closed = bytes < run.segment_bytes;
            }
            _ => {
                runs.push(Run { packets: index..index + 1, segment_bytes: bytes, payload_bytes: packet.payload.len() });
                closed = false;
            }
        }
    }
}

/// Counts what became of the messages.
struct Sent<'a> {
    runs: &'a [Run],
    legs: &'a [Leg],
    packets: &'a [Packet<'a>],
    cells: &'a WorkerCells,
    total: Traffic,
}

impl Sent<'_> {
    fn count(&mut self, outcome: Outcome) {
        let Outcome { tag, sent, failed, error, segmentation_refused } = outcome;
        let Tag { leg, content } = tag.into();
        let tunnel = &self.legs[leg].tunnel;
        let payload_bytes = match content {
            // Where some of a run failed, the octets are taken to be spread evenly.
            Content::Run(run) => self.runs[run].payload_bytes * sent / (sent + failed),
            Content::Packet(packet) => self.packets[packet].payload.len() * sent,
        };
        let traffic = Traffic { packets: sent as u64, bytes: payload_bytes as u64 };
        tunnel.sent.add(traffic);
        self.total += traffic;
        if let Some(error) = error {
            self.cells.drop_packets(DropReason::of_send(error), failed as u64);
        }
        if segmentation_refused && let Content::Run(run) = content {
            tunnel.segment_bytes_max.fetch_min(self.runs[run].segment_bytes - 1, Relaxed);
        }
    }

    fn finish(self, channel: &FlowCells) {
        self.cells.flows.tunnels_out.add(self.total);
        channel.tunnels_out.add(self.total);
    }
}

impl From<Tag> for u64 {
    fn from(tag: Tag) -> Self {
        let (kind, number) = match tag.content {
            Content::Run(number) => (0, number),
            Content::Packet(number) => (1, number),
        };
        ((tag.leg << 16) | (number << 1) | kind) as Self
    }
}

impl From<u64> for Tag {
    fn from(tag: u64) -> Self {
        let tag = usize::try_from(tag).expect("made from a usize");
        let number = (tag & 0xffff) >> 1;
        let content = if tag & 1 == 0 { Content::Run(number) } else { Content::Packet(number) };
        Self { leg: tag >> 16, content }
    }
}

/// Counts what became of messages that are no tunnel's.
pub(crate) fn count_failure(cells: &WorkerCells, failed: usize, error: Option<Errno>) {
    if let Some(error) = error {
        cells.drop_packets(DropReason::of_send(error), failed as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cookies, TableBuilder};
    use castgate_udp::{Options, RecvBatch};
    use castgate_wire::umtp::Cookie;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;
    use std::num::NonZeroUsize;

    #[test]
    fn equal_lengths_make_one_run_that_a_shorter_one_ends() {
        assert_eq!(runs(&[100, 100, 100, 40, 100, 100], 64), [0..4, 4..6]);
        assert_eq!(runs(&[100, 101, 101], 64), [0..1, 1..3]);
        assert_eq!(runs(&[40, 40, 0, 0], 64), [0..3, 3..4]);
        assert_eq!(runs(&[7; 5], 2), [0..2, 2..4, 4..5]);
        assert_eq!(runs(&[7; 3], 1), [0..1, 1..2, 2..3]);
        assert_eq!(runs(&[], 64), []);
    }

    #[test]
    fn a_run_fits_into_one_datagram_of_the_kernel() {
        assert_eq!(runs(&[1316; 64], 64), [0..49, 49..64]);
        assert_eq!(runs(&[40_000, 40_000], 64), [0..1, 1..2]);
    }

    #[test]
    fn a_tag_tells_leg_and_content() {
        for tag in [
            Tag { leg: 0, content: Content::Run(63) },
            Tag { leg: 99_999, content: Content::Packet(0) },
            Tag { leg: 7, content: Content::Packet(63) },
        ] {
            assert_eq!(Tag::from(u64::from(tag)), tag);
        }
    }

    #[test]
    fn a_way_that_takes_no_segments_gets_the_same_datagrams_one_by_one() {
        let options = Options::new(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
        let (client, sender) = (UdpSocket::bind(&options).unwrap(), UdpSocket::bind(&options).unwrap());
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, client.local_address().unwrap().port());
        let channel = Channel::any_source(Ipv4Addr::new(239, 1, 2, 3), 5004);
        let mut table = TableBuilder::new(NonZeroUsize::MIN);
        table.tunnel_up(address, Cookies { local: Cookie(1), previous: None, remote: Cookie(2) });
        table.attach(address, channel, false, 1);
        let table = table.build();
        let entry = table.channels.get(&channel).unwrap();
        let legs = &entry.members[0].legs;
        let payloads: Vec<_> = (0..20).map(|number| vec![number; 100]).collect();
        let packets: Vec<_> = payloads.iter().map(|payload| Packet { payload, ttl: payload[0] / 7 }).collect();
        let cells = WorkerCells::default();
        let mut received = Vec::new();
        for segment_bytes_max in [usize::MAX, 111] {
            legs[0].tunnel.segment_bytes_max.store(segment_bytes_max, Relaxed);
            Fanout::new(Gso::probe()).send(&sender, entry, legs, None, &packets, &cells);
            let mut batch = RecvBatch::new(BATCH, 2048);
            batch.receive(&client).unwrap();
            received.push(batch.iter().map(|datagram| datagram.payload.to_vec()).collect::<Vec<_>>());
        }
        assert_eq!(received[0].len(), 20);
        assert_eq!(received[0], received[1]);
        for (datagram, packet) in received[0].iter().zip(&packets) {
            let (payload, trailer) = Trailer::parse(datagram).unwrap();
            assert_eq!((payload, trailer.ttl), (packet.payload, packet.ttl));
        }
        assert_eq!(cells.flows.tunnels_out.read(), Traffic { packets: 40, bytes: 4000 });
    }

    proptest! {
        #[test]
        fn runs_hold_every_packet_once_in_order_and_obey_the_kernel(
            lengths in proptest::collection::vec(prop_oneof![Just(1316_usize), Just(188), 0..65_491_usize], 0..BATCH),
            segments_max in 1..=64_usize,
        ) {
            let found = split_lengths(&lengths, segments_max);
            let mut next = 0;
            for Run { packets, segment_bytes, payload_bytes } in found {
                prop_assert_eq!(packets.start, next);
                next = packets.end;
                let lengths = &lengths[packets];
                prop_assert!((1..=segments_max).contains(&lengths.len()));
                prop_assert!(lengths[..lengths.len() - 1].iter().all(|length| length + 16 == segment_bytes));
                prop_assert!(lengths[lengths.len() - 1] + 16 <= segment_bytes);
                prop_assert_eq!(lengths.iter().sum::<usize>(), payload_bytes);
                prop_assert!(lengths.iter().map(|length| length + 16).sum::<usize>() <= DATAGRAM_BYTES_MAX);
            }
            prop_assert_eq!(next, lengths.len());
        }
    }

    fn runs(lengths: &[usize], segments_max: usize) -> Vec<Range<usize>> {
        split_lengths(lengths, segments_max).into_iter().map(|run| run.packets).collect()
    }

    fn split_lengths(lengths: &[usize], segments_max: usize) -> Vec<Run> {
        let zeros = vec![0; DATAGRAM_BYTES_MAX];
        let packets: Vec<_> = lengths.iter().map(|&length| Packet { payload: &zeros[..length], ttl: 1 }).collect();
        let mut runs = Vec::new();
        split(&packets, 16, segments_max, &mut runs);
        runs
    }
}
