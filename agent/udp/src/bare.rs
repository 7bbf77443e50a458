//! The ceiling to measure against: a loop of `sendmmsg` with UDP GSO over messages that were all prepared beforehand.
//!
//! Owns nothing that a product would use: no tails, no table, the same octets for every destination, one piece of memory a
//! message. Nothing can send the same datagrams through a socket with less work.

#![expect(unsafe_code, reason = "sendmmsg has no safe wrapper that keeps its buffers")]

use crate::control::{Outgoing, Side};
use crate::many;
use crate::raw::Name;
use crate::{SEGMENTS_MAX, UdpSocket};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::ptr;

/// Messages handed to the kernel at once.
const MESSAGES_PER_CALL: usize = 64;

/// Prepared messages, one for each destination.
pub struct BareLoop {
    datagrams: usize,
    octets: Box<[u8]>,
    names: Box<[Name]>,
    control: Outgoing,
}

impl BareLoop {
    /// Messages of `datagrams` datagrams of `datagram_bytes` octets to each of `destinations`.
    ///
    /// # Panics
    /// When that does not fit into one message: more than [`SEGMENTS_MAX`] datagrams or 65507 octets.
    #[must_use]
    pub fn new(destinations: &[SocketAddr], datagrams: usize, datagram_bytes: u16) -> Self {
        let bytes = datagrams * usize::from(datagram_bytes);
        assert!(datagrams <= SEGMENTS_MAX && bytes <= crate::DATAGRAM_BYTES_MAX, "one message has to hold them");
        Self {
            datagrams,
            octets: vec![0; bytes].into(),
            names: destinations.iter().copied().map(Name::from).collect(),
            control: Outgoing::EMPTY,
        }
    }

    /// Sends every message `rounds` times; the result is the number of datagrams that the kernel took.
    ///
    /// # Errors
    /// What the kernel says to the first message that it refuses.
    pub fn send(&mut self, socket: &UdpSocket, rounds: usize) -> io::Result<usize> {
        let Self { datagrams, octets, names, control } = self;
        let mut iovec = libc::iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: octets.len() };
        let segment = (*datagrams > 1).then(|| segment(octets.len(), *datagrams));
        // The destinations' family counts for TTL and traffic class alone, and there are none.
        let control_bytes = control.fill(false, Side { segment, ..Side::default() });
        let mut headers: Vec<libc::mmsghdr> = names
            .iter_mut()
            .map(|name| {
                // SAFETY: all-zero octets are a valid `mmsghdr`: null pointers and no lengths.
                let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                header.msg_hdr.msg_namelen = name.bytes();
                header.msg_hdr.msg_name = ptr::from_mut(name).cast();
                header.msg_hdr.msg_iov = ptr::from_mut(&mut iovec);
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = ptr::from_mut(control).cast();
                header.msg_hdr.msg_controllen = many::length(control_bytes);
                header
            })
            .collect();
        let mut messages = 0;
        for _ in 0..rounds {
            let mut rest = &mut headers[..];
            while !rest.is_empty() {
                let count = rest.len().min(MESSAGES_PER_CALL);
                // SAFETY: what the headers point at lives in `self` and on this stack with the lengths given, is only read,
                // and outlives the call; the headers began as zeros.
                let taken = unsafe { many::send_many(socket, &mut rest[..count], 0) }?;
                messages += taken;
                rest = &mut rest[taken..];
            }
        }
        Ok(messages * *datagrams)
    }
}

fn segment(bytes: usize, datagrams: usize) -> u16 {
    u16::try_from(bytes / datagrams).unwrap_or(u16::MAX)
}

impl std::fmt::Debug for BareLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareLoop").field("destinations", &self.names.len()).finish_non_exhaustive()
    }
}
