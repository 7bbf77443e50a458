//! Sending: many messages in one system call, and many datagrams of equal length in one message (UDP GSO).
//!
//! A message goes to one destination and holds one or more datagrams; each datagram is a shared payload and a short tail
//! of its own, which are never copied together: the kernel gathers them.
//!
//! ```text
//!   message 0   payload a | tail 0 | payload b | tail 0 | ..        to client 0, cut every len(payload + tail) octets
//!   message 1   payload a | tail 1 | payload b | tail 1 | ..        to client 1
//! ```
//! Datagrams that are the same for many destinations can be one block, one piece of memory a message:
//!
//! ```text
//!   message 2   [a b c]                                             to client 2, cut every len(a) octets
//!   message 3   [a b c]                                             to client 3, the same memory
//! ```
//! What the kernel or a device refuses to cut is sent once more, one message a datagram.

#![expect(unsafe_code, reason = "sendmmsg has no safe wrapper that keeps its buffers")]

use crate::control::{Outgoing, Side};
use crate::many;
use crate::raw::Name;
use crate::ready::wait_writable;
use crate::{Errno, Options, UdpSocket};
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

/// Datagrams in one message: what kernels since 4.18 take.
pub const SEGMENTS_MAX: usize = 64;
/// Octets of the longest tail.
const TAIL_BYTES_MAX: usize = 16;
/// Payload and tail.
const IOVECS_PER_DATAGRAM_MAX: usize = 2;
/// How long a full send buffer may hold up a batch. Longer than any interface needs to send one packet; a device that stands
/// still longer than this loses datagrams, and its sender goes on.
const FULL_WAIT: Duration = Duration::from_millis(10);

/// How many datagrams this kernel takes in one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    segments_max: usize,
}

/// Room for a number of messages, used again for every [`fill`](Self::fill).
pub struct SendBatch {
    plans: Box<[Plan]>,
    names: Box<[Name]>,
    controls: Box<[Outgoing]>,
    // Cells: tails are still written while pointers to earlier ones stand in `iovecs`.
    tails: Box<[Cell<[u8; TAIL_BYTES_MAX]>]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    singles: Box<[libc::mmsghdr]>,
    single_iovecs: Box<[libc::iovec]>,
}

/// A batch while it is filled; what its messages hold stays borrowed until [`send`](Self::send).
pub struct Filling<'batch, 'data> {
    batch: &'batch mut SendBatch,
    messages: usize,
    iovecs: usize,
    tails: usize,
    data: PhantomData<&'data [u8]>,
}

/// The IP header of a message, as far as its sender has a say in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where it goes.
    pub to: SocketAddr,
    /// Which of our addresses it comes from; none leaves the choice to the socket and the routing table.
    pub from: Option<IpAddr>,
    /// TTL or hop limit; 0 or none leaves the choice to the socket.
    pub ttl: Option<u8>,
    /// TOS or traffic class, ECN included; none leaves the choice to the socket.
    pub traffic_class: Option<u8>,
}

/// A tail written into a [`Filling`], for any number of its datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    index: usize,
    length: usize,
}

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// What the caller named the message.
    pub tag: u64,
    /// Datagrams of the message that the kernel took.
    pub sent: usize,
    /// Datagrams that it did not take, for the reason in `error`.
    pub failed: usize,
    /// The last reason for a failure; [`Errno::AGAIN`] when the send buffer stayed full.
    pub error: Option<Errno>,
    /// Cutting the message was refused, so its datagrams went one by one.
    pub segmentation_refused: bool,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    tag: u64,
    head: Head,
    first_iovec: usize,
    /// One or two a datagram, or one for all of a block.
    iovecs: usize,
    datagrams: usize,
    segment_bytes: u16,
}

// SAFETY: the raw pointers in `iovecs`, `single_iovecs`, `headers` and `singles` are followed by `Filling::send` alone, which consumes the
// filling that wrote them; a batch that moved to another thread holds no pointer that anyone uses.
unsafe impl Send for SendBatch {}

impl Gso {
    /// One datagram a message.
    pub const OFF: Self = Self { segments_max: 1 };

    /// Asks the kernel. Devices are not asked: they may refuse message by message, and a [`SendBatch`] lives with that.
    #[must_use]
    pub fn probe() -> Self {
        let known = UdpSocket::bind(&Options::new(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)))
            .is_ok_and(|socket| socket.knows_segmentation());
        if known { Self { segments_max: SEGMENTS_MAX } } else { Self::OFF }
    }

    /// Datagrams in one message; 1 when the kernel cannot cut.
    #[must_use]
    pub const fn segments_max(self) -> usize {
        self.segments_max
    }
}

impl Head {
    const NOBODY: Self =
        Self { to: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), from: None, ttl: None, traffic_class: None };

    /// A header that leaves everything but the destination to the socket.
    #[must_use]
    pub fn to(to: impl Into<SocketAddr>) -> Self {
        Self { to: to.into(), ..Self::NOBODY }
    }
}

impl SendBatch {
    /// Room for `messages` messages with `datagrams` datagrams and as many tails in all.
    ///
    /// # Panics
    /// When `datagrams` is less than [`SEGMENTS_MAX`]: one full message has to fit.
    #[must_use]
    pub fn new(messages: usize, datagrams: usize) -> Self {
        assert!(datagrams >= SEGMENTS_MAX, "one full message has to fit");
        // SAFETY: all-zero octets are a valid `iovec`: a null pointer and no length.
        let no_iovec: libc::iovec = unsafe { mem::zeroed() };
        // SAFETY: all-zero octets are a valid `mmsghdr`: null pointers and no lengths.
        let no_header: libc::mmsghdr = unsafe { mem::zeroed() };
        Self {
            plans: vec![Plan::EMPTY; messages].into(),
            names: vec![Name::NOBODY; messages].into(),
            controls: vec![Outgoing::EMPTY; messages].into(),
            tails: vec![Cell::new([0; TAIL_BYTES_MAX]); datagrams].into(),
            iovecs: vec![no_iovec; datagrams * IOVECS_PER_DATAGRAM_MAX].into(),
            headers: vec![no_header; messages].into(),
            singles: vec![no_header; SEGMENTS_MAX].into(),
            single_iovecs: vec![no_iovec; SEGMENTS_MAX].into(),
        }
    }

    /// Starts an empty filling.
    pub fn fill<'data>(&mut self) -> Filling<'_, 'data> {
        Filling { batch: self, messages: 0, iovecs: 0, tails: 0, data: PhantomData }
    }
}

impl<'data> Filling<'_, 'data> {
    /// Whether another message with so many datagrams, each with a tail of its own, fits.
    #[must_use]
    pub fn has_room(&self, datagrams: usize) -> bool {
        self.messages < self.batch.plans.len()
            && self.iovecs + datagrams * IOVECS_PER_DATAGRAM_MAX <= self.batch.iovecs.len()
            && self.tails + datagrams <= self.batch.tails.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Writes a tail of at most 16 octets.
    ///
    /// # Panics
    /// When it is longer or there is no room for it; see [`has_room`](Self::has_room).
    pub fn tail(&mut self, octets: &[u8]) -> Tail {
        let mut place = [0; TAIL_BYTES_MAX];
        place[..octets.len()].copy_from_slice(octets);
        let index = self.tails;
        self.batch.tails[index].set(place);
        self.tails += 1;
        Tail { index, length: octets.len() }
    }

    /// Begins a message. A TTL of 0 or none leaves the choice to the socket.
    ///
    /// # Panics
    /// When there is no room for it; see [`has_room`](Self::has_room).
    pub fn message(&mut self, to: impl Into<SocketAddr>, ttl: Option<u8>, tag: u64) {
        self.message_with(Head { ttl, ..Head::to(to) }, tag);
    }

    /// The same with more of the IP header.
    ///
    /// # Panics
    /// When there is no room for it; see [`has_room`](Self::has_room).
    pub fn message_with(&mut self, mut head: Head, tag: u64) {
        self.batch.names[self.messages] = head.to.into();
        // The kernel takes a control message with TTL 0 for an error.
        head.ttl = head.ttl.filter(|&ttl| ttl > 0);
        self.batch.plans[self.messages] = Plan { tag, head, first_iovec: self.iovecs, ..Plan::EMPTY };
        self.messages += 1;
    }

    /// Adds a datagram to the message just begun. All datagrams of a message have the length of the first, only the last may
    /// be shorter; all of them have a tail or none; all together have at most 65507 octets.
    ///
    /// # Panics
    /// When no message was begun or there is no room; see [`has_room`](Self::has_room).
    pub fn datagram(&mut self, payload: &'data [u8], tail: Option<Tail>) {
        let plan = &mut self.batch.plans[self.messages - 1];
        let bytes = payload.len() + tail.map_or(0, |tail| tail.length);
        if plan.datagrams == 0 {
            plan.segment_bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        }
        debug_assert!(bytes <= usize::from(plan.segment_bytes), "only the last may be shorter");
        plan.datagrams += 1;
        plan.iovecs += 1 + usize::from(tail.is_some());
        debug_assert!(plan.iovecs.is_multiple_of(plan.datagrams), "all have a tail or none");
        self.batch.iovecs[self.iovecs] = iovec(payload);
        self.iovecs += 1;
        if let Some(Tail { index, length }) = tail {
            self.batch.iovecs[self.iovecs] =
                libc::iovec { iov_base: self.batch.tails[index].as_ptr().cast(), iov_len: length };
            self.iovecs += 1;
        }
    }

    /// Makes the message just begun one of datagrams that stand side by side in memory: `segment_bytes` each, the last
    /// perhaps shorter, at most [`SEGMENTS_MAX`] and 65507 octets.
    ///
    /// # Panics
    /// When the message has datagrams already, or `segment_bytes` is 0 for a block that is not empty.
    pub fn block(&mut self, octets: &'data [u8], segment_bytes: u16) {
        let plan = &mut self.batch.plans[self.messages - 1];
        assert_eq!(plan.datagrams, 0, "a block is all of its message");
        plan.datagrams = if octets.is_empty() { 1 } else { octets.len().div_ceil(segment_bytes.into()) };
        debug_assert!(plan.datagrams <= SEGMENTS_MAX, "one full message has to hold them");
        plan.segment_bytes = segment_bytes;
        plan.iovecs = 1;
        self.batch.iovecs[self.iovecs] = iovec(octets);
        self.iovecs += 1;
    }

    /// Sends all messages and reports on each of them, in order. A message that fails never holds up the next.
    pub fn send(self, socket: impl AsFd, mut report: impl FnMut(Outcome)) {
        let socket = socket.as_fd();
        let Self { batch, messages, .. } = self;
        batch.point_headers_at_messages(0, messages);
        let mut next = 0;
        while next < messages {
            let plan = batch.plans[next];
            match transmit(socket, &mut batch.headers[next..messages]) {
                Ok(taken) => {
                    for plan in &batch.plans[next..next + taken] {
                        report(plan.outcome(plan.datagrams, None));
                    }
                    next += taken;
                }
                Err(Errno::AGAIN) => {
                    for plan in &batch.plans[next..messages] {
                        report(plan.outcome(0, Some(Errno::AGAIN)));
                    }
                    return;
                }
                // EIO: the device has no checksum offload. EINVAL, EMSGSIZE: longer than the path takes in one piece.
                Err(Errno::IO | Errno::INVAL | Errno::MSGSIZE) if plan.datagrams > 1 => {
                    report(batch.send_one_by_one(socket, next));
                    next += 1;
                    // The parts were borrowed anew; so are the pointers of what is left.
                    batch.point_headers_at_messages(next, messages);
                }
                Err(error) => {
                    report(plan.outcome(0, Some(error)));
                    next += 1;
                }
            }
        }
    }
}

impl SendBatch {
    /// Points the headers of these messages at their parts, which do not change any more until they are sent.
    fn point_headers_at_messages(&mut self, first: usize, end: usize) {
        let Some(plan) = self.plans[..end].get(first) else { return };
        let mut iovecs = &mut self.iovecs[plan.first_iovec..];
        let plans = self.plans[first..end].iter().zip(&mut self.headers[first..end]);
        let parts = self.names[first..end].iter_mut().zip(&mut self.controls[first..end]);
        for ((plan, header), (name, control)) in plans.zip(parts) {
            let (own, rest) = iovecs.split_at_mut(plan.iovecs);
            iovecs = rest;
            let segment = (plan.datagrams > 1).then_some(plan.segment_bytes);
            let control_bytes = control.fill(plan.head.to.is_ipv6(), plan.side(segment));
            point(header, name, own, ptr::from_mut(control), control_bytes);
        }
    }

    /// The fallback: the datagrams of message `index`, a message each.
    fn send_one_by_one(&mut self, socket: BorrowedFd<'_>, index: usize) -> Outcome {
        let plan = self.plans[index];
        let mut outcome = plan.outcome(0, None);
        outcome.segmentation_refused = true;
        let control_bytes = self.controls[index].fill(plan.head.to.is_ipv6(), plan.side(None));
        let control = ptr::from_mut(&mut self.controls[index]);
        let name = &mut self.names[index];
        let own = &mut self.iovecs[plan.first_iovec..plan.first_iovec + plan.iovecs];
        let iovecs = if let [block] = own
            && plan.datagrams > 1
        {
            cut(*block, plan.segment_bytes.into(), &mut self.single_iovecs);
            &mut self.single_iovecs[..plan.datagrams]
        } else {
            own
        };
        let per_datagram = iovecs.len() / plan.datagrams;
        let iovecs = iovecs.chunks_exact_mut(per_datagram);
        for (header, iovecs) in self.singles[..plan.datagrams].iter_mut().zip(iovecs) {
            point(header, name, iovecs, control, control_bytes);
        }
        let mut next = 0;
        while next < plan.datagrams {
            match transmit(socket, &mut self.singles[next..plan.datagrams]) {
                Ok(taken) => {
                    outcome.sent += taken;
                    next += taken;
                }
                Err(error) => {
                    outcome.error = Some(error);
                    next += if error == Errno::AGAIN { plan.datagrams } else { 1 };
                }
            }
        }
        outcome.failed = plan.datagrams - outcome.sent;
        outcome
    }
}

impl Plan {
    const EMPTY: Self = Self { tag: 0, head: Head::NOBODY, first_iovec: 0, iovecs: 0, datagrams: 0, segment_bytes: 0 };

    fn side(&self, segment: Option<u16>) -> Side {
        let Head { to: _, from, ttl, traffic_class } = self.head;
        Side { segment, ttl, traffic_class, from }
    }

    fn outcome(&self, sent: usize, error: Option<Errno>) -> Outcome {
        Outcome { tag: self.tag, sent, failed: self.datagrams - sent, error, segmentation_refused: false }
    }
}

/// The kernel only reads through the pointer, whatever its type says.
fn iovec(octets: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() }
}

/// Points `parts` at the datagrams of a block.
fn cut(block: libc::iovec, segment_bytes: usize, parts: &mut [libc::iovec]) {
    let offsets = (0..block.iov_len).step_by(segment_bytes);
    for (part, offset) in parts.iter_mut().zip(offsets) {
        let iov_len = segment_bytes.min(block.iov_len - offset);
        *part = libc::iovec { iov_base: block.iov_base.wrapping_byte_add(offset), iov_len };
    }
}

fn point(
    header: &mut libc::mmsghdr,
    name: &mut Name,
    iovecs: &mut [libc::iovec],
    control: *mut Outgoing,
    control_bytes: usize,
) {
    let header = &mut header.msg_hdr;
    header.msg_namelen = name.bytes();
    header.msg_name = ptr::from_mut(name).cast();
    header.msg_iov = iovecs.as_mut_ptr();
    header.msg_iovlen = many::length(iovecs.len());
    header.msg_control = control.cast();
    header.msg_controllen = many::length(control_bytes);
    header.msg_flags = 0;
}

/// Hands `headers` to the kernel, and says how many messages it took: at least one. Waits a little for a full send buffer.
fn transmit(socket: BorrowedFd<'_>, headers: &mut [libc::mmsghdr]) -> Result<usize, Errno> {
    loop {
        // SAFETY: `Filling` borrows everything that the headers point at: its own parts by the batch, payloads by `'data`;
        // lengths are those of the slices; the headers began as zeros.
        let error = match unsafe { many::send_many(socket, headers, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) } {
            Ok(taken) => return Ok(taken),
            Err(error) => error,
        };
        match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
            Errno::INTR => {}
            Errno::AGAIN if wait_writable(socket, Some(FULL_WAIT)).unwrap_or(false) => {}
            error => return Err(error),
        }
    }
}

impl std::fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendBatch").field("messages_max", &self.plans.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Filling<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filling").field("messages", &self.messages).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
