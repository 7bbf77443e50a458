//! What a packet socket's message holds: one IP packet, perhaps with its checksum unfinished, perhaps a run of UDP segments
//! that no device has cut yet (`struct virtio_net_hdr`, native byte order).
//!
//! ```text
//!   0       1      2            4          6            8             10
//!   | flags | GSO  | header len | GSO size | sum starts | sum stands  | link header | IP | UDP | segment | segment | ..
//! ```

use std::ops::Range;

/// Octets of the header that the kernel puts before each message.
pub(super) const VIRTIO_BYTES: usize = 10;
/// Octets of an Ethernet header.
pub(super) const ETHERNET_BYTES: usize = 14;
/// `UDP_MAX_SEGMENTS` of Linux since 6.9.
pub(super) const SEGMENTS_PER_MESSAGE_MAX: usize = 128;
/// Prefix, IP header and UDP header of every segment.
pub(super) const HEADERS_BYTES_MAX: usize = SEGMENTS_PER_MESSAGE_MAX * (2 + 60 + UDP_BYTES);

const UDP_BYTES: usize = 8;
const UDP: u8 = 17;
const NEEDS_CHECKSUM: u8 = 1;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;
const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;

/// What stands before the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkType {
    Ethernet,
    /// TUN and tunnels of the kernel.
    None,
}

/// A message whose parts are known to fit.
pub(super) struct Message<'a> {
    octets: &'a mut [u8],
    virtio: Virtio,
    /// Where the IP packet is.
    packet: Range<usize>,
}

#[derive(Clone, Copy)]
struct Virtio {
    flags: u8,
    gso: u8,
    gso_bytes: usize,
    sum_start: usize,
    sum_offset: usize,
}

/// One segment of a run.
pub(super) struct Piece<'a> {
    headers: &'a [u8],
    ip_bytes: usize,
    number: u16,
    payload: &'a [u8],
}

impl LinkType {
    pub(super) fn of_hardware(hardware: u16) -> Option<Self> {
        match hardware {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Some(Self::Ethernet),
            libc::ARPHRD_NONE | libc::ARPHRD_PPP | libc::ARPHRD_TUNNEL | libc::ARPHRD_TUNNEL6 | libc::ARPHRD_SIT => {
                Some(Self::None)
            }
            _ => None,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Ethernet => ETHERNET_BYTES,
            Self::None => 0,
        }
    }
}

impl<'a> Message<'a> {
    /// Reads the headers; `None` for what is no IP packet of the length it says.
    pub(super) fn parse(octets: &'a mut [u8], link: LinkType) -> Option<Self> {
        let (virtio, frame) = octets.split_first_chunk::<VIRTIO_BYTES>()?;
        let short = |at: usize| usize::from(u16::from_ne_bytes([virtio[at], virtio[at + 1]]));
        let virtio = Virtio {
            flags: virtio[0],
            gso: virtio[1] & !GSO_ECN,
            gso_bytes: short(4),
            sum_start: VIRTIO_BYTES + short(6),
            sum_offset: short(8),
        };
        let packet = frame.get(link.bytes()..)?;
        let (header, length) = match packet.first()? >> 4 {
            4 => (V4_BYTES, usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]))),
            6 => (V6_BYTES, V6_BYTES + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]))),
            _ => return None,
        };
        // A frame may be longer, Ethernet's shortest is; a packet that is not all there is none.
        if !(header..=packet.len()).contains(&length) {
            return None;
        }
        let start = VIRTIO_BYTES + link.bytes();
        Some(Self { octets, virtio, packet: start..start + length })
    }

    /// Does what the kernel left undone. The result is where the packet stands within the message, prefix included; a run is
    /// given to `each` instead, piece by piece.
    pub(super) fn finish(self, prefix: [u8; 2], mut each: impl FnMut(Piece<'_>)) -> Option<Range<usize>> {
        let Self { octets, virtio, packet } = self;
        if virtio.gso == GSO_UDP_L4 && virtio.gso_bytes > 0 {
            run(&octets[packet], virtio.gso_bytes, &mut each);
            return None;
        }
        // The other kind of segmentation that multicast knows leaves fragments, of a datagram that is whole here.
        if virtio.flags & NEEDS_CHECKSUM != 0 {
            finish_checksum(&mut octets[..packet.end], virtio.sum_start, virtio.sum_offset);
        }
        // Without a link header it stands in the virtio header, which has been read.
        let range = packet.start - prefix.len()..packet.end;
        octets[range.start..packet.start].copy_from_slice(&prefix);
        Some(range)
    }
}

/// Gives the segments of a run; nothing for what is none.
fn run(packet: &[u8], segment_bytes: usize, each: &mut impl FnMut(Piece<'_>)) {
    let Some(ip_bytes) = udp_at(packet) else { return };
    let Some((headers, payload)) = packet.split_at_checked(ip_bytes + UDP_BYTES) else { return };
    for (number, payload) in (0..).zip(payload.chunks(segment_bytes).take(SEGMENTS_PER_MESSAGE_MAX)) {
        each(Piece { headers, ip_bytes, number, payload });
    }
}

/// Where the UDP header stands, in a packet that is no fragment.
fn udp_at(packet: &[u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 if *packet.get(9)? == UDP => Some(usize::from(packet[0] & 0x0f) * 4).filter(|bytes| *bytes >= V4_BYTES),
        // Extension headers of 8 octets and more, as RFC 8200 §4.2 has them.
        6 => {
            let (mut kind, mut at) = (*packet.get(6)?, V6_BYTES);
            while matches!(kind, 0 | 43 | 60) {
                kind = *packet.get(at)?;
                at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
            }
            (kind == UDP).then_some(at)
        }
        _ => None,
    }
}

impl Piece<'_> {
    /// Octets with the prefix.
    pub(super) fn bytes(&self) -> usize {
        2 + self.headers.len() + self.payload.len()
    }

    /// Writes prefix, headers of its own and payload.
    pub(super) fn append_to(&self, pieces: &mut Vec<u8>, prefix: [u8; 2]) {
        let Self { headers, ip_bytes, number, payload } = self;
        let start = pieces.len() + prefix.len();
        pieces.extend_from_slice(&prefix);
        pieces.extend_from_slice(headers);
        pieces.extend_from_slice(payload);
        let packet = &mut pieces[start..];
        let total = length(packet.len());
        if packet[0] >> 4 == 4 {
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            let identification = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(*number);
            packet[4..6].copy_from_slice(&identification.to_be_bytes());
            packet[10..12].copy_from_slice(&[0; 2]);
            let checksum = !fold(sum(&packet[..*ip_bytes]));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            packet[4..6].copy_from_slice(&(total.saturating_sub(length(V6_BYTES))).to_be_bytes());
        }
        let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
        let udp_bytes = length(packet.len() - ip_bytes);
        let pseudo = sum(&packet[addresses]) + u64::from(UDP) + u64::from(udp_bytes);
        let udp = &mut packet[*ip_bytes..];
        udp[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
        udp[6..8].copy_from_slice(&[0; 2]);
        let checksum = never_zero(!fold(pseudo + sum(udp)));
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// The sum from `start` to the end goes to `offset` behind `start`, where that of the pseudo header stands already.
fn finish_checksum(frame: &mut [u8], start: usize, offset: usize) {
    let Some(part) = frame.get_mut(start..) else { return };
    let checksum = !fold(sum(part));
    let checksum = if offset == 6 { never_zero(checksum) } else { checksum };
    if let Some(place) = part.get_mut(offset..offset + 2) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// RFC 768: 0 would say that there is none.
fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { u16::MAX } else { checksum }
}

/// RFC 1071, four octets at a time: a sum of longer words folds to the same.
fn sum(octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_be_bytes(last));
    total
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded to 16 bits")
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}
