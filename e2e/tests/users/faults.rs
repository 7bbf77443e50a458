//! Servers and clients that die: everybody else goes on.

use crate::{FIVE_SECONDS, PATTERN, PATTERN_RULE, SOON, channel};
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::{
    DATABASE_PORT, Fleet, HOME, ServerConfig, TUNNEL_PORT, fleet_country, fleet_root, on_air, start_server,
};
use castgate_e2e::lab::impair::{Link, Way};
use castgate_e2e::lab::{Process, Scenario, wait};
use castgate_e2e::receive::{Receive, Report};
use castgate_e2e::registry;
use castgate_wire::umtp::{Command, Trailer};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

fn pattern_server() -> ServerConfig {
    ServerConfig::home().permit(PATTERN_RULE)
}

#[test]
fn clients_of_a_server_that_was_killed_are_back_within_five_seconds_of_its_restart() {
    let topology = format!("{HOME}\nlink home internet: delay=1ms\nlink country internet: delay=1ms\n");
    Scenario::new(&topology).run(|lab| {
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let mut server = start_server(lab, lab.host("server"), &pattern_server())?;
        let outside = format!("192.0.2.2:{TUNNEL_PORT}");
        let words = ["--via", "umtp", "--server", &outside];
        // Two behind the NAT, one that is not.
        let hosts = ["client", "second", "country"];
        let mut receives = hosts
            .map(|host| Receive::start(lab.host(host), PATTERN, &words))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        for receive in &mut receives {
            receive.wait_packets(50, SOON)?;
        }
        server.kill()?;
        // Long enough that every client has noticed and tried in vain.
        let before = quiet_counts(&mut receives)?;
        server.restart()?;
        let restarted = Instant::now();
        for (receive, before) in receives.iter_mut().zip(before) {
            receive.wait_packets(before + 20, FIVE_SECONDS + SOON)?;
        }
        // Reports come once a second; the links know when the first packet came to each of the three.
        for (host, clients) in [("home", 2), ("country", 1)] {
            let back = first_data_after(lab.link(host, "internet"), Ipv4Addr::new(192, 0, 2, 2), restarted);
            ensure!(back.len() == clients, "{} of {clients} clients at {host} are back", back.len());
            for (client, at) in back {
                let took = at.duration_since(restarted);
                ensure!(took <= FIVE_SECONDS, "{client} was back only after {took:?}");
            }
        }
        for receive in receives {
            receive.finish()?;
        }
        Ok(())
    });
}

/// When each client behind a link got its first DATA of a server after a moment.
fn first_data_after(link: &Link, server: Ipv4Addr, moment: Instant) -> BTreeMap<SocketAddrV4, Instant> {
    let mut first = BTreeMap::new();
    let arrivals = link.pick(|passage| {
        let datagram = (passage.way == Way::Down && passage.at > moment).then(|| passage.udp()).flatten()?;
        let (_, trailer) = Trailer::parse(datagram.payload).ok()?;
        let is_it = trailer.command == Command::Data && datagram.from.ip() == &server;
        is_it.then_some((datagram.to, passage.at))
    });
    for (client, at) in arrivals {
        first.entry(client).or_insert(at);
    }
    first
}

/// Waits until no client has received anything for four seconds, and gives their counts.
fn quiet_counts(receives: &mut [Receive]) -> Result<Vec<u64>> {
    let counts = |receives: &[Receive]| -> Vec<u64> {
        receives.iter().map(|receive| receive.latest().map_or(0, |report| report.packets())).collect()
    };
    let mut last = (counts(receives), Instant::now());
    wait::until("clients without a server", SOON * 2, || {
        let now = counts(receives);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() >= Duration::from_secs(4)).then(|| last.0.clone())
    })
}

/// Two servers below one database; one client behind a link that remembers.
const TWO_SERVERS: &str = "
    studio:   source 10.1.0.10/24, server 10.1.0.2/24, spare 10.1.0.3/24
    internet: server 192.0.2.2/24, spare 192.0.2.3/24, root 192.0.2.10/24, country 192.0.2.11/24, home 192.0.2.20/24
    sofa:     home 10.2.0.1/24, client 10.2.0.11/24
    nat home: internet
    link home internet: delay=1ms
";

#[test]
fn a_client_whose_server_dies_gets_its_packets_from_the_other_within_five_seconds() {
    two_servers(FIVE_SECONDS, Process::kill);
}

/// A server that is stopped says so: nobody waits for a silence.
#[test]
fn a_client_whose_server_is_stopped_goes_on_with_the_other_at_once() {
    two_servers(Duration::from_secs(1), |victim| {
        let status = victim.interrupt(SOON)?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    });
}

fn two_servers(longest: Duration, end: impl FnOnce(&mut Process) -> Result<()>) {
    Scenario::new(TWO_SERVERS).run(|lab| {
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let fleet = Fleet::start(lab, &pattern_server())?;
        let spare =
            ServerConfig::new(lab.host("spare").address("internet"), &["studio"]).permit(PATTERN_RULE).registered(300);
        let spare = start_server(lab, lab.host("spare"), &spare)?;
        registry::wait_listed(lab.host("home"), fleet_country(lab), "TS", "BE", "192.0.2.3", SOON)?;

        let root = fleet_root(lab).to_string();
        let mut receive =
            Receive::start(lab.host("client"), PATTERN, &["--via", "umtp", "--tds", &root, "--country", "BE"])?;
        let first = receive.wait_packets(50, SOON)?;
        let (mut victim, other) =
            if first.server().starts_with("192.0.2.2:") { (fleet.server, "192.0.2.3") } else { (spare, "192.0.2.2") };
        let ended = Instant::now();
        end(victim.process())?;
        let back = receive.wait_report("packets of the other server", SOON, |report| {
            report.server().starts_with(other) && report.packets() > first.packets()
        })?;
        let at = first_data_after(lab.link("home", "internet"), other.parse()?, ended);
        let took = at.values().next().context("no DATA after the end of the first")?.duration_since(ended);
        ensure!(took <= longest, "only after {took:?}");
        ensure!(back.number("handovers") == 1, "{:?}", back.value());
        Ok(())
    });
}

#[test]
fn what_a_killed_client_had_joined_is_let_go_and_others_see_nothing() {
    const OTHER: &str = "ham:ip:232.9.9.8@10.1.0.10:5004";
    let topology = format!("{HOME}\nlink country internet: delay=1ms\n");
    Scenario::new(&topology).run(|lab| {
        // Above the 15 s in which living clients repeat their JOINs, below a test's patience.
        let config = pattern_server()
            .permit("group: 232.9.9.8, source: 10.1.0.10, ports: 5004")
            .line("timers: { joinTimeoutMs: 18000, idleTimeoutMs: 20000 }");
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN), channel(OTHER)])?;
        let mut server = start_server(lab, lab.host("server"), &config)?;
        let outside = format!("192.0.2.2:{TUNNEL_PORT}");
        let words = ["--via", "umtp", "--server", &outside];
        let mut living = Receive::start(lab.host("second"), PATTERN, &words)?;
        let mut dying = Receive::start(lab.host("country"), OTHER, &words)?;
        living.wait_packets(20, SOON)?;
        dying.wait_packets(20, SOON)?;
        let group = "232.9.9.8".parse()?;
        ensure!(lab.host("server").is_member(group));
        let link = lab.link("country", "internet");
        dying.process().kill()?;
        let last_join = last_join(link).context("the client never joined")?;

        lab.host("server").wait_no_member(group, Duration::from_secs(25))?;
        let let_go = last_join.elapsed();
        ensure!((17_500..20_500).contains(&let_go.as_millis()), "joins gone {let_go:?} after the last JOIN");
        let last_data = last_data(link).context("the client never got anything")?;
        ensure!(last_data.duration_since(last_join) <= Duration::from_millis(19_500), "DATA for a dead client");
        server.process().wait_line("the tunnel's end", Duration::from_secs(10), |line| {
            (line.contains("tunnel down") && line.contains("192.0.2.11:")).then_some(())
        })?;
        let gone = last_join.elapsed();
        ensure!((19_500..24_000).contains(&gone.as_millis()), "endpoint gone {gone:?} after its last datagram");

        let total: Report = living.finish()?;
        ensure!(total.lost() == 0 && total.duplicated() == 0, "{:?}", total.value());
        ensure!(total.number("longest_gap_ms") < 1_000, "{:?}", total.value());
        Ok(())
    });
}

fn last_join(link: &Link) -> Option<Instant> {
    last(link, Way::Up, Command::JoinGroup)
}

fn last_data(link: &Link) -> Option<Instant> {
    last(link, Way::Down, Command::Data)
}

fn last(link: &Link, way: Way, command: Command) -> Option<Instant> {
    let times = link.pick(|passage| {
        let payload = (passage.way == way).then(|| passage.udp()).flatten()?.payload;
        let (_, trailer) = Trailer::parse(payload).ok()?;
        (trailer.command == command).then_some(passage.at)
    });
    times.last().copied()
}

#[test]
fn a_client_outlives_the_databases_it_was_led_by() {
    Scenario::new(HOME).run(|lab| {
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let mut fleet = Fleet::start(lab, &pattern_server())?;
        let root = format!("{}:{DATABASE_PORT}", lab.host("root").address("internet"));
        let mut receive =
            Receive::start(lab.host("client"), PATTERN, &["--via", "umtp", "--tds", &root, "--country", "BE"])?;
        receive.wait_packets(20, SOON)?;
        fleet.root.kill()?;
        fleet.country.kill()?;
        let seen = receive.latest().context("no report")?.packets();
        let report = receive.wait_packets(seen + 200, SOON)?;
        ensure!(report.lost() == 0, "{:?}", report.value());
        Ok(())
    });
}
