//! Control messages: the side letters of a datagram (TTL, interface, segment size, overflow count).
//!
//! All of it is octets with bounds checked, so that nothing here needs a pointer.
//!
//! ```text
//!   | length: usize | level: int | type: int | value .. | padding to a multiple of 8 |  next ..
//! ```

use std::ffi::c_int;
use std::mem::{offset_of, size_of};
use std::net::IpAddr;

/// `cmsghdr` of the kernel, 16 octets: C libraries disagree about the type of its length.
const HEADER_BYTES: usize = size_of::<usize>() + 2 * size_of::<c_int>();
/// Segment, TTL, traffic class, and the longer `in6_pktinfo`.
const OUTGOING_BYTES: usize = 3 * (HEADER_BYTES + 8) + HEADER_BYTES + 24;

/// The control messages of one datagram that we send, in a row.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Outgoing([u8; OUTGOING_BYTES]);

/// What may accompany a datagram that we send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Side {
    /// Octets after which the kernel cuts.
    pub(crate) segment: Option<u16>,
    /// TTL or hop limit.
    pub(crate) ttl: Option<u8>,
    /// TOS or traffic class.
    pub(crate) traffic_class: Option<u8>,
    /// Which of our addresses it comes from.
    pub(crate) from: Option<IpAddr>,
}

/// What accompanies a datagram that we receive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) ttl: Option<u8>,
    pub(crate) traffic_class: Option<u8>,
    pub(crate) interface: Option<u32>,
    pub(crate) destination: Option<IpAddr>,
    pub(crate) overflow: Option<u32>,
}

/// Room for all that [`Incoming`] can hold, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct IncomingBuffer(pub(crate) [u8; 128]);

impl Outgoing {
    pub(crate) const EMPTY: Self = Self([0; OUTGOING_BYTES]);

    /// Writes what is there, and says how many octets of the structure to hand to the kernel.
    pub(crate) fn fill(&mut self, is_ipv6: bool, side: Side) -> usize {
        let Side { segment, ttl, traffic_class, from } = side;
        let integer = |octet| c_int::from(octet).to_ne_bytes();
        let [level, ttl_kind, class_kind] = if is_ipv6 {
            [libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, libc::IPV6_TCLASS]
        } else {
            [libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS]
        };
        let mut at = 0;
        if let Some(bytes) = segment {
            at = self.push(at, libc::SOL_UDP, libc::UDP_SEGMENT, &bytes.to_ne_bytes());
        }
        if let Some(ttl) = ttl {
            at = self.push(at, level, ttl_kind, &integer(ttl));
        }
        if let Some(class) = traffic_class {
            at = self.push(at, level, class_kind, &integer(class));
        }
        // Interface 0 leaves that choice to the routing table.
        match from {
            Some(IpAddr::V4(from)) => {
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                info[offset_of!(libc::in_pktinfo, ipi_spec_dst)..][..4].copy_from_slice(&from.octets());
                self.push(at, libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
            }
            Some(IpAddr::V6(from)) => {
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                info[offset_of!(libc::in6_pktinfo, ipi6_addr)..][..16].copy_from_slice(&from.octets());
                self.push(at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info)
            }
            None => at,
        }
    }

    /// Writes one message, and says where the next one goes.
    fn push(&mut self, at: usize, level: c_int, kind: c_int, value: &[u8]) -> usize {
        let message = &mut self.0[at..];
        let length = HEADER_BYTES + value.len();
        message[..8].copy_from_slice(&length.to_ne_bytes());
        message[8..12].copy_from_slice(&level.to_ne_bytes());
        message[12..16].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER_BYTES..length].copy_from_slice(value);
        at + length.next_multiple_of(size_of::<usize>())
    }
}

impl Incoming {
    /// Reads what the kernel wrote; what we did not ask for is passed over.
    pub(crate) fn parse(mut control: &[u8]) -> Self {
        let mut found = Self::default();
        while let Some((level, kind, value, rest)) = split_first(control) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    found.ttl = integer(value).and_then(|ttl| u8::try_from(ttl).ok());
                }
                // The kernel writes the TOS of IPv4 as one octet, the traffic class of IPv6 as an integer.
                (libc::IPPROTO_IP, libc::IP_TOS) => found.traffic_class = value.first().copied(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    found.traffic_class = integer(value).and_then(|class| u8::try_from(class).ok());
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    found.interface = value
                        .get(offset_of!(libc::in_pktinfo, ipi_ifindex)..)
                        .and_then(integer)
                        .and_then(|index| u32::try_from(index).ok());
                    found.destination = value
                        .get(offset_of!(libc::in_pktinfo, ipi_addr)..)
                        .and_then(<[u8]>::first_chunk::<4>)
                        .map(|octets| IpAddr::from(*octets));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    found.interface = value
                        .get(offset_of!(libc::in6_pktinfo, ipi6_ifindex)..)
                        .and_then(integer)
                        .and_then(|index| u32::try_from(index).ok());
                    found.destination = value.first_chunk::<16>().map(|octets| IpAddr::from(*octets));
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => found.overflow = integer(value).map(i32::cast_unsigned),
                _ => {}
            }
            control = rest;
        }
        found
    }
}

/// Level, type and value of the first message, and what follows it.
fn split_first(control: &[u8]) -> Option<(c_int, c_int, &[u8], &[u8])> {
    let length = usize::from_ne_bytes(*control.first_chunk()?);
    let level = integer(control.get(offset_of!(libc::cmsghdr, cmsg_level)..)?)?;
    let kind = integer(control.get(offset_of!(libc::cmsghdr, cmsg_type)..)?)?;
    let value = control.get(HEADER_BYTES..length)?;
    let next = length.next_multiple_of(size_of::<usize>());
    Some((level, kind, value, control.get(next..).unwrap_or_default()))
}

fn integer(value: &[u8]) -> Option<c_int> {
    value.first_chunk().map(|octets| c_int::from_ne_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stands_in_a_row_with_the_sizes_of_the_kernel_headers() {
        let mut outgoing = Outgoing::EMPTY;
        let all = Side { segment: Some(1328), ttl: Some(3), traffic_class: Some(0x2a), from: None };
        assert_eq!(outgoing.fill(false, Side::default()), 0);
        assert_eq!(outgoing.fill(false, Side { ttl: None, ..all }), 48);
        assert_eq!(outgoing.fill(false, all), 72);
        let seen = |outgoing: &Outgoing, length: usize| {
            let mut rest = &outgoing.0[..length];
            let mut seen = Vec::new();
            while let Some((_, kind, value, next)) = split_first(rest) {
                seen.push((kind, value.to_vec()));
                rest = next;
            }
            seen
        };
        let octet = |octet: i32| octet.to_ne_bytes().to_vec();
        let segment = (libc::UDP_SEGMENT, 1328_u16.to_ne_bytes().to_vec());
        let expected = [segment.clone(), (libc::IP_TTL, octet(3)), (libc::IP_TOS, octet(0x2a))];
        assert_eq!(seen(&outgoing, 72), expected);
        let from = Some(IpAddr::from([0xfd; 16]));
        let length = outgoing.fill(true, Side { from, ..all });
        assert_eq!(length, OUTGOING_BYTES);
        let info = [&[0xfd; 16][..], &[0; 4]].concat();
        let expected =
            [segment, (libc::IPV6_HOPLIMIT, octet(3)), (libc::IPV6_TCLASS, octet(0x2a)), (libc::IPV6_PKTINFO, info)];
        assert_eq!(seen(&outgoing, length), expected);
    }

    #[test]
    fn messages_in_a_row_are_all_read_and_unknown_ones_passed_over() {
        let mut control = Vec::new();
        control.extend(message(libc::SOL_SOCKET, 999, &[1, 2, 3]));
        control.extend(message(libc::IPPROTO_IP, libc::IP_TTL, &17_i32.to_ne_bytes()));
        control.extend(message(libc::IPPROTO_IP, libc::IP_TOS, &[0x2a]));
        control.extend(message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &5_u32.to_ne_bytes()));
        let info = [&7_i32.to_ne_bytes()[..], &[127, 0, 0, 1], &[239, 1, 2, 3]].concat();
        control.extend(message(libc::IPPROTO_IP, libc::IP_PKTINFO, &info));
        let expected = Incoming {
            ttl: Some(17),
            traffic_class: Some(0x2a),
            interface: Some(7),
            destination: Some(IpAddr::from([239, 1, 2, 3])),
            overflow: Some(5),
        };
        assert_eq!(Incoming::parse(&control), expected);

        let destination = [0xff, 0x3e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        let mut control = message(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &17_i32.to_ne_bytes());
        control.extend(message(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &0x2a_i32.to_ne_bytes()));
        control.extend(message(
            libc::IPPROTO_IPV6,
            libc::IPV6_PKTINFO,
            &[&destination[..], &7_u32.to_ne_bytes()].concat(),
        ));
        let expected = Incoming { destination: Some(IpAddr::from(destination)), overflow: None, ..expected };
        assert_eq!(Incoming::parse(&control), expected);
    }

    #[test]
    fn a_message_cut_short_or_of_senseless_length_ends_the_reading() {
        let whole = message(libc::IPPROTO_IP, libc::IP_TTL, &17_i32.to_ne_bytes());
        for cut in 0..20 {
            assert_eq!(Incoming::parse(&whole[..cut]), Incoming::default());
        }
        for length in [0_usize, 8, usize::MAX] {
            let mut broken = whole.clone();
            broken[..8].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Incoming::parse(&broken), Incoming::default());
        }
    }

    fn message(level: c_int, kind: c_int, value: &[u8]) -> Vec<u8> {
        let length = size_of::<libc::cmsghdr>() + value.len();
        let mut octets = [&length.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
        octets.resize(length.next_multiple_of(8), 0);
        octets
    }
}
