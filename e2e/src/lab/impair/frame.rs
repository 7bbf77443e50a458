//! What an Ethernet frame holds, as far as a link's dice and a test's questions go. Knows nothing of the product.

use std::net::{Ipv4Addr, SocketAddrV4};

const ETHERNET_LEN: usize = 14;
const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TYPE_ARP: [u8; 2] = [0x08, 0x06];
const PROTOCOL_UDP: u8 = 17;

/// A UDP datagram inside a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// To whom.
    pub to: SocketAddrV4,
    /// Hops left.
    pub ttl: u8,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Whether a frame is ARP, which links spare.
#[must_use]
pub fn is_arp(frame: &[u8]) -> bool {
    frame.get(12..ETHERNET_LEN) == Some(&TYPE_ARP)
}

/// The UDP datagram of a frame; `None` for everything else, later fragments included.
#[must_use]
pub fn udp(frame: &[u8]) -> Option<Udp<'_>> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_LEN)?;
    if ethernet[12..] != TYPE_IPV4 {
        return None;
    }
    let header_len = usize::from(*packet.first()? & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let (header, rest) = packet.get(..total_len)?.split_at_checked(header_len.max(20))?;
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[9] != PROTOCOL_UDP || fragment_offset != 0 {
        return None;
    }
    let (udp, payload) = rest.split_at_checked(8)?;
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    Some(Udp {
        from: SocketAddrV4::new(address(12), port(0)),
        to: SocketAddrV4::new(address(16), port(2)),
        ttl: header[8],
        payload,
    })
}

/// A frame with a UDP datagram, its IPv4 checksum right and its UDP checksum left out (which IPv4 allows).
///
/// # Panics
/// When the payload does not fit a packet.
#[must_use]
pub fn build(to_mac: [u8; 6], from_mac: [u8; 6], datagram: &Udp<'_>) -> Vec<u8> {
    let udp_len = u16::try_from(8 + datagram.payload.len()).expect("a test's datagram fits a packet");
    let mut frame = Vec::with_capacity(ETHERNET_LEN + 20 + usize::from(udp_len));
    frame.extend(to_mac);
    frame.extend(from_mac);
    frame.extend(TYPE_IPV4);
    let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, datagram.ttl, PROTOCOL_UDP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    header[12..16].copy_from_slice(&datagram.from.ip().octets());
    header[16..20].copy_from_slice(&datagram.to.ip().octets());
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("ten words fold into 16 bits");
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(header);
    frame.extend(datagram.from.port().to_be_bytes());
    frame.extend(datagram.to.port().to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(datagram.payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_again() {
        let datagram = Udp {
            from: "192.0.2.1:4000".parse().unwrap(),
            to: "192.0.2.2:10100".parse().unwrap(),
            ttl: 9,
            payload: b"hello",
        };
        let frame = build([2; 6], [4; 6], &datagram);
        assert_eq!(udp(&frame), Some(datagram));
        let sum: u32 = frame[14..34].chunks_exact(2).map(|p| u32::from(u16::from_be_bytes([p[0], p[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "an IPv4 header sums up to all ones");
    }

    #[test]
    fn short_and_foreign_frames_hold_no_datagram() {
        let datagram = Udp {
            from: "192.0.2.1:4000".parse().unwrap(),
            to: "192.0.2.2:10100".parse().unwrap(),
            ttl: 9,
            payload: b"",
        };
        let frame = build([2; 6], [4; 6], &datagram);
        assert!((0..frame.len()).all(|len| udp(&frame[..len]).is_none()));
        let mut arp = frame;
        arp[12..14].copy_from_slice(&TYPE_ARP);
        assert!(is_arp(&arp) && udp(&arp).is_none());
    }
}
