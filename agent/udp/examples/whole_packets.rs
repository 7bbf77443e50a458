//! How many whole packets a second one thread takes in, by a packet socket, a raw IP socket, and UDP with headers written
//! anew; the numbers of `docs/adr/0010-whole-packets.md`. Needs root: it makes a namespace of its own.
//!
//! A sender on another thread keeps the interface busy with UDP segments of 1316 octets, as a source of video on this machine
//! does, or with one datagram a message, as packets from a wire come. What counts is the processor time of the receiving
//! thread: packets over the seconds that it really ran.

use castgate_udp::packet::{PacketBatch, PacketOptions, PacketSocket};
use castgate_udp::ready::wait_readable;
use castgate_udp::{MulticastOut, Options, RecvBatch, SendBatch, UdpSocket, interfaces, netns};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const GROUP: Ipv4Addr = Ipv4Addr::new(232, 1, 2, 3);
const PAYLOAD_BYTES: u16 = 1316;
const BATCH: usize = 64;
const TURN: Duration = Duration::from_secs(2);

fn main() {
    println!("{:<10} {:<10} {:<14} {:>12} {:>14}", "interface", "sender", "by", "packets", "packets/s/core");
    netns::isolated(|| {
        netns::ip("link add near0 type veth peer name far0");
        netns::ip("addr add 198.51.100.1/24 dev near0");
        netns::ip("link set near0 up");
        netns::ip("link set far0 up");
        // What comes by far0 has an address of this host for a source.
        for setting in ["all/rp_filter", "far0/rp_filter"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{setting}"), "0").expect("a setting of the namespace");
        }
        std::fs::write("/proc/sys/net/ipv4/conf/far0/accept_local", "1").expect("a setting of the namespace");
        let index = |name| interfaces().expect("a list").into_iter().find(|one| one.name == name).expect("made").index;
        for (name, near, far, address) in
            [("lo", 1, 1, [127, 0, 0, 1]), ("veth", index("near0"), index("far0"), [198, 51, 100, 1])]
        {
            for segments in [44, 1] {
                for by in ["packet socket", "raw IP socket", "UDP, rebuilt"] {
                    // A raw IP socket is handed the run of segments as one packet with one header, which nobody could send.
                    if segments > 1 && by == "raw IP socket" {
                        continue;
                    }
                    let (packets, seconds) = measure(by, near, far, address.into(), segments);
                    #[expect(clippy::cast_precision_loss, reason = "a rate")]
                    let rate = packets as f64 / seconds;
                    let sender = if segments > 1 { "GSO" } else { "single" };
                    println!("{name:<10} {sender:<10} {by:<14} {packets:>12} {rate:>14.0}");
                }
            }
        }
    })
    .expect("root");
}

fn measure(by: &str, near: u32, far: u32, address: IpAddr, segments: usize) -> (u64, f64) {
    let mut receiver = Receiver::open(by, far);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| send(near, address, segments, &done));
        let (mut packets, mut octets) = (0, 0);
        let start = Instant::now();
        let before = processor_time();
        while start.elapsed() < TURN {
            receiver.receive(|packet| {
                packets += 1;
                octets += packet.len();
            });
        }
        let seconds = processor_time().saturating_sub(before).as_secs_f64();
        done.store(true, Ordering::Relaxed);
        assert!(octets as u64 >= packets * 1300, "whole packets came");
        (packets, seconds)
    })
}

fn send(interface: u32, address: IpAddr, segments: usize, done: &AtomicBool) {
    let out = MulticastOut { interface, ttl: 9, loopback: true };
    let options = Options { multicast_out: Some(out), ..Options::new(SocketAddr::new(address, 0)) };
    let socket = UdpSocket::bind(&options).expect("an address of ours");
    let octets = vec![7; usize::from(PAYLOAD_BYTES) * segments];
    let mut batch = SendBatch::new(8, 64);
    while !done.load(Ordering::Relaxed) {
        let mut filling = batch.fill();
        for _ in 0..8 {
            filling.message(SocketAddr::from((GROUP, 5004)), None, 0);
            filling.block(&octets, PAYLOAD_BYTES);
        }
        filling.send(&socket, |_| ());
    }
}

enum Receiver {
    Packet(PacketSocket, PacketBatch),
    Raw(OwnedFd, UdpSocket, RecvBatch),
    Udp(UdpSocket, RecvBatch, Vec<u8>),
}

impl Receiver {
    fn open(by: &str, interface: u32) -> Self {
        match by {
            "packet socket" => {
                let options = PacketOptions { receive_buffer_bytes: Some(4 << 20), ..PacketOptions::new(interface) };
                Self::Packet(PacketSocket::open(&options).expect("root"), PacketBatch::new(BATCH, [6, 0]))
            }
            "raw IP socket" => {
                let protocol = Some(rustix::net::ipproto::UDP);
                let flags = SocketFlags::NONBLOCK;
                let socket = socket_with(AddressFamily::INET, SocketType::RAW, flags, protocol).expect("root");
                rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20).expect("a buffer");
                let member = UdpSocket::for_memberships(GROUP.into()).expect("a socket");
                member.join(GROUP.into(), None, interface).expect("a membership");
                Self::Raw(socket, member, RecvBatch::new(BATCH, 65_535))
            }
            _ => {
                let options = Options {
                    receive_ttl: true,
                    receive_traffic_class: true,
                    receive_packet_info: true,
                    receive_buffer_bytes: Some(4 << 20),
                    ..Options::new(SocketAddr::from((GROUP, 5004)))
                };
                let socket = UdpSocket::bind(&options).expect("a port");
                socket.join(GROUP.into(), None, interface).expect("a membership");
                Self::Udp(socket, RecvBatch::new(BATCH, 65_507), Vec::new())
            }
        }
    }

    fn receive(&mut self, mut each: impl FnMut(&[u8])) {
        let patience = Some(Duration::from_millis(100));
        match self {
            Self::Packet(socket, batch) => {
                if wait_readable(&*socket, patience).is_ok_and(|is| is) && batch.receive(socket).is_ok() {
                    batch.iter().for_each(each);
                }
            }
            Self::Raw(socket, _member, batch) => {
                if wait_readable(&*socket, patience).is_ok_and(|is| is) && batch.receive(&*socket).is_ok() {
                    batch.iter().for_each(|datagram| each(datagram.payload));
                }
            }
            Self::Udp(socket, batch, packet) => {
                if wait_readable(&*socket, patience).is_ok_and(|is| is) && batch.receive(&*socket).is_ok() {
                    for datagram in batch.iter() {
                        rebuild(&datagram, packet);
                        each(packet);
                    }
                }
            }
        }
    }
}

/// The least that writing headers anew costs: a copy, and both checksums.
fn rebuild(datagram: &castgate_udp::Datagram<'_>, packet: &mut Vec<u8>) {
    let (SocketAddr::V4(source), Some(IpAddr::V4(destination))) = (datagram.source, datagram.destination) else {
        return;
    };
    let total = u16::try_from(28 + datagram.payload.len()).expect("a packet");
    packet.clear();
    packet.extend_from_slice(&[0x45, datagram.traffic_class.unwrap_or(0)]);
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, datagram.ttl.unwrap_or(1), 17, 0, 0]);
    packet.extend_from_slice(&source.ip().octets());
    packet.extend_from_slice(&destination.octets());
    let header = checksum(0, &packet[..20]);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet.extend_from_slice(&source.port().to_be_bytes());
    packet.extend_from_slice(&5004_u16.to_be_bytes());
    packet.extend_from_slice(&(total - 20).to_be_bytes());
    packet.extend_from_slice(&[0; 2]);
    packet.extend_from_slice(datagram.payload);
    let pseudo = 17 + u64::from(total - 20) + sum(&packet[12..20]);
    let datagram = checksum(pseudo, &packet[20..]);
    packet[26..28].copy_from_slice(&datagram.to_be_bytes());
}

fn checksum(start: u64, octets: &[u8]) -> u16 {
    let mut sum = start + sum(octets);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

fn sum(octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().chain([&last]).map(|word| u64::from(u32::from_be_bytes(*word))).sum()
}

/// What this thread has used of a processor.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
