//! The forwarding table: which tunnels have which channels.
//!
//! ```text
//!   Table ── tunnels ── address ──▶ TunnelEntry { Tunnel, what it may do in each of its channels }
//!        ├── channels ─ Channel ──▶ ChannelEntry ── members of worker 0 ── Leg ──▶ Tunnel
//!        │                                       └─ members of worker n ── ..
//!        └── endpoints, groups: the same for AMT, see `amt::table`
//! ```
//! A table never changes: the control thread edits a [`TableBuilder`] and publishes what it [builds](TableBuilder::build). Both
//! share everything that was not edited. The one thing that changes in place is the [`Tunnel`] cell: its cookies, which are one
//! machine word, and its counters. A rotation of ten thousand tunnels' cookies therefore rebuilds nothing.

use crate::amt::table::{EndpointEntry, GroupEntry};
use crate::counters::{FlowCells, TrafficCell};
use crate::events::Share;
use crate::sharded::Sharded;
use castgate_udp::shard_of;
use castgate_wire::umtp::{Channel, Cookie};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The cookies of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cookies {
    /// Ours: what the client must send, and what we send as source cookie.
    pub local: Cookie,
    /// Ours before the last rotation, as long as it is still taken.
    pub previous: Option<Cookie>,
    /// The client's.
    pub remote: Cookie,
}

/// An immutable forwarding table.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) workers: NonZeroUsize,
    pub(crate) loop_check: bool,
    pub(crate) tunnels: Sharded<SocketAddrV4, Arc<TunnelEntry>>,
    pub(crate) channels: Sharded<Channel, Arc<ChannelEntry>>,
    pub(crate) endpoints: Sharded<SocketAddr, Arc<EndpointEntry>>,
    pub(crate) groups: Sharded<IpAddr, Arc<GroupEntry>>,
    /// By worker: filters of its endpoints. While there are some, it takes in whole packets.
    pub(crate) amt_legs: Vec<usize>,
}

/// The next table while it is edited. Edits of what does not exist do nothing.
#[derive(Debug, Clone)]
pub struct TableBuilder {
    pub(crate) table: Table,
    /// Where the relay listens, in the order of its sockets.
    pub(crate) listeners: Arc<[SocketAddr]>,
}

/// What all tables and legs share of one tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) address: SocketAddrV4,
    /// Local, previous local and remote cookie, 16 bits each from the bottom.
    cookies: AtomicU64,
    /// Longest datagram that the way to this client takes in a message of several; a refusal lowers it.
    pub(crate) segment_bytes_max: AtomicUsize,
    /// Its events that wait for the control thread.
    pub(crate) share: Arc<Share>,
    /// The second, since the start of the dataplane and plus one, of its last [`Event::Activity`](crate::Event::Activity).
    pub(crate) active_second: AtomicU32,
    pub(crate) sent: TrafficCell,
    pub(crate) received: TrafficCell,
}

/// A tunnel, by its address.
#[derive(Debug, Clone)]
pub(crate) struct TunnelEntry {
    pub(crate) tunnel: Arc<Tunnel>,
    pub(crate) grants: HashMap<Channel, Grant>,
}

/// What a tunnel may do in one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) may_send: bool,
    pub(crate) ttl_max: u8,
}

/// A channel, by its name.
#[derive(Debug, Clone)]
pub(crate) struct ChannelEntry {
    pub(crate) channel: Channel,
    /// By worker.
    pub(crate) members: Vec<Arc<Members>>,
    pub(crate) flows: Arc<FlowCells>,
}

/// The tunnels of one worker that have a channel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members {
    pub(crate) legs: Vec<Leg>,
    /// Their addresses, and how many tunnels each has.
    hosts: HashMap<Ipv4Addr, usize>,
}

/// One way for a channel to go.
#[derive(Debug, Clone)]
pub(crate) struct Leg {
    pub(crate) tunnel: Arc<Tunnel>,
}

impl TableBuilder {
    /// An empty table for a dataplane with so many workers and no AMT relay; see also [`Dataplane::table`](crate::Dataplane::table).
    #[must_use]
    pub fn new(workers: NonZeroUsize) -> Self {
        let table = Table {
            workers,
            loop_check: true,
            tunnels: Sharded::new(),
            channels: Sharded::new(),
            endpoints: Sharded::new(),
            groups: Sharded::new(),
            amt_legs: vec![0; workers.get()],
        };
        Self { table, listeners: Arc::default() }
    }

    /// Whether a native datagram from the address of a tunnel that has the channel is kept out and told as
    /// [`Event::Loop`](crate::Event::Loop). On at first.
    pub fn set_loop_check(&mut self, on: bool) {
        self.table.loop_check = on;
    }

    /// A tunnel was proven. One that is there keeps its channels and takes the cookies.
    pub fn tunnel_up(&mut self, tunnel: SocketAddrV4, cookies: Cookies) {
        if self.table.tunnels.get(&tunnel).is_none() {
            let entry = TunnelEntry { tunnel: Arc::new(Tunnel::new(tunnel, cookies)), grants: HashMap::new() };
            self.table.tunnels.insert(tunnel, Arc::new(entry));
        }
        self.cookies(tunnel, cookies);
    }

    /// The cookies of a tunnel changed. Takes effect at once, also in tables that are published already.
    pub fn cookies(&mut self, tunnel: SocketAddrV4, cookies: Cookies) {
        if let Some(entry) = self.table.tunnels.get(&tunnel) {
            entry.tunnel.set_cookies(cookies);
        }
    }

    /// A tunnel ended: it leaves its channels too.
    pub fn tunnel_down(&mut self, tunnel: SocketAddrV4) {
        if let Some(entry) = self.table.tunnels.remove(&tunnel) {
            for channel in entry.grants.keys() {
                self.remove_leg(tunnel, *channel);
            }
        }
    }

    /// A tunnel has this channel from now on. With `may_send` its DATA is multicast and relayed, with a TTL of at most
    /// `ttl_max`. Attaching again changes these two.
    pub fn attach(&mut self, tunnel: SocketAddrV4, channel: Channel, may_send: bool, ttl_max: u8) {
        let Some(entry) = self.table.tunnels.get_mut(&tunnel) else { return };
        let entry = Arc::make_mut(entry);
        if entry.grants.insert(channel, Grant { may_send, ttl_max }).is_some() {
            return;
        }
        let leg = Leg { tunnel: Arc::clone(&entry.tunnel) };
        let workers = self.table.workers;
        let entry = self.table.channels.get_or_insert_with(channel, || Arc::new(ChannelEntry::new(channel, workers)));
        let members = &mut Arc::make_mut(entry).members[shard_of(*tunnel.ip(), workers)];
        Arc::make_mut(members).add(leg);
    }

    /// A tunnel has this channel no more.
    pub fn detach(&mut self, tunnel: SocketAddrV4, channel: Channel) {
        let Some(entry) = self.table.tunnels.get_mut(&tunnel) else { return };
        if Arc::make_mut(entry).grants.remove(&channel).is_some() {
            self.remove_leg(tunnel, channel);
        }
    }

    /// The table as it is now, to be published. Costs the same whatever the size of the table.
    #[must_use]
    pub fn build(&self) -> Arc<Table> {
        Arc::new(self.table.clone())
    }

    fn remove_leg(&mut self, tunnel: SocketAddrV4, channel: Channel) {
        let Some(entry) = self.table.channels.get_mut(&channel) else { return };
        let entry = Arc::make_mut(entry);
        Arc::make_mut(&mut entry.members[shard_of(*tunnel.ip(), self.table.workers)]).remove(tunnel);
        if entry.is_empty() {
            self.table.channels.remove(&channel);
        }
    }
}

impl Table {
    /// The tunnel with this address, if `cookie` is one of those that its client may send.
    pub(crate) fn proven(&self, address: SocketAddrV4, cookie: Cookie) -> Option<&TunnelEntry> {
        self.tunnels.get(&address).filter(|entry| entry.tunnel.takes(cookie)).map(|entry| &**entry)
    }

    /// Whether a tunnel of this channel has that address.
    pub(crate) fn is_client(&self, entry: &ChannelEntry, address: Ipv4Addr) -> bool {
        entry.members[shard_of(address, self.workers)].hosts.contains_key(&address)
    }
}

impl ChannelEntry {
    fn new(channel: Channel, workers: NonZeroUsize) -> Self {
        let nobody = Arc::new(Members::default());
        Self { channel, members: vec![nobody; workers.get()], flows: Arc::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.iter().all(|members| members.legs.is_empty())
    }

    /// The worker that counts the channel's native datagrams, of all those that take them in.
    pub(crate) fn counting_worker(&self) -> Option<usize> {
        self.members.iter().position(|members| !members.legs.is_empty())
    }
}

impl Members {
    fn add(&mut self, leg: Leg) {
        *self.hosts.entry(*leg.tunnel.address.ip()).or_default() += 1;
        self.legs.push(leg);
    }

    fn remove(&mut self, tunnel: SocketAddrV4) {
        let Some(position) = self.legs.iter().position(|leg| leg.tunnel.address == tunnel) else { return };
        self.legs.swap_remove(position);
        let tunnels = self.hosts.get_mut(tunnel.ip()).expect("every leg is counted");
        *tunnels -= 1;
        if *tunnels == 0 {
            self.hosts.remove(tunnel.ip());
        }
    }
}

impl Tunnel {
    pub(crate) fn new(address: SocketAddrV4, cookies: Cookies) -> Self {
        let tunnel = Self {
            address,
            cookies: AtomicU64::new(0),
            segment_bytes_max: AtomicUsize::new(usize::MAX),
            share: Arc::default(),
            active_second: AtomicU32::new(0),
            sent: TrafficCell::default(),
            received: TrafficCell::default(),
        };
        tunnel.set_cookies(cookies);
        tunnel
    }

    fn set_cookies(&self, cookies: Cookies) {
        let Cookies { local, previous, remote } = cookies;
        // No previous one is the same as the current one twice.
        let previous = previous.unwrap_or(local);
        let word = u64::from(local.0) | u64::from(previous.0) << 16 | u64::from(remote.0) << 32;
        self.cookies.store(word, Relaxed);
    }

    /// Our cookie and the client's, as they stand in DATA to the client.
    pub(crate) fn outgoing_cookies(&self) -> (Cookie, Cookie) {
        let word = self.cookies.load(Relaxed);
        (low_cookie(word), low_cookie(word >> 32))
    }

    fn takes(&self, cookie: Cookie) -> bool {
        let word = self.cookies.load(Relaxed);
        cookie == low_cookie(word) || cookie == low_cookie(word >> 16)
    }
}

fn low_cookie(word: u64) -> Cookie {
    Cookie(u16::try_from(word & 0xffff).expect("16 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKERS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

    #[test]
    fn a_published_table_does_not_see_later_edits() {
        let mut builder = with_members(&[1, 2]);
        let published = builder.build();
        builder.detach(client(1), channel());
        builder.tunnel_down(client(2));
        assert_eq!(members(&published), [client(1), client(2)]);
        assert!(builder.build().channels.get(&channel()).is_none());
    }

    #[test]
    fn an_edit_leaves_other_channels_and_other_workers_shared() {
        let mut builder = with_members(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let other = Channel::any_source(Ipv4Addr::new(239, 0, 0, 9), 9);
        builder.attach(client(1), other, false, 1);
        let before = builder.build();
        builder.detach(client(2), channel());
        let after = builder.build();
        assert!(Arc::ptr_eq(before.channels.get(&other).unwrap(), after.channels.get(&other).unwrap()));
        let (before, after) = (before.channels.get(&channel()).unwrap(), after.channels.get(&channel()).unwrap());
        let changed = shard_of(*client(2).ip(), WORKERS);
        for worker in 0..WORKERS.get() {
            assert_eq!(Arc::ptr_eq(&before.members[worker], &after.members[worker]), worker != changed);
        }
    }

    #[test]
    fn a_tunnel_that_ends_leaves_all_its_channels() {
        let mut builder = with_members(&[1]);
        let ports = 1000..1100;
        for port in ports.clone() {
            builder.attach(client(1), Channel::any_source(Ipv4Addr::new(239, 0, 0, 9), port), true, 1);
        }
        builder.tunnel_down(client(1));
        let table = builder.build();
        assert_eq!((table.channels.iter().count(), table.tunnels.iter().count()), (0, 0));
    }

    #[test]
    fn a_leg_sits_with_the_worker_that_the_kernel_steers_its_client_to() {
        let table = with_members(&[1, 2, 3, 4, 5]).build();
        for (worker, members) in table.channels.get(&channel()).unwrap().members.iter().enumerate() {
            assert!(members.legs.iter().all(|leg| shard_of(*leg.tunnel.address.ip(), WORKERS) == worker));
        }
    }

    #[test]
    fn current_and_previous_cookie_are_taken_and_no_other() {
        let mut builder = with_members(&[1]);
        let table = builder.build();
        let taken = |cookie| table.proven(client(1), Cookie(cookie)).is_some();
        assert!(taken(0x0101) && !taken(0x0202) && !taken(0));
        builder.cookies(client(1), Cookies { local: Cookie(5), previous: Some(Cookie(0x0101)), remote: Cookie(7) });
        assert!(taken(5) && taken(0x0101) && !taken(7));
        assert_eq!(table.tunnels.get(&client(1)).unwrap().tunnel.outgoing_cookies(), (Cookie(5), Cookie(7)));
        builder.cookies(client(1), Cookies { local: Cookie(6), previous: None, remote: Cookie(7) });
        assert!(taken(6) && !taken(5));
        assert!(table.proven(client(2), Cookie(6)).is_none());
    }

    #[test]
    fn attaching_again_changes_the_grant_and_adds_no_second_leg() {
        let mut builder = with_members(&[1]);
        builder.attach(client(1), channel(), true, 9);
        let table = builder.build();
        assert_eq!(members(&table), [client(1)]);
        let entry = table.proven(client(1), Cookie(0x0101)).unwrap();
        assert_eq!(entry.grants[&channel()], Grant { may_send: true, ttl_max: 9 });
    }

    #[test]
    fn an_address_is_a_client_s_until_its_last_tunnel_leaves() {
        let mut builder = with_members(&[1]);
        let second_port = SocketAddrV4::new(*client(1).ip(), 6000);
        builder.tunnel_up(second_port, cookies(1));
        builder.attach(second_port, channel(), false, 1);
        let is_client = |builder: &TableBuilder| {
            let table = builder.build();
            table.channels.get(&channel()).is_some_and(|entry| table.is_client(entry, *client(1).ip()))
        };
        builder.detach(client(1), channel());
        assert!(is_client(&builder));
        builder.detach(second_port, channel());
        assert!(!is_client(&builder));
    }

    fn channel() -> Channel {
        Channel::any_source(Ipv4Addr::new(239, 1, 2, 3), 5004)
    }

    fn client(host: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), 5000)
    }

    fn cookies(host: u8) -> Cookies {
        Cookies { local: Cookie(u16::from(host) * 0x0101), previous: None, remote: Cookie(1) }
    }

    fn with_members(hosts: &[u8]) -> TableBuilder {
        let mut builder = TableBuilder::new(WORKERS);
        for &host in hosts {
            builder.tunnel_up(client(host), cookies(host));
            builder.attach(client(host), channel(), false, 1);
        }
        builder
    }

    fn members(table: &Table) -> Vec<SocketAddrV4> {
        let entry = table.channels.get(&channel()).unwrap();
        let legs = entry.members.iter().flat_map(|members| &members.legs);
        let mut addresses: Vec<_> = legs.map(|leg| leg.tunnel.address).collect();
        addresses.sort();
        addresses
    }
}
