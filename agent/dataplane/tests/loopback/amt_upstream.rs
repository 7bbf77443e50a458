//! Relays above, on real sockets: one copy down to us, and from there to everybody.

use crate::amt_lab::{GROUP_V4, Gateway, PORT, SOURCE_V4, Source, in_namespace, packet, payload_of, relay};
use crate::lab::{Lab, Native, wait_until};
use castgate_dataplane::{Delivery, DropReason, Event, GatewayId, SourceFilter};
use castgate_udp::{Head, SendBatch, UdpSocket, netns};
use castgate_wire::ip;
use castgate_wire::ipv4::Fragment;
use castgate_wire::umtp::{Channel, Trailer};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const GROUP: Ipv4Addr = Ipv4Addr::new(232, 60, 1, 1);
/// Somebody far away.
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// A relay above us, made by hand, and our gateway to it.
struct Above {
    relay: Gateway,
    gateway: GatewayId,
    address: SocketAddr,
}

impl Above {
    fn new(lab: &Lab) -> Self {
        let relay = Gateway::new("127.60.9.1:0".parse().unwrap());
        let gateway = lab.dataplane.attach_gateway("127.60.0.2:0".parse().unwrap()).unwrap();
        lab.dataplane.set_relay(gateway, Some(relay.address));
        lab.dataplane.gateway_filter(gateway, GROUP_V4, Some(SourceFilter::include([FAR.into()])));
        let address = lab.dataplane.gateway_address(gateway).unwrap();
        Self { relay, gateway, address }
    }

    fn send(&self, packet: &[u8]) {
        self.send_with(&self.relay.socket, packet, 0);
    }

    fn send_with(&self, socket: &UdpSocket, packet: &[u8], traffic_class: u8) {
        let mut batch = SendBatch::new(1, 64);
        let octets = [&[6, 0x5a][..], packet].concat();
        let mut filling = batch.fill();
        filling.message_with(Head { traffic_class: Some(traffic_class), ..Head::to(self.address) }, 0);
        filling.datagram(&octets, None);
        filling.send(socket, |outcome| assert_eq!(outcome.sent, 1));
    }
}

#[test]
fn one_copy_from_above_goes_to_every_endpoint_and_tunnel_of_all_workers() {
    in_namespace(|| {
        let mut lab = relay(3, |_| {});
        let above = Above::new(&lab);
        let include = || SourceFilter::include([FAR.into()]);
        let endpoints: Vec<Gateway> =
            (10..20).map(|last| lab.endpoint([127, 60, 0, last], GROUP_V4, include())).collect();
        let v6 = lab.endpoint("::1".parse::<IpAddr>().unwrap(), GROUP_V4, include());
        let other = lab.endpoint([127, 60, 0, 30], GROUP_V4, SourceFilter::include([SOURCE_V4]));
        let specific = Channel::source_specific(FAR, GROUP, PORT);
        let any = Channel::any_source(GROUP, PORT);
        let clients = [(40, specific), (41, any), (42, Channel { port: 1, ..any })].map(|(last, channel)| {
            let client = lab.client(Ipv4Addr::new(127, 60, 0, last));
            lab.attach(&client, channel);
            (client, channel)
        });
        lab.dataplane.publish(lab.table.build());

        let payloads: Vec<Vec<u8>> = (0..30).map(|number| vec![number; 100]).collect();
        for payload in &payloads {
            above.send(&packet(FAR, GROUP, PORT, Fragment::default(), payload));
        }
        for gateway in endpoints.iter().chain([&v6]) {
            let data = gateway.receive(30);
            assert_eq!(data.iter().map(|data| payload_of(&data.packet)).collect::<Vec<_>>(), payloads);
            assert!(data.iter().all(|data| ip::Packet::new_checked(&data.packet).unwrap().hop_limit() == 8));
        }
        for (client, channel) in &clients[..2] {
            let found: Vec<_> = client
                .receive(30)
                .iter()
                .map(|datagram| {
                    let (payload, trailer) = Trailer::parse(datagram).unwrap();
                    assert_eq!((trailer.channel, trailer.ttl), (*channel, 8));
                    payload.to_vec()
                })
                .collect();
            assert_eq!(found, payloads);
        }
        assert!(other.has_nothing() && clients[2].0.has_nothing());
        wait_until("the counters", || lab.dataplane.counters().flows.tunnels_in.packets == 30);
        let Event::GatewayData { gateway, source, group } = lab.event() else { panic!("the channel lives") };
        assert_eq!((gateway, source, group), (above.gateway, FAR.into(), GROUP_V4));
    });
}

#[test]
fn data_from_strangers_or_of_no_wanted_channel_goes_nowhere_and_control_goes_up() {
    in_namespace(|| {
        let mut lab = relay(1, |_| {});
        let above = Above::new(&lab);
        let endpoint = lab.endpoint([127, 60, 0, 10], GROUP_V4, SourceFilter::exclude([]));
        lab.dataplane.publish(lab.table.build());
        let good = packet(FAR, GROUP, PORT, Fragment::default(), b"good");
        let stranger = Gateway::new("127.60.9.1:0".parse().unwrap());
        above.send_with(&stranger.socket, &good, 0);
        lab.wait_for_drops(DropReason::WrongRelay, 1);
        above.send(&packet(Ipv4Addr::new(192, 0, 2, 8), GROUP, PORT, Fragment::default(), b"x"));
        above.send(&packet(FAR, Ipv4Addr::new(232, 60, 1, 2), PORT, Fragment::default(), b"x"));
        lab.wait_for_drops(DropReason::NotWanted, 2);
        above.send(&packet(FAR, Ipv4Addr::new(127, 60, 0, 10), PORT, Fragment::default(), b"x"));
        lab.wait_for_drops(DropReason::NotMulticast, 1);
        // Not ECN-capable, and congestion on the way.
        above.send_with(&above.relay.socket, &good, 3);
        lab.wait_for_drops(DropReason::Congestion, 1);
        above.send(&good);
        assert_eq!(endpoint.payloads(1), [b"good"]);
        assert!(matches!(lab.event(), Event::GatewayData { .. }));

        above.relay.socket.send_to(b"\x04\0macmacnonc and a query", above.address).unwrap();
        let Event::Gateway { gateway, from, datagram } = lab.event() else { panic!("a Query") };
        assert_eq!((gateway, from), (above.gateway, above.relay.address));
        assert!(datagram.starts_with(b"\x04\0mac"));
        lab.dataplane.transmit_gateway(above.gateway, above.relay.address, b"\x06\0request").unwrap();
        assert_eq!(above.relay.receive(1)[0].from, above.address);

        lab.dataplane.detach_gateway(above.gateway);
        assert_eq!(lab.dataplane.gateway_address(above.gateway), None);
        wait_until("the end of the socket", || Gateway::bind(above.address).is_some());
    });
}

#[test]
fn what_is_injected_is_carried_like_what_comes_from_above() {
    in_namespace(|| {
        let mut lab = relay(2, |_| {});
        let endpoint = lab.endpoint([127, 60, 0, 10], GROUP_V4, SourceFilter::exclude([]));
        let channel = Channel::any_source(GROUP, PORT);
        let client = lab.client(Ipv4Addr::new(127, 60, 0, 40));
        lab.attach(&client, channel);
        lab.dataplane.publish(lab.table.build());
        lab.dataplane.inject(&packet(FAR, GROUP, PORT, Fragment::default(), b"x"));
        assert_eq!(endpoint.payloads(1), [b"x"]);
        assert_eq!(client.payloads(channel, 8, 1), [b"x"]);
        // The first part of a datagram: for whoever takes packets, not for whoever takes payloads.
        let part = packet(FAR, GROUP, PORT, Fragment { more: true, ..Fragment::default() }, b"part");
        lab.dataplane.inject(&part);
        assert_eq!(endpoint.receive(1)[0].packet.len(), part.len());
        assert_eq!(lab.dataplane.counters().dropped(DropReason::Fragment), 1);
        assert!(client.has_nothing());
        lab.dataplane.inject(b"no packet");
        assert_eq!(lab.dataplane.counters().dropped(DropReason::Malformed), 1);
    });
}

#[test]
fn delivery_is_heard_natively_with_the_source_and_is_not_taken_in_again() {
    in_namespace(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
        netns::ip("route add 192.0.2.0/24 dev lo");
        let mut lab = relay(1, |_| {});
        let above = Above::new(&lab);
        lab.dataplane.set_deliver(&[Delivery::Interface { name: "lo".into(), index: 1 }]).unwrap();
        above.send(&packet(FAR, GROUP, PORT, Fragment::default(), b"wanted by nobody"));
        // Only then: it would be wanted after all.
        let dropped = |reason| lab.dataplane.counters().dropped(reason);
        wait_until("its end", || dropped(DropReason::NotWanted) + dropped(DropReason::NoMember) == 1);
        lab.dataplane.delivery_filter(0, GROUP_V4, Some(&SourceFilter::include([FAR.into()])));
        let endpoint = lab.endpoint([127, 60, 0, 10], GROUP_V4, SourceFilter::exclude([]));
        let source = Source::new(SOURCE_V4);
        lab.publish_amt(&source, GROUP_V4, &[&endpoint]);
        let channel = Channel::source_specific(FAR, GROUP, PORT);
        let listener = Native::listener(channel);
        above.send(&packet(FAR, GROUP, PORT, Fragment::default(), b"native"));
        let heard = listener.receive(1);
        assert_eq!((heard[0].source, heard[0].ttl, &heard[0].payload[..]), (FAR, Some(8), &b"native"[..]));
        assert_eq!(endpoint.payloads(1), [b"native"]);
        // Whatever the packet socket heard before this, it has been through.
        source.send(GROUP_V4, b"after");
        assert_eq!(endpoint.payloads(1), [b"after"]);
        assert_eq!(lab.dataplane.groups()[0].flows.native_out.packets, 1);
    });
}

impl Gateway {
    fn bind(address: SocketAddr) -> Option<UdpSocket> {
        UdpSocket::bind(&castgate_udp::Options::new(address)).ok()
    }
}
