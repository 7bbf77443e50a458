//! Joins a second: what one control thread takes in, from datagrams to a published table, beside the bare reading of the same
//! datagrams. No sockets: what the kernel costs is the same for both.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use castgate_dataplane::bench::Row;
use castgate_dataplane::{Cookies, SourceFilter, TableBuilder};
use castgate_endpoint::amt::relay;
use castgate_endpoint::membership::Filter;
use castgate_endpoint::umtp::server;
use castgate_wire::membership::{self, Message, Record, RecordType};
use castgate_wire::umtp::{Channel, Command, Trailer};
use castgate_wire::{amt, umtp};
use ipnet::{IpNet, Ipv4Net};

use super::EncapArg;

/// Tables are published as often as an agent does under load: once for so many datagrams.
const DATAGRAMS_PER_TABLE: usize = 256;
const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PORT: u16 = 5004;
/// How often each is measured; the best counts, since nothing makes a machine faster than it is.
const ROUNDS: usize = 3;

/// Measures joins of `clients`, `channels` each.
pub(super) fn joins(encap: EncapArg, clients: u32, channels: u32) -> Result<Row> {
    let (mut ours, mut ceiling) = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        let (taken, read) = match encap {
            EncapArg::Amt => amt_round(clients, channels)?,
            EncapArg::Umtp => umtp_round(clients, channels)?,
        };
        (ours, ceiling) = (ours.max(taken), ceiling.max(read));
    }
    Ok(Row {
        bench: "joins",
        case: format!("{} of {clients} clients, {channels} each", if encap == EncapArg::Amt { "amt" } else { "umtp" }),
        ours,
        ceiling,
        unit: "joins/s",
        ratio: ours / ceiling,
    })
}

fn group(channel: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(232, 1, 0, 0)) + channel)
}

fn client(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number), 2268)
}

fn per_second(count: usize, since: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = count as f64;
    count / since.elapsed().as_secs_f64()
}

fn table() -> TableBuilder {
    TableBuilder::new(NonZeroUsize::MIN)
}

/// Joins taken and joins read, a second.
fn amt_round(clients: u32, channels: u32) -> Result<(f64, f64)> {
    let now = Instant::now();
    let local: SocketAddr = (Ipv4Addr::new(198, 51, 100, 1), amt::PORT).into();
    let limits = relay::Config {
        endpoints_max: usize::try_from(clients)?,
        groups_per_endpoint_max: usize::try_from(channels)?,
        ..relay::Config::default()
    };
    let mut relay = relay::Relay::new(limits, [7; 16], now);
    let groups = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(232, 0, 0, 0), 8));
    relay.set_permissions(relay::Permissions(vec![relay::Permit { groups, sources: relay::Sources::Any }]), now);
    let datagrams = amt_datagrams(&mut relay, local, clients, channels, now)?;

    let start = Instant::now();
    let mut table = table();
    for batch in datagrams.chunks(DATAGRAMS_PER_TABLE) {
        for (from, datagram) in batch {
            relay.handle_datagram(now, local, *from, datagram);
            while let Some(output) = relay.poll_output() {
                match output {
                    relay::Output::EndpointUp { endpoint } => {
                        table.endpoint_up(endpoint.remote, endpoint.local, endpoint.ecn);
                    }
                    relay::Output::Filter { remote, group, filter } => {
                        table.filter(remote, group, filter.as_ref().map(source_filter));
                    }
                    _ => {}
                }
            }
        }
        black_box(table.build());
    }
    let ours = per_second(datagrams.len(), start);
    let joined: usize = relay.endpoints().map(|endpoint| endpoint.groups.len()).sum();
    if joined != datagrams.len() {
        bail!("{joined} of {} joins were taken", datagrams.len());
    }

    let start = Instant::now();
    for (_, datagram) in &datagrams {
        let amt::Repr::Update { packet, .. } = black_box(amt::Repr::parse(datagram))? else { bail!("not an Update") };
        drop(black_box(membership::parse(packet)));
    }
    Ok((ours, per_second(datagrams.len(), start)))
}

/// One Membership Update for each client and channel; clients have asked before.
fn amt_datagrams(
    relay: &mut relay::Relay,
    local: SocketAddr,
    clients: u32,
    channels: u32,
    now: Instant,
) -> Result<Vec<(SocketAddr, Vec<u8>)>> {
    let mut datagrams = Vec::new();
    for number in 0..clients {
        let from = SocketAddr::V4(client(number));
        let nonce = amt::Nonce(number);
        let request = amt::Repr::Request { nonce, flags: amt::RequestFlags::IGMP }.to_vec();
        relay.handle_datagram(now, local, from, &request);
        let answer = std::iter::from_fn(|| relay.poll_output()).find_map(|output| match output {
            relay::Output::Transmit { datagram, .. } => Some(datagram),
            _ => None,
        });
        let answer = answer.context("the relay does not answer a Request")?;
        let amt::Repr::Query { mac, .. } = amt::Repr::parse(&answer)? else { bail!("the relay answers no Query") };
        for channel in 0..channels {
            let record = Record {
                kind: RecordType::AllowNewSources,
                group: group(channel).into(),
                sources: vec![SOURCE.into()],
            };
            for packet in membership::emit(&Message::Report(vec![record]), IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
                datagrams.push((from, amt::Repr::Update { mac, nonce, packet: &packet }.to_vec()));
            }
        }
    }
    Ok(datagrams)
}

fn source_filter(filter: &Filter) -> SourceFilter {
    let sources = filter.sources().iter().copied();
    if filter.is_exclude() { SourceFilter::exclude(sources) } else { SourceFilter::include(sources) }
}

/// Joins taken and joins read, a second.
fn umtp_round(clients: u32, channels: u32) -> Result<(f64, f64)> {
    let now = Instant::now();
    let limits = server::Config {
        tunnels_max: usize::try_from(clients)?,
        channels_max: usize::try_from(channels)?,
        channels_per_tunnel_max: usize::try_from(channels)?,
        ..server::Config::default()
    };
    let permit = server::Permit {
        groups: Ipv4Net::new_assert(Ipv4Addr::new(232, 0, 0, 0), 8),
        sources: server::Sources::Any,
        ports: PORT..=PORT,
        send: false,
        ttl_max: 63,
    };
    let mut server = server::Server::new(limits, server::Permissions(vec![permit]), [7; 16], now);
    let datagrams = umtp_datagrams(&mut server, clients, channels, now)?;

    let start = Instant::now();
    let mut table = table();
    let mut joined = 0;
    for batch in datagrams.chunks(DATAGRAMS_PER_TABLE) {
        for (from, datagram) in batch {
            server.handle_datagram(now, *from, datagram);
            while let Some(output) = server.poll_output() {
                match output {
                    server::Output::TunnelUp { tunnel, cookies } => table.tunnel_up(tunnel, table_cookies(cookies)),
                    server::Output::Attach { tunnel, channel, ttl_max, may_send, ttl: _ } => {
                        joined += 1;
                        table.attach(tunnel, channel, may_send, ttl_max);
                    }
                    _ => {}
                }
            }
        }
        black_box(table.build());
    }
    let ours = per_second(datagrams.len(), start);
    if joined != datagrams.len() {
        bail!("{joined} of {} joins were taken", datagrams.len());
    }

    let start = Instant::now();
    for (_, datagram) in &datagrams {
        black_box(Trailer::parse(datagram)?);
    }
    Ok((ours, per_second(datagrams.len(), start)))
}

/// One JOIN for each client and channel; clients have proven their addresses before.
fn umtp_datagrams(
    server: &mut server::Server,
    clients: u32,
    channels: u32,
    now: Instant,
) -> Result<Vec<(SocketAddrV4, Vec<u8>)>> {
    let mut datagrams = Vec::new();
    for number in 0..clients {
        let from = client(number);
        let said = |command, destination_cookie, channel| {
            let mut datagram = Vec::new();
            let source_cookie = umtp::Cookie(0x0101);
            Trailer { source_cookie, destination_cookie, channel, ttl: 63, command }.append_to(&mut datagram);
            datagram
        };
        let none = Channel::any_source(Ipv4Addr::UNSPECIFIED, 0);
        server.handle_datagram(now, from, &said(Command::Probe, umtp::Cookie(0), none));
        let answer = std::iter::from_fn(|| server.poll_output()).find_map(|output| match output {
            server::Output::Transmit { datagram, .. } => Some(datagram),
            _ => None,
        });
        let (_, answer) = Trailer::parse(answer.as_deref().context("the server does not answer a PROBE")?)?;
        for channel in 0..channels {
            let channel = Channel::source_specific(SOURCE, group(channel), PORT);
            datagrams.push((from, said(Command::JoinGroup, answer.source_cookie, channel)));
        }
    }
    Ok(datagrams)
}

fn table_cookies(cookies: server::Cookies) -> Cookies {
    let server::Cookies { local, local_previous, remote } = cookies;
    Cookies { local, previous: Some(local_previous), remote }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_join_is_taken_by_both_protocols() {
        for encap in [EncapArg::Amt, EncapArg::Umtp] {
            let row = joins(encap, 7, 5).unwrap();
            assert!(row.ours > 0.0 && row.ceiling > 0.0, "{row:?}");
        }
    }
}
