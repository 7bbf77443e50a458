//! Strangers at our relay, while a gateway watches: nothing of what they do costs it a packet, and nothing is sent to who has not
//! proven his address but an answer to his own question.

use crate::SOON;
use crate::gateway::Gateway;
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::{ServerConfig, start_server};
use castgate_e2e::forger::{Forger, forged_address};
use castgate_e2e::lab::impair::Way;
use castgate_e2e::lab::random::Random;
use castgate_e2e::lab::{Host, Scenario, wait};
use castgate_e2e::peers::native::Source;
use castgate_e2e::receive::Receive;
use castgate_wire::amt::{MessageType, Nonce, PORT, Repr, RequestFlags, ResponseMac};
use castgate_wire::membership::{Family, RecordType};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

const TOPOLOGY: &str = "
    studio:   source 10.1.0.10/24, server 10.1.0.2/24
    internet: server 192.0.2.2/24, home 192.0.2.30/24, stranger 192.0.2.66/24
    link stranger internet: delay=1ms
";
const CHANNEL_PORT: u16 = 5_004;
const PAUSE: Duration = Duration::from_millis(10);
const NEWS: &str = "232.1.2.3";
/// Permitted, and wanted by strangers alone.
const OTHER: &str = "239.1.2.4";
const SOURCE: &str = "10.1.0.10";
const FLOOD: usize = 20_000;
/// More than the relay keeps of one group.
const SOURCES: u32 = 100_000;

fn socket(host: &Host) -> Result<UdpSocket> {
    Ok(host.enter(|| UdpSocket::bind((host.address("internet"), 0)))??)
}

#[test]
fn strangers_get_no_channel_no_state_and_no_more_octets_than_they_send() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let (server, stranger) = (lab.host("server"), lab.host("stranger"));
        let address = server.address("internet");
        let config = ServerConfig::new(address, &["studio"])
            .permit(&format!("group: {NEWS}, source: {SOURCE}, ports: {CHANNEL_PORT}"))
            .permit(&format!("group: {OTHER}, ports: {CHANNEL_PORT}"))
            .line(&format!("amt: {{ listen: [\"{address}:{PORT}\"] }}"));
        let mut agent = start_server(lab, server, &config)?;
        server.wait_udp(PORT, SOON)?;
        let (source, news): (IpAddr, Ipv4Addr) = (SOURCE.parse()?, NEWS.parse()?);
        let other: Ipv4Addr = OTHER.parse()?;
        let _source = Source::start(lab.host("source"), "studio", source, (news, CHANNEL_PORT).into(), PAUSE)?;
        let name = format!("ham:ip:{NEWS}@{SOURCE}:{CHANNEL_PORT}");
        let mut viewer = Receive::start(lab.host("home"), &name, &["--via", "amt", "--relay", &address.to_string()])?;
        viewer.wait_packets(50, SOON)?;
        let before = agent.process().resident_octets()?;

        // A Response MAC that was given to another port, or that nobody was given.
        let honest = Gateway::open(stranger, "internet", address, Family::V4)?;
        let thief = socket(stranger)?;
        honest.report_from(&thief, RecordType::ChangeToExclude, other.into(), &[])?;
        let relay = SocketAddr::from((address, PORT));
        let mut random = Random::new(7);
        for _ in 0..1_000 {
            let mac = ResponseMac(random.bits().to_ne_bytes()[..6].try_into()?);
            let nonce = Nonce(u32::try_from(random.bits() >> 32)?);
            thief.send_to(&Repr::Update { mac, nonce, packet: &[0x46; 40] }.to_vec(), relay)?;
        }
        // Requests from many ports, as fast as they go; then every message, cut off at each octet.
        let link = lab.link("stranger", "internet");
        let asking: Vec<UdpSocket> = (0..50).map(|_| socket(stranger)).collect::<Result<_>>()?;
        let mut sent = 0;
        for number in 0..FLOOD {
            let nonce = Nonce(u32::try_from(number)?);
            let request = Repr::Request { nonce, flags: RequestFlags::IGMP }.to_vec();
            sent += asking[number % asking.len()].send_to(&request, relay)?;
        }
        for kind in 0..=8_u8 {
            for length in 0..64 {
                let mut octets = vec![0; length];
                for octet in &mut octets {
                    *octet = random.bits().to_ne_bytes()[0];
                }
                if let Some(first) = octets.first_mut() {
                    *first = kind;
                }
                thief.send_to(&octets, relay)?;
            }
        }
        // He who has proven himself claims a hundred thousand sources of a channel that he may have.
        let claimed: Vec<IpAddr> = (0..SOURCES).map(|number| Ipv4Addr::from(0x0a10_0000 + number).into()).collect();
        for part in claimed.chunks(300) {
            honest.report(RecordType::AllowNewSources, other.into(), part)?;
        }
        wait::until("the claim", SOON, || server.is_member(other).then_some(()))?;

        // The viewer saw nothing of it.
        let packets = viewer.latest().context("it has reported")?.packets();
        viewer.wait_packets(packets + 200, SOON)?;
        let total = viewer.finish()?;
        ensure!(total.number("longest_gap_ms") < 1_000, "{}", total.value());
        let data = link.pick(|passage| {
            let datagram = passage.udp().filter(|_| passage.way == Way::Down)?;
            (MessageType::of(datagram.payload) == Ok(MessageType::Data)).then_some(())
        });
        ensure!(data.is_empty(), "{} packets went to strangers", data.len());
        // A Query is longer than a Request; the limit for an address that has proven nothing keeps the sum below.
        let answered: usize = link
            .pick(|passage| Some(passage.udp().filter(|_| passage.way == Way::Down)?.payload.len()))
            .into_iter()
            .sum();
        ensure!(answered <= sent, "{answered} octets for {sent}");
        let grown = agent.process().resident_octets()?.saturating_sub(before);
        ensure!(grown < 64 << 20, "it has grown by {grown} octets");
        Ok(())
    });
}

#[test]
fn requests_from_random_addresses_make_no_state_and_get_one_answer_each_at_most() {
    const RATE: u64 = 20_000;
    const SPAN: Duration = Duration::from_secs(3);
    Scenario::new(TOPOLOGY).alone().run(|lab| {
        let server = lab.host("server");
        let address = server.address("internet");
        let config = ServerConfig::new(address, &["studio"])
            .permit(&format!("group: {NEWS}, source: {SOURCE}, ports: {CHANNEL_PORT}"))
            .line(&format!("amt: {{ listen: [\"{address}:{PORT}\"] }}"));
        let mut agent = start_server(lab, server, &config)?;
        server.wait_udp(PORT, SOON)?;
        let forger = Forger::start(lab, "internet", Ipv4Addr::new(192, 0, 2, 99), server)?;
        let mut random = Random::new(42);
        let mut flood = |span| {
            forger.flood(SocketAddrV4::new(address, PORT), RATE, span, |number| {
                let nonce = Nonce(u32::try_from(number & 0xffff_ffff).expect("32 bits"));
                (forged_address(&mut random), Repr::Request { nonce, flags: RequestFlags::IGMP }.to_vec())
            })
        };
        // The first second fills every table that has a bound; from then on memory stands still.
        let first = flood(Duration::from_secs(1))?;
        let before = agent.process().resident_octets()?;
        let rest = flood(SPAN)?;
        let grown = agent.process().resident_octets()?.saturating_sub(before);
        ensure!(grown < 2 << 20, "memory grew by {grown} octets");
        let answers = forger.answers();
        ensure!(answers.datagrams <= first.sent + rest.sent, "{answers:?} for {} Requests", first.sent + rest.sent);
        ensure!(answers.datagrams > 0, "nobody at all is answered");

        // And then somebody who means it.
        let (source, news): (IpAddr, Ipv4Addr) = (SOURCE.parse()?, NEWS.parse()?);
        let _source = Source::start(lab.host("source"), "studio", source, (news, CHANNEL_PORT).into(), PAUSE)?;
        let name = format!("ham:ip:{NEWS}@{SOURCE}:{CHANNEL_PORT}");
        let mut viewer = Receive::start(lab.host("home"), &name, &["--via", "amt", "--relay", &address.to_string()])?;
        viewer.wait_packets(50, SOON)?;
        viewer.finish()?;
        Ok(())
    });
}
