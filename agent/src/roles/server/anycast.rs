//! Addresses that other relays have too (RFC 7450 §5.1): on this host while the server runs, announced only while it is ready.
//!
//! ```text
//!   server runs      address on lo, never chosen as a source          the relay's sockets can be bound to it
//!   server is ready  route to it in a table of its own (2268)         a routing daemon learns it from there and tells others
//! ```
//! A routing daemon that reads the table (BIRD: `kernel table 2268; learn;`) announces this relay exactly as long as it takes
//! gateways. Needs `CAP_NET_ADMIN`. What an earlier life left behind is taken over; what an administrator put there himself stays.

use std::io;
use std::net::IpAddr;

use castgate_control::AnycastSnapshot;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol, AddressScope, CacheInfo};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// `lo` has this index in every network namespace.
const LOOPBACK: u32 = 1;
/// The header of a netlink message: none is shorter.
const ALIGNED_MIN: usize = 16;
/// Marks what we made. `rtnetlink(7)` leaves numbers above 4 to whoever makes an address or a route.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(226);
/// The same on addresses; kernels before 5.18 do not keep it, and there an address outlives a program that was killed.
const ADDRESS_PROTOCOL: AddressProtocol = AddressProtocol::Other(226);

/// Why an anycast address is not ours: one sentence that names it.
#[derive(Debug, thiserror::Error)]
#[error("anycast address {address}: {action}: {source}")]
pub struct AnycastError {
    address: IpAddr,
    action: &'static str,
    source: io::Error,
}

/// The anycast addresses of one server.
#[derive(Debug)]
pub struct Anycast {
    netlink: Netlink,
    table: u32,
    /// With those that we put on the loopback interface ourselves marked.
    addresses: Vec<(IpAddr, bool)>,
    is_announced: bool,
}

impl Anycast {
    /// Puts the addresses on the loopback interface and announces none of them yet.
    ///
    /// # Errors
    /// [`AnycastError`], mostly for want of `CAP_NET_ADMIN`; then nothing is left behind.
    pub fn open(snapshot: &AnycastSnapshot) -> Result<Self, AnycastError> {
        let AnycastSnapshot { addresses, table } = snapshot;
        let netlink = Netlink::open();
        let unspecified = addresses.first().copied().unwrap_or(IpAddr::from([0; 4]));
        let netlink = netlink.map_err(failed(unspecified, "the kernel's routing cannot be asked"))?;
        let mut anycast = Self { netlink, table: table.get(), addresses: Vec::new(), is_announced: false };
        for address in addresses {
            let is_new = anycast.netlink.add_address(*address).map_err(failed(*address, "not taken"))?;
            anycast.addresses.push((*address, is_new));
            anycast.netlink.remove_route(*address, anycast.table).map_err(failed(*address, "not withdrawn"))?;
        }
        Ok(anycast)
    }

    /// Announces the addresses, or withdraws them. Doing again what is done costs nothing.
    ///
    /// # Errors
    /// [`AnycastError`] of the first that failed; the others are tried all the same, and all of them the next time.
    pub fn announce(&mut self, is_ready: bool) -> Result<(), AnycastError> {
        if self.is_announced == is_ready {
            return Ok(());
        }
        let mut first = Ok(());
        for (address, _) in &self.addresses {
            let done = if is_ready {
                self.netlink.add_route(*address, self.table).map_err(failed(*address, "not announced"))
            } else {
                self.netlink.remove_route(*address, self.table).map_err(failed(*address, "not withdrawn"))
            };
            first = first.and(done);
        }
        if first.is_ok() {
            self.is_announced = is_ready;
            tracing::info!(announced = is_ready, table = self.table, "anycast addresses");
        }
        first
    }

    /// The addresses that are announced now.
    pub fn announced(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter(|_| self.is_announced).map(|(address, _)| *address)
    }
}

impl Drop for Anycast {
    fn drop(&mut self) {
        if let Err(error) = self.announce(false) {
            tracing::error!(%error, "an anycast address stays announced");
        }
        for (address, is_ours) in std::mem::take(&mut self.addresses) {
            if is_ours && let Err(error) = self.netlink.remove_address(address) {
                tracing::error!(%address, %error, "an anycast address stays on this host");
            }
        }
    }
}

fn failed(address: IpAddr, action: &'static str) -> impl FnOnce(io::Error) -> AnycastError {
    move |source| AnycastError { address, action, source }
}

/// A conversation with the kernel about addresses and routes, one request at a time.
#[derive(Debug)]
struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Whether it is ours: just added, or by an earlier life of this program.
    fn add_address(&mut self, address: IpAddr) -> io::Result<bool> {
        let message = RouteNetlinkMessage::NewAddress(address_message(address));
        match self.request(message, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.is_marked(address),
            done => done.map(|()| true),
        }
    }

    /// Whether an address bears our mark.
    fn is_marked(&mut self, address: IpAddr) -> io::Result<bool> {
        self.send(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let mut marked = false;
        loop {
            for answer in self.receive()? {
                match answer {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(found)) => {
                        let has = |wanted: &AddressAttribute| found.attributes.contains(wanted);
                        let is_it = has(&AddressAttribute::Local(address)) || has(&AddressAttribute::Address(address));
                        marked |= is_it && has(&AddressAttribute::Protocol(ADDRESS_PROTOCOL));
                    }
                    NetlinkPayload::Done(_) => return Ok(marked),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    fn remove_address(&mut self, address: IpAddr) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelAddress(address_message(address)), 0) {
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
            done => done,
        }
    }

    fn add_route(&mut self, address: IpAddr, table: u32) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewRoute(route_message(address, table)), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// A route that is not there is removed.
    fn remove_route(&mut self, address: IpAddr, table: u32) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelRoute(route_message(address, table)), 0) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
            done => done,
        }
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        loop {
            for answer in self.receive()? {
                match answer {
                    // An acknowledgement is an error message with code 0.
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut octets = vec![0; packet.buffer_len()];
        packet.serialize(&mut octets);
        self.socket.send(&octets, 0).map(drop)
    }

    /// What the next datagram of the kernel says about the last request.
    fn receive(&mut self) -> io::Result<Vec<NetlinkPayload<RouteNetlinkMessage>>> {
        let (datagram, _kernel) = self.socket.recv_from_full()?;
        let mut answers = Vec::new();
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
            rest = rest.get(length.next_multiple_of(4).max(ALIGNED_MIN)..).unwrap_or_default();
            if answer.header.sequence_number == self.sequence {
                answers.push(answer.payload);
            }
        }
        Ok(answers)
    }
}

fn family_of(address: IpAddr) -> (AddressFamily, u8) {
    match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}

fn address_message(address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    (message.header.family, message.header.prefix_len) = family_of(address);
    message.header.index = LOOPBACK;
    // Neither scope host nor a preferred life of nothing is ever chosen as the source of what others send.
    message.header.scope = match address {
        IpAddr::V4(_) => AddressScope::Host,
        IpAddr::V6(_) => AddressScope::Universe,
    };
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message.attributes.push(AddressAttribute::Protocol(ADDRESS_PROTOCOL));
    if address.is_ipv6() {
        let mut life = CacheInfo::default();
        life.ifa_preferred = 0;
        life.ifa_valid = u32::MAX;
        message.attributes.push(AddressAttribute::CacheInfo(life));
    }
    message
}

fn route_message(address: IpAddr, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    (message.header.address_family, message.header.destination_prefix_length) = family_of(address);
    message.header.protocol = PROTOCOL;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match address {
        IpAddr::V4(_) => RouteScope::Link,
        IpAddr::V6(_) => RouteScope::Universe,
    };
    let destination = match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    };
    message.attributes.push(RouteAttribute::Table(table));
    message.attributes.push(RouteAttribute::Destination(destination));
    message.attributes.push(RouteAttribute::Oif(LOOPBACK));
    message
}
