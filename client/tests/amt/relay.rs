//! A relay in a thread: the real one of `castgate-endpoint` at a real socket, which sends its endpoints the same again and again.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use castgate_endpoint::amt::relay::{Config, DownReason, Output, Permissions, Permit, Relay, Sources};
use castgate_endpoint::membership::Filter;
use castgate_wire::amt::Repr;
use castgate_wire::{ipv4, ipv6, udp};

/// A relay that runs until it is stopped.
pub struct RelayServer {
    pub address: SocketAddr,
    stop: Outbox<()>,
    thread: JoinHandle<Seen>,
}

/// What a relay has seen in its life.
#[derive(Debug, Default)]
pub struct Seen {
    /// Why its endpoints ended.
    pub ended: Vec<DownReason>,
    /// Relay Discoveries.
    pub discoveries: u64,
    /// Endpoints at the end.
    pub endpoints: usize,
}

impl RelayServer {
    /// Starts at this address with these packets for whoever has joined anything.
    pub fn start(listen: &str, packets: Vec<Vec<u8>>) -> Self {
        Self::run(listen, packets, false)
    }

    /// One that takes nobody.
    pub fn full(listen: &str) -> Self {
        Self::run(listen, Vec::new(), true)
    }

    fn run(listen: &str, packets: Vec<Vec<u8>>, is_full: bool) -> Self {
        let socket = UdpSocket::bind(listen).unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || serve(&socket, &packets, is_full, &stopped));
        Self { address, stop, thread }
    }

    /// Ends it without a word.
    pub fn stop(self) -> Seen {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

fn serve(socket: &UdpSocket, packets: &[Vec<u8>], is_full: bool, stopped: &Inbox<()>) -> Seen {
    let local = socket.local_addr().unwrap();
    let mut relay = Relay::new(Config::default(), [7; 16], Instant::now());
    let permit = |groups: &str| Permit { groups: groups.parse().unwrap(), sources: Sources::Any };
    relay.set_permissions(Permissions(vec![permit("224.0.0.0/4"), permit("ff00::/8")]), Instant::now());
    if is_full {
        relay.drain();
    }
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut joined: BTreeMap<SocketAddr, BTreeMap<IpAddr, Filter>> = BTreeMap::new();
    let mut seen = Seen::default();
    let mut datagram = [0; 2_048];
    while stopped.try_recv().is_err() {
        let now = Instant::now();
        if let Ok((len, from)) = socket.recv_from(&mut datagram) {
            relay.handle_datagram(now, local, from, &datagram[..len]);
        }
        relay.handle_timeout(now);
        while let Some(output) = relay.poll_output() {
            match output {
                // A client that is gone makes the loopback answer with an error, here and below.
                Output::Transmit { to, datagram, .. } => drop(socket.send_to(&datagram, to)),
                Output::EndpointUp { endpoint } => drop(joined.insert(endpoint.remote, BTreeMap::new())),
                Output::EndpointDown { remote, reason } => {
                    joined.remove(&remote);
                    seen.ended.push(reason);
                }
                Output::Filter { remote, group, filter: Some(filter) } => {
                    joined.get_mut(&remote).unwrap().insert(group, filter);
                }
                Output::Filter { remote, group, filter: None } => drop(joined.get_mut(&remote).unwrap().remove(&group)),
                Output::Upstream { .. } => {}
            }
        }
        for (remote, _) in joined.iter().filter(|(_, groups)| !groups.is_empty()) {
            for packet in packets {
                let _ = socket.send_to(&Repr::Data { packet }.to_vec(), remote);
            }
        }
    }
    seen.discoveries = relay.counters().discoveries;
    seen.endpoints = relay.endpoints().len();
    seen
}

/// A whole packet with a UDP datagram: hop limit 9.
pub fn packet(source: &str, destination: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let datagram = udp::Repr { source_port: 4_000, destination_port: port, payload };
    let mut octets = vec![0; datagram.buffer_len()];
    datagram.emit(&mut octets, source, destination);
    ip(source, destination, ipv6::protocol::UDP, &octets)
}

fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let repr = ipv4::Repr {
                tos: 0,
                identification: 7,
                fragment: ipv4::Fragment::default(),
                ttl: 9,
                protocol,
                source,
                destination,
                options: &[],
                payload,
            };
            let mut packet = vec![0; repr.buffer_len()];
            repr.emit(&mut packet);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (traffic_class, flow_label, hop_limit) = (0, 0, 9);
            let next_header = protocol;
            let repr = ipv6::Repr { traffic_class, flow_label, next_header, hop_limit, source, destination, payload };
            let mut packet = vec![0; repr.buffer_len()];
            repr.emit(&mut packet);
            packet
        }
        _ => panic!("addresses of two families"),
    }
}

/// The fragments of a packet, with at most 512 octets of it in each.
pub fn fragments(packet: &[u8]) -> Vec<Vec<u8>> {
    if packet[0] >> 4 == 4 {
        let parts = ipv4::fragment(packet, 532).unwrap();
        return parts.map(|part| [part.header(), part.payload()].concat()).collect();
    }
    let view = ipv6::Packet::new_checked(packet).unwrap();
    let chunks = view.payload().chunks(512);
    let count = chunks.len();
    let fragment = |(index, chunk): (usize, &[u8])| {
        let place = u16::try_from(index * 512).unwrap() | u16::from(index + 1 < count);
        let header = [&[view.next_header(), 0][..], &place.to_be_bytes(), &77_u32.to_be_bytes()].concat();
        ip(view.source().into(), view.destination().into(), ipv6::protocol::FRAGMENT, &[&header, chunk].concat())
    };
    chunks.enumerate().map(fragment).collect()
}
