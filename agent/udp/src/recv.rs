//! Receiving: many datagrams in one system call, into memory that was there before.
//!
//! ```text
//!   octets   | datagram 0 ....... gap | datagram 1 ....... gap | ..      one stride each
//!   names    | source 0 | source 1 | ..
//!   controls | TTL, interface 0 | ..
//! ```

#![expect(unsafe_code, reason = "recvmmsg has no safe wrapper that keeps its buffers")]

use crate::control::{Incoming, IncomingBuffer};
use crate::many;
use crate::raw::Name;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr;

/// Spacing beyond a datagram's room, in octets: starts of datagrams a power of two apart would share a few cache sets.
const GAP_BYTES: usize = 192;

/// Room for a number of datagrams, used again for every [`receive`](Self::receive).
pub struct RecvBatch {
    datagram_bytes_max: usize,
    received: usize,
    octets: Box<[u8]>,
    names: Box<[Name]>,
    controls: Box<[IncomingBuffer]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

/// One received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// TTL or hop limit of its IP header, if the socket reports it.
    pub ttl: Option<u8>,
    /// TOS or traffic class of its IP header, ECN included, if the socket reports it.
    pub traffic_class: Option<u8>,
    /// Index of the interface it came in by, if the socket reports it.
    pub interface: Option<u32>,
    /// Address it was sent to, if the socket reports it.
    pub destination: Option<IpAddr>,
    /// It was longer than the batch has room for; `payload` is its beginning.
    pub truncated: bool,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// Who sent it, at a socket of IPv4; `None` at one of IPv6.
    #[must_use]
    pub fn source_v4(&self) -> Option<SocketAddrV4> {
        match self.source {
            SocketAddr::V4(v4) => Some(v4),
            SocketAddr::V6(_) => None,
        }
    }
}

// SAFETY: the raw pointers in `iovecs` and `headers` are written anew by each `receive` and not followed outside of it, so
// a batch that moved to another thread holds no pointer that anyone uses.
unsafe impl Send for RecvBatch {}

impl RecvBatch {
    /// Room for `datagrams` datagrams of up to `datagram_bytes_max` octets each. Memory that no datagram needed is not
    /// taken from the system.
    #[must_use]
    pub fn new(datagrams: usize, datagram_bytes_max: usize) -> Self {
        // SAFETY: all-zero octets are a valid `iovec`: a null pointer and no length.
        let no_iovec: libc::iovec = unsafe { mem::zeroed() };
        // SAFETY: all-zero octets are a valid `mmsghdr`: null pointers and no lengths.
        let no_header: libc::mmsghdr = unsafe { mem::zeroed() };
        Self {
            datagram_bytes_max,
            received: 0,
            octets: vec![0; datagrams * (datagram_bytes_max + GAP_BYTES)].into(),
            names: vec![Name::NOBODY; datagrams].into(),
            controls: vec![IncomingBuffer([0; _]); datagrams].into(),
            iovecs: vec![no_iovec; datagrams].into(),
            headers: vec![no_header; datagrams].into(),
        }
    }

    /// Takes what has arrived, as far as there is room, and says how many datagrams that are. Replaces what was held.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::WouldBlock`] when nothing has arrived.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.received = 0;
        self.point_headers_at_buffers();
        // SAFETY: each header points at exclusive buffers of this batch with their true lengths, set just above, and began as
        // zeros; the kernel writes within the buffers and keeps none.
        self.received = unsafe { many::receive_many(socket, &mut self.headers, libc::MSG_DONTWAIT) }?;
        Ok(self.received)
    }

    /// The datagrams of the last [`receive`](Self::receive), in the order of their arrival.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        (0..self.received).map(|index| self.datagram(index))
    }

    /// What the datagram at this place of [`iter`](Self::iter) carries, for changes in place.
    ///
    /// # Panics
    /// When there is none.
    pub fn payload_mut(&mut self, index: usize) -> &mut [u8] {
        assert!(index < self.received, "only what was received");
        let range = self.payload_range(index);
        &mut self.octets[range]
    }

    /// How many datagrams the socket has lost so far because its buffer was full, as of the last datagram received; wraps
    /// around. `None` when nothing was lost yet or the socket does not report it.
    #[must_use]
    pub fn overflow(&self) -> Option<u32> {
        self.received.checked_sub(1).and_then(|last| self.incoming(last).overflow)
    }

    /// The datagram at this place of [`iter`](Self::iter).
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn datagram(&self, index: usize) -> Datagram<'_> {
        assert!(index < self.received, "only what was received");
        let header = &self.headers[index];
        let Incoming { ttl, traffic_class, interface, destination, overflow: _ } = self.incoming(index);
        Datagram {
            source: (&self.names[index]).into(),
            ttl,
            traffic_class,
            interface,
            destination,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            payload: &self.octets[self.payload_range(index)],
        }
    }

    fn payload_range(&self, index: usize) -> Range<usize> {
        let start = index * self.stride();
        let length = usize::try_from(self.headers[index].msg_len).unwrap_or(usize::MAX).min(self.datagram_bytes_max);
        start..start + length
    }

    fn incoming(&self, index: usize) -> Incoming {
        let control = &self.controls[index].0;
        let written: usize = many::fit(self.headers[index].msg_hdr.msg_controllen);
        Incoming::parse(&control[..written.min(control.len())])
    }

    fn stride(&self) -> usize {
        self.datagram_bytes_max + GAP_BYTES
    }

    fn point_headers_at_buffers(&mut self) {
        let stride = self.stride();
        let buffers = self.octets.chunks_exact_mut(stride).zip(&mut self.names).zip(&mut self.controls);
        let headers = self.headers.iter_mut().zip(&mut self.iovecs);
        for ((header, iovec), ((octets, name), control)) in headers.zip(buffers) {
            iovec.iov_base = octets.as_mut_ptr().cast();
            iovec.iov_len = self.datagram_bytes_max;
            let header = &mut header.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = Name::BYTES_MAX;
            header.msg_iov = ptr::from_mut(iovec);
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = many::length(control.0.len());
            header.msg_flags = 0;
        }
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Head, MulticastOut, Options, SendBatch, UdpSocket};
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

    const LOOPBACK: u32 = 1;

    #[test]
    fn a_batch_takes_what_is_there_in_order_and_the_rest_later() {
        let (receiver, sender) = pair(&Options::new(any_port()));
        let to = receiver.local_address().unwrap();
        for number in 0..5_u8 {
            sender.send_to(&vec![number; usize::from(number)], to).unwrap();
        }
        let mut batch = RecvBatch::new(3, 64);
        assert_eq!(batch.receive(&receiver).unwrap(), 3);
        assert_eq!(payloads(&batch), [vec![], vec![1], vec![2, 2]]);
        assert_eq!(batch.receive(&receiver).unwrap(), 2);
        assert_eq!(payloads(&batch), [vec![3; 3], vec![4; 4]]);
        assert_eq!(batch.receive(&receiver).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(batch.iter().len(), 0);
    }

    #[test]
    fn a_datagram_that_does_not_fit_is_marked_and_its_neighbour_untouched() {
        let (receiver, sender) = pair(&Options::new(any_port()));
        let to = receiver.local_address().unwrap();
        sender.send_to(&[7; 65], to).unwrap();
        sender.send_to(&[8; 64], to).unwrap();
        let mut batch = RecvBatch::new(4, 64);
        batch.receive(&receiver).unwrap();
        let seen: Vec<_> = batch.iter().map(|datagram| (datagram.truncated, datagram.payload.to_vec())).collect();
        assert_eq!(seen, [(true, vec![7; 64]), (false, vec![8; 64])]);
    }

    #[test]
    fn ttl_interface_and_destination_are_told_when_asked_for() {
        let group = Ipv4Addr::new(239, 77, 3, 1);
        let options =
            Options { receive_ttl: true, receive_packet_info: true, ..Options::new(SocketAddrV4::new(group, 0)) };
        let out = MulticastOut { interface: LOOPBACK, ttl: 42, loopback: true };
        let receiver = UdpSocket::bind(&options).unwrap();
        let sender = UdpSocket::bind(&Options { multicast_out: Some(out), ..Options::new(any_port()) }).unwrap();
        receiver.join(group.into(), None, LOOPBACK).unwrap();
        sender.send_to(b"x", SocketAddrV4::new(group, receiver.local_address().unwrap().port())).unwrap();
        let mut batch = RecvBatch::new(1, 64);
        batch.receive(&receiver).unwrap();
        let datagram = batch.iter().next().unwrap();
        assert_eq!(datagram.ttl, Some(42));
        assert_eq!(datagram.interface, Some(LOOPBACK));
        assert_eq!(datagram.destination, Some(group.into()));

        let (silent, sender) = pair(&Options::new(any_port()));
        sender.send_to(b"x", silent.local_address().unwrap()).unwrap();
        batch.receive(&silent).unwrap();
        assert_eq!(batch.iter().next().unwrap().ttl, None);
    }

    #[test]
    fn traffic_class_hop_limit_interface_and_destination_are_told_at_ipv6_too() {
        let options = Options {
            receive_ttl: true,
            receive_traffic_class: true,
            receive_packet_info: true,
            ..Options::new(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0))
        };
        let receiver = UdpSocket::bind(&options).unwrap();
        let sender = UdpSocket::bind(&options).unwrap();
        let mut out = SendBatch::new(1, 64);
        let mut filling = out.fill();
        let to = Head::to(receiver.local_address().unwrap());
        filling.message_with(Head { ttl: Some(9), traffic_class: Some(0x2a), ..to }, 0);
        filling.datagram(b"x", None);
        filling.send(&sender, |outcome| assert_eq!(outcome.sent, 1));
        let mut batch = RecvBatch::new(1, 64);
        batch.receive(&receiver).unwrap();
        let datagram = batch.iter().next().unwrap();
        assert_eq!(datagram.source, sender.local_address().unwrap());
        assert_eq!((datagram.ttl, datagram.traffic_class), (Some(9), Some(0x2a)));
        assert_eq!(datagram.interface, Some(LOOPBACK));
        assert_eq!(datagram.destination, Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(datagram.source_v4(), None);
        batch.payload_mut(0)[0] = b'y';
        assert_eq!(batch.iter().next().unwrap().payload, b"y");
    }

    #[test]
    fn what_did_not_fit_into_the_receive_buffer_is_counted() {
        let (receiver, sender) =
            pair(&Options { count_overflow: true, receive_buffer_bytes: Some(2304), ..Options::new(any_port()) });
        let to = receiver.local_address().unwrap();
        let mut batch = RecvBatch::new(64, 2048);
        for _ in 0..20 {
            sender.send_to(&[0; 1024], to).unwrap();
        }
        let taken = batch.receive(&receiver).unwrap();
        // The count rides on the next datagram that is queued after the loss.
        sender.send_to(&[0; 1], to).unwrap();
        batch.receive(&receiver).unwrap();
        assert_eq!(batch.overflow(), Some(u32::try_from(20 - taken).unwrap()));
    }

    fn any_port() -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)
    }

    fn pair(receiver: &Options) -> (UdpSocket, UdpSocket) {
        (UdpSocket::bind(receiver).unwrap(), UdpSocket::bind(&Options::new(any_port())).unwrap())
    }

    fn payloads(batch: &RecvBatch) -> Vec<Vec<u8>> {
        batch.iter().map(|datagram| datagram.payload.to_vec()).collect()
    }
}
