//! FRR alone: a router between a source's LAN and a member's.

use crate::{LATE, SOON};
use anyhow::ensure;
use castgate_e2e::lab::{Scenario, wait};
use castgate_e2e::peers::frr::{Frr, Querier};
use castgate_e2e::peers::native::{Member, Source};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const TOPOLOGY: &str = "
    studio: source 10.1.0.10/24, core 10.1.0.1/24
    edge:   core 10.3.0.1/24, member 10.3.0.20/24
    router core: studio
";

#[test]
fn a_join_builds_the_path_of_a_channel_and_the_last_leave_takes_it_down() {
    Scenario::new(TOPOLOGY).needs(&["vtysh"]).run(|lab| {
        let router = Frr::start(lab.host("core"), &["studio", "edge"], Querier::default())?;
        let (source, group) = (Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(232, 1, 2, 3));
        let pause = Duration::from_millis(20);
        let _source = Source::start(lab.host("source"), "studio", source.into(), (group, 5_004).into(), pause)?;
        ensure!(router.path(source, group)?.is_none(), "{:?}", router.show("show ip mroute json")?);

        let join = || Member::join(lab.host("member"), "edge", group.into(), Some(IpAddr::V4(source)), 5_004);
        let first = join()?;
        router.wait_path((source, group), "studio", "edge", SOON)?;
        first.wait_more(20, SOON)?;
        ensure!(router.sources("edge", group)? == [source], "{:?}", router.show("show ip igmp sources json")?);
        ensure!(router.has_group("edge", group)? && !router.has_group("studio", group)?);
        // Another member of the host changes nothing, neither when it comes nor when it goes.
        let second = join()?;
        drop(first);
        second.wait_more(20, SOON)?;
        router.wait_path((source, group), "studio", "edge", SOON)?;

        drop(second);
        router.wait_no_path(source, group, LATE)?;
        wait::until("no member in the table", LATE, || router.sources("edge", group).ok()?.is_empty().then_some(()))
    });
}
