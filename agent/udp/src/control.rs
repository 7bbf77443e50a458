//! Control messages: the side letters of a datagram (TTL, interface, segment size, overflow count).
//!
//! Outgoing ones are C structures that are filled like any other; incoming ones are read as octets with bounds checked, so
//! that nothing here needs a pointer.
//!
//! ```text
//!   | length: usize | level: int | type: int | value .. | padding to a multiple of 8 |  next ..
//! ```

use std::ffi::c_int;
use std::mem::{offset_of, size_of};
use std::net::Ipv4Addr;

/// One control message with its value; the alignment of the header makes the size what `CMSG_SPACE` says.
#[derive(Clone, Copy)]
#[repr(C)]
struct Message<T> {
    header: Header,
    value: T,
}

/// `cmsghdr` of the kernel: C libraries disagree about the type of its length.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    length: usize,
    level: c_int,
    kind: c_int,
}

/// What may accompany a datagram that we send.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Outgoing {
    segment: Message<u16>,
    ttl: Message<c_int>,
}

/// Where the control messages of one outgoing datagram begin in [`Outgoing`], and how long they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: usize,
    pub(crate) length: usize,
}

/// What accompanies a datagram that we receive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) ttl: Option<u8>,
    pub(crate) interface: Option<u32>,
    pub(crate) destination: Option<Ipv4Addr>,
    pub(crate) overflow: Option<u32>,
}

/// Room for all that [`Incoming`] can hold, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct IncomingBuffer(pub(crate) [u8; 128]);

impl<T> Message<T> {
    const fn new(level: c_int, kind: c_int, value: T) -> Self {
        let length = offset_of!(Self, value) + size_of::<T>();
        Self { header: Header { length, level, kind }, value }
    }
}

impl Outgoing {
    pub(crate) const EMPTY: Self = Self {
        segment: Message::new(libc::SOL_UDP, libc::UDP_SEGMENT, 0),
        ttl: Message::new(libc::IPPROTO_IP, libc::IP_TTL, 0),
    };

    /// Writes the values that are there and says which part of the structure to hand to the kernel.
    pub(crate) fn fill(&mut self, segment: Option<u16>, ttl: Option<u8>) -> Extent {
        if let Some(bytes) = segment {
            self.segment.value = bytes;
        }
        if let Some(ttl) = ttl {
            self.ttl.value = c_int::from(ttl);
        }
        let (first, second) = (offset_of!(Self, segment), offset_of!(Self, ttl));
        match (segment.is_some(), ttl.is_some()) {
            (false, false) => Extent { offset: first, length: 0 },
            (true, false) => Extent { offset: first, length: second },
            (false, true) => Extent { offset: second, length: size_of::<Self>() - second },
            (true, true) => Extent { offset: first, length: size_of::<Self>() },
        }
    }
}

impl Incoming {
    /// Reads what the kernel wrote; what we did not ask for is passed over.
    pub(crate) fn parse(mut control: &[u8]) -> Self {
        let mut found = Self::default();
        while let Some((level, kind, value, rest)) = split_first(control) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_TTL) => found.ttl = integer(value).and_then(|ttl| u8::try_from(ttl).ok()),
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    found.interface = value
                        .get(offset_of!(libc::in_pktinfo, ipi_ifindex)..)
                        .and_then(integer)
                        .and_then(|index| u32::try_from(index).ok());
                    found.destination = value
                        .get(offset_of!(libc::in_pktinfo, ipi_addr)..)
                        .and_then(<[u8]>::first_chunk::<4>)
                        .map(|octets| Ipv4Addr::from(*octets));
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
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let length = usize::from_ne_bytes(*control.first_chunk()?);
    let level = integer(control.get(offset_of!(libc::cmsghdr, cmsg_level)..)?)?;
    let kind = integer(control.get(offset_of!(libc::cmsghdr, cmsg_type)..)?)?;
    let value = control.get(HEADER..length)?;
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
    fn sizes_are_what_the_kernel_headers_say() {
        assert_eq!(size_of::<Message<u16>>(), 24);
        assert_eq!(size_of::<Message<c_int>>(), 24);
        let mut outgoing = Outgoing::EMPTY;
        assert_eq!(outgoing.fill(Some(1328), None), Extent { offset: 0, length: 24 });
        assert_eq!(outgoing.fill(None, Some(3)), Extent { offset: 24, length: 24 });
        assert_eq!(outgoing.fill(Some(1328), Some(3)), Extent { offset: 0, length: 48 });
        assert_eq!(outgoing.fill(None, None).length, 0);
    }

    #[test]
    fn messages_in_a_row_are_all_read_and_unknown_ones_passed_over() {
        let mut control = Vec::new();
        control.extend(message(libc::SOL_SOCKET, 999, &[1, 2, 3]));
        control.extend(message(libc::IPPROTO_IP, libc::IP_TTL, &17_i32.to_ne_bytes()));
        control.extend(message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &5_u32.to_ne_bytes()));
        let info = [&7_i32.to_ne_bytes()[..], &[127, 0, 0, 1], &[239, 1, 2, 3]].concat();
        control.extend(message(libc::IPPROTO_IP, libc::IP_PKTINFO, &info));
        let expected = Incoming {
            ttl: Some(17),
            interface: Some(7),
            destination: Some(Ipv4Addr::new(239, 1, 2, 3)),
            overflow: Some(5),
        };
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
