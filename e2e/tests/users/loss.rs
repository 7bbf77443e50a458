//! A lossy internet: the channel comes soon, and what is missing is exactly what was dropped.

use crate::{FIVE_SECONDS, PATTERN, PATTERN_RULE, SOON, channel};
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::{ServerConfig, TUNNEL_PORT, on_air, start_server};
use castgate_e2e::lab::impair::{Link, Passage, Way};
use castgate_e2e::lab::{Lab, Scenario, wait};
use castgate_e2e::receive::{Receive, Report};
use castgate_wire::pattern;
use castgate_wire::umtp::{Command, Trailer};
use std::collections::BTreeSet;
use std::time::Instant;

const RUNS: u32 = 10;
/// Packets of each run: some ten of them are dropped.
const ENOUGH: u64 = 500;

/// A studio and ten listeners, each with a link of his own and dice of his own.
fn topology() -> String {
    let members: Vec<String> = (0..RUNS).map(|run| format!(", listener{run} 192.0.2.{}/24", 100 + run)).collect();
    let link = |run| format!("link listener{run} internet: loss=2% delay=20ms jitter=5ms seed={}\n", 1_000 + run);
    let links: Vec<String> = (0..RUNS).map(link).collect();
    let (members, links) = (members.concat(), links.concat());
    format!("studio: source 10.1.0.10/24, server 10.1.0.2/24\ninternet: server 192.0.2.2/24{members}\n{links}")
}

#[test]
fn ten_of_ten_listeners_hear_within_five_seconds_and_miss_exactly_what_was_dropped() {
    Scenario::new(&topology()).run(|lab| {
        let config = ServerConfig::home().permit(PATTERN_RULE);
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let _server = start_server(lab, lab.host("server"), &config)?;
        let mut runs = (0..RUNS).map(|run| Run::start(lab, run)).collect::<Result<Vec<_>>>()?;
        for run in &mut runs {
            let first = run.receive.wait_packets(1, FIVE_SECONDS + SOON)?;
            ensure!(first.number("joined_ms") <= 5_000, "run {}: {:?}", run.number, first.value());
        }
        for run in &mut runs {
            run.receive.wait_packets(ENOUGH, SOON * 2)?;
        }
        let (mut dropped, mut span) = (0, 0);
        for run in runs {
            let counts = run.check(lab)?;
            (dropped, span) = (dropped + counts.0, span + counts.1);
        }
        // Two of a hundred, give or take what dice do with some hundred: they did fall.
        ensure!((span / 100..span * 3 / 100).contains(&dropped), "{dropped} of {span} dropped in all");
        Ok(())
    });
}

struct Run {
    number: u32,
    started: Instant,
    receive: Receive,
}

impl Run {
    fn start(lab: &Lab, number: u32) -> Result<Self> {
        let server = format!("192.0.2.2:{TUNNEL_PORT}");
        let words = ["--via", "umtp", "--server", &server];
        let host = lab.host(&format!("listener{number}"));
        Ok(Self { number, started: Instant::now(), receive: Receive::start(host, PATTERN, &words)? })
    }

    /// Ends the run and compares its total with the journal of its link; gives how many of how many were dropped.
    fn check(self, lab: &Lab) -> Result<(u64, u64)> {
        let Self { number, started, receive } = self;
        let link = lab.link(&format!("listener{number}"), "internet");
        let total = receive.finish()?;
        // What was on its way when the client left is in the journal and not in the total: only what lies between the
        // first and the last that it received counts, and that the journal tells by itself.
        let arrived = sequences(link, |passage| !passage.is_lost());
        let dropped = sequences(link, Passage::is_lost);
        let (received, lost) = (total.packets(), total.lost());
        let end = last_received(&arrived, received)?;
        let first = *arrived.first().context("nothing arrived")?;
        let between = dropped.iter().filter(|sequence| (first..end).contains(sequence)).count() as u64;
        ensure!(lost == between, "run {number}: {lost} lost, {between} dropped, {:?}", total.value());
        ensure!(total.duplicated() == 0, "run {number}: {:?}", total.value());
        let heard_after = link
            .pick(|passage| (passage.way == Way::Down && is_data(passage) && !passage.is_lost()).then_some(passage.at))
            .first()
            .context("no DATA")?
            .duration_since(started);
        ensure!(heard_after <= FIVE_SECONDS, "run {number}: first DATA after {heard_after:?}");
        check_counts(&total, &arrived, received, lost)?;
        Ok((between, received + lost))
    }
}

/// The highest number among the first `received` that arrived. Jitter reorders, so the set is what counts: the total's
/// last packet is found by its count.
fn last_received(arrived: &BTreeSet<u64>, received: u64) -> Result<u64> {
    let index = usize::try_from(received.checked_sub(1).context("nothing received")?)?;
    arrived.iter().nth(index).copied().context("more received than arrived")
}

fn check_counts(total: &Report, arrived: &BTreeSet<u64>, received: u64, lost: u64) -> Result<()> {
    let first = *arrived.first().context("nothing arrived")?;
    let span = last_received(arrived, received)? - first + 1;
    ensure!(received + lost == span, "{received} received and {lost} lost of {span}: {:?}", total.value());
    Ok(())
}

/// The sequence numbers of the pattern's DATA that went down a link.
fn sequences(link: &Link, is_it: impl Fn(&Passage) -> bool) -> BTreeSet<u64> {
    let numbers = link.pick(|passage| {
        let payload = (passage.way == Way::Down && is_it(passage)).then(|| passage.udp()).flatten()?.payload;
        let (head, trailer) = Trailer::parse(payload).ok()?;
        (trailer.command == Command::Data).then(|| pattern::Repr::parse(head)).flatten().map(|repr| repr.sequence)
    });
    numbers.into_iter().collect()
}

fn is_data(passage: &Passage) -> bool {
    let trailer = passage.udp().and_then(|datagram| Trailer::parse(datagram.payload).ok());
    trailer.is_some_and(|(_, trailer)| trailer.command == Command::Data)
}

/// Base UMTP acknowledges nothing: the client repeats until there is data, and then keeps its join alive.
#[test]
fn a_join_is_repeated_with_growing_pauses_until_the_first_data_and_then_every_fifteen_seconds() {
    let topology = "
        studio:   source 10.1.0.10/24, server 10.1.0.2/24
        internet: server 192.0.2.2/24, listener 192.0.2.100/24
        link listener internet: delay=1ms
    ";
    Scenario::new(topology).run(|lab| {
        // Nobody sends yet: the join brings nothing.
        let _server = start_server(lab, lab.host("server"), &ServerConfig::home().permit(PATTERN_RULE))?;
        let server = format!("192.0.2.2:{TUNNEL_PORT}");
        let mut receive = Receive::start(lab.host("listener"), PATTERN, &["--via", "umtp", "--server", &server])?;
        let link = lab.link("listener", "internet");
        let joins = || {
            link.pick(|passage| {
                let payload = (passage.way == Way::Up).then(|| passage.udp()).flatten()?.payload;
                let (_, trailer) = Trailer::parse(payload).ok()?;
                // Those that the server takes: the first may still carry a cookie that the client does not know.
                (trailer.command == Command::JoinGroup && trailer.destination_cookie.0 != 0).then_some(passage.at)
            })
        };
        wait::until("five JOINs", SOON, || (joins().len() >= 5).then_some(()))?;
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        receive.wait_packets(50, SOON)?;
        let seen = joins().len();
        wait::until("the refresh", SOON * 2, || (joins().len() > seen).then_some(()))?;
        let times = joins();
        let pauses: Vec<f64> = times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()).collect();
        for (pause, wanted) in pauses.iter().zip([0.5, 1.0, 2.0, 4.0, 15.0]) {
            ensure!((wanted - 0.1..wanted + 0.3).contains(pause), "pauses of {pauses:.2?} s");
        }
        Ok(())
    });
}

#[test]
fn a_channel_that_arrives_twice_and_late_is_counted_as_such() {
    let topology = "
        studio: source 10.1.0.10/24, server 10.1.0.2/24
        internet: server 192.0.2.2/24, listener 192.0.2.100/24
        link listener internet: delay=5ms
    ";
    Scenario::new(topology).run(|lab| {
        let config = ServerConfig::home().permit(PATTERN_RULE);
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let _server = start_server(lab, lab.host("server"), &config)?;
        let server = format!("192.0.2.2:{TUNNEL_PORT}");
        let mut receive = Receive::start(lab.host("listener"), PATTERN, &["--via", "umtp", "--server", &server])?;
        receive.wait_packets(20, SOON)?;
        let link = lab.link("listener", "internet");
        link.set(&"duplicate=10% delay=5ms jitter=40ms seed=5".parse()?);
        receive.wait_packets(320, SOON)?;
        // Back to a calm link before the end: nothing may be on its way twice when the client counts.
        link.set(&"delay=5ms".parse()?);
        wait::until("a calm link", SOON, || {
            let counts = link.counts(Way::Down);
            (counts.delivered == counts.entered + counts.duplicated).then_some(())
        })
        .ok();
        let seen = receive.latest().context("no report")?.packets();
        receive.wait_packets(seen + 50, SOON)?;
        let total = receive.finish()?;
        let doubled = link.counts(Way::Down).duplicated;
        ensure!(doubled >= 15, "the dice doubled {doubled}");
        ensure!(total.duplicated() == doubled, "{doubled} doubled, {:?}", total.value());
        ensure!(total.lost() == 0 && total.number("reordered") > 0, "{:?}", total.value());
        Ok(())
    });
}
