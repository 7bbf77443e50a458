//! Our AMT messages as tshark reads them: not one complaint, and the same value in every field.

use crate::SOON;
use anyhow::{Context, Result, anyhow, ensure};
use castgate_e2e::capture::Capture;
use castgate_e2e::lab::Scenario;
use castgate_e2e::lab::impair::{Udp, frame};
use castgate_e2e::peers::tshark::{Dissection, field, fields};
use castgate_e2e::recorder::Recorder;
use castgate_wire::amt::{Nonce, PORT, QueryFlags, Repr, RequestFlags, ResponseMac};
use castgate_wire::membership::{self, Message, Query, Record, RecordType, emit};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

/// Through our own shuttle, so that checksums are there when tshark looks.
const TOPOLOGY: &str = "
    internet: relay 192.0.2.2/24, gateway 192.0.2.30/24
    link gateway internet: delay=1ms
";

#[test]
fn tshark_reads_every_message_of_ours_without_complaint_and_as_we_do() {
    Scenario::new(TOPOLOGY).needs(&["tshark"]).run(|lab| {
        let (relay, gateway) = (lab.host("relay"), lab.host("gateway"));
        let bind = |host: &castgate_e2e::lab::Host, port: u16| -> Result<UdpSocket> {
            let address = host.address("internet");
            Ok(host.enter(|| UdpSocket::bind((address, port)))??)
        };
        let (from_relay, from_gateway) = (bind(relay, PORT)?, bind(gateway, 40_000)?);
        let at_gateway = Capture::start(gateway, "internet", "udp port 2268", lab.folder())?;
        let at_relay = Capture::start(relay, "internet", "udp port 2268", lab.folder())?;
        let [to_relay, to_gateway] = [from_relay.local_addr()?, from_gateway.local_addr()?];
        let arrived = [&from_relay, &from_gateway].map(|socket| socket.try_clone().map(Recorder::record));
        let [at_relay_socket, at_gateway_socket] = arrived;
        let (at_relay_socket, at_gateway_socket) = (at_relay_socket?, at_gateway_socket?);

        let (up, down) = (upward(), downward(to_gateway));
        // One at a time: a sender that changes its processor in a burst may overtake itself.
        for (count, datagram) in (1..).zip(&up) {
            from_gateway.send_to(datagram, to_relay)?;
            at_relay_socket.wait_count(count, SOON)?;
        }
        for (count, datagram) in (1..).zip(&down) {
            from_relay.send_to(datagram, to_gateway)?;
            at_gateway_socket.wait_count(count, SOON)?;
        }
        // Each where it arrives: there a checksum has been written into it.
        for (capture, to, sent) in [(at_relay, to_relay, &up), (at_gateway, to_gateway, &down)] {
            capture.wait_packets(up.len() + down.len(), SOON)?;
            let dissection = Dissection::read(&capture.finish()?, &format!("amt && ip.dst == {}", to.ip()))?;
            dissection.ensure_clean()?;
            ensure!(dissection.packets().len() == sent.len(), "{} of {}", dissection.packets().len(), sent.len());
            for (layers, datagram) in dissection.packets().iter().zip(sent) {
                let amt = layers.get("amt").context("no AMT in it")?;
                same(amt, datagram).with_context(|| format!("{amt}"))?;
                let Some(packet) = inner(datagram) else { continue };
                same_inside(amt, packet).with_context(|| format!("{amt}"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn tshark_complains_about_a_wrong_checksum_inside_and_about_a_message_that_is_too_short() {
    Scenario::new(TOPOLOGY).needs(&["tshark"]).run(|lab| {
        let [relay, gateway] = ["relay", "gateway"].map(|name| lab.host(name));
        let socket = gateway.enter(|| UdpSocket::bind((gateway.address("internet"), 40_000)))??;
        let to = SocketAddr::from((relay.address("internet"), PORT));
        let _listener = relay.enter(|| UdpSocket::bind(to))??;
        let mut update = upward().remove(3);
        let last = update.len() - 1;
        update[last] ^= 1;
        let request = Repr::Request { nonce: NONCE, flags: RequestFlags::IGMP }.to_vec();
        for wrong in [&update[..], &request[..6]] {
            let capture = Capture::start(relay, "internet", "udp port 2268", lab.folder())?;
            socket.send_to(wrong, to)?;
            capture.wait_packets(1, SOON)?;
            let dissection = Dissection::read(&capture.finish()?, "udp")?;
            ensure!(dissection.ensure_clean().is_err(), "tshark takes it: {:?}", dissection.packets());
        }
        Ok(())
    });
}

const NONCE: Nonce = Nonce(0xcafe_babe);
const MAC: ResponseMac = ResponseMac([1, 2, 3, 4, 5, 6]);

/// What gateways say.
fn upward() -> Vec<Vec<u8>> {
    let mut sent = vec![Repr::Discovery { nonce: NONCE }.to_vec()];
    for flags in [RequestFlags::IGMP, RequestFlags::MLD] {
        sent.push(Repr::Request { nonce: NONCE, flags }.to_vec());
    }
    let addresses = |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|text| text.parse().expect("one")).collect() };
    let record = |kind, group: &str, sources: &[&str]| Record {
        kind,
        group: group.parse().expect("a group"),
        sources: addresses(sources),
    };
    let v4 = vec![
        record(RecordType::AllowNewSources, "232.1.2.3", &["192.0.2.10", "192.0.2.11"]),
        record(RecordType::ChangeToExclude, "239.1.2.3", &[]),
    ];
    let v6 = vec![record(RecordType::ModeIsInclude, "ff3e::1234", &["2001:db8::10"])];
    for (records, from) in [(v4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)), (v6, "fe80::1".parse().expect("an address"))] {
        for packet in emit(&Message::Report(records), from) {
            sent.push(Repr::Update { mac: MAC, nonce: NONCE, packet: &packet }.to_vec());
        }
    }
    for gateway in ["198.51.100.9:40000", "[2001:db8::9]:40001"] {
        let gateway = gateway.parse().expect("an address");
        sent.push(Repr::Teardown { mac: MAC, nonce: NONCE, gateway }.to_vec());
    }
    sent
}

/// What relays say.
fn downward(gateway: SocketAddr) -> Vec<Vec<u8>> {
    let mut sent: Vec<Vec<u8>> = [IpAddr::from([192, 0, 2, 2]), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        .map(|relay| Repr::Advertisement { nonce: NONCE, relay }.to_vec())
        .into();
    for (version, from) in [(3, "0.0.0.0"), (2, "fe80::2")] {
        let query = Query {
            version,
            group: None,
            max_response: Duration::from_millis(100),
            suppress: false,
            robustness: 2,
            interval: Duration::from_secs(125),
            sources: Vec::new(),
        };
        for packet in emit(&Message::Query(query), from.parse().expect("an address")) {
            for (flags, gateway) in [
                (QueryFlags::NONE, None),
                (QueryFlags::LIMIT, None),
                (QueryFlags::GATEWAY_ADDRESS, Some(gateway)),
                (QueryFlags::GATEWAY_ADDRESS.with(QueryFlags::LIMIT), "[2001:db8::9]:40001".parse().ok()),
            ] {
                sent.push(Repr::Query { mac: MAC, nonce: NONCE, flags, gateway, packet: &packet }.to_vec());
            }
        }
    }
    sent.push(Repr::Data { packet: &data() }.to_vec());
    sent
}

/// A packet of a channel, whole.
fn data() -> Vec<u8> {
    const ETHERNET_LEN: usize = 14;
    let from = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 5_004);
    let to = SocketAddrV4::new(Ipv4Addr::new(232, 1, 2, 3), 5_004);
    frame::build([0; 6], [0; 6], &Udp { from, to, ttl: 16, payload: b"data" })[ETHERNET_LEN..].to_vec()
}

/// The packet inside.
fn inner(datagram: &[u8]) -> Option<&[u8]> {
    match Repr::parse(datagram).ok()? {
        Repr::Query { packet, .. } | Repr::Update { packet, .. } | Repr::Data { packet } => Some(packet),
        _ => None,
    }
}

/// Compares what tshark read of the packet inside with what we read.
fn same_inside(amt: &Value, packet: &[u8]) -> Result<()> {
    let is_v4 = packet[0] >> 4 == 4;
    let ip = amt.get(if is_v4 { "ip" } else { "ipv6" }).context("no packet inside")?;
    let Ok(received) = membership::parse(packet) else {
        return if amt.get("udp").is_some() { Ok(()) } else { Err(anyhow!("no channel's packet inside")) };
    };
    let [source, destination] = if is_v4 { ["ip.src", "ip.dst"] } else { ["ipv6.src", "ipv6.dst"] };
    ensure!(field(ip, source) == Some(received.source.to_string().as_str()), "{ip}");
    ensure!(field(ip, destination) == Some(received.destination.to_string().as_str()), "{ip}");
    let message = amt.get(if is_v4 { "igmp" } else { "icmpv6" }).context("no membership inside")?;
    let names = if is_v4 {
        ["igmp.maddr", "igmp.saddr", "igmp.record_type", "igmp.qrv", "igmp.qqic"]
    } else {
        [
            "icmpv6.mldr.mar.multicast_address",
            "icmpv6.mldr.mar.source_address",
            "icmpv6.mldr.mar.record_type",
            "icmpv6.mld.flag.qrv",
            "icmpv6.mld.qqi",
        ]
    };
    let [groups, sources, kinds, robustness, interval] = names.map(|name| fields(message, name));
    match received.message {
        Message::Report(records) => {
            let text = |addresses: &mut dyn Iterator<Item = IpAddr>| -> Vec<String> {
                addresses.map(|address| address.to_string()).collect()
            };
            let wanted_kinds: Vec<String> = records.iter().map(|record| record.kind.code().to_string()).collect();
            ensure!(groups == text(&mut records.iter().map(|record| record.group)), "{groups:?}");
            ensure!(sources == text(&mut records.iter().flat_map(|record| record.sources.clone())), "{sources:?}");
            ensure!(kinds == wanted_kinds, "{kinds:?}");
        }
        Message::Query(query) => {
            ensure!(robustness == [query.robustness.to_string()], "{robustness:?}");
            ensure!(interval == [query.interval.as_secs().to_string()], "{interval:?}");
        }
        Message::OldReport { .. } | Message::OldLeave { .. } => {}
    }
    Ok(())
}

/// Compares what tshark read with what we read, field by field.
fn same(amt: &Value, datagram: &[u8]) -> Result<()> {
    let ours = Repr::parse(datagram)?;
    let is = |name: &str, wanted: &str| -> Result<()> {
        let found = field(amt, name);
        ensure!(found == Some(wanted), "{name} is {found:?} to tshark and {wanted} to us");
        Ok(())
    };
    let bit = |name: &str, wanted: bool| -> Result<()> {
        let found = field(amt, name);
        let set = found.is_some_and(|text| !matches!(text, "0" | "0x00" | "false"));
        ensure!(found.is_some() && set == wanted, "{name} is {found:?} to tshark and {wanted} to us");
        Ok(())
    };
    let nonce = |name: &str, nonce: Nonce| is(name, &format!("0x{nonce}"));
    let mac = |mac: ResponseMac| is("amt.response_mac", &format!("0x{:0>16}", mac.to_string()));
    let gateway = |address: SocketAddr| -> Result<()> {
        // IPv4 is written as a compatible address, which tshark shows as what it stands for.
        let text = match address.ip() {
            IpAddr::V4(ip) => format!("::{ip}"),
            IpAddr::V6(ip) => ip.to_string(),
        };
        is("amt.gateway.port_number", &address.port().to_string())?;
        is("amt.gateway.ip_address", &text)
    };
    is("amt.version", "0")?;
    is("amt.type", &ours.message_type().code().to_string())?;
    match ours {
        Repr::Discovery { nonce: ours } => nonce("amt.discovery_nonce", ours),
        Repr::Advertisement { nonce: ours, relay } => {
            nonce("amt.discovery_nonce", ours)?;
            let name = if relay.is_ipv4() { "amt.relay_address.ipv4" } else { "amt.relay_address.ipv6" };
            is(name, &relay.to_string())
        }
        Repr::Request { nonce: ours, flags } => {
            nonce("amt.request_nonce", ours)?;
            bit("amt.request.p", flags.mld())
        }
        Repr::Query { mac: response, nonce: ours, flags, gateway: address, .. } => {
            mac(response)?;
            nonce("amt.request_nonce", ours)?;
            bit("amt.membership_query.l", flags.limit())?;
            bit("amt.membership_query.g", flags.gateway_address())?;
            address.map_or(Ok(()), gateway)
        }
        Repr::Update { mac: response, nonce: ours, .. } => {
            mac(response)?;
            nonce("amt.request_nonce", ours)
        }
        Repr::Data { .. } => Ok(()),
        Repr::Teardown { mac: response, nonce: ours, gateway: address } => {
            mac(response)?;
            nonce("amt.request_nonce", ours)?;
            gateway(address)
        }
    }
}
