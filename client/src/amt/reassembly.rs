//! Putting the fragments of an inner packet together (RFC 791 §3.2, RFC 8200 §4.5): a relay whose tunnel is too narrow cuts
//! the packet inside.
//!
//! Owns what is kept of packets that are not whole yet. Everything is bounded: packets, octets, fragments of a packet, time.
//! Overlapping fragments throw their packet away, as RFC 5722 demands for IPv6; an honest sender makes none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use castgate_wire::{ip, ipv4, ipv6};

/// Packets that may be unfinished at one time; the oldest makes room. The relay sends the fragments of a packet together, so
/// that more than a few are open only when some were lost.
const PACKETS_MAX: usize = 64;
/// Octets of all their fragments together: sixteen of the longest packets.
const OCTETS_MAX: usize = 1 << 20;
/// Fragments of one packet: the longest one, cut for the shortest path that IPv4 promises (576 octets), has 119.
const FRAGMENTS_MAX: usize = 128;
/// How long a packet is waited for. RFC 8200 allows 60 s, in which the 16 bits of an IPv4 identification come round at a
/// thousand packets a second (RFC 4963); what has not come after 2 s is lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest packet behind the header of IPv6, and with it in IPv4.
const LEN_MAX: usize = 65_535;
/// Fragments but the last carry whole units of so many octets.
const UNIT: usize = 8;

/// Unfinished packets.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    packets: BTreeMap<Key, Unfinished>,
    octets: usize,
}

/// What the fragments of one packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    /// Only IPv4 keeps them apart by protocol.
    protocol: u8,
    identification: u32,
}

#[derive(Debug)]
struct Unfinished {
    since: Instant,
    /// Offsets and octets, without overlap.
    parts: BTreeMap<usize, Vec<u8>>,
    /// Where the last fragment ends.
    end: Option<usize>,
    /// The headers of the first fragment, those of a whole packet but for the length.
    head: Option<Vec<u8>>,
}

/// One fragment taken apart.
struct Fragment<'a> {
    key: Key,
    offset: usize,
    more: bool,
    octets: &'a [u8],
    /// Of the first fragment: the headers before `octets`.
    head: Option<Vec<u8>>,
}

impl Reassembly {
    /// Takes a fragment; the whole packet comes back with the last one that was missing.
    pub(super) fn take(&mut self, now: Instant, packet: &ip::Packet<&[u8]>) -> Option<Vec<u8>> {
        self.forget(|kept| kept.since + PATIENCE <= now);
        let fragment = match packet {
            ip::Packet::V4(packet) => of_v4(packet),
            ip::Packet::V6(packet) => of_v6(packet),
        }?;
        let key = fragment.key;
        if !self.packets.contains_key(&key) && self.packets.len() >= PACKETS_MAX {
            self.forget_oldest();
        }
        let kept = self.packets.entry(key).or_insert_with(|| Unfinished {
            since: now,
            parts: BTreeMap::new(),
            end: None,
            head: None,
        });
        match kept.add(fragment) {
            Added::Nothing => return None,
            Added::Octets(count) => self.octets += count,
            Added::Wrong => {
                self.remove(key);
                return None;
            }
        }
        if self.packets.get(&key).is_some_and(Unfinished::is_whole) {
            return self.remove(key).and_then(Unfinished::into_packet);
        }
        while self.octets > OCTETS_MAX {
            self.forget_oldest();
        }
        None
    }

    fn remove(&mut self, key: Key) -> Option<Unfinished> {
        let removed = self.packets.remove(&key)?;
        self.octets -= removed.octets();
        Some(removed)
    }

    fn forget(&mut self, is_over: impl Fn(&Unfinished) -> bool) {
        for (_, removed) in self.packets.extract_if(.., |_, kept| is_over(kept)) {
            self.octets -= removed.octets();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.packets.iter().min_by_key(|(_, kept)| kept.since).map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.remove(key);
        }
    }
}

/// What became of a fragment.
enum Added {
    /// It was there already.
    Nothing,
    /// So many octets are kept for it.
    Octets(usize),
    /// It does not fit to the others: none of them is any use.
    Wrong,
}

impl Unfinished {
    fn octets(&self) -> usize {
        self.parts.values().map(Vec::len).sum()
    }

    fn add(&mut self, fragment: Fragment<'_>) -> Added {
        let Fragment { key: _, offset, more, octets, head } = fragment;
        let end = offset + octets.len();
        if self.parts.get(&offset).is_some_and(|part| part == octets) {
            return Added::Nothing;
        }
        let before = self.parts.range(..=offset).next_back();
        let after = self.parts.range(offset..).next();
        let overlaps =
            before.is_some_and(|(at, part)| at + part.len() > offset) || after.is_some_and(|(at, _)| *at < end);
        let highest = self.parts.last_key_value().map_or(0, |(at, part)| at + part.len());
        let disagrees = match (self.end, more) {
            (Some(last), true) => end > last,
            (Some(last), false) => end != last,
            (None, true) => false,
            (None, false) => end < highest,
        };
        if overlaps || disagrees || self.parts.len() >= FRAGMENTS_MAX {
            return Added::Wrong;
        }
        if !more {
            self.end = Some(end);
        }
        if head.is_some() {
            self.head = head;
        }
        self.parts.insert(offset, octets.to_vec());
        Added::Octets(octets.len())
    }

    /// Without overlap, octets as many as the end says leave no hole.
    fn is_whole(&self) -> bool {
        self.end == Some(self.octets())
    }

    fn into_packet(self) -> Option<Vec<u8>> {
        let mut packet = self.head?;
        self.parts.into_values().for_each(|part| packet.extend(part));
        let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        if is_v6 {
            let len = u16::try_from(packet.len() - ipv6::HEADER_LEN).ok()?;
            packet[4..6].copy_from_slice(&len.to_be_bytes());
            return Some(packet);
        }
        let len = u16::try_from(packet.len()).ok()?;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        // The checksum of the new header: the view sets it with the TTL.
        let mut view = ipv4::Packet::new_checked(packet).ok()?;
        view.set_ttl(view.ttl());
        Some(view.into_inner())
    }
}

/// Whether a fragment can be a part of any packet.
fn is_fit(offset: usize, more: bool, len: usize) -> bool {
    len > 0 && offset + len <= LEN_MAX && (!more || len.is_multiple_of(UNIT))
}

fn of_v4<'a>(packet: &'a ipv4::Packet<&[u8]>) -> Option<Fragment<'a>> {
    let place = packet.fragment();
    let octets = packet.payload();
    if !packet.verify_checksum() || !is_fit(place.offset_bytes(), place.more, octets.len()) {
        return None;
    }
    let head = (place.offset_units == 0).then(|| {
        let mut head = packet.octets()[..packet.header_len()].to_vec();
        head[6..8].fill(0);
        head
    });
    let key = Key {
        source: packet.source().into(),
        destination: packet.destination().into(),
        protocol: packet.protocol(),
        identification: packet.identification().into(),
    };
    Some(Fragment { key, offset: place.offset_bytes(), more: place.more, octets, head })
}

fn of_v6<'a>(packet: &'a ipv6::Packet<&[u8]>) -> Option<Fragment<'a>> {
    let place = packet.fragment();
    let whole = packet.octets();
    let (pointer, at) = fragment_header(whole)?;
    let octets = whole.get(at + UNIT..)?;
    if !is_fit(place.offset_bytes(), place.more, octets.len()) {
        return None;
    }
    let head = if place.offset_units == 0 {
        let mut head = whole[..at].to_vec();
        head[pointer] = whole[at];
        Some(head)
    } else {
        None
    };
    let key = Key {
        source: packet.source().into(),
        destination: packet.destination().into(),
        protocol: 0,
        identification: packet.identification()?,
    };
    Some(Fragment { key, offset: place.offset_bytes(), more: place.more, octets, head })
}

/// Where the fragment header stands, after the octet that announces it.
fn fragment_header(packet: &[u8]) -> Option<(usize, usize)> {
    let (mut pointer, mut at) = (6, ipv6::HEADER_LEN);
    loop {
        match *packet.get(pointer)? {
            ipv6::protocol::FRAGMENT => return Some((pointer, at)),
            ipv6::protocol::HOP_BY_HOP | ipv6::protocol::ROUTING | ipv6::protocol::DESTINATION_OPTIONS => {
                pointer = at;
                at += (usize::from(*packet.get(at + 1)?) + 1) * UNIT;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const GROUP: Ipv4Addr = Ipv4Addr::new(232, 1, 2, 3);

    #[test]
    fn fragments_of_ipv4_are_put_together_in_any_order() {
        let packet = v4(7, 100);
        let cut = cut_v4(&packet, 60);
        assert_eq!(cut.len(), 3);
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut lab = Lab::new();
            let outcomes: Vec<_> = order.iter().map(|index| lab.take(&cut[*index])).collect();
            assert_eq!(outcomes, [None, None, Some(packet.clone())], "{order:?}");
            assert_eq!((lab.reassembly.octets, lab.reassembly.packets.len()), (0, 0));
        }
    }

    #[test]
    fn fragments_of_ipv6_are_put_together_behind_their_extension_headers() {
        let options = [ipv6::protocol::FRAGMENT, 0, 1, 4, 0, 0, 0, 0];
        let data: Vec<u8> = (0..40).collect();
        let part = |offset: usize, more, octets: &[u8]| v6_part(&options, offset, more, octets);
        let mut lab = Lab::new();
        assert_eq!(lab.take(&part(24, false, &data[24..])), None);
        let packet = lab.take(&part(0, true, &data[..24])).unwrap();
        let view = ipv6::Packet::new_checked(&packet[..]).unwrap();
        assert_eq!((view.upper_protocol(), view.upper_payload()), (17, &data[..]));
        assert!(view.identification().is_none() && view.next_header() == ipv6::protocol::DESTINATION_OPTIONS);
    }

    #[test]
    fn a_fragment_twice_harms_nothing_and_an_overlap_throws_the_packet_away() {
        let cut = cut_v4(&v4(7, 100), 60);
        let mut lab = Lab::new();
        assert!(cut.iter().take(2).chain(&cut[..1]).all(|part| lab.take(part).is_none()));
        assert!(lab.take(&cut[2]).is_some());

        let other = cut_v4(&v4(7, 100), 52);
        let mut lab = Lab::new();
        lab.take(&cut[0]);
        lab.take(&other[1]);
        assert!(lab.reassembly.packets.is_empty(), "an overlap");
        lab.take(&cut[2]);
        lab.take(&cut_v4(&v4(7, 200), 60)[4]);
        assert!(lab.reassembly.packets.is_empty(), "two ends");
    }

    #[test]
    fn what_is_not_whole_after_two_seconds_is_forgotten() {
        let cut = cut_v4(&v4(7, 100), 60);
        let mut lab = Lab::new();
        lab.take(&cut[0]);
        lab.now += PATIENCE;
        assert!(lab.take(&cut[1]).is_none() && lab.take(&cut[2]).is_none());
        assert!(lab.take(&cut[0]).is_some(), "the others are younger");
    }

    #[test]
    fn packets_and_octets_that_never_become_whole_are_bounded() {
        let mut lab = Lab::new();
        for identification in 0..1_000 {
            lab.take(&cut_v4(&v4(identification, 60_000), 59_020)[0]);
        }
        assert!(lab.reassembly.packets.len() <= PACKETS_MAX && lab.reassembly.octets <= OCTETS_MAX);
        let last = lab.take(&cut_v4(&v4(999, 60_000), 59_020)[1]);
        assert!(last.is_some(), "the youngest are kept");

        let mut lab = Lab::new();
        let many = cut_v4(&v4(7, 4_000), 28);
        assert!(many.iter().all(|part| lab.take(part).is_none()));
        assert!(lab.reassembly.octets <= FRAGMENTS_MAX * UNIT);
    }

    #[test]
    fn fragments_that_can_be_part_of_nothing_are_not_kept() {
        let mut lab = Lab::new();
        let mut damaged = cut_v4(&v4(7, 100), 60)[0].clone();
        damaged[8] ^= 1;
        lab.take(&damaged);
        lab.take(&v6_part(&[], 0, true, &[0; 12]));
        lab.take(&v6_part(&[], 65_528, false, &[0; 16]));
        lab.take(&v6_part(&[], 8, true, &[]));
        assert!(lab.reassembly.packets.is_empty());
    }

    struct Lab {
        now: Instant,
        reassembly: Reassembly,
    }

    impl Lab {
        fn new() -> Self {
            Self { now: Instant::now(), reassembly: Reassembly::default() }
        }

        fn take(&mut self, octets: &[u8]) -> Option<Vec<u8>> {
            self.reassembly.take(self.now, &ip::Packet::new_checked(octets).unwrap())
        }
    }

    fn v4(identification: u16, len: usize) -> Vec<u8> {
        let payload: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let repr = ipv4::Repr {
            tos: 0,
            identification,
            fragment: ipv4::Fragment::default(),
            ttl: 9,
            protocol: ipv4::protocol::UDP,
            source: SOURCE,
            destination: GROUP,
            options: &[],
            payload: &payload,
        };
        let mut octets = vec![0; repr.buffer_len()];
        repr.emit(&mut octets);
        octets
    }

    fn cut_v4(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let parts = ipv4::fragment(packet, mtu).unwrap();
        parts.map(|part| [part.header(), part.payload()].concat()).collect()
    }

    /// A fragment behind these extension headers, which announce it.
    fn v6_part(extensions: &[u8], offset: usize, more: bool, octets: &[u8]) -> Vec<u8> {
        let place = u16::try_from(offset).unwrap() | u16::from(more);
        let header = [&[ipv6::protocol::UDP, 0][..], &place.to_be_bytes(), &7_u32.to_be_bytes()].concat();
        let payload = [extensions, &header, octets].concat();
        let first = if extensions.is_empty() { ipv6::protocol::FRAGMENT } else { ipv6::protocol::DESTINATION_OPTIONS };
        let repr = ipv6::Repr {
            traffic_class: 0,
            flow_label: 0,
            next_header: first,
            hop_limit: 9,
            source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            destination: Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x8000, 1),
            payload: &payload,
        };
        let mut packet = vec![0; repr.buffer_len()];
        repr.emit(&mut packet);
        packet
    }
}
