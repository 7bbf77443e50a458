//! A whole multicast packet behind the header of a Multicast Data message, and whether it may be forwarded at all.
//!
//! ```text
//!   | 06 | 00 | IPv4 or IPv6 packet                     one piece of memory, from the ingress to the last tunnel
//! ```

use crate::DropReason;
use crate::fanout::BATCH;
use castgate_wire::ip::{Family, Packet};
use std::net::IpAddr;

/// Version 0, type 6, and the reserved octet (RFC 7450 §5.1.6).
pub(crate) const DATA: [u8; 2] = [6, 0];
/// IGMP and MLD's carrier: what speaks about a link is not for others (RFC 4541 has it stay there).
const IGMP: u8 = 2;

/// A packet that may be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole<'a> {
    /// The header of the message and the packet, nothing behind it.
    pub(crate) octets: &'a [u8],
    pub(crate) source: IpAddr,
    pub(crate) group: IpAddr,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// No router may cut it: DF, or IPv6.
    pub(crate) dont_fragment: bool,
}

impl<'a> Whole<'a> {
    /// What an array of packets is filled with before there are any.
    pub(crate) const NONE: Self = Self {
        octets: &[],
        source: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        group: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        hop_limit: 0,
        traffic_class: 0,
        dont_fragment: false,
    };

    /// Reads the headers of a packet that stands behind the two octets of [`DATA`].
    pub(crate) fn parse(octets: &'a [u8]) -> Result<Self, DropReason> {
        let packet = octets.get(DATA.len()..).ok_or(DropReason::Malformed)?;
        let packet = Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
        if !packet.verify_checksum() {
            return Err(DropReason::Malformed);
        }
        let (source, group) = (packet.source(), packet.destination());
        if !leaves_its_link(group) || source.is_multicast() || source.is_unspecified() {
            return Err(DropReason::NotMulticast);
        }
        if packet.protocol() == IGMP || packet.router_alert() {
            return Err(DropReason::NotMulticast);
        }
        let hop_limit = packet.hop_limit();
        if hop_limit == 0 {
            return Err(DropReason::TimeToLive);
        }
        Ok(Self {
            octets: &octets[..DATA.len() + packet.total_len()],
            source,
            group,
            hop_limit,
            traffic_class: packet.traffic_class(),
            dont_fragment: packet.family() == Family::V6 || packet.fragment().dont_fragment,
        })
    }

    /// The packet alone.
    pub(crate) fn packet(&self) -> &'a [u8] {
        &self.octets[DATA.len()..]
    }
}

/// Whether a group's packets may be forwarded: multicast, not of a link or less (RFC 5771 §4, RFC 4291 §2.7).
pub(crate) fn leaves_its_link(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => v4.is_multicast() && !matches!(v4.octets(), [224, 0, 0, _]),
        IpAddr::V6(v6) => v6.is_multicast() && v6.octets()[1] & 0x0f > 2,
    }
}

/// Whether a group is source-specific (RFC 4607 §1).
pub(crate) fn is_source_specific(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => v4.octets()[0] == 232,
        IpAddr::V6(v6) => matches!(v6.octets(), [0xff, flags, 0, 0, ..] if flags >> 4 == 3),
    }
}

/// Gives `packets`, at most [`BATCH`], sorted by source and group, each with its order kept.
pub(crate) fn by_channel<'a>(packets: &[Whole<'a>], mut each: impl FnMut(&[Whole<'a>])) {
    let same = |a: &Whole<'_>, b: &Whole<'_>| a.group == b.group && a.source == b.source;
    let Some(first) = packets.first() else { return };
    if packets.iter().all(|packet| same(packet, first)) {
        return each(packets);
    }
    let mut of_channel = [Whole::NONE; BATCH];
    for (place, first) in packets.iter().enumerate() {
        if packets[..place].iter().any(|before| same(before, first)) {
            continue;
        }
        let mut count = 0;
        for packet in packets[place..].iter().filter(|packet| same(packet, first)) {
            of_channel[count] = *packet;
            count += 1;
        }
        each(&of_channel[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castgate_wire::ipv4;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_packet_is_taken_with_what_its_header_says_and_without_what_follows() {
        let mut octets = data(232, 9, 17);
        let length = octets.len();
        octets.extend(b"padding");
        let whole = Whole::parse(&octets).unwrap();
        assert_eq!((whole.source, whole.group), (IpAddr::from([192, 0, 2, 7]), IpAddr::from([232, 1, 2, 3])));
        assert_eq!((whole.hop_limit, whole.traffic_class, whole.dont_fragment), (9, 0xba, true));
        assert_eq!(whole.octets.len(), length);
    }

    #[test]
    fn what_is_unicast_or_of_the_link_or_spent_or_broken_is_refused() {
        let refused = |octets: &[u8]| Whole::parse(octets).unwrap_err();
        assert_eq!(refused(&data(192, 9, 17)), DropReason::NotMulticast);
        assert_eq!(refused(&data(232, 9, 2)), DropReason::NotMulticast);
        assert_eq!(refused(&data(232, 0, 17)), DropReason::TimeToLive);
        let mut broken = data(232, 9, 17);
        broken[3] ^= 1;
        assert_eq!(refused(&broken), DropReason::Malformed);
        assert_eq!(refused(&broken[..1]), DropReason::Malformed);
        for (group, leaves, specific) in [
            ("224.0.0.251", false, false),
            ("224.0.1.1", true, false),
            ("232.0.0.1", true, true),
            ("ff02::1", false, false),
            ("ff32::1", false, true),
            ("ff3e::8000:1", true, true),
            ("ff0e::1", true, false),
            ("2001:db8::1", false, false),
        ] {
            let group = group.parse().unwrap();
            assert_eq!((leaves_its_link(group), is_source_specific(group)), (leaves, specific), "{group}");
        }
    }

    proptest! {
        #[test]
        fn sorting_by_channel_loses_nothing_and_keeps_the_order_within(
            channels in proptest::collection::vec(0..4_u8, 0..BATCH),
        ) {
            let numbers: Vec<[u8; 2]> = (0..).zip(&channels).map(|(number, channel)| [*channel, number]).collect();
            let packets: Vec<_> = numbers
                .iter()
                .map(|octets| Whole { octets, source: IpAddr::from([10, 0, 0, octets[0]]), ..Whole::NONE })
                .collect();
            let mut seen = Vec::new();
            by_channel(&packets, |of_channel| {
                assert!(of_channel.iter().all(|packet| packet.source == of_channel[0].source));
                assert!(of_channel.is_sorted_by_key(|packet| packet.octets[1]));
                seen.extend_from_slice(of_channel);
            });
            seen.sort_by_key(|packet| packet.octets[1]);
            prop_assert_eq!(seen, packets);
        }

        #[test]
        fn any_octets_are_a_packet_or_a_refusal(octets in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Whole::parse(&octets);
        }
    }

    fn data(first: u8, ttl: u8, protocol: u8) -> Vec<u8> {
        let repr = ipv4::Repr {
            tos: 0xba,
            identification: 7,
            fragment: ipv4::Fragment { dont_fragment: true, ..ipv4::Fragment::default() },
            ttl,
            protocol,
            source: Ipv4Addr::new(192, 0, 2, 7),
            destination: Ipv4Addr::new(first, 1, 2, 3),
            options: &[],
            payload: b"hello",
        };
        let mut octets = vec![0; 2 + repr.buffer_len()];
        octets[..2].copy_from_slice(&DATA);
        repr.emit(&mut octets[2..]);
        octets
    }
}
