//! Linux with Linux: the driver's gateway at the driver's relay.

use crate::{LATE, SOON, passed};
use anyhow::{Result, ensure};
use castgate_e2e::lab::impair::{Link, Way};
use castgate_e2e::lab::{Scenario, wait};
use castgate_e2e::peers::kernel_amt::{KernelAmt, Sides};
use castgate_e2e::peers::native::{self, Member, Source};
use castgate_e2e::peers::require_machine;
use castgate_wire::amt::{MessageType, Repr};
use castgate_wire::membership::{self, Message, Record, RecordType};
use std::net::IpAddr;
use std::time::Duration;

const TOPOLOGY: &str = "
    studio:   source 10.1.0.10/24, relay 10.1.0.2/24
    internet: relay 192.0.2.2/24, gateway 192.0.2.30/24
    sofa:     gateway 10.2.0.1/24, player 10.2.0.11/24
    link gateway internet: delay=1ms
";
const PORT: u16 = 5_004;
/// Fifty datagrams a second.
const PAUSE: Duration = Duration::from_millis(20);

#[test]
fn the_kernels_gateway_brings_any_source_and_source_specific_channels_from_the_kernels_relay() {
    if !require_machine() {
        return;
    }
    Scenario::new(TOPOLOGY).run(|lab| {
        let [source, player] = ["source", "player"].map(|name| lab.host(name));
        native::add_ipv6(source, "studio", "fd00:1::10".parse()?)?;
        native::add_ipv6(player, "sofa", "fd00:2::11".parse()?)?;
        let relay_address = lab.host("relay").address("internet");
        let relay = KernelAmt::relay(lab.host("relay"), Sides { tunnel: "internet", native: "studio" })?;
        let sides = Sides { tunnel: "internet", native: "sofa" };
        let gateway = KernelAmt::gateway(lab.host("gateway"), sides, relay_address)?;
        let (relay, gateway) = (relay.ready()?, gateway.ready()?);
        gateway.wait_relay(relay_address, SOON)?;

        let channels: [(&str, &str, Option<&str>); 3] = [
            ("239.1.2.3", "10.1.0.10", None),
            ("232.1.2.3", "10.1.0.10", Some("10.1.0.10")),
            ("ff3e::4321:1234", "fd00:1::10", Some("fd00:1::10")),
        ];
        let mut members = Vec::new();
        let mut sources = Vec::new();
        for (group, from, wanted) in channels {
            let (group, from): (IpAddr, IpAddr) = (group.parse()?, from.parse()?);
            sources.push(Source::start(source, "studio", from, (group, PORT).into(), PAUSE)?);
            let wanted = wanted.map(str::parse).transpose()?;
            members.push((Member::join(player, "sofa", group, wanted, PORT)?, from));
        }
        for (member, from) in &members {
            member.wait_more(20, LATE)?;
            ensure!(member.heard().iter().all(|(sender, _)| sender.ip() == *from), "from {:?}", member.heard()[0].0);
        }
        let link = lab.link("gateway", "internet");
        for (way, kind) in [
            (Way::Up, MessageType::Discovery),
            (Way::Down, MessageType::Advertisement),
            (Way::Up, MessageType::Request),
            (Way::Down, MessageType::Query),
            (Way::Up, MessageType::Update),
            (Way::Down, MessageType::Data),
        ] {
            ensure!(passed(link, way, kind).0 > 0, "no {} passed: {}", kind.label(), relay.dump()?);
        }
        // What members say when they leave goes through the tunnel too. The driver's relay takes its time over it: it still
        // sends minutes later, so silence is not awaited here.
        drop(members);
        for (group, ..) in channels {
            let group: IpAddr = group.parse()?;
            wait::until(&format!("the leave of {group}"), SOON, || left(link, group).then_some(()))?;
        }
        Ok(())
    });
}

/// Whether a Membership Update took a group back.
fn left(link: &Link, group: IpAddr) -> bool {
    let updates = link.pick(|passage| {
        let Ok(Repr::Update { packet, .. }) = Repr::parse(passage.udp()?.payload) else { return None };
        let Message::Report(records) = membership::parse(packet).ok()?.message else { return None };
        records.iter().any(|record| record.group == group && takes_back(record)).then_some(())
    });
    !updates.is_empty()
}

fn takes_back(record: &Record) -> bool {
    match record.kind {
        RecordType::ChangeToInclude => record.sources.is_empty(),
        kind => kind == RecordType::BlockOldSources,
    }
}

#[test]
fn a_machine_that_is_killed_leaves_its_place() {
    if !require_machine() {
        return;
    }
    Scenario::new(TOPOLOGY).run(|lab| {
        let relay = KernelAmt::relay(lab.host("relay"), Sides { tunnel: "internet", native: "studio" })?.ready()?;
        ensure!(relay.dump()?.contains("amt relay"), "{}", relay.dump()?);
        ensure!(relay.shell("false").is_err() && relay.shell("echo -n here")? == "here");
        let pids = || -> Result<String> {
            let mut ip = std::process::Command::new("ip");
            let output = ip.args(["netns", "pids", relay.host().namespace().name()]).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        ensure!(!pids()?.is_empty(), "it does not run in its host's namespace");
        relay.kill()?;
        ensure!(relay.shell("true").is_err());
        wait::until("its end", SOON, || pids().ok()?.is_empty().then_some(()))
    });
}
