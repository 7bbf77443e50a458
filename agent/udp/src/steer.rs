//! Which of the sockets of one port takes a datagram: always the same one for a source address, whatever its port.
//!
//! A client behind a NAT may come back with another port; its tunnel must stay with its worker. The kernel runs the program
//! below for every datagram, [`shard_of`] is the same function for us.
//!
//! ```text
//!   A = 0      for each 32-bit word of the source address, one in IPv4, four in IPv6:  A = (A ^ word) * 0x9e3779b1 mod 2^32
//!   A = A >> 16      A = A mod n
//! ```

use crate::UdpSocket;
use crate::raw::set_option;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;

/// 2^32 divided by the golden ratio: neighbouring addresses, the usual case behind one provider, spread evenly.
const MULTIPLIER: u32 = 0x9e37_79b1;
/// The high half of a product depends on all bits of its factor, the low half does not.
const SHIFT: u32 = 16;
/// Offset and length of the source address in an IPv4 header, in octets.
const SOURCE_V4: (i32, usize) = (12, 4);
/// Offset and length of the source address in an IPv6 header, in octets.
const SOURCE_V6: (i32, usize) = (8, 16);

/// The worker, out of `shards`, that takes what comes from `address`.
#[must_use]
pub fn shard_of(address: impl Into<IpAddr>, shards: NonZeroUsize) -> usize {
    let mix = |octets: &[u8]| {
        let words = octets.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
        words.fold(0_u32, |hash, word| (hash ^ word).wrapping_mul(MULTIPLIER))
    };
    let hash = match address.into() {
        IpAddr::V4(v4) => mix(&v4.octets()),
        IpAddr::V6(v6) => mix(&v6.octets()),
    };
    let [high, low, ..] = hash.to_be_bytes();
    usize::from(u16::from_be_bytes([high, low])) % shards
}

/// Attaches the program to the group of sockets that `socket` belongs to.
pub(crate) fn attach(socket: &UdpSocket, shards: NonZeroUsize) -> io::Result<()> {
    let shards = u32::try_from(shards.get()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let (offset, length) = if socket.local_address()?.is_ipv6() { SOURCE_V6 } else { SOURCE_V4 };
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_IMM, 0)];
    for word in (offset..).step_by(4).take(length / 4) {
        program.extend([
            instruction(libc::BPF_MISC | libc::BPF_TAX, 0),
            // A negative offset counts from the network header; at 0 stands the payload of the datagram.
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (libc::SKF_NET_OFF + word).cast_unsigned()),
            instruction(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0),
            instruction(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, MULTIPLIER),
        ]);
    }
    program.extend([
        instruction(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, SHIFT),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, shards),
        instruction(libc::BPF_RET | libc::BPF_A, 0),
    ]);
    let length = u16::try_from(program.len()).expect("twenty instructions");
    let request = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &request)
}

fn instruction(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("codes are 16 bits wide"), jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, RecvBatch};
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

    const SHARDS: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    #[test]
    fn the_kernel_and_the_function_agree_on_every_source_and_ignore_its_port() {
        let workers = workers(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into());
        let listen = workers[0].local_address().unwrap();
        let mut batch = RecvBatch::new(8, 64);
        for host in 1..=40 {
            let address = Ipv4Addr::new(127, 9, 8, host);
            for _port in 0..2 {
                let client = UdpSocket::bind(&Options::new(SocketAddrV4::new(address, 0))).unwrap();
                client.send_to(b"x", listen).unwrap();
            }
            for (shard, worker) in workers.iter().enumerate() {
                let expected = if shard == shard_of(address, SHARDS) { 2 } else { 0 };
                assert_eq!(batch.receive(worker).unwrap_or(0), expected, "{address} at worker {shard}");
            }
        }
    }

    /// Only `::1` is ours on the loopback interface; a datagram's source address can be any that is ours elsewhere, but an
    /// ordinary user has no other.
    #[test]
    fn the_kernel_and_the_function_agree_on_ipv6() {
        let any_port = SocketAddr::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0));
        let workers = workers(any_port);
        let client = UdpSocket::bind(&Options::new(any_port)).unwrap();
        client.send_to(b"x", workers[0].local_address().unwrap()).unwrap();
        let mut batch = RecvBatch::new(8, 64);
        for (shard, worker) in workers.iter().enumerate() {
            let expected = usize::from(shard == shard_of(Ipv6Addr::LOCALHOST, SHARDS));
            assert_eq!(batch.receive(worker).unwrap_or(0), expected);
        }
    }

    #[test]
    fn a_thousand_neighbours_spread_over_all_shards() {
        let shards = NonZeroUsize::new(8).unwrap();
        let mut counts = [0; 8];
        for host in 0..1000_u32 {
            counts[shard_of(Ipv4Addr::from(0x0a00_0000 + host), shards)] += 1;
        }
        assert!(counts.iter().all(|&count| (100..150).contains(&count)), "{counts:?}");
        let mut counts = [0; 8];
        for net in 0..1000_u128 {
            counts[shard_of(Ipv6Addr::from(0x2001_0db8 << 96 | net << 64 | 1), shards)] += 1;
        }
        assert!(counts.iter().all(|&count| (90..160).contains(&count)), "{counts:?}");
    }

    #[test]
    fn a_socket_of_its_own_cannot_be_steered() {
        let alone = UdpSocket::bind(&Options::new(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))).unwrap();
        alone.steer_by_source(SHARDS).unwrap_err();
    }

    fn workers(mut bind: SocketAddr) -> Vec<UdpSocket> {
        let mut workers = Vec::new();
        for _ in 0..SHARDS.get() {
            let worker = UdpSocket::bind(&Options { reuse_port: true, ..Options::new(bind) }).unwrap();
            bind = worker.local_address().unwrap();
            workers.push(worker);
        }
        workers[0].steer_by_source(SHARDS).unwrap();
        workers
    }
}
