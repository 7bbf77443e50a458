//! The handle's part for AMT: sends for the relay and its gateways, holds native memberships, attaches gateways.

use crate::amt::deliver::Deliveries;
use crate::amt::filter::SourceFilter;
use crate::amt::gateway::{Gateway, GatewayId, one_hop_less};
use crate::amt::natives::Refused;
use crate::amt::settings::{Delivery, WholePackets};
use crate::amt::whole::{DATA, Whole};
use crate::amt::{listen, onward, sniff};
use crate::counters::{DropReason, Flows, Traffic};
use crate::dataplane::{SEND_WAIT, Shared};
use crate::settings::{Settings, StartError};
use crate::table::Table;
use crate::worker::{Context, Senders};
use crate::{Dataplane, Event};
use castgate_udp::packet::{PacketOptions, PacketSocket};
use castgate_udp::ready::wait_writable;
use castgate_udp::{Errno, Head, SEGMENTS_MAX, SendBatch, UdpSocket};
use castgate_wire::ip;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the handle needs to send by itself, as a worker does.
#[derive(Debug)]
pub(crate) struct Handle {
    control: Mutex<SendBatch>,
    injector: Mutex<Injector>,
    gateways: AtomicU64,
}

#[derive(Debug)]
struct Injector {
    context: Context,
    senders: Senders,
    octets: Vec<u8>,
}

/// The gateways of a dataplane. Immutable: others are another value.
#[derive(Debug, Default)]
pub(crate) struct Gateways(Vec<Arc<Gateway>>);

/// An endpoint of the AMT relay as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReport {
    /// The gateway's address.
    pub remote: SocketAddr,
    /// Our address that it speaks to.
    pub local: SocketAddr,
    /// Groups of which it wants something.
    pub groups: usize,
    /// The longest packet that goes to it in one piece, in octets; none before the first went.
    pub mtu: Option<usize>,
    /// What was sent to it.
    pub sent: Traffic,
}

/// A group as the AMT relay carries it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReport {
    /// The group.
    pub group: IpAddr,
    /// Endpoints that want something of it.
    pub endpoints: usize,
    /// What was carried of it since it has had endpoints.
    pub flows: Flows,
}

/// A native membership of the AMT relay as the kernel holds it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeReport {
    /// The group.
    pub group: IpAddr,
    /// Name of the interface.
    pub interface: String,
    /// What is taken in of it: more than was asked for where the kernel cannot say it.
    pub filter: SourceFilter,
}

impl Handle {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let context = Context {
            index: 0,
            cells: shared.cells.len() - 1,
            egress: Arc::default(),
            tunnel_overflow: AtomicU32::new(0),
            shared: Arc::clone(shared),
        };
        let senders = Senders::new(&shared.settings);
        Self {
            control: Mutex::new(SendBatch::new(1, SEGMENTS_MAX)),
            injector: Mutex::new(Injector { context, senders, octets: Vec::new() }),
            gateways: AtomicU64::new(0),
        }
    }
}

/// Says at the start what would otherwise be known when the first endpoint comes: that the privilege is missing.
pub(crate) fn check_whole_packets(settings: &Settings) -> Result<(), StartError> {
    let (Some(amt), Some(interface)) = (&settings.amt, settings.interfaces.first()) else { return Ok(()) };
    match amt.ingress {
        WholePackets::Rebuilt { .. } => Ok(()),
        WholePackets::Sniffed => {
            PacketSocket::open(&PacketOptions::new(interface.index)).map(drop).map_err(StartError::WholePackets)
        }
    }
}

impl Dataplane {
    /// The addresses of the AMT relay, in the order of the settings, with the ports that the kernel chose where none was asked
    /// for.
    #[must_use]
    pub fn amt_listen(&self) -> &[SocketAddr] {
        &self.shared.amt.addresses
    }

    /// Sends one datagram of the AMT relay from `local`, with a checksum. One that cannot be sent is counted.
    pub fn transmit_amt(&self, local: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let Some((listener, from)) = listen::find(&self.shared.amt.addresses, local) else {
            return self.cells().drop_packets(DropReason::Unreachable, 1);
        };
        let socket = self.shared.amt.listeners[listener].control();
        let mut batch = self.handle.control.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filling = batch.fill();
        filling.message_with(Head { from, ..Head::to(to) }, 0);
        filling.datagram(datagram, None);
        filling.send(socket, |outcome| {
            if let Some(error) = outcome.error {
                self.cells().drop_packets(DropReason::of_send(error), 1);
            }
        });
    }

    /// Takes in natively, on all interfaces, what all endpoints together want of a group; nothing without a filter.
    pub fn native_filter(&self, group: IpAddr, filter: Option<SourceFilter>) {
        self.shared.edit_natives(|natives, on_refusal| natives.set(group, filter, on_refusal));
    }

    /// The native memberships of the AMT relay that work now, in order.
    #[must_use]
    pub fn native_memberships(&self) -> Vec<NativeReport> {
        let natives = self.shared.natives.lock().unwrap_or_else(PoisonError::into_inner);
        let report = |(group, interface, filter)| NativeReport { group, interface, filter };
        natives.memberships().map(report).collect()
    }

    /// The endpoints of the current table, in order.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointReport> {
        let table = self.shared.table.load();
        let mut reports: Vec<_> = table
            .endpoints
            .iter()
            .map(|(remote, entry)| EndpointReport {
                remote: *remote,
                local: entry.local,
                groups: entry.filters.len(),
                mtu: Some(entry.leg.endpoint.mtu.load(Ordering::Relaxed)).filter(|mtu| *mtu != 0),
                sent: entry.leg.endpoint.sent.read(),
            })
            .collect();
        reports.sort_unstable_by_key(|report| report.remote);
        reports
    }

    /// The groups of the current table, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupReport> {
        let table = self.shared.table.load();
        let mut reports: Vec<_> = table
            .groups
            .iter()
            .map(|(group, entry)| GroupReport {
                group: *group,
                endpoints: entry.endpoints(),
                flows: entry.flows.read(),
            })
            .collect();
        reports.sort_unstable_by_key(|report| report.group);
        reports
    }

    /// Opens a socket for a relay above, of the relay's family. What comes from there goes to nobody before the relay and
    /// filters are set.
    ///
    /// # Errors
    /// What the kernel says: the address is not ours, descriptors are used up.
    pub fn attach_gateway(&self, bind: SocketAddr) -> io::Result<GatewayId> {
        let Shared { settings, gateways, .. } = &*self.shared;
        let number = self.handle.gateways.fetch_add(1, Ordering::Relaxed);
        let worker = usize::try_from(number).unwrap_or_default() % settings.workers;
        let buffers = (settings.receive_buffer_bytes, settings.send_buffer_bytes);
        let gateway = Arc::new(Gateway::open(GatewayId(number), bind, worker, buffers)?);
        gateways.rcu(|before| Gateways(before.0.iter().chain([&gateway]).cloned().collect()));
        self.shared.ring_all();
        Ok(gateway.id)
    }

    /// Closes a gateway's socket.
    pub fn detach_gateway(&self, gateway: GatewayId) {
        self.shared
            .gateways
            .rcu(|before| Gateways(before.0.iter().filter(|other| other.id != gateway).cloned().collect()));
        self.shared.ring_all();
    }

    /// The address and port of a gateway.
    #[must_use]
    pub fn gateway_address(&self, gateway: GatewayId) -> Option<SocketAddr> {
        self.shared.gateways.load().by_id(gateway).map(|gateway| gateway.address)
    }

    /// Sends one datagram from a gateway. One that cannot be sent is counted.
    ///
    /// # Errors
    /// What the kernel said; the gateway may be without a way to the relay.
    pub fn transmit_gateway(&self, gateway: GatewayId, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let gateways = self.shared.gateways.load();
        let sent = match gateways.by_id(gateway) {
            Some(gateway) => send_patiently(&gateway.socket, to, datagram),
            None => Err(Errno::ADDRNOTAVAIL.into()),
        };
        sent.inspect_err(|error| {
            let reason = DropReason::of_send(Errno::from_io_error(error).unwrap_or(Errno::IO));
            self.cells().drop_packets(reason, 1);
        })
    }

    /// Takes data at a gateway from this relay alone from now on, or from nobody.
    pub fn set_relay(&self, gateway: GatewayId, relay: Option<SocketAddr>) {
        if let Some(gateway) = self.shared.gateways.load().by_id(gateway) {
            gateway.edit(|rules| rules.relay = relay);
        }
    }

    /// Takes of a group at a gateway what `filter` admits from now on, or nothing.
    pub fn gateway_filter(&self, gateway: GatewayId, group: IpAddr, filter: Option<SourceFilter>) {
        if let Some(gateway) = self.shared.gateways.load().by_id(gateway) {
            gateway.edit(|rules| {
                match filter {
                    Some(filter) => rules.filters.insert(group, filter),
                    None => rules.filters.remove(&group),
                };
            });
        }
    }

    /// Sends a whole IP multicast packet to everybody who wants it, AMT, UMTP and native, as if it had come from a relay above:
    /// with a hop less. One that may not be forwarded is counted.
    pub fn inject(&self, packet: &[u8]) {
        let mut injector = self.handle.injector.lock().unwrap_or_else(PoisonError::into_inner);
        let Injector { context, senders, octets } = &mut *injector;
        octets.clear();
        octets.extend_from_slice(&DATA);
        octets.extend_from_slice(packet);
        let forwarded = ip::Packet::new_checked(&mut octets[DATA.len()..])
            .map_err(|_| DropReason::Malformed)
            .and_then(|mut packet| one_hop_less(&mut packet));
        match forwarded.and_then(|()| Whole::parse(octets)) {
            Ok(packet) => onward::send(context, &self.shared.table.load(), senders, &[packet]),
            Err(reason) => context.cells().drop_packets(reason, 1),
        }
    }

    /// Sends native packets of one source and group to the endpoints of the first worker as it would; tells how many datagrams
    /// the kernel took.
    pub(crate) fn send_as_worker(&self, table: &Table, packets: &[Whole<'_>]) -> u64 {
        let mut injector = self.handle.injector.lock().unwrap_or_else(PoisonError::into_inner);
        let Injector { context, senders, .. } = &mut *injector;
        let before = context.cells().flows.tunnels_out.read().packets;
        sniff::native(context, table, senders, packets);
        context.cells().flows.tunnels_out.read().packets - before
    }

    /// Delivers what relays above send in these places from now on, as far as it is wanted there: see
    /// [`delivery_filter`](Self::delivery_filter).
    ///
    /// # Errors
    /// [`StartError::Delivery`]; then everything is as before.
    pub fn set_deliver(&self, deliver: &[Delivery]) -> Result<(), StartError> {
        let deliveries = Deliveries::open(deliver, self.shared.settings.send_buffer_bytes)?;
        self.shared.deliveries.store(Arc::new(deliveries));
        Ok(())
    }

    /// Delivers of a group, at the place of this number in the list, what `filter` admits from now on, or nothing.
    pub fn delivery_filter(&self, place: usize, group: IpAddr, filter: Option<&SourceFilter>) {
        self.shared.deliveries.load().want(place, group, filter);
    }
}

impl Shared {
    /// Native memberships are held where native channels are taken.
    pub(crate) fn set_native_interfaces(&self) {
        let egress = self.egress.load();
        let interfaces = egress.interfaces().map(|interface| (interface.index, interface.name.clone()));
        self.edit_natives(|natives, on_refusal| natives.set_interfaces(interfaces, on_refusal));
    }

    pub(crate) fn retry_natives(&self) {
        if self.natives_refused.load(Ordering::Acquire) {
            self.edit_natives(|natives, _told_before| natives.retry());
        }
    }

    fn edit_natives(&self, edit: impl FnOnce(&mut crate::amt::natives::Natives, &mut dyn FnMut(Refused))) {
        let mut natives = self.natives.lock().unwrap_or_else(PoisonError::into_inner);
        edit(&mut natives, &mut |Refused { group, interface, error }| {
            tracing::warn!(%group, interface, %error, "cannot join");
            if let Err(reason) = self.events.notice(Event::NativeRefused { group, interface, error }) {
                self.cells[self.cells.len() - 1].drop_packets(reason, 1);
            }
        });
        let refused = natives.has_refusals();
        if self.natives_refused.swap(refused, Ordering::AcqRel) != refused && refused {
            // Its first worker sleeps until it hears of it.
            self.ring_all();
        }
    }
}

impl Gateways {
    pub(crate) fn by_id(&self, id: GatewayId) -> Option<&Arc<Gateway>> {
        self.0.iter().find(|gateway| gateway.id == id)
    }

    pub(crate) fn of_worker(&self, worker: usize) -> impl Iterator<Item = &Arc<Gateway>> {
        self.0.iter().filter(move |gateway| gateway.worker == worker)
    }
}

/// Waits a little for a full send buffer.
fn send_patiently(socket: &UdpSocket, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
    socket.send_to(datagram, to).or_else(|error| match error.kind() {
        io::ErrorKind::WouldBlock if wait_writable(socket, Some(SEND_WAIT))? => socket.send_to(datagram, to),
        _ => Err(error),
    })
}
