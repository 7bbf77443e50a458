//! Memberships by the thousand: what the relay takes from its network is what a naive model says, however fast gateways change
//! their minds.

use crate::SOON;
use crate::gateway::Gateway;
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::{Agent, ServerConfig, start_server};
use castgate_e2e::lab::random::Random;
use castgate_e2e::lab::{Host, Lab, Scenario, wait};
use castgate_e2e::peers::native::Member;
use castgate_wire::amt::PORT;
use castgate_wire::membership::{Family, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const TOPOLOGY: &str = "
    studio:   server 10.1.0.2/24
    internet: server 192.0.2.2/24, homes 192.0.2.30/24
";
/// A group of the test's own.
const LAST: Ipv4Addr = Ipv4Addr::new(232, 255, 255, 255);
/// Groups that change all the time.
const BUSY: u32 = 100;
/// Groups that hosts of version 2 have, and one of version 3 that names sources.
const OLD: u32 = 20;
/// Groups that one gateway has joined: as many as it may, so it takes no part in what changes all the time.
const MANY: u32 = 1000;
/// Sources of one group of one gateway.
const SOURCES: u32 = 128;
const GATEWAYS: usize = 50;
const CHANGES: usize = 20_000;
/// Ten thousand a second.
const PAUSE: Duration = Duration::from_micros(100);

fn busy(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(239, 5, 0, 0)) + number)
}

fn old(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(239, 6, 0, 0)) + number)
}

fn many(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(239, 7, 0, 0)) + number)
}

fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 9, 0, 1)) + number)
}

/// Whether it is the sources that are left out, and the sources.
type Filter = (bool, BTreeSet<Ipv4Addr>);

/// RFC 3376 §3.2, as simply as it can be said.
fn merged<'a>(filters: impl Iterator<Item = &'a Filter>) -> Option<Filter> {
    let (mut included, mut excluded): (BTreeSet<Ipv4Addr>, Option<BTreeSet<Ipv4Addr>>) = (BTreeSet::new(), None);
    for (is_exclude, sources) in filters {
        if *is_exclude {
            let common = excluded.map_or_else(|| sources.clone(), |before| &before & sources);
            excluded = Some(common);
        } else {
            included.extend(sources);
        }
    }
    match excluded {
        Some(excluded) => Some((true, &excluded - &included)),
        None => (!included.is_empty()).then_some((false, included)),
    }
}

fn start_relay(lab: &Lab) -> Result<Agent<'_>> {
    let host = lab.host("server");
    let address = host.address("internet");
    let mut config =
        ServerConfig::new(address, &["studio"]).line(&format!("amt: {{ listen: [\"{address}:{PORT}\"] }}"));
    for group in (0..BUSY).map(busy).chain((0..MANY).map(many)).chain((0..OLD).map(old)) {
        config = config.permit(&format!("group: {group}, ports: 5004"));
    }
    let agent = start_server(lab, host, &config)?;
    host.wait_udp(PORT, SOON)?;
    Ok(agent)
}

/// What the kernel of a host takes in on its network, by group. Of an INCLUDE list the kernel keeps the sources, of an EXCLUDE list
/// those that everybody leaves out.
fn kernel(host: &Host) -> Result<BTreeMap<Ipv4Addr, Filter>> {
    // Linux lists the sources of an interface only when the group that was joined last has some.
    let _last = Member::join(host, "studio", LAST.into(), Some(source(0).into()), 1)?;
    let read = |file: &str| -> Result<String> {
        // Of this very thread: a process's own table is that of its first.
        let path = format!("/proc/thread-self/net/{file}");
        host.enter(|| std::fs::read_to_string(&path))?.with_context(|| path.clone())
    };
    let mut groups: BTreeMap<Ipv4Addr, Filter> = BTreeMap::new();
    // Groups of one line each, as hexadecimal digits in this machine's order, below the name of their interface.
    for line in read("igmp")?.lines().filter(|line| line.starts_with('\t')) {
        let digits = line.split_whitespace().next().unwrap_or_default();
        if let Ok(group) = u32::from_str_radix(digits, 16) {
            groups.insert(Ipv4Addr::from(group.to_ne_bytes()), (true, BTreeSet::new()));
        }
    }
    for line in read("mcfilter")?.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, group, source, including, excluding] = words[..] else { continue };
        let address = |word: &str| -> Result<Ipv4Addr> {
            Ok(Ipv4Addr::from(u32::from_str_radix(word.trim_start_matches("0x"), 16)?))
        };
        let entry = groups.entry(address(group)?).or_default();
        if including != "0" {
            entry.0 = false;
        }
        if including != "0" || excluding != "0" {
            entry.1.insert(address(source)?);
        }
    }
    groups.retain(|group, _| group.octets()[0] > 224 && *group != LAST);
    Ok(groups)
}

#[test]
fn ten_thousand_changes_a_second_leave_what_a_naive_model_says() {
    Scenario::new(TOPOLOGY).alone().run(|lab| {
        let (server, homes) = (lab.host("server"), lab.host("homes"));
        let _server = start_relay(lab)?;
        let relay = server.address("internet");
        let gateways: Vec<Gateway> =
            (0..GATEWAYS).map(|_| Gateway::open(homes, "internet", relay, Family::V4)).collect::<Result<_>>()?;
        let mut model: BTreeMap<(usize, Ipv4Addr), Filter> = BTreeMap::new();

        // One gateway with a thousand groups, one of them with 128 sources.
        for number in 0..MANY {
            let sources: BTreeSet<_> = (0..if number == 0 { SOURCES } else { 1 }).map(source).collect();
            let named: Vec<IpAddr> = sources.iter().copied().map(IpAddr::V4).collect();
            gateways[0].report(RecordType::AllowNewSources, many(number).into(), &named)?;
            model.insert((0, many(number)), (false, sources));
            if number % 20 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // Hosts of version 2 want whole groups, and every other one changes its mind; beside them one of version 3 names a source.
        for number in 0..OLD {
            let sources = BTreeSet::from([source(number)]);
            gateways[2].report(RecordType::AllowNewSources, old(number).into(), &[source(number).into()])?;
            model.insert((2, old(number)), (false, sources));
            gateways[1].report_v2(old(number), true)?;
            if number % 2 == 0 {
                gateways[1].report_v2(old(number), false)?;
            } else {
                model.insert((1, old(number)), (true, BTreeSet::new()));
            }
        }
        let mut random = Random::new(0x05ca_1ab1e);
        let start = Instant::now();
        for change in 0..CHANGES {
            let gateway = 1 + usize::try_from(random.bits() % (GATEWAYS as u64 - 1))?;
            let group = busy(u32::try_from(random.bits() % u64::from(BUSY))?);
            let sources: BTreeSet<_> = (0..random.bits() % 4).map(|_| source((random.bits() % 10) as u32)).collect();
            let is_exclude = random.chance(0.5);
            let kind = if is_exclude { RecordType::ChangeToExclude } else { RecordType::ChangeToInclude };
            let named: Vec<IpAddr> = sources.iter().copied().map(IpAddr::V4).collect();
            gateways[gateway].report(kind, group.into(), &named)?;
            model.insert((gateway, group), (is_exclude, sources));
            let due = start + PAUSE * u32::try_from(change)?;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let took = start.elapsed();
        ensure!(took < PAUSE * u32::try_from(CHANGES)? * 2, "{CHANGES} changes took {took:?}");

        // RFC 3376 §5.1: a host says each change again, since reports get lost; ours says once more what it came to.
        for (number, ((gateway, group), (is_exclude, sources))) in model.iter().enumerate() {
            if *gateway == 1 && group.octets()[1] == 6 {
                gateways[1].report_v2(*group, true)?;
                continue;
            }
            let kind = if *is_exclude { RecordType::ChangeToExclude } else { RecordType::ChangeToInclude };
            let named: Vec<IpAddr> = sources.iter().copied().map(IpAddr::V4).collect();
            gateways[*gateway].report(kind, (*group).into(), &named)?;
            if number % 10 == 0 {
                std::thread::sleep(PAUSE * 20);
            }
        }

        let groups = (0..BUSY).map(busy).chain((0..MANY).map(many)).chain((0..OLD).map(old));
        let of_group =
            |group: Ipv4Addr| model.iter().filter(move |((_, of), _)| *of == group).map(|(_, filter)| filter);
        let expected: BTreeMap<_, _> = groups.filter_map(|group| Some((group, merged(of_group(group))?))).collect();
        ensure!(expected.len() >= MANY as usize, "{} groups are expected", expected.len());
        let looked = wait::until("the kernel's memberships as the model says", SOON, || {
            (kernel(server).ok()? == expected).then_some(())
        });
        looked.with_context(|| {
            let found = kernel(server).unwrap_or_default();
            let wrong: Vec<_> = expected
                .iter()
                .filter(|(group, filter)| found.get(group) != Some(filter))
                .map(|(group, filter)| format!("{group}: {filter:?}, kernel {:?}", found.get(group)))
                .take(5)
                .collect();
            format!("{} groups expected, {} found; wrong: {wrong:#?}", expected.len(), found.len())
        })
    });
}
