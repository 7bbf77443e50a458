//! One worker thread: waits, takes the newest table, serves what is ready.

use crate::amt::control;
use crate::amt::deliver::DeliveryBatch;
use crate::amt::encap::Encap;
use crate::amt::gateway::{self, Gateway, GatewayId, Told};
use crate::amt::rebuild::Rebuilder;
use crate::amt::sniff::Sniffer;
use crate::counters::WorkerCells;
use crate::dataplane::Shared;
use crate::egress::{Egress, EgressBatch};
use crate::fanout::{BATCH, Fanout};
use crate::handle::Gateways;
use crate::ingress::{Ingress, Refusal};
use crate::settings::Settings;
use crate::table::Table;
use crate::{DropReason, Event, native, upstream};
use castgate_udp::ready::Poller;
use castgate_udp::{Gso, RecvBatch, UdpSocket};
use castgate_wire::umtp::{Channel, LONG_TRAILER_LEN};
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Tokens of the poller; ingress sockets follow.
const BELL: u64 = 0;
const TUNNEL: u64 = 1;
const FIRST_INGRESS: u64 = 2;
/// Of the AMT relay's sockets, of packet sockets, of UDP sockets in their place, and of gateways: each kind has more room than there are descriptors.
const FIRST_AMT: u64 = 1 << 32;
const FIRST_EAR: u64 = 2 << 32;
const FIRST_PORT: u64 = 3 << 32;
const FIRST_GATEWAY: u64 = 4 << 32;
/// Sockets served between two looks at the bell.
const READY_MAX: usize = 64;
/// How long a membership that the kernel refused waits for another try: interfaces come up within seconds.
const JOIN_RETRY: Duration = Duration::from_secs(1);

/// What a worker's parts need to know while they serve one batch.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) egress: Arc<Egress>,
    /// Datagrams lost at the tunnel socket, as the kernel said last.
    pub(crate) tunnel_overflow: AtomicU32,
    /// Which cells count: its own, or the handle's.
    pub(crate) cells: usize,
}

/// What a worker sends with.
#[derive(Debug)]
pub(crate) struct Senders {
    pub(crate) fanout: Fanout,
    pub(crate) egress: EgressBatch,
    pub(crate) encap: Encap,
    pub(crate) delivery: DeliveryBatch,
}

/// A worker, made before its thread is so that the thread cannot fail.
#[derive(Debug)]
pub(crate) struct Worker {
    context: Context,
    table: Arc<Table>,
    poller: Poller,
    ingress: Ingress,
    received: RecvBatch,
    senders: Senders,
    sniffer: Sniffer,
    rebuilder: Rebuilder,
    gateways: Arc<Gateways>,
    told: Told,
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&shared.bells[index], BELL)?;
        poller.add(&shared.tunnels[index], TUNNEL)?;
        let settings = &shared.settings;
        for (number, listener) in (FIRST_AMT..).zip(&shared.amt.listeners) {
            poller.add(&listener.sockets[index], number)?;
        }
        // One octet more than anything allowed: what is too long is seen to be.
        let datagram_bytes_max = settings.payload_bytes_max + LONG_TRAILER_LEN + 1;
        Ok(Self {
            ingress: Ingress::new(FIRST_INGRESS, settings.receive_buffer_bytes),
            received: RecvBatch::new(BATCH, datagram_bytes_max),
            senders: Senders::new(settings),
            sniffer: Sniffer::new(FIRST_EAR, settings),
            rebuilder: Rebuilder::new(FIRST_PORT, settings.receive_buffer_bytes, settings.rebuilt_ports()),
            gateways: Arc::default(),
            told: Told::default(),
            table: shared.table.load_full(),
            poller,
            context: Context {
                cells: index,
                index,
                egress: Arc::default(),
                tunnel_overflow: AtomicU32::new(0),
                shared,
            },
        })
    }

    /// Runs until the dataplane stops.
    pub(crate) fn run(mut self) {
        let mut ready = [0; READY_MAX];
        let mut retry_at = Instant::now() + JOIN_RETRY;
        loop {
            // Traffic must not put off the retry, so it has a time of its own.
            let timeout = self.has_refusals().then(|| retry_at.saturating_duration_since(Instant::now()));
            let count = match self.poller.wait(timeout, &mut ready) {
                Ok(count) => count,
                Err(error) => {
                    tracing::error!(worker = self.context.index, %error, "cannot wait for packets any more");
                    return;
                }
            };
            // Before looking at what it rang for: what is rung for after that look rings again.
            if ready[..count].contains(&BELL) {
                self.context.shared.bells[self.context.index].hush();
            }
            if self.context.shared.stopping.load(Ordering::Acquire) {
                return;
            }
            self.take_news();
            if timeout.is_some() && Instant::now() >= retry_at {
                retry_at = Instant::now() + JOIN_RETRY;
                self.retry();
            }
            for &token in &ready[..count] {
                self.serve(token);
            }
        }
    }

    fn serve(&mut self, token: u64) {
        let Self { context, table, ingress, received, senders, sniffer, rebuilder, gateways, told, .. } = self;
        match token {
            // Hushed already.
            BELL => {}
            TUNNEL => upstream::handle(context, table, received, senders),
            FIRST_AMT..FIRST_EAR => {
                let listener = usize::try_from(token - FIRST_AMT).expect("a place in a list");
                control::handle(context, table, listener, received);
            }
            FIRST_EAR..FIRST_PORT => sniffer.forward(token, context, table, senders),
            FIRST_PORT..FIRST_GATEWAY => rebuilder.forward(token, context, table, received, senders),
            FIRST_GATEWAY.. => {
                if let Some(gateway) = gateways.by_id(GatewayId(token - FIRST_GATEWAY)) {
                    gateway::handle(context, table, gateway, received, senders, told);
                }
            }
            ingress_socket => {
                if let Some(member) = ingress.by_token(ingress_socket) {
                    native::forward(context, table, member, received, senders);
                }
            }
        }
    }

    /// Takes the newest table and interfaces, and joins and leaves what they ask for.
    fn take_news(&mut self) {
        self.take_gateways();
        let shared = &self.context.shared;
        // Interfaces first: they are changed rarely, and a table never asks for others.
        let new_egress = !std::ptr::eq(&raw const **shared.egress.load(), Arc::as_ptr(&self.context.egress));
        let new_table = !std::ptr::eq(&raw const **shared.table.load(), Arc::as_ptr(&self.table));
        if !new_egress && !new_table {
            return;
        }
        let table = shared.table.load_full();
        let mut changed: BTreeSet<Channel> = table.channels.keys_near_changes(&self.table.channels).copied().collect();
        if new_egress {
            self.context.egress = shared.egress.load_full();
            changed.extend(self.ingress.channels());
            changed.extend(table.channels.iter().map(|(channel, _)| *channel));
        }
        self.table = table;
        self.listen();
        for channel in changed {
            self.follow(channel);
        }
        self.tell_memberships();
    }

    /// Takes in a channel if this worker has a member of it, else not.
    fn follow(&mut self, channel: Channel) {
        let Self { context, table, poller, ingress, .. } = self;
        let wanted = table.channels.get(&channel).is_some_and(|entry| !entry.members[context.index].legs.is_empty());
        let egress = Arc::clone(&context.egress);
        ingress.set(poller, channel, wanted, egress.interfaces(), &mut |Refusal { membership, error }| {
            let name = egress.interfaces().find(|interface| interface.index == membership.interface);
            let interface = name.map_or_else(String::new, |interface| interface.name.clone());
            tracing::warn!(%channel, interface, %error, "cannot join");
            context.count_refusal(context.shared.events.notice(Event::JoinFailed { channel, interface, error }));
        });
    }

    /// Takes in whole packets if this worker has endpoints, else not.
    fn listen(&mut self) {
        let Self { context, table, poller, sniffer, rebuilder, .. } = self;
        let wanted = table.amt_legs[context.index] > 0;
        if context.shared.settings.is_rebuilding() {
            if let Err(error) = rebuilder.set(poller, wanted) {
                tracing::warn!(%error, "cannot take in the ports of channels");
                let event = Event::IngressRefused { interface: String::new(), error };
                context.count_refusal(context.shared.events.notice(event));
            }
            return;
        }
        let egress = Arc::clone(&context.egress);
        sniffer.set(poller, wanted, egress.interfaces(), |interface, error| {
            let interface = interface.name.clone();
            tracing::warn!(interface, %error, "cannot take in whole packets");
            context.count_refusal(context.shared.events.notice(Event::IngressRefused { interface, error }));
        });
    }

    /// Watches the sockets of gateways that became this worker's.
    fn take_gateways(&mut self) {
        let Self { context, gateways, poller, .. } = self;
        if std::ptr::eq(&raw const **context.shared.gateways.load(), Arc::as_ptr(gateways)) {
            return;
        }
        let before = std::mem::replace(gateways, context.shared.gateways.load_full());
        let is_new = |gateway: &&Arc<Gateway>| before.by_id(gateway.id).is_none();
        for gateway in gateways.of_worker(context.index).filter(is_new) {
            if let Err(error) = poller.add(&gateway.socket, FIRST_GATEWAY + gateway.id.0) {
                tracing::error!(address = %gateway.address, %error, "cannot watch a gateway's socket");
            }
        }
    }

    /// Native memberships of AMT are the handle's; the first worker is awake for them.
    fn minds_natives(&self) -> bool {
        self.context.index == 0
    }

    fn has_refusals(&self) -> bool {
        let natives = self.minds_natives() && self.context.shared.natives_refused.load(Ordering::Acquire);
        natives || self.ingress.has_refusals() || self.sniffer.has_refusals()
    }

    fn retry(&mut self) {
        if self.ingress.has_refusals() && self.ingress.retry(&self.poller) {
            self.tell_memberships();
        }
        if self.sniffer.has_refusals() {
            self.listen();
        }
        if self.minds_natives() {
            self.context.shared.retry_natives();
        }
    }

    fn tell_memberships(&self) {
        let Self { context, ingress, .. } = self;
        context.shared.set_joined(context.index, ingress.memberships().collect());
    }
}

impl Senders {
    pub(crate) fn new(settings: &Settings) -> Self {
        let gso = if settings.segmentation { Gso::probe() } else { Gso::OFF };
        Self {
            fanout: Fanout::new(gso),
            egress: EgressBatch::new(),
            encap: Encap::new(gso, settings.amt.as_ref()),
            delivery: DeliveryBatch::new(),
        }
    }
}

impl Context {
    pub(crate) fn cells(&self) -> &WorkerCells {
        &self.shared.cells[self.cells]
    }

    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.shared.tunnels[self.index]
    }

    pub(crate) fn is_own_address(&self, address: Ipv4Addr) -> bool {
        let settings = &self.shared.settings;
        *settings.listen.ip() == address
            || settings.own_addresses.contains(&address)
            || self.egress.is_own_address(address)
    }

    /// Whole seconds since the start.
    pub(crate) fn second(&self) -> u32 {
        u32::try_from(self.shared.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    pub(crate) fn lossy(&self, event: Event) {
        self.count_refusal(self.shared.events.lossy(event));
    }

    pub(crate) fn count_refusal(&self, passed: Result<(), DropReason>) {
        if let Err(reason) = passed {
            self.cells().drop_packets(reason, 1);
        }
    }
}
