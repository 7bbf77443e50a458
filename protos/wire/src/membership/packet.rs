//! Whole IP packets around the messages.

use super::{Family, Message, ParseError, Query, Record};
use crate::ip;
use crate::{igmp, ipv4, ipv6, mld};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// No packet that we send is longer, in octets: what does not fit is split, so that it passes through tunnels inside tunnels.
pub const PACKET_LEN_MAX: usize = 1400;
/// Type of service and traffic class of every packet: internetwork control (RFC 3376 §4).
pub const TRAFFIC_CLASS: u8 = 0xc0;
/// No router forwards a message about membership.
const HOP_LIMIT: u8 = 1;
/// Octets of a report of the newest version before its records, with either protocol.
const REPORT_HEADER_LEN: usize = 8;

/// Destinations that are groups of their own.
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const ALL_V3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ALL_NODES_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_V2_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// A message and how it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The source of the packet, whatever it is: through a tunnel it proves nothing (RFC 7450 §5.3.1).
    pub source: IpAddr,
    /// The destination of the packet.
    pub destination: IpAddr,
    /// The hops that were left.
    pub hop_limit: u8,
    /// Whether a router alert was there.
    pub router_alert: bool,
    /// What was said.
    pub message: Message,
}

/// Reads a whole packet and verifies all checksums and lengths. Neither a router alert nor certain addresses or hops are
/// demanded; what follows the packet is not looked at.
///
/// # Errors
/// [`ParseError`] with what is wrong. Never panics, whatever the bytes.
pub fn parse(packet: &[u8]) -> Result<Received, ParseError> {
    let packet = ip::Packet::new_checked(packet)?;
    if !packet.verify_checksum() {
        return Err(ParseError::HeaderChecksum);
    }
    if packet.fragment().is_part() {
        return Err(ParseError::Fragment);
    }
    let message = match (&packet, packet.protocol()) {
        (ip::Packet::V4(_), ipv4::protocol::IGMP) => igmp::parse(packet.payload())?,
        (ip::Packet::V6(v6), ipv6::protocol::ICMPV6) => mld::parse(packet.payload(), v6.source(), v6.destination())?,
        (_, other) => return Err(ParseError::Protocol(other)),
    };
    Ok(Received {
        source: packet.source(),
        destination: packet.destination(),
        hop_limit: packet.hop_limit(),
        router_alert: packet.router_alert(),
        message,
    })
}

/// Whole packets from `source` with a message: one, or more when it would exceed [`PACKET_LEN_MAX`].
///
/// A report is split between records, and a record between sources; of a record that excludes sources as many are told as
/// fit (RFC 3376 §4.2.16, RFC 3810 §5.2.15).
///
/// # Panics
/// When a group or source is not of the family of `source`: that is the caller's to get right.
#[must_use]
pub fn emit(message: &Message, source: IpAddr) -> Vec<Vec<u8>> {
    let family = Family::of(source);
    let room = PACKET_LEN_MAX - headers_len(family);
    match message {
        Message::Report(records) => split_records(family, records, room - REPORT_HEADER_LEN)
            .into_iter()
            .map(|records| emit_one(&Message::Report(records), source))
            .collect(),
        Message::Query(query) if !query.sources.is_empty() => {
            let header_len = if family == Family::V4 { igmp::QUERY_V3_LEN_MIN } else { mld::QUERY_V2_LEN_MIN };
            let part = |sources: &[IpAddr]| Message::Query(Query { sources: sources.to_vec(), ..query.clone() });
            let parts = query.sources.chunks((room - header_len) / family.address_len());
            parts.map(|sources| emit_one(&part(sources), source)).collect()
        }
        Message::Query(_) | Message::OldReport { .. } | Message::OldLeave { .. } => vec![emit_one(message, source)],
    }
}

/// Octets of the IP headers with router alert.
const fn headers_len(family: Family) -> usize {
    match family {
        Family::V4 => ipv4::HEADER_LEN + ipv4::ROUTER_ALERT.len(),
        Family::V6 => ipv6::HEADER_LEN + ipv6::MLD_ROUTER_ALERT.len(),
    }
}

/// Lists of records, each of at most `room` octets; one empty list for none.
fn split_records(family: Family, records: &[Record], room: usize) -> Vec<Vec<Record>> {
    let address_len = family.address_len();
    let len = |sources: usize| 4 + address_len * (1 + sources);
    let sources_max = (room - len(0)) / address_len;
    let mut lists = vec![Vec::new()];
    let mut used = 0;
    for record in records {
        let mut push = |sources: &[IpAddr]| {
            if used + len(sources.len()) > room {
                lists.push(Vec::new());
                used = 0;
            }
            used += len(sources.len());
            let list = lists.last_mut().expect("starts with one");
            list.push(Record { sources: sources.to_vec(), ..*record });
        };
        match record.sources.chunks(sources_max).next() {
            None => push(&[]),
            Some(first) if record.kind.excludes() => push(first),
            Some(_) => record.sources.chunks(sources_max).for_each(push),
        }
    }
    lists
}

fn emit_one(message: &Message, source: IpAddr) -> Vec<u8> {
    match source {
        IpAddr::V4(source) => emit_igmp(message, source),
        IpAddr::V6(source) => emit_mld(message, source),
    }
}

fn emit_igmp(message: &Message, source: Ipv4Addr) -> Vec<u8> {
    let own = |group: &IpAddr| match group {
        IpAddr::V4(group) => *group,
        IpAddr::V6(_) => panic!("an IPv6 group cannot be told by IGMP"),
    };
    let destination = match message {
        Message::Query(query) => query.group.as_ref().map_or(ALL_SYSTEMS, own),
        Message::Report(_) => ALL_V3_ROUTERS,
        Message::OldReport { group, .. } => own(group),
        Message::OldLeave { .. } => ALL_ROUTERS,
    };
    let mut payload = Vec::new();
    igmp::append(message, &mut payload);
    let repr = ipv4::Repr {
        tos: TRAFFIC_CLASS,
        // A packet that nobody may cut needs no identification (RFC 6864 §4.1).
        identification: 0,
        fragment: ipv4::Fragment { dont_fragment: true, ..ipv4::Fragment::default() },
        ttl: HOP_LIMIT,
        protocol: ipv4::protocol::IGMP,
        source,
        destination,
        options: &ipv4::ROUTER_ALERT,
        payload: &payload,
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut packet);
    packet
}

fn emit_mld(message: &Message, source: Ipv6Addr) -> Vec<u8> {
    let own = |group: &IpAddr| match group {
        IpAddr::V6(group) => *group,
        IpAddr::V4(_) => panic!("an IPv4 group cannot be told by MLD"),
    };
    let destination = match message {
        Message::Query(query) => query.group.as_ref().map_or(ALL_NODES_V6, own),
        Message::Report(_) => ALL_V2_ROUTERS_V6,
        Message::OldReport { group, .. } => own(group),
        Message::OldLeave { .. } => ALL_ROUTERS_V6,
    };
    let mut payload = ipv6::MLD_ROUTER_ALERT.to_vec();
    mld::append(message, source, destination, &mut payload);
    let repr = ipv6::Repr {
        traffic_class: TRAFFIC_CLASS,
        flow_label: 0,
        next_header: ipv6::protocol::HOP_BY_HOP,
        hop_limit: HOP_LIMIT,
        source,
        destination,
        payload: &payload,
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut packet);
    packet
}

#[cfg(test)]
mod tests;
