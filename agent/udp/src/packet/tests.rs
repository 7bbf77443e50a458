//! What a packet socket hears of senders on this machine: nothing that they left to the device stays undone.

use super::*;
use crate::ready::wait_readable;
use crate::whole::WholeSender;
use crate::{MulticastOut, Options, SendBatch, UdpSocket, interfaces, netns};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

const GROUP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(232, 1, 2, 3));
const GROUP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x8000, 1));
const PREFIX: [u8; 2] = [6, 0];
const PATIENCE: Duration = Duration::from_secs(10);

/// Two ends of a cable in one namespace: what is sent by `near` is heard at `far`.
struct Cable {
    near: u32,
    far: u32,
}

impl Cable {
    fn new() -> Self {
        netns::ip("link add near0 type veth peer name far0");
        netns::ip("addr add 198.51.100.1/24 dev near0");
        netns::ip("addr add 2001:db8::1/64 dev near0 nodad");
        netns::ip("link set near0 up");
        netns::ip("link set far0 up");
        let index = |name| interfaces().unwrap().into_iter().find(|interface| interface.name == name).unwrap().index;
        let cable = Self { near: index("near0"), far: index("far0") };
        // The kernel makes IPv6's route when it has heard of the carrier, which is a little later.
        let deadline = Instant::now() + PATIENCE;
        while cable.sender(GROUP_V6).send_to(b"", SocketAddr::new(GROUP_V6, 9)).is_err() {
            assert!(Instant::now() < deadline, "no way for multicast");
            std::thread::yield_now();
        }
        cable
    }

    fn sender(&self, group: IpAddr) -> UdpSocket {
        let address = if group.is_ipv4() { "198.51.100.1:0" } else { "[2001:db8::1]:0" };
        let out = MulticastOut { interface: self.near, ttl: 9, loopback: true };
        let options = Options { multicast_out: Some(out), ..Options::new(address.parse::<SocketAddr>().unwrap()) };
        UdpSocket::bind(&options).unwrap()
    }
}

#[test]
fn a_packet_comes_whole_with_a_finished_checksum_and_the_prefix_before_it() {
    netns::isolated_test(|| {
        let cable = Cable::new();
        for (group, headers) in [(GROUP_V4, 28), (GROUP_V6, 48)] {
            let ears = PacketSocket::open(&PacketOptions::new(cable.far)).unwrap();
            let sender = cable.sender(group);
            for length in [1, 100, 1001] {
                sender.send_to(&vec![7; length], SocketAddr::new(group, 5004)).unwrap();
            }
            let heard = receive(&ears, 3);
            for (packet, length) in heard.iter().zip([1, 100, 1001]) {
                assert_eq!(packet.len(), 2 + headers + length, "padding of short frames is no part of it");
                assert!(packet.starts_with(&PREFIX) && packet.ends_with(&vec![7; length]));
                check(&packet[2..], &sender, group);
            }
        }
    });
}

#[test]
fn a_run_of_segments_comes_as_the_packets_that_a_device_would_send() {
    netns::isolated_test(|| {
        let cable = Cable::new();
        for group in [GROUP_V4, GROUP_V6] {
            let ears = PacketSocket::open(&PacketOptions::new(cable.far)).unwrap();
            let sender = cable.sender(group);
            let octets: Vec<u8> = (0..=255).cycle().take(1316 * 40 + 7).collect();
            let mut batch = SendBatch::new(1, 64);
            let mut filling = batch.fill();
            filling.message(SocketAddr::new(group, 5004), None, 0);
            filling.block(&octets, 1316);
            filling.send(&sender, |outcome| assert_eq!((outcome.sent, outcome.segmentation_refused), (41, false)));
            let heard = receive(&ears, 41);
            let mut identifications = Vec::new();
            for (packet, payload) in heard.iter().zip(octets.chunks(1316)) {
                assert!(packet.starts_with(&PREFIX) && packet.ends_with(payload));
                check(&packet[2..], &sender, group);
                identifications.push(u16::from_be_bytes([packet[6], packet[7]]));
            }
            if group.is_ipv4() {
                assert!(identifications.is_sorted_by(|a, b| a.wrapping_add(1) == *b), "{identifications:?}");
            }
        }
    });
}

#[test]
fn what_stays_on_the_link_or_is_unicast_or_our_own_is_not_heard() {
    netns::isolated_test(|| {
        let cable = Cable::new();
        let ears = PacketSocket::open(&PacketOptions::new(cable.far)).unwrap();
        let own = WholeSender::open(cable.near, 1 << 16).unwrap();
        let listener = PacketSocket::open(&PacketOptions { outgoing: true, ..PacketOptions::new(cable.near) }).unwrap();
        for to in ["224.0.0.251", "ff02::fb", "ff01::1", "239.255.255.255", "ff05::1", "224.0.1.0"] {
            let to: IpAddr = to.parse().unwrap();
            cable.sender(to).send_to(b"x", SocketAddr::new(to, 9)).unwrap();
        }
        let heard = receive(&ears, 3);
        let ends = |packet: &[u8]| if packet[2] >> 4 == 4 { packet[18..22].to_vec() } else { packet[26..42].to_vec() };
        assert_eq!(heard.iter().map(|packet| ends(packet)).collect::<Vec<_>>()[..1], [vec![239, 255, 255, 255]]);
        assert_eq!(receive(&listener, 3).len(), 3, "what this host sends, where asked for");
        // The same packet once more, by us.
        own.send(&heard[0][2..]).unwrap();
        assert!(!wait_readable(&listener, Some(Duration::ZERO)).unwrap());
        // Where the wire has it, it is anybody's: the mark stays on the machine, and here both ends are on it.
        assert!(!wait_readable(&ears, Some(Duration::ZERO)).unwrap());
    });
}

#[test]
fn a_loopback_interface_is_heard_once() {
    netns::isolated_test(|| {
        let ears = PacketSocket::open(&PacketOptions::new(1)).unwrap();
        let out = MulticastOut { interface: 1, ttl: 1, loopback: true };
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let sender = UdpSocket::bind(&Options { multicast_out: Some(out), ..Options::new(any_port) }).unwrap();
        sender.send_to(b"x", SocketAddr::new(GROUP_V4, 9)).unwrap();
        let heard = receive(&ears, 1);
        check(&heard[0][2..], &sender, GROUP_V4);
    });
}

#[test]
fn a_tun_interface_has_no_link_header_and_is_heard_too() {
    netns::isolated_test(|| {
        let tun = crate::tun::Tun::create("amt0").unwrap();
        tun.add_address("198.51.100.1".parse().unwrap(), 24).unwrap();
        tun.set_up().unwrap();
        let cable = Cable { near: tun.index().unwrap(), far: tun.index().unwrap() };
        let ears = PacketSocket::open(&PacketOptions { outgoing: true, ..PacketOptions::new(cable.far) }).unwrap();
        let sender = cable.sender(GROUP_V4);
        sender.send_to(b"x", SocketAddr::new(GROUP_V4, 9)).unwrap();
        let heard = receive(&ears, 1);
        assert!(heard[0].starts_with(&PREFIX));
        check(&heard[0][2..], &sender, GROUP_V4);
    });
}

/// Packets from the wire that are none, with every value a virtio header could have.
#[test]
fn nothing_that_a_message_says_leads_out_of_it() {
    let mut packet = vec![0; VIRTIO_BYTES + cut::ETHERNET_BYTES];
    packet.extend([0x45, 0, 0, 30, 0, 7, 0, 0, 9, 17, 0, 0, 198, 51, 100, 7, 232, 1, 2, 3]);
    packet.extend([0x13, 0x8c, 0x13, 0x8c, 0, 10, 0, 0, 1, 2]);
    for version in [0x45, 0x4f, 0x60, 0x00] {
        for (flags, gso) in [(0, 0), (1, 0), (1, 5), (0, 5), (1, 3), (1, 0x81)] {
            for number in [0, 1, 7, 34, 1000, u16::MAX] {
                for length in 0..packet.len() {
                    let mut message = packet.clone();
                    message[VIRTIO_BYTES + cut::ETHERNET_BYTES] = version;
                    message[..2].copy_from_slice(&[flags, gso]);
                    for at in [2, 4, 6, 8] {
                        message[at..at + 2].copy_from_slice(&number.to_ne_bytes());
                    }
                    for link in [LinkType::Ethernet, LinkType::None] {
                        let mut pieces = Vec::new();
                        if let Some(message) = cut::Message::parse(&mut message.clone()[..length], link) {
                            message.finish(PREFIX, |piece| piece.append_to(&mut pieces, PREFIX));
                        }
                    }
                }
            }
        }
    }
}

fn receive(socket: &PacketSocket, count: usize) -> Vec<Vec<u8>> {
    let mut batch = PacketBatch::new(64, PREFIX);
    let mut heard = Vec::new();
    while heard.len() < count {
        assert!(wait_readable(socket, Some(PATIENCE)).unwrap(), "{} of {count} came", heard.len());
        batch.receive(socket).unwrap();
        assert_eq!(batch.refused(), 0);
        heard.extend(batch.iter().map(<[u8]>::to_vec));
    }
    assert_eq!(heard.len(), count, "no more than expected: {heard:?}");
    heard
}

/// Addresses, lengths and both checksums.
fn check(packet: &[u8], sender: &UdpSocket, group: IpAddr) {
    let source = sender.local_address().unwrap();
    let (header, addresses) = if packet[0] >> 4 == 4 { (20, 12..20) } else { (40, 8..40) };
    let octets = |address| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    assert_eq!(packet[addresses.clone()], [octets(source.ip()), octets(group)].concat());
    let udp = &packet[header..];
    assert_eq!(udp[..2], source.port().to_be_bytes());
    assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), udp.len());
    let sum = |octets: &[u8]| -> u64 {
        octets.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let pseudo = sum(&packet[addresses]) + 17 + udp.len() as u64;
    assert_eq!((pseudo + sum(udp)) % 0xffff, 0, "UDP checksum");
    assert_ne!(udp[6..8], [0, 0]);
    if header == 20 {
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!(sum(&packet[..20]) % 0xffff, 0, "header checksum");
    } else {
        assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), udp.len());
    }
}
