//! From a packet that the gateway has taken to a payload of the channel: checksums, fragments, port.
//!
//! Whether the packet comes from the relay, for a joined group and from a wanted source was decided before.

use std::time::Instant;

use castgate_wire::{ip, ipv4, udp};

use super::reassembly::Reassembly;
use crate::event::Datagram;

/// Takes packets apart for one port.
#[derive(Debug)]
pub(super) struct Delivery {
    port: u16,
    reassembly: Reassembly,
    /// What came and was no payload of ours.
    pub(super) refused: Refused,
}

/// Packets of the group that were not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Refused {
    /// With a wrong checksum or a length that does not fit.
    pub(super) damaged: u64,
    /// For another port, or no UDP at all.
    pub(super) other: u64,
    /// Fragments, of which packets were put together or not.
    pub(super) fragments: u64,
}

impl Delivery {
    pub(super) fn new(port: u16) -> Self {
        Self { port, reassembly: Reassembly::default(), refused: Refused::default() }
    }

    /// Hands on the payload of a packet, if it has one for us; says whether it did.
    pub(super) fn take(&mut self, now: Instant, packet: &ip::Packet<&[u8]>, sink: impl FnMut(Datagram<'_>)) -> bool {
        if !packet.fragment().is_part() {
            return self.deliver(packet, sink);
        }
        self.refused.fragments += 1;
        let Some(whole) = self.reassembly.take(now, packet) else { return false };
        if let Ok(packet) = ip::Packet::new_checked(&whole[..]) {
            return self.deliver(&packet, sink);
        }
        self.refused.damaged += 1;
        false
    }

    fn deliver(&mut self, packet: &ip::Packet<&[u8]>, mut sink: impl FnMut(Datagram<'_>)) -> bool {
        if packet.protocol() != ipv4::protocol::UDP {
            self.refused.other += 1;
            return false;
        }
        let parsed = udp::Repr::parse(packet.payload(), packet.source(), packet.destination());
        match parsed {
            Ok(datagram) if packet.verify_checksum() => {
                let is_ours = datagram.destination_port == self.port;
                if is_ours {
                    let (source, ttl) = (Some(packet.source()), Some(packet.hop_limit()));
                    sink(Datagram { source, ttl, payload: datagram.payload });
                } else {
                    self.refused.other += 1;
                }
                is_ours
            }
            Ok(_) | Err(_) => {
                self.refused.damaged += 1;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const GROUP: Ipv4Addr = Ipv4Addr::new(232, 1, 2, 3);

    #[test]
    fn a_payload_comes_with_its_source_and_ttl() {
        let mut taken = Vec::new();
        let mut delivery = Delivery::new(5004);
        let packet = packet(5004);
        let is_ours = delivery.take(Instant::now(), &view(&packet), |datagram| {
            taken.push((datagram.source, datagram.ttl, datagram.payload.to_vec()));
        });
        assert!(is_ours);
        assert_eq!(taken, [(Some(SOURCE.into()), Some(9), b"payload".to_vec())]);
    }

    #[test]
    fn a_missing_checksum_is_taken_and_a_wrong_one_is_not() {
        let mut delivery = Delivery::new(5004);
        let mut without = packet(5004);
        without[26..28].fill(0);
        assert!(take(&mut delivery, &without));
        // The TTL without the header's checksum, the payload without that of UDP.
        for at in [8, 28] {
            let mut wrong = packet(5004);
            wrong[at] ^= 1;
            assert!(!take(&mut delivery, &wrong), "octet {at}");
        }
        assert_eq!(delivery.refused, Refused { damaged: 2, ..Refused::default() });
    }

    #[test]
    fn other_ports_and_other_protocols_are_not_ours() {
        let mut delivery = Delivery::new(5004);
        assert!(!take(&mut delivery, &packet(5005)));
        let mut icmp = packet(5004);
        icmp[9] = ipv4::protocol::ICMP;
        assert!(!take(&mut delivery, &icmp));
        assert_eq!(delivery.refused, Refused { other: 2, ..Refused::default() });
    }

    #[test]
    fn a_packet_in_fragments_is_one_payload() {
        let mut delivery = Delivery::new(5004);
        let packet = packet(5004);
        let outcomes: Vec<bool> = ipv4::fragment(&packet, 28)
            .unwrap()
            .map(|part| take(&mut delivery, &[part.header(), part.payload()].concat()))
            .collect();
        assert_eq!(outcomes, [false, true]);
    }

    fn take(delivery: &mut Delivery, packet: &[u8]) -> bool {
        delivery.take(Instant::now(), &view(packet), |_| {})
    }

    fn view(packet: &[u8]) -> ip::Packet<&[u8]> {
        ip::Packet::new_checked(packet).unwrap()
    }

    fn packet(port: u16) -> Vec<u8> {
        let datagram = udp::Repr { source_port: 1, destination_port: port, payload: b"payload" };
        let mut payload = vec![0; datagram.buffer_len()];
        datagram.emit(&mut payload, SOURCE, GROUP);
        let repr = ipv4::Repr {
            tos: 0,
            identification: 7,
            fragment: ipv4::Fragment::default(),
            ttl: 9,
            protocol: ipv4::protocol::UDP,
            source: SOURCE,
            destination: GROUP,
            options: &[],
            payload: &payload,
        };
        let mut octets = vec![0; repr.buffer_len()];
        repr.emit(&mut octets);
        octets
    }
}
