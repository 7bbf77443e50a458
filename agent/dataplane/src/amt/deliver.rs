//! Native delivery of what comes from relays above: with the source that it has, on interfaces or out of one of our own.

use super::filter::SourceFilter;
use super::settings::Delivery;
use super::whole::Whole;
use crate::DropReason;
use crate::counters::{Traffic, WorkerCells};
use crate::fanout::count_failure;
use crate::settings::StartError;
use arc_swap::ArcSwap;
use castgate_udp::whole::WholeSender;
use castgate_udp::{SEGMENTS_MAX, SendBatch};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Where packets are delivered. Immutable but for what is wanted there: other places are another value.
#[derive(Debug, Default)]
pub(crate) struct Deliveries(Vec<Wanting>);

/// A place with what is wanted there.
#[derive(Debug)]
struct Wanting {
    place: Place,
    filters: ArcSwap<HashMap<IpAddr, SourceFilter>>,
}

#[derive(Debug)]
enum Place {
    Interface(WholeSender),
    Tun(Arc<castgate_udp::tun::Tun>),
}

/// Room for delivering; one for each thread.
#[derive(Debug)]
pub(crate) struct DeliveryBatch(SendBatch);

impl Deliveries {
    pub(crate) fn open(wanted: &[Delivery], send_buffer_bytes: usize) -> Result<Self, StartError> {
        let open = |delivery: &Delivery| match delivery {
            Delivery::Tun(tun) => Ok(Place::Tun(Arc::clone(tun))),
            Delivery::Interface { name, index } => WholeSender::open(*index, send_buffer_bytes)
                .map(Place::Interface)
                .map_err(|source| StartError::Delivery { name: name.clone(), source }),
        };
        let wanting = |delivery| open(delivery).map(|place| Wanting { place, filters: ArcSwap::default() });
        Ok(Self(wanted.iter().map(wanting).collect::<Result<_, _>>()?))
    }

    /// Replaces what is wanted of a group at a place; nothing without a filter.
    pub(crate) fn want(&self, place: usize, group: IpAddr, filter: Option<&SourceFilter>) {
        let Some(wanting) = self.0.get(place) else { return };
        wanting.filters.rcu(|before| {
            let mut filters = HashMap::clone(before);
            match filter {
                Some(filter) => filters.insert(group, filter.clone()),
                None => filters.remove(&group),
            };
            filters
        });
    }

    /// Whether packets of a source and group are wanted anywhere.
    pub(crate) fn admit(&self, source: IpAddr, group: IpAddr) -> bool {
        self.0.iter().any(|wanting| wanting.admits(source, group))
    }

    /// Delivers packets of one source and group, at most a batch, wherever they are wanted.
    pub(crate) fn send(&self, batch: &mut DeliveryBatch, packets: &[Whole<'_>], cells: &WorkerCells) -> Traffic {
        let mut total = Traffic::default();
        let Some(first) = packets.first() else { return total };
        for wanting in self.0.iter().filter(|wanting| wanting.admits(first.source, first.group)) {
            match &wanting.place {
                Place::Interface(sender) => {
                    let mut filling = batch.0.fill();
                    for (number, packet) in packets.iter().enumerate() {
                        filling.message_with(WholeSender::head(packet.source, packet.group), number as u64);
                        filling.datagram(packet.packet(), None);
                    }
                    sender.send_filled(first.group, filling, |outcome| {
                        let number = usize::try_from(outcome.tag).expect("made from a usize");
                        if outcome.sent > 0 {
                            total.count(packets[number].packet().len());
                        }
                        count_failure(cells, outcome.failed, outcome.error);
                    });
                }
                Place::Tun(tun) => {
                    for packet in packets {
                        match tun.write(packet.packet()) {
                            Ok(_) => total.count(packet.packet().len()),
                            Err(_down_or_full) => cells.drop_packets(DropReason::SendFailed, 1),
                        }
                    }
                }
            }
        }
        cells.flows.native_out.add(total);
        total
    }
}

impl Wanting {
    fn admits(&self, source: IpAddr, group: IpAddr) -> bool {
        self.filters.load().get(&group).is_some_and(|filter| filter.admits(source))
    }
}

impl DeliveryBatch {
    pub(crate) fn new() -> Self {
        Self(SendBatch::new(SEGMENTS_MAX, SEGMENTS_MAX))
    }
}
