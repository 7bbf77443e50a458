//! Whole native packets for the endpoints of one worker: a packet socket an interface, as long as it has any.

use super::encap::Job;
use super::whole::{self, Whole};
use crate::DropReason;
use crate::counters::Traffic;
use crate::egress::Egress;
use crate::fanout::BATCH;
use crate::settings::{Interface, Settings};
use crate::table::Table;
use crate::worker::{Context, Senders};
use castgate_udp::packet::{PacketBatch, PacketOptions, PacketSocket};
use castgate_udp::ready::Poller;
use std::io;
use std::net::{IpAddr, SocketAddrV4};

/// Packet sockets of one worker. The poller knows each by its place plus `first_token`.
#[derive(Debug)]
pub(crate) struct Sniffer {
    first_token: u64,
    receive_buffer_bytes: usize,
    ears: Vec<Option<Ear>>,
    batch: PacketBatch,
    /// Interfaces that were refused and are still wanted.
    refused: Vec<u32>,
}

/// What listens at one interface.
#[derive(Debug)]
struct Ear {
    interface: u32,
    socket: PacketSocket,
    overflow: u32,
}

impl Sniffer {
    pub(crate) fn new(first_token: u64, settings: &Settings) -> Self {
        let batch = PacketBatch::new(if settings.amt.is_some() { BATCH } else { 0 }, whole::DATA);
        let receive_buffer_bytes = settings.receive_buffer_bytes;
        Self { first_token, receive_buffer_bytes, ears: Vec::new(), batch, refused: Vec::new() }
    }

    /// Listens at all `interfaces` and no other, or with `wanted` off nowhere.
    pub(crate) fn set<'a>(
        &mut self,
        poller: &Poller,
        wanted: bool,
        interfaces: impl Iterator<Item = &'a Interface>,
        mut on_refusal: impl FnMut(&'a Interface, io::Error),
    ) {
        let targets: Vec<_> = interfaces.filter(|_| wanted).collect();
        let is_wanted = |index: u32| targets.iter().any(|interface| interface.index == index);
        for ear in &mut self.ears {
            // Closing takes it out of the poller too.
            ear.take_if(|ear| !is_wanted(ear.interface));
        }
        self.refused.retain(|index| is_wanted(*index));
        for interface in targets {
            if self.ears.iter().flatten().any(|ear| ear.interface == interface.index) {
                continue;
            }
            match self.open(poller, interface) {
                Ok(()) => self.refused.retain(|index| *index != interface.index),
                Err(_told) if self.refused.contains(&interface.index) => {}
                Err(error) => {
                    self.refused.push(interface.index);
                    on_refusal(interface, error);
                }
            }
        }
    }

    pub(crate) fn has_refusals(&self) -> bool {
        !self.refused.is_empty()
    }

    fn open(&mut self, poller: &Poller, interface: &Interface) -> io::Result<()> {
        let socket = PacketSocket::open(&PacketOptions {
            // What a loopback interface sends comes in by it again.
            outgoing: !interface.address.is_loopback(),
            receive_buffer_bytes: Some(self.receive_buffer_bytes),
            ..PacketOptions::new(interface.index)
        })?;
        let place = self.ears.iter().position(Option::is_none).unwrap_or_else(|| {
            self.ears.push(None);
            self.ears.len() - 1
        });
        poller.add(&socket, self.first_token + place as u64)?;
        self.ears[place] = Some(Ear { interface: interface.index, socket, overflow: 0 });
        Ok(())
    }

    /// Takes in one batch from the socket of this token, if there still is one, and sends it to this worker's endpoints.
    pub(crate) fn forward(&mut self, token: u64, context: &Context, table: &Table, senders: &mut Senders) {
        let place = token.checked_sub(self.first_token).and_then(|place| usize::try_from(place).ok());
        let Some(Some(ear)) = place.and_then(|place| self.ears.get_mut(place)) else { return };
        match self.batch.receive(&ear.socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_refused) => return context.cells().drop_packets(DropReason::ReceiveFailed, 1),
        }
        let overflow = self.batch.overflow().unwrap_or(ear.overflow);
        let lost = overflow.wrapping_sub(std::mem::replace(&mut ear.overflow, overflow));
        context.cells().drop_packets(DropReason::ReceiveBufferFull, lost.into());
        context.cells().drop_packets(DropReason::Malformed, self.batch.refused() as u64);
        let mut packets = [Whole::NONE; BATCH];
        let mut count = 0;
        for octets in self.batch.iter() {
            match judge(&context.egress, octets) {
                Ok(packet) => {
                    packets[count] = packet;
                    count += 1;
                }
                Err(reason) => context.cells().drop_packets(reason, 1),
            }
            // Segments of a run are packets of their own here, so there may be more than messages.
            if count == BATCH {
                whole::by_channel(&packets, |of_channel| native(context, table, senders, of_channel));
                count = 0;
            }
        }
        whole::by_channel(&packets[..count], |of_channel| native(context, table, senders, of_channel));
    }
}

fn judge<'a>(egress: &Egress, octets: &'a [u8]) -> Result<Whole<'a>, DropReason> {
    let packet = Whole::parse(octets)?;
    // What clients of UMTP send leaves by every interface of ours: endpoints get it by the first.
    let is_again = || udp_source(&packet).is_some_and(|source| egress.is_again(source));
    if let IpAddr::V4(source) = packet.source
        && egress.is_own_address(source)
        && is_again()
    {
        return Err(DropReason::Own);
    }
    Ok(packet)
}

/// Address and port that a datagram comes from, where the packet is one and the first of its fragments.
fn udp_source(packet: &Whole<'_>) -> Option<SocketAddrV4> {
    let IpAddr::V4(source) = packet.source else { return None };
    let octets = packet.packet();
    let header_bytes = usize::from(octets.first()? & 0x0f) * 4;
    let port = octets.get(header_bytes..)?.first_chunk()?;
    Some(SocketAddrV4::new(source, u16::from_be_bytes(*port)))
}

/// Sends native packets of one source and group to this worker's endpoints.
pub(crate) fn native(context: &Context, table: &Table, senders: &mut Senders, packets: &[Whole<'_>]) {
    let (Some(first), Some(amt)) = (packets.first(), &context.shared.settings.amt) else { return };
    let Some(entry) = table.groups.get(&first.group) else { return };
    // A packet socket hears what anybody on this host has joined: what nobody here wants is no loss.
    if entry.counting_worker(first.source) == Some(context.index) {
        let mut taken = Traffic::default();
        for packet in packets {
            taken.count(packet.packet().len());
        }
        context.cells().flows.native_in.add(taken);
        entry.flows.native_in.add(taken);
    }
    let legs = entry.members[context.index].legs(first.source);
    senders.encap.send(Job { context, amt, entry, legs, packets });
}
