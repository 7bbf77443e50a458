//! Hosts beside a relay: on the networks it delivers to, and programs of its own machine behind a TUN interface. A thread asks them
//! what they want, as every multicast router does, and tells the control thread.
//!
//! ```text
//!   IGMP, MLD of a LAN ─┐             ┌─▶ queries
//!                       ├─▶ Querier ──┤
//!   what TUN sends ─────┘             └─▶ changes ─▶ Demand, and the filters of the delivery
//! ```
//! Who asks on a LAN with several routers is decided by `castgate_endpoint::membership::querier`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use castgate_control::DeliverySnapshot;
use castgate_dataplane::{Delivery, Waker};
use castgate_endpoint::membership::Filter;
use castgate_endpoint::membership::querier::{Config, Output, Querier};
use castgate_udp::packet::MembershipSocket;
use castgate_udp::ready::{Bell, Poller};
use castgate_udp::tun::Tun;
use castgate_udp::whole::WholeSender;
use castgate_wire::membership::{Family, Message, Query, emit, parse};

use crate::roles::interface;

/// Messages of one place that are taken before the others and the timers have their turn.
const MESSAGES_PER_TURN_MAX: usize = 64;
/// The longest message that is read: an IPv6 packet of jumbo frames.
const MESSAGE_BYTES_MAX: usize = 16_384;
/// Room for the queries that wait in a socket.
const SEND_BUFFER_BYTES: usize = 65_536;
/// The source of MLD queries where an interface tells none.
const ANY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The token of the bell; a place has its number.
const BELL: u64 = u64::MAX;
/// The longest sleep.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// What hosts want of a group at a place.
#[derive(Debug)]
pub(super) struct Change {
    /// The place's number in the snapshot: interfaces in their order, then TUN.
    pub(super) place: usize,
    pub(super) group: IpAddr,
    pub(super) filter: Option<Filter>,
}

/// The places of a delivery, open.
#[derive(Debug)]
pub(in super::super) struct Places(Vec<Place>);

#[derive(Debug)]
struct Place {
    name: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    link: Link,
}

#[derive(Debug)]
enum Link {
    Lan { index: u32, ears: MembershipSocket, mouth: WholeSender },
    Tun(Arc<Tun>),
}

/// The thread that asks hosts.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) changes: Receiver<Change>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Places {
    /// Opens what a snapshot names; makes its TUN interface.
    ///
    /// # Errors
    /// The name of the interface, with what the kernel said.
    pub(in super::super) fn open(snapshot: &DeliverySnapshot) -> io::Result<Self> {
        let DeliverySnapshot { interfaces, tun } = snapshot;
        let lan = |name: &String| Place::lan(name).map_err(|error| named(name, &error));
        let mut places: Vec<Place> = interfaces.iter().map(lan).collect::<io::Result<_>>()?;
        if let Some(name) = tun {
            places.push(Place::tun(name).map_err(|error| named(name, &error))?);
        }
        Ok(Self(places))
    }

    /// The same for the dataplane.
    pub(in super::super) fn deliveries(&self) -> Vec<Delivery> {
        let delivery = |place: &Place| match &place.link {
            Link::Lan { index, .. } => Delivery::Interface { name: place.name.clone(), index: *index },
            Link::Tun(tun) => Delivery::Tun(Arc::clone(tun)),
        };
        self.0.iter().map(delivery).collect()
    }
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("delivery: interface {name:?}: {error}"))
}

impl Place {
    fn lan(name: &str) -> io::Result<Self> {
        let found = interface::find(name).map_err(io::Error::other)?;
        let link = Link::Lan {
            index: found.index,
            ears: MembershipSocket::open(found.index)?,
            mouth: WholeSender::open(found.index, SEND_BUFFER_BYTES)?,
        };
        let v4 = found.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
        Ok(Self { name: name.to_owned(), v4, v6: link_local(name).unwrap_or(ANY_LINK_LOCAL), link })
    }

    fn tun(name: &str) -> io::Result<Self> {
        let tun = Tun::create(name)?;
        // Packets keep the sources they have, to which the way back is another one. The machine's own setting for all
        // interfaces may still forbid it (the larger of the two counts), which the documentation tells.
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        if let Err(error) = std::fs::write(&path, "0") {
            tracing::warn!(path, %error, "packets from far sources may be refused on this interface");
        }
        tun.set_up()?;
        let link = Link::Tun(Arc::new(tun));
        Ok(Self { name: name.to_owned(), v4: Ipv4Addr::UNSPECIFIED, v6: ANY_LINK_LOCAL, link })
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.link {
            Link::Lan { ears, .. } => ears.read(buffer),
            Link::Tun(tun) => tun.read(buffer),
        }
    }

    /// RFC 3376 §4.1: queries go to the link alone.
    fn ask(&self, family: Family, query: Query) {
        let source = match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        };
        for packet in emit(&Message::Query(query), source) {
            let sent = match &self.link {
                Link::Lan { mouth, .. } => mouth.send(&packet),
                Link::Tun(tun) => tun.write(&packet).map(drop),
            };
            if let Err(error) = sent {
                tracing::debug!(interface = self.name, %error, "a query is not sent; the next one comes");
            }
        }
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.link {
            Link::Lan { ears, .. } => ears.as_fd(),
            Link::Tun(tun) => tun.as_fd(),
        }
    }
}

/// The address that MLD queries come from (RFC 3810 §5.1.14).
fn link_local(name: &str) -> Option<Ipv6Addr> {
    let table = std::fs::read_to_string("/proc/thread-self/net/if_inet6").ok()?;
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let address = Ipv6Addr::from(u128::from_str_radix(words.next()?, 16).ok()?);
        (words.last() == Some(name) && address.is_unicast_link_local()).then_some(address)
    })
}

impl Hosts {
    /// Begins to ask.
    ///
    /// # Errors
    /// When there is no thread, or descriptors are used up.
    pub(super) fn start(places: Places, waker: Waker) -> io::Result<Self> {
        let (say, changes) = mpsc::channel();
        let bell = Arc::new(Bell::new()?);
        let poller = Poller::new()?;
        poller.add(&*bell, BELL)?;
        for (token, place) in (0..).zip(&places.0) {
            poller.add(place, token)?;
        }
        let now = Instant::now();
        let both = |place: Place| {
            let queriers = [IpAddr::V4(place.v4), IpAddr::V6(place.v6)];
            let queriers = queriers.map(|address| Querier::new(Config::default(), address, now));
            Asked { place, queriers }
        };
        let asked = places.0.into_iter().map(both).collect();
        let thread = Asker { asked, poller, say, waker };
        let thread = thread::Builder::new().name("delivery-hosts".to_owned()).spawn(move || thread.run())?;
        Ok(Self { changes, bell, thread: Some(thread) })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A place with who asks there, one a family.
struct Asked {
    place: Place,
    queriers: [Querier; 2],
}

struct Asker {
    asked: Vec<Asked>,
    poller: Poller,
    say: Sender<Change>,
    waker: Waker,
}

impl Asker {
    fn run(mut self) {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let mut ready = [0; 64];
        loop {
            self.carry_out();
            let queriers = self.asked.iter().flat_map(|asked| &asked.queriers);
            let next = queriers.filter_map(Querier::next_timeout).min();
            let sleep = next.map_or(SLEEP_MAX, |at| at.saturating_duration_since(Instant::now()).min(SLEEP_MAX));
            let count = match self.poller.wait(Some(sleep), &mut ready) {
                Ok(count) => count,
                Err(error) => {
                    tracing::error!(%error, "hosts are no longer asked what they want");
                    return;
                }
            };
            for token in &ready[..count] {
                if *token == BELL {
                    return;
                }
                if let Some(asked) = usize::try_from(*token).ok().and_then(|number| self.asked.get_mut(number)) {
                    asked.hear(&mut buffer);
                }
            }
            let now = Instant::now();
            for querier in self.asked.iter_mut().flat_map(|asked| &mut asked.queriers) {
                querier.handle_timeout(now);
            }
        }
    }

    fn carry_out(&mut self) {
        let mut is_told = false;
        for (number, Asked { place, queriers }) in self.asked.iter_mut().enumerate() {
            for (querier, family) in queriers.iter_mut().zip([Family::V4, Family::V6]) {
                while let Some(output) = querier.poll_output() {
                    match output {
                        Output::Query(query) => place.ask(family, query),
                        Output::Changed { group, filter } => {
                            // Who would hear of it is gone only when this thread is about to end.
                            is_told |= self.say.send(Change { place: number, group, filter }).is_ok();
                        }
                        Output::Elected { querier } => {
                            tracing::info!(interface = place.name, %querier, "asks hosts what they want");
                        }
                        Output::OtherVersion { router, version } => {
                            tracing::warn!(interface = place.name, %router, version, "a router asks in another version");
                        }
                    }
                }
            }
        }
        if is_told {
            self.waker.wake();
        }
    }
}

impl Asked {
    fn hear(&mut self, buffer: &mut [u8]) {
        for _ in 0..MESSAGES_PER_TURN_MAX {
            let Ok(length) = self.place.read(buffer) else { return };
            // What a TUN interface sends besides, and what was damaged, is nobody's membership.
            let Ok(received) = parse(&buffer[..length]) else { continue };
            let querier = match received.source {
                IpAddr::V4(_) => &mut self.queriers[0],
                IpAddr::V6(_) => &mut self.queriers[1],
            };
            // RFC 3376 §9.2 and RFC 3810 §5.1.4: what was routed to us does not speak of this link.
            if received.hop_limit == 1 {
                querier.handle_message(Instant::now(), received.source, &received.message);
            }
        }
    }
}
