//! Whole IP multicast packets of an interface, as a packet socket hears them: with the headers that their sender wrote.
//!
//! ```text
//!   one message   | virtio header 10 | link header 0 or 14 | IP packet ...        one stride each
//!                                              prefix  2 ──┘
//! ```
//! The two octets before each packet are overwritten by a prefix, so that a tunnel header and its packet are one piece of
//! memory. What the kernel left for the device to do, and what a device therefore never saw of packets from this machine, is
//! done here: checksums are finished and segments cut.
//!
//! Owns which packets are heard at all: IP multicast that may be forwarded, not what carries [`OWN_MARK`]. Needs
//! `CAP_NET_RAW`.

#![expect(unsafe_code, reason = "recvmmsg has no safe wrapper that keeps its buffers")]

mod cut;
mod filter;
mod messages;
#[cfg(test)]
mod tests;

use crate::control::{Incoming, IncomingBuffer};
use crate::raw::set_option;
use crate::socket::set_buffer;
use crate::{many, raw};
use cut::{LinkType, VIRTIO_BYTES};
pub use messages::MembershipSocket;
use socket2::{Domain, Socket, Type};
use std::ffi::c_int;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

/// The firewall mark of packets that this program multicasts for others: it never takes them in again.
pub const OWN_MARK: u32 = 0x4347_4d54;
/// Octets of the prefix before each packet.
pub const PREFIX_BYTES: usize = 2;
/// The longest IP packet, and with it the longest run of segments that were not cut yet.
const PACKET_BYTES_MAX: usize = 65_535;
/// Spacing between messages: starts a power of two apart would share a few cache sets.
const GAP_BYTES: usize = 192;
const STRIDE: usize = VIRTIO_BYTES + cut::ETHERNET_BYTES + PACKET_BYTES_MAX + GAP_BYTES;

/// A packet socket at one interface that never blocks.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    link: LinkType,
}

/// Settings of a [`PacketSocket`].
#[derive(Debug, Clone)]
pub struct PacketOptions {
    /// Index of the interface.
    pub interface: u32,
    /// Also hear what this host sends by the interface. A loopback interface gives that back anyway: there it would be heard
    /// twice. Default: off.
    pub outgoing: bool,
    /// Wanted receive buffer, in octets; the kernel may give less. Default: the kernel's.
    pub receive_buffer_bytes: Option<usize>,
}

/// Room for a number of packets, used again for every [`receive`](Self::receive).
pub struct PacketBatch {
    prefix: [u8; PREFIX_BYTES],
    octets: Box<[u8]>,
    /// What had to be cut, piece by piece.
    pieces: Vec<u8>,
    packets: Vec<Place>,
    overflow: Option<u32>,
    refused: usize,
    controls: Box<[IncomingBuffer]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

/// Where a packet stands, its prefix included.
#[derive(Debug, Clone)]
enum Place {
    Octets(Range<usize>),
    Pieces(Range<usize>),
}

// SAFETY: the raw pointers in `iovecs` and `headers` are written anew by each `receive` and not followed outside of it, so
// a batch that moved to another thread holds no pointer that anyone uses.
unsafe impl Send for PacketBatch {}

impl PacketOptions {
    /// The defaults at this interface.
    #[must_use]
    pub const fn new(interface: u32) -> Self {
        Self { interface, outgoing: false, receive_buffer_bytes: None }
    }
}

impl PacketSocket {
    /// Opens a socket that hears from now on.
    ///
    /// # Errors
    /// What the kernel says: `EPERM` without `CAP_NET_RAW`, `ENODEV` without the interface. `Unsupported` for a link whose
    /// headers are not known here.
    pub fn open(options: &PacketOptions) -> io::Result<Self> {
        // Protocol 0 hears nothing until the filter is in place and the interface is named.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        if let Some(bytes) = options.receive_buffer_bytes {
            set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes)?;
        }
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &1_i32)?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)?;
        // Kernels before 4.20 do not know it; their filter could not tell either.
        set_option(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &c_int::from(!options.outgoing))?;
        socket.attach_filter(&filter::multicast_not_marked(OWN_MARK))?;
        let hardware = raw::bind_packet_socket(&socket, options.interface)?;
        let link = LinkType::of_hardware(hardware)
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "a link of this type has unknown headers"))?;
        Ok(Self { socket, link })
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl PacketBatch {
    /// Room for what `messages` messages of the kernel hold, usually a packet each. Memory that no packet needed is not taken
    /// from the system. `prefix` will stand before each packet.
    #[must_use]
    pub fn new(messages: usize, prefix: [u8; PREFIX_BYTES]) -> Self {
        // SAFETY: all-zero octets are a valid `iovec`: a null pointer and no length.
        let no_iovec: libc::iovec = unsafe { mem::zeroed() };
        // SAFETY: all-zero octets are a valid `mmsghdr`: null pointers and no lengths.
        let no_header: libc::mmsghdr = unsafe { mem::zeroed() };
        Self {
            prefix,
            octets: vec![0; messages * STRIDE].into(),
            pieces: Vec::with_capacity(messages * (PACKET_BYTES_MAX + cut::HEADERS_BYTES_MAX)),
            packets: Vec::with_capacity(messages * cut::SEGMENTS_PER_MESSAGE_MAX),
            overflow: None,
            refused: 0,
            controls: vec![IncomingBuffer([0; _]); messages].into(),
            iovecs: vec![no_iovec; messages].into(),
            headers: vec![no_header; messages].into(),
        }
    }

    /// Takes what has been heard, as far as there is room, and says how many packets that are. Replaces what was held.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::WouldBlock`] when nothing was heard.
    pub fn receive(&mut self, socket: &PacketSocket) -> io::Result<usize> {
        self.packets.clear();
        self.pieces.clear();
        self.refused = 0;
        self.point_headers_at_buffers();
        // SAFETY: each header points at exclusive buffers of this batch with their true lengths, set just above, and began as
        // zeros; the kernel writes within the buffers and keeps none.
        let messages = unsafe { many::receive_many(socket, &mut self.headers, libc::MSG_DONTWAIT) }?;
        for index in 0..messages {
            self.take_message(index, socket.link);
        }
        self.overflow = messages.checked_sub(1).and_then(|last| self.incoming(last).overflow).or(self.overflow);
        Ok(self.packets.len())
    }

    /// How many packets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// A packet with its prefix.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn packet(&self, index: usize) -> &[u8] {
        match &self.packets[index] {
            Place::Octets(range) => &self.octets[range.clone()],
            Place::Pieces(range) => &self.pieces[range.clone()],
        }
    }

    /// All packets with their prefixes, in the order in which they were heard.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.packet(index))
    }

    /// How many packets the socket has lost so far because its buffer was full, as of the last message; wraps around. `None`
    /// when nothing was lost yet.
    #[must_use]
    pub fn overflow(&self) -> Option<u32> {
        self.overflow
    }

    /// Messages of the last [`receive`](Self::receive) that held no IP packet, or one that was cut off.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    fn take_message(&mut self, index: usize, link: LinkType) {
        let header = &self.headers[index];
        let start = index * STRIDE;
        let length = usize::try_from(header.msg_len).unwrap_or(usize::MAX);
        let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0 && length <= STRIDE - GAP_BYTES;
        let message = whole.then(|| cut::Message::parse(&mut self.octets[start..start + length], link)).flatten();
        let Some(message) = message else {
            self.refused += 1;
            return;
        };
        let Self { prefix, pieces, packets, .. } = self;
        if let Some(range) = message.finish(*prefix, |piece| {
            // Room for all of them was made in the beginning: nothing is allocated here.
            let range = pieces.len()..pieces.len() + piece.bytes();
            if range.end <= pieces.capacity() && packets.len() < packets.capacity() {
                piece.append_to(pieces, *prefix);
                packets.push(Place::Pieces(range));
            }
        }) {
            packets.push(Place::Octets(start + range.start..start + range.end));
        }
    }

    fn incoming(&self, index: usize) -> Incoming {
        let control = &self.controls[index].0;
        let written: usize = many::fit(self.headers[index].msg_hdr.msg_controllen);
        Incoming::parse(&control[..written.min(control.len())])
    }

    fn point_headers_at_buffers(&mut self) {
        let buffers = self.octets.chunks_exact_mut(STRIDE).zip(&mut self.controls);
        let headers = self.headers.iter_mut().zip(&mut self.iovecs);
        for ((header, iovec), (octets, control)) in headers.zip(buffers) {
            iovec.iov_base = octets.as_mut_ptr().cast();
            iovec.iov_len = STRIDE - GAP_BYTES;
            let header = &mut header.msg_hdr;
            header.msg_iov = ptr::from_mut(iovec);
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = many::length(control.0.len());
            header.msg_flags = 0;
        }
    }
}

impl std::fmt::Debug for PacketBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// `linux/if_packet.h`; the C library's bindings have no name for it.
const PACKET_IGNORE_OUTGOING: c_int = 23;
