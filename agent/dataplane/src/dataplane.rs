//! The handle: starts the workers, feeds them tables, sends for the control thread, reads what they counted, stops them.

use crate::amt::deliver::Deliveries;
use crate::amt::listen::Listeners;
use crate::amt::natives::Natives;
use crate::amt::too_big::TooBig;
use crate::counters::{Counters, DropReason, Flows, Traffic, WorkerCells};
use crate::egress::{Egress, EgressBatch};
use crate::events::{EventSender, Events, queues};
use crate::fanout::Packet;
use crate::handle::{self, Gateways, Handle};
use crate::ingress::Membership;
use crate::settings::{Interface, Settings, StartError};
use crate::table::{Table, TableBuilder};
use crate::worker::Worker;
use arc_swap::ArcSwap;
use castgate_udp::ready::{Bell, wait_writable};
use castgate_udp::{Errno, Options, UdpSocket};
use castgate_wire::umtp::Channel;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddrV4;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a control datagram waits for a full send buffer before it is dropped like any other.
pub(crate) const SEND_WAIT: Duration = Duration::from_millis(10);

/// A running dataplane; dropping it stops it.
#[derive(Debug)]
pub struct Dataplane {
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    listen: SocketAddrV4,
    multicast: Mutex<EgressBatch>,
    pub(crate) handle: Handle,
}

/// What the handle and the workers have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) started: Instant,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) egress: ArcSwap<Egress>,
    /// By worker, all of one address.
    pub(crate) tunnels: Box<[UdpSocket]>,
    /// By worker.
    pub(crate) bells: Box<[Bell]>,
    /// By worker; the last are the handle's.
    pub(crate) cells: Box<[WorkerCells]>,
    pub(crate) events: EventSender,
    /// The sockets of the AMT relay.
    pub(crate) amt: Listeners,
    pub(crate) too_big: TooBig,
    pub(crate) gateways: ArcSwap<Gateways>,
    pub(crate) deliveries: ArcSwap<Deliveries>,
    /// Taken when memberships change, when they are tried again, and when somebody asks, never for a packet.
    pub(crate) natives: Mutex<Natives>,
    pub(crate) natives_refused: AtomicBool,
    pub(crate) stopping: AtomicBool,
    /// By worker. Taken when memberships change and when somebody asks, never for a packet.
    joined: Mutex<Vec<BTreeSet<Membership>>>,
}

/// A channel as it is carried now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelReport {
    /// The channel.
    pub channel: Channel,
    /// Tunnels that have it.
    pub tunnels: usize,
    /// What was carried of it since it has had tunnels.
    pub flows: Flows,
}

/// A tunnel as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelReport {
    /// The client's address.
    pub tunnel: SocketAddrV4,
    /// Channels that it has.
    pub channels: usize,
    /// What was sent into it.
    pub sent: Traffic,
    /// DATA of it that was forwarded.
    pub received: Traffic,
}

/// A native membership as the kernel holds it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The channel.
    pub channel: Channel,
    /// Name of the interface; its number while a worker still has to leave one that is not used any more.
    pub interface: String,
    /// Workers that take it in.
    pub workers: usize,
}

impl Dataplane {
    /// Opens the sockets and starts the workers, with an empty table.
    ///
    /// # Errors
    /// [`StartError`]; then nothing is left running.
    pub fn start(settings: Settings) -> Result<(Self, Events), StartError> {
        raise_descriptor_limit();
        let (tunnels, listen) =
            tunnel_sockets(&settings).map_err(|source| StartError::Listen { address: settings.listen, source })?;
        let egress = Egress::open(&settings.interfaces, &Egress::default(), settings.send_buffer_bytes)?;
        let amt = Listeners::open(&settings)?;
        handle::check_whole_packets(&settings)?;
        let deliveries = Deliveries::open(&settings.deliver, settings.send_buffer_bytes)?;
        let workers = settings.workers.get();
        let bells = (0..workers).map(|_| Bell::new()).collect::<Result<_, _>>().map_err(StartError::Workers)?;
        let (sender, events) = queues(settings.known_queue_max, settings.stranger_queue_max);
        let shared = Arc::new(Shared {
            started: Instant::now(),
            table: ArcSwap::new(TableBuilder::new(settings.workers).build()),
            egress: ArcSwap::from_pointee(egress),
            tunnels,
            bells,
            cells: (0..=workers).map(|_| WorkerCells::default()).collect(),
            events: sender,
            amt,
            too_big: TooBig::open(settings.amt.is_some()),
            gateways: ArcSwap::default(),
            deliveries: ArcSwap::from_pointee(deliveries),
            natives: Mutex::default(),
            natives_refused: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            joined: Mutex::new(vec![BTreeSet::new(); workers]),
            settings,
        });
        let multicast = Mutex::new(EgressBatch::new());
        shared.set_native_interfaces();
        let handle = Handle::new(&shared);
        let mut dataplane = Self { shared, threads: Vec::with_capacity(workers), listen, multicast, handle };
        for index in 0..workers {
            // A failure drops the handle, which stops the workers that run already.
            let worker = Worker::new(index, Arc::clone(&dataplane.shared)).map_err(StartError::Workers)?;
            let thread = thread::Builder::new().name(format!("worker-{index}"));
            dataplane.threads.push(thread.spawn(move || worker.run()).map_err(StartError::Workers)?);
        }
        Ok((dataplane, events))
    }

    /// The address of all tunnels, with the port that the kernel chose if none was asked for.
    #[must_use]
    pub fn listen(&self) -> SocketAddrV4 {
        self.listen
    }

    /// An empty table to edit, for as many workers as there are here.
    #[must_use]
    pub fn table(&self) -> TableBuilder {
        let listeners = Arc::clone(&self.shared.amt.addresses);
        TableBuilder { listeners, ..TableBuilder::new(self.shared.settings.workers) }
    }

    /// Makes `table` the one that counts. Workers take it when they wake up, which this makes them do.
    ///
    /// # Panics
    /// When it was made for another number of workers.
    pub fn publish(&self, table: Arc<Table>) {
        assert_eq!(table.workers, self.shared.settings.workers, "a table fits the workers it was made for");
        self.shared.table.store(table);
        self.shared.ring_all();
    }

    /// Takes and multicasts on other interfaces from now on; what stays the same is not touched.
    ///
    /// # Errors
    /// [`StartError::Interface`]; then everything is as before.
    pub fn set_interfaces(&self, interfaces: &[Interface]) -> Result<(), StartError> {
        let egress = Egress::open(interfaces, &self.shared.egress.load(), self.shared.settings.send_buffer_bytes)?;
        self.shared.egress.store(Arc::new(egress));
        self.shared.set_native_interfaces();
        self.shared.ring_all();
        Ok(())
    }

    /// Sends one datagram from the tunnels' address. One that cannot be sent is counted.
    pub fn transmit(&self, to: SocketAddrV4, datagram: &[u8]) {
        let socket = &self.shared.tunnels[0];
        let sent = socket.send_to(datagram, to).or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock if wait_writable(socket, Some(SEND_WAIT))? => socket.send_to(datagram, to),
            _ => Err(error),
        });
        if let Err(error) = sent {
            let reason = DropReason::of_send(Errno::from_io_error(&error).unwrap_or(Errno::IO));
            self.cells().drop_packets(reason, 1);
        }
    }

    /// Multicasts one payload natively, as a worker does with DATA of a tunnel.
    pub fn multicast(&self, channel: &Channel, ttl: u8, payload: &[u8]) {
        let egress = self.shared.egress.load();
        let mut batch = self.multicast.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = egress.send(&mut batch, channel, &[Packet { payload, ttl }], self.cells());
        if let Some(entry) = self.shared.table.load().channels.get(channel) {
            entry.flows.native_out.add(sent);
        }
    }

    /// Everything counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.shared.cells.iter().for_each(|cells| cells.add_to(&mut sum));
        sum
    }

    /// The channels of the current table, in order.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelReport> {
        let table = self.shared.table.load();
        let mut reports: Vec<_> = table
            .channels
            .iter()
            .map(|(channel, entry)| ChannelReport {
                channel: *channel,
                tunnels: entry.members.iter().map(|members| members.legs.len()).sum(),
                flows: entry.flows.read(),
            })
            .collect();
        reports.sort_unstable_by_key(|report| report.channel);
        reports
    }

    /// The tunnels of the current table, in order.
    #[must_use]
    pub fn tunnels(&self) -> Vec<TunnelReport> {
        let table = self.shared.table.load();
        let mut reports: Vec<_> = table
            .tunnels
            .iter()
            .map(|(address, entry)| TunnelReport {
                tunnel: *address,
                channels: entry.grants.len(),
                sent: entry.tunnel.sent.read(),
                received: entry.tunnel.received.read(),
            })
            .collect();
        reports.sort_unstable_by_key(|report| report.tunnel);
        reports
    }

    /// The native memberships that work now, in order.
    #[must_use]
    pub fn joined(&self) -> Vec<Joined> {
        let mut workers = BTreeMap::<Membership, usize>::new();
        for membership in self.shared.joined().iter().flatten() {
            *workers.entry(*membership).or_default() += 1;
        }
        let egress = self.shared.egress.load();
        let name_of = |index: u32| match egress.interfaces().find(|interface| interface.index == index) {
            Some(interface) => interface.name.clone(),
            None => index.to_string(),
        };
        let report =
            |(Membership { channel, interface }, workers)| Joined { channel, interface: name_of(interface), workers };
        workers.into_iter().map(report).collect()
    }

    /// Ends the workers and waits for them. Stopping again does nothing; dropping also frees the address.
    pub fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.ring_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }

    pub(crate) fn cells(&self) -> &WorkerCells {
        self.shared.cells.last().expect("one more than there are workers")
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    pub(crate) fn set_joined(&self, worker: usize, memberships: BTreeSet<Membership>) {
        self.joined()[worker] = memberships;
    }

    fn joined(&self) -> MutexGuard<'_, Vec<BTreeSet<Membership>>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ring_all(&self) {
        self.bells.iter().for_each(Bell::ring);
    }
}

/// One socket a worker, all bound to one address, steered by the client's address.
fn tunnel_sockets(settings: &Settings) -> io::Result<(Box<[UdpSocket]>, SocketAddrV4)> {
    if settings.listen.port() != 0 {
        // Another server of ours would share the port in silence and take half of our clients: ask for it alone first.
        UdpSocket::bind(&Options::new(settings.listen))?;
    }
    let mut listen = settings.listen;
    let mut sockets = Vec::with_capacity(settings.workers.get());
    for _ in 0..settings.workers.get() {
        let socket = UdpSocket::bind(&Options {
            reuse_port: true,
            receive_buffer_bytes: Some(settings.receive_buffer_bytes),
            send_buffer_bytes: Some(settings.send_buffer_bytes),
            count_overflow: true,
            ..Options::new(listen)
        })?;
        if sockets.is_empty() {
            listen.set_port(socket.local_address()?.port());
            // Before the others are there, so that no datagram is placed by another rule.
            steer(&socket, settings.workers)?;
        }
        sockets.push(socket);
    }
    Ok((sockets.into(), listen))
}

fn steer(socket: &UdpSocket, workers: NonZeroUsize) -> io::Result<()> {
    if workers == NonZeroUsize::MIN { Ok(()) } else { socket.steer_by_source(workers) }
}

/// Every channel takes a descriptor in every worker that has it; the soft limit of 1024 is for programs that use `select`.
fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(?current, %error, "cannot raise the limit of open files");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castgate_udp::shard_of;
    use std::net::Ipv4Addr;

    #[test]
    fn what_a_client_sends_comes_to_the_worker_that_has_its_tunnels_whatever_its_port() {
        let workers = NonZeroUsize::new(3).unwrap();
        let any_port = |address| SocketAddrV4::new(address, 0);
        let settings = Settings { workers, ..Settings::new(any_port(Ipv4Addr::new(127, 62, 0, 1)), Vec::new()) };
        let (dataplane, _events) = Dataplane::start(settings).unwrap();
        let mut expected = [0; 3];
        for last in 1..=30 {
            let address = Ipv4Addr::new(127, 62, 1, last);
            for _port in 0..2 {
                let client = UdpSocket::bind(&Options::new(any_port(address))).unwrap();
                client.send_to(b"not UMTP", dataplane.listen()).unwrap();
            }
            expected[shard_of(address, workers)] += 2;
        }
        let seen_by = |worker: usize| {
            let mut counters = Counters::default();
            dataplane.shared.cells[worker].add_to(&mut counters);
            counters.dropped(DropReason::Malformed)
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while (0..3).map(seen_by).sum::<u64>() < 60 && Instant::now() < deadline {
            thread::yield_now();
        }
        assert_eq!([0, 1, 2].map(seen_by), expected);
    }
}
