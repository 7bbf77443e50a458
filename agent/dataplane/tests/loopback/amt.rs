//! The AMT relay on real sockets: whole packets from native sources to gateways.

use crate::amt_lab::{
    GROUP_V4, Gateway, PORT, RELAY, SOURCE_V4, Source, amt, group_v6, in_namespace, payload_of, relay, source_v6,
};
use crate::lab::{Native, PATIENCE, wait_until};
use castgate_dataplane::{
    AmtSettings, DropReason, Dscp, Event, Interface, SourceFilter, Traffic, TunnelMtu, WholePackets,
};
use castgate_udp::netns;
use castgate_udp::ready::wait_readable;
use castgate_wire::umtp::{Channel, Command};
use castgate_wire::{ip, ipv4};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

#[test]
fn both_families_go_through_both_families_as_they_were_sent() {
    in_namespace(|| {
        let mut lab = relay(2, |_| {});
        for (group, source) in [(GROUP_V4, SOURCE_V4), (group_v6(), source_v6())] {
            let source = Source::new(source);
            let filter = || SourceFilter::include([source.address.ip()]);
            let v4 = lab.endpoint(Ipv4Addr::new(127, 60, 0, 10), group, filter());
            let v6 = lab.endpoint("::1".parse::<IpAddr>().unwrap(), group, filter());
            lab.publish_amt(&source, group, &[&v4, &v6]);
            source.send(group, b"hello");
            for gateway in [v4, v6] {
                let data = &gateway.receive(1)[0];
                assert_eq!(data.from, lab.local_for(gateway.address));
                let packet = ip::Packet::new_checked(&data.packet).unwrap();
                assert_eq!((packet.source(), packet.destination()), (source.address.ip(), group));
                assert_eq!(packet.hop_limit(), 32, "the hop limit is the source's");
                assert_eq!(payload_of(&data.packet), b"hello");
            }
        }
        let reports = lab.dataplane.groups();
        assert_eq!(
            reports.iter().map(|report| (report.group, report.endpoints)).collect::<Vec<_>>(),
            [(GROUP_V4, 2), (group_v6(), 2)]
        );
    });
}

#[test]
fn a_packet_that_two_workers_hear_is_counted_once() {
    in_namespace(|| {
        let mut lab = relay(3, |_| {});
        let source = Source::new(SOURCE_V4);
        let all: Vec<Gateway> =
            (10..20).map(|last| lab.endpoint([127, 60, 0, last], GROUP_V4, SourceFilter::exclude([]))).collect();
        lab.publish_amt(&source, GROUP_V4, &all.iter().collect::<Vec<_>>());
        let flows = || lab.dataplane.groups()[0].flows;
        let before = flows();
        for _ in 0..5 {
            source.send(GROUP_V4, &[7; 100]);
        }
        for gateway in &all {
            assert_eq!(gateway.payloads(5).len(), 5);
        }
        // Counted a moment after it was sent.
        let more = |after: Traffic, before: Traffic| (after.packets - before.packets, after.bytes - before.bytes);
        wait_until("the counters", || more(flows().tunnels_out, before.tunnels_out) == (50, 50 * 128));
        assert_eq!(more(flows().native_in, before.native_in), (5, 5 * 128));
    });
}

#[test]
fn included_sources_come_and_excluded_ones_do_not() {
    in_namespace(|| {
        let mut lab = relay(1, |_| {});
        let sources = [1, 2, 3].map(|last| Source::new(IpAddr::from([127, 60, 1, last])));
        let [a, b, _] = sources.each_ref().map(|source| source.address.ip());
        let host = |last| Ipv4Addr::new(127, 60, 0, last);
        let wants_a_and_b = lab.endpoint(host(10), GROUP_V4, SourceFilter::include([a, b]));
        let all_but_b = lab.endpoint(host(11), GROUP_V4, SourceFilter::exclude([b]));
        let all = lab.endpoint(host(12), GROUP_V4, SourceFilter::exclude([]));
        lab.publish_amt(&sources[0], GROUP_V4, &[&wants_a_and_b, &all_but_b, &all]);
        for (source, payload) in sources.iter().zip([b"a", b"b", b"c"]) {
            source.send(GROUP_V4, payload);
        }
        assert_eq!(wants_a_and_b.payloads(2), [b"a", b"b"]);
        assert_eq!(all_but_b.payloads(2), [b"a", b"c"]);
        assert_eq!(all.payloads(3), [b"a", b"b", b"c"]);

        // A change takes effect with the table; an end too.
        lab.table.filter(all_but_b.address, GROUP_V4, Some(SourceFilter::include([b])));
        lab.table.endpoint_down(all.address);
        lab.publish_amt(&sources[1], GROUP_V4, &[&wants_a_and_b, &all_but_b]);
        sources[0].send(GROUP_V4, b"a");
        sources[1].send(GROUP_V4, b"b");
        assert_eq!(all_but_b.payloads(1), [b"b"]);
        assert!(all.has_nothing());
    });
}

#[test]
fn members_of_umtp_and_of_amt_have_the_same_channel_each_in_its_way() {
    in_namespace(|| {
        let mut lab = relay(2, |_| {});
        let channel = Channel::source_specific(Ipv4Addr::new(127, 60, 1, 1), Ipv4Addr::new(232, 60, 1, 1), PORT);
        let source = Source::new(IpAddr::from([127, 60, 1, 1]));
        let client = lab.client(Ipv4Addr::new(127, 60, 0, 20));
        lab.attach(&client, channel);
        lab.publish(&[channel]);
        let gateway = lab.endpoint([127, 60, 0, 10], GROUP_V4, SourceFilter::include([source.address.ip()]));
        lab.publish_amt(&source, GROUP_V4, &[&gateway]);
        wait_until("the probes", || client.has_nothing() || !client.receive_some().is_empty());
        source.send(GROUP_V4, b"both");
        assert_eq!(gateway.payloads(1), [b"both"]);
        wait_until("the same by UMTP", || client.receive_some().iter().any(|datagram| datagram.starts_with(b"both")));
    });
}

#[test]
fn what_a_umtp_client_sends_reaches_endpoints_once_though_two_interfaces_carry_it() {
    in_namespace(|| {
        netns::ip("link add near0 type veth peer name far0");
        netns::ip("addr add 203.0.113.1/24 dev near0");
        netns::ip("link set near0 up");
        netns::ip("link set far0 up");
        let near = castgate_udp::interfaces().unwrap().into_iter().find(|one| one.name == "near0").unwrap();
        let second = Interface { name: near.name, index: near.index, address: near.addresses[0] };
        let mut lab = relay(2, |settings| settings.interfaces.push(second));
        let channel = Channel::any_source(Ipv4Addr::new(239, 60, 1, 1), PORT);
        let group = IpAddr::V4(channel.group);
        let client = lab.client(Ipv4Addr::new(127, 60, 0, 20));
        lab.attach(&client, channel);
        let gateway = lab.endpoint([127, 60, 0, 10], group, SourceFilter::exclude([]));
        let source = Source::new(SOURCE_V4);
        lab.publish_amt(&source, group, &[&gateway]);
        client.send(&lab, Command::Data, channel, 9, b"up");
        let data = &gateway.receive(1)[0];
        assert_eq!(payload_of(&data.packet), b"up");
        let packet = ip::Packet::new_checked(&data.packet).unwrap();
        assert_eq!((packet.source(), packet.hop_limit()), (IpAddr::V4(RELAY), 9), "as on the first interface");
        wait_until("the other interface's copy", || lab.dataplane.counters().dropped(DropReason::Own) > 0);
        assert!(gateway.has_nothing());
    });
}

#[test]
fn a_burst_of_many_sizes_keeps_its_order_with_and_without_segmentation_and_checksums() {
    in_namespace(|| {
        for (segmentation, zero_checksum) in [(true, false), (false, false), (true, true)] {
            let mut lab = relay(1, |settings| {
                settings.segmentation = segmentation;
                settings.amt.as_mut().unwrap().zero_checksum = zero_checksum;
            });
            let source = Source::new(SOURCE_V4);
            let hosts = (10..16).map(|last| [127, 60, 0, last]);
            let all: Vec<Gateway> = hosts.map(|host| lab.endpoint(host, GROUP_V4, SourceFilter::exclude([]))).collect();
            lab.publish_amt(&source, GROUP_V4, &all.iter().collect::<Vec<_>>());
            let sizes = [1316, 1316, 1316, 500, 0, 1316, 1400, 1316].into_iter().cycle();
            let expected: Vec<Vec<u8>> = sizes.zip(0..200).map(|(size, number)| vec![number; size]).collect();
            for payload in &expected {
                source.send(GROUP_V4, payload);
            }
            for gateway in &all {
                assert_eq!(gateway.payloads(200), expected);
            }
            let report = &lab.dataplane.endpoints()[0];
            assert_eq!((report.groups, report.sent.packets >= 200), (1, true));
            let octets: usize = expected.iter().map(|payload| payload.len() + 28).sum();
            assert!(report.sent.bytes >= octets as u64);
        }
    });
}

#[test]
fn what_senders_on_this_machine_left_to_the_device_is_done() {
    in_namespace(|| {
        netns::ip("link add near0 type veth peer name far0");
        netns::ip("addr add 203.0.113.2/24 dev near0");
        netns::ip("addr add 192.0.2.1/24 dev far0");
        netns::ip("link set near0 up");
        netns::ip("link set far0 up");
        let index = |name| castgate_udp::interfaces().unwrap().into_iter().find(|one| one.name == name).unwrap().index;
        let far = Interface { name: "far0".into(), index: index("far0"), address: Ipv4Addr::new(192, 0, 2, 1) };
        let mut lab = relay(1, |settings| settings.interfaces = vec![far]);
        let source = Source::on(index("near0"), IpAddr::from([203, 0, 113, 2]));
        let gateway = lab.endpoint([127, 60, 0, 10], GROUP_V4, SourceFilter::exclude([]));
        lab.publish_amt(&source, GROUP_V4, &[&gateway]);
        // One packet with a partial checksum, then a run that no device has cut.
        source.send(GROUP_V4, b"partial");
        assert_eq!(gateway.payloads(1), [b"partial"]);
        let octets: Vec<u8> = (0..=255).cycle().take(40 * 1316 + 100).collect();
        source.send_run(GROUP_V4, &octets, 1316);
        assert_eq!(gateway.payloads(41).concat(), octets);
    });
}

#[test]
fn the_outer_header_has_the_services_of_the_packet_and_its_ecn_for_whoever_can_read_it() {
    in_namespace(|| {
        for (dscp, outer) in [(Dscp::Copy, 0xb8), (Dscp::Fixed(0x0a), 0x28)] {
            let mut lab = relay(1, amt(|amt| amt.dscp = dscp));
            for (group, source) in [(GROUP_V4, SOURCE_V4), (group_v6(), source_v6())] {
                let source = Source::new(source);
                let able = lab.endpoint([127, 60, 0, 10], group, SourceFilter::exclude([]));
                lab.table.endpoint_up(able.address, lab.local_for(able.address), true);
                let unable = lab.endpoint("::1".parse::<IpAddr>().unwrap(), group, SourceFilter::exclude([]));
                lab.publish_amt(&source, group, &[&able, &unable]);
                for ecn in 0..4 {
                    source.send_with(group, 0xb8 | ecn, b"x");
                    let (able, unable) = (&able.receive(1)[0], &unable.receive(1)[0]);
                    assert_eq!(able.outer_class, Some(outer | ecn), "RFC 6040 §4.1, normal mode");
                    assert_eq!(unable.outer_class, Some(outer), "RFC 6040 §4.1, compatibility mode");
                    for data in [able, unable] {
                        assert_eq!(ip::Packet::new_checked(&data.packet).unwrap().traffic_class(), 0xb8 | ecn);
                    }
                }
            }
        }
    });
}

#[test]
fn a_packet_too_long_for_a_tunnel_is_cut_if_it_may_be_and_else_its_source_is_told() {
    in_namespace(|| {
        let mut lab = relay(1, amt(|amt| amt.mtu = TunnelMtu::Fixed(600)));
        let payload: Vec<u8> = (0..=255).cycle().take(1400).collect();
        // DF off.
        std::fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1").unwrap();
        let source = Source::new(SOURCE_V4);
        let all = [10, 11].map(|last| lab.endpoint([127, 60, 0, last], GROUP_V4, SourceFilter::exclude([])));
        lab.publish_amt(&source, GROUP_V4, &all.each_ref());
        source.send(GROUP_V4, &payload);
        source.send(GROUP_V4, b"short");
        for gateway in &all {
            let mut data = gateway.receive(4);
            assert_eq!(payload_of(&data.pop().unwrap().packet), b"short");
            let parts: Vec<_> = data.iter().map(|data| ipv4::Packet::new_checked(&data.packet).unwrap()).collect();
            assert!(parts.iter().all(|part| part.total_len() <= 600 && part.verify_checksum() && part.ttl() == 32));
            assert_eq!(parts.iter().map(|part| part.fragment().more).collect::<Vec<_>>(), [true, true, false]);
            let whole: Vec<u8> = parts.iter().flat_map(|part| part.payload().to_vec()).collect();
            assert_eq!(whole[8..], payload);
        }
        assert_eq!(lab.dataplane.counters().dropped(DropReason::TooLong), 0);

        // DF on.
        std::fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "0").unwrap();
        let source = Source::new(SOURCE_V4);
        let ears = icmp(rustix::net::AddressFamily::INET, rustix::net::ipproto::ICMP);
        source.send(GROUP_V4, &payload);
        lab.wait_for_drops(DropReason::TooLong, 2);
        let error = receive(&ears);
        assert_eq!(error[20..22], [3, 4], "fragmentation needed");
        assert_eq!(error[26..28], 600_u16.to_be_bytes(), "the limit of the tunnel");
        assert_eq!(error[28 + 12..28 + 20], [198, 51, 100, 7, 232, 60, 1, 1], "the packet meant");
        source.send(GROUP_V4, &payload);
        lab.wait_for_drops(DropReason::TooLong, 4);
        assert!(!wait_readable(&ears, Some(Duration::from_millis(50))).unwrap(), "once a second");
        // Not source-specific: nobody is told.
        let other = IpAddr::from([239, 60, 1, 1]);
        lab.table.filter(all[0].address, other, Some(SourceFilter::exclude([])));
        lab.publish_amt(&source, other, &[&all[0]]);
        source.send(other, &payload);
        lab.wait_for_drops(DropReason::TooLong, 5);
        assert!(all.iter().all(Gateway::has_nothing));

        let source = Source::new(source_v6());
        lab.table.filter(all[0].address, group_v6(), Some(SourceFilter::exclude([])));
        lab.publish_amt(&source, group_v6(), &[&all[0]]);
        let ears = icmp(rustix::net::AddressFamily::INET6, rustix::net::ipproto::ICMPV6);
        source.send(group_v6(), &payload);
        lab.wait_for_drops(DropReason::TooLong, 6);
        let error = wait_for_packet_too_big(&ears);
        assert_eq!(error[4..8], 600_u32.to_be_bytes());
    });
}

#[test]
fn the_path_s_limit_is_found_and_followed() {
    in_namespace(|| {
        netns::ip("link set lo mtu 1500");
        std::fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1").unwrap();
        for mtu in [TunnelMtu::Path { min: 576 }, TunnelMtu::Interface] {
            netns::ip("link set lo mtu 1500");
            let mut lab = relay(1, amt(|amt| amt.mtu = mtu));
            let source = Source::new(SOURCE_V4);
            let v4 = lab.endpoint([127, 60, 0, 10], GROUP_V4, SourceFilter::exclude([]));
            let v6 = lab.endpoint("::1".parse::<IpAddr>().unwrap(), GROUP_V4, SourceFilter::exclude([]));
            lab.publish_amt(&source, GROUP_V4, &[&v4, &v6]);
            let limits: Vec<_> = lab.dataplane.endpoints().iter().map(|report| report.mtu).collect();
            assert_eq!(limits, [Some(1500 - 30), Some(1500 - 50)]);
            for (bytes, v4_count, v6_count) in [(1450, 1, 1), (1451, 1, 2), (1470, 1, 2), (1471, 2, 2)] {
                source.send(GROUP_V4, &vec![7; bytes - 28]);
                assert_eq!((v4.receive(v4_count).len(), v6.receive(v6_count).len()), (v4_count, v6_count), "{bytes}");
            }
            // The path becomes narrower: the kernel refuses, which is noticed.
            netns::ip("link set lo mtu 1300");
            source.send(GROUP_V4, &vec![7; 1300 - 28]);
            let is_noticed = || lab.dataplane.endpoints()[0].mtu == Some(1300 - 30);
            wait_until("the new limit", || is_noticed() || lab.dataplane.counters().dropped(DropReason::TooLarge) > 0);
            wait_until("the new limit", is_noticed);
            assert!(v4.receive_some().is_empty(), "what was refused is lost");
            source.send(GROUP_V4, &vec![7; 1300 - 28]);
            assert_eq!(v4.receive(2).len(), 2);
        }
    });
}

#[test]
fn control_goes_up_with_the_address_that_it_was_sent_to_and_answers_come_from_there() {
    in_namespace(|| {
        for zero_checksum in [false, true] {
            let mut lab = relay(2, |settings| {
                let mut amt = AmtSettings::new(["0.0.0.0:0", "[::]:0"].map(|text| text.parse().unwrap()).into());
                amt.zero_checksum = zero_checksum;
                settings.amt = Some(amt);
            });
            let ports: Vec<u16> = lab.dataplane.amt_listen().iter().map(SocketAddr::port).collect();
            for (host, ours) in [("127.60.0.10:0", "127.60.0.77"), ("[::1]:0", "2001:db8::7")] {
                let gateway = Gateway::new(host.parse().unwrap());
                let ours: IpAddr = ours.parse().unwrap();
                let local = SocketAddr::new(ours, ports[usize::from(ours.is_ipv6())]);
                for expected in [false, true] {
                    gateway.socket.send_to(b"\x03\0\0\0nonce", local).unwrap();
                    let Event::Amt { local: found, from, datagram, known } = lab.event() else { panic!("a Request") };
                    assert_eq!((found, from, &datagram[..]), (local, gateway.address, &b"\x03\0\0\0nonce"[..]));
                    assert_eq!(known, expected);
                    lab.table.endpoint_up(gateway.address, local, false);
                    lab.dataplane.publish(lab.table.build());
                }
                lab.dataplane.transmit_amt(local, gateway.address, b"\x06\0answer");
                // The sockets of these gateways take nothing without a checksum over IPv6.
                let data = &gateway.receive(1)[0];
                assert_eq!((data.from, &data.packet[..]), (local, &b"answer"[..]));
                if ours.is_ipv4() || !zero_checksum {
                    let source = Source::new(SOURCE_V4);
                    lab.table.filter(gateway.address, GROUP_V4, Some(SourceFilter::exclude([])));
                    lab.publish_amt(&source, GROUP_V4, &[&gateway]);
                    source.send(GROUP_V4, b"data");
                    assert_eq!(gateway.receive(1)[0].from, local);
                }
            }
            let stranger = Gateway::new("127.60.0.99:0".parse().unwrap());
            for nonsense in [&b""[..], b"\x06\0data from a gateway", b"\x03short", b"\x13\0\0\0nonce"] {
                stranger.socket.send_to(nonsense, SocketAddr::from(([127, 60, 0, 77], ports[0]))).unwrap();
            }
            lab.wait_for_drops(DropReason::Malformed, 4);
        }
    });
}

#[test]
fn without_privilege_packets_of_known_ports_are_written_anew() {
    in_namespace(|| {
        let ports = vec![PORT];
        let mut lab = relay(2, amt(|amt| amt.ingress = WholePackets::Rebuilt { ports }));
        for (group, source) in [(GROUP_V4, SOURCE_V4), (group_v6(), source_v6())] {
            let source = Source::new(source);
            // Whoever wants it from the network says so; packet sockets would hear it anyway.
            lab.dataplane.native_filter(group, Some(SourceFilter::exclude([])));
            let gateway = lab.endpoint([127, 60, 0, 10], group, SourceFilter::include([source.address.ip()]));
            lab.publish_amt(&source, group, &[&gateway]);
            source.send_with(group, 0xb9, b"again");
            let data = &gateway.receive(1)[0];
            assert_eq!(payload_of(&data.packet), b"again");
            let packet = ip::Packet::new_checked(&data.packet).unwrap();
            assert_eq!((packet.source(), packet.destination()), (source.address.ip(), group));
            assert_eq!((packet.hop_limit(), packet.traffic_class()), (32, 0xb9));
            assert_eq!(packet.payload()[..2], source.address.port().to_be_bytes());
        }
        assert_eq!(std::fs::read_to_string("/proc/thread-self/net/packet").unwrap().lines().count(), 1);
    });
}

#[test]
fn native_memberships_follow_the_merged_filter_and_the_interfaces() {
    in_namespace(|| {
        let lab = relay(1, |_| {});
        let sources = || SourceFilter::include((1..=12).map(|last| IpAddr::from([10, 0, 0, last])));
        lab.dataplane.native_filter(GROUP_V4, Some(sources()));
        lab.dataplane.native_filter(group_v6(), Some(SourceFilter::include([source_v6()])));
        let held = lab.dataplane.native_memberships();
        assert_eq!(
            held.iter().map(|held| (held.group, &*held.interface)).collect::<Vec<_>>(),
            [(GROUP_V4, "lo"), (group_v6(), "lo")]
        );
        assert_eq!(held[0].filter, sources());
        lab.dataplane.set_interfaces(&[]).unwrap();
        assert!(lab.dataplane.native_memberships().is_empty());
    });
}

#[test]
fn an_interface_that_comes_up_later_is_joined_then() {
    in_namespace(|| {
        let mut lab = relay(2, |_| {});
        let loopback = Interface { name: "lo".into(), index: 1, address: RELAY };
        let later = Interface { name: "near0".into(), index: 4242, address: RELAY };
        // An interface of that number does not exist yet; egress does not mind until something is sent.
        match lab.dataplane.set_interfaces(&[loopback.clone(), later]) {
            Ok(()) => {
                lab.dataplane.native_filter(GROUP_V4, Some(SourceFilter::exclude([])));
                let Event::NativeRefused { group, interface, .. } = lab.event() else { panic!("a refusal") };
                assert_eq!((group, &*interface), (GROUP_V4, "near0"));
                netns::ip("link add near0 index 4242 type veth peer name far0");
                netns::ip("link set near0 up");
                wait_until("the second try", || lab.dataplane.native_memberships().len() == 2);
            }
            Err(error) => {
                // The kernel asks for the interface when the socket is made: nothing to wait for.
                assert!(error.to_string().contains("near0"), "{error}");
                lab.dataplane.set_interfaces(&[loopback]).unwrap();
            }
        }
    });
}

#[test]
fn packets_of_the_link_and_spent_ones_go_to_no_endpoint() {
    in_namespace(|| {
        let mut lab = relay(1, |_| {});
        let source = Source::new(SOURCE_V4);
        let gateway = lab.endpoint([127, 60, 0, 10], GROUP_V4, SourceFilter::exclude([]));
        let local = IpAddr::from([224, 0, 0, 251]);
        lab.table.filter(gateway.address, local, Some(SourceFilter::exclude([])));
        lab.publish_amt(&source, GROUP_V4, &[&gateway]);
        source.send(local, b"of the link");
        Native::source_with_ttl(RELAY, 0).socket.send_to(b"spent", SocketAddr::new(GROUP_V4, PORT)).unwrap();
        Native::source_with_ttl(RELAY, 1).socket.send_to(b"last hop", SocketAddr::new(GROUP_V4, PORT)).unwrap();
        assert_eq!(gateway.payloads(1), [b"last hop"]);
        assert_eq!(lab.dataplane.counters().dropped(DropReason::TimeToLive), 1);
    });
}

#[test]
fn workers_that_have_no_endpoint_hear_nothing() {
    in_namespace(|| {
        let mut lab = relay(2, |_| {});
        let source = Source::new(SOURCE_V4);
        let gateway = lab.endpoint([127, 60, 0, 10], GROUP_V4, SourceFilter::exclude([]));
        let ears = || std::fs::read_to_string("/proc/thread-self/net/packet").unwrap().lines().count() - 1;
        assert_eq!(ears(), 0);
        lab.publish_amt(&source, GROUP_V4, &[&gateway]);
        assert_eq!(ears(), 1);
        lab.table.endpoint_down(gateway.address);
        lab.dataplane.publish(lab.table.build());
        wait_until("silence", || ears() == 0);
        assert_eq!(lab.dataplane.groups(), []);
        let before = lab.dataplane.counters().flows.native_in;
        assert_ne!(before, Traffic::default());
    });
}

#[test]
fn a_taken_address_is_named() {
    in_namespace(|| {
        let lab = relay(1, |_| {});
        let taken = lab.dataplane.amt_listen()[0];
        let settings = castgate_dataplane::Settings {
            amt: Some(AmtSettings::new(vec![taken])),
            ..castgate_dataplane::Settings::new(std::net::SocketAddrV4::new(RELAY, 0), Vec::new())
        };
        let error = castgate_dataplane::Dataplane::start(settings).unwrap_err();
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    });
}

fn icmp(family: rustix::net::AddressFamily, protocol: rustix::net::Protocol) -> std::os::fd::OwnedFd {
    let flags = rustix::net::SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, rustix::net::SocketType::RAW, flags, Some(protocol)).unwrap()
}

fn receive(socket: &std::os::fd::OwnedFd) -> Vec<u8> {
    assert!(wait_readable(socket, Some(PATIENCE)).unwrap(), "no error came");
    let mut octets = vec![0; 2048];
    let (length, _) = rustix::net::recv(socket, &mut octets[..], rustix::net::RecvFlags::empty()).unwrap();
    octets.truncate(length);
    octets
}

/// The kernel's own `ICMPv6`, neighbours and listeners, comes by too.
fn wait_for_packet_too_big(socket: &std::os::fd::OwnedFd) -> Vec<u8> {
    loop {
        let message = receive(socket);
        if message[..2] == [2, 0] {
            return message;
        }
    }
}
