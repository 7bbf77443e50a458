//! The way from the workers to the control thread: two bounded queues and a bell.
//!
//! ```text
//!   tunnels with the right cookie, at most 64 events each ──▶ known ─────┐
//!                                                                        ├──▶ Events::recv_timeout, known first
//!   everybody else, DATA of any kind ───────────────────────▶ strangers ─┘
//! ```
//! A flood of strangers fills its own queue and is counted there; the refreshes of clients never wait behind it.

use crate::DropReason;
use crate::amt::gateway::GatewayId;
use crate::table::Tunnel;
use castgate_wire::umtp::Channel;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Events of one tunnel in the queue of the known: a client that joins everything it may at once needs about this many, and
/// one that floods us gets no more. What is beyond goes with the strangers.
const KNOWN_PER_TUNNEL_MAX: usize = 64;

/// What the workers leave to the control thread.
#[derive(Debug)]
pub enum Event {
    /// A datagram at the tunnel socket that no worker forwards by itself.
    Control {
        /// Who sent it.
        from: SocketAddrV4,
        /// All of it.
        datagram: Vec<u8>,
        /// It comes from a tunnel and carries the tunnel's cookie.
        known: bool,
    },
    /// A native datagram of this channel comes from the address of a tunnel that has the channel; it was not forwarded.
    Loop {
        /// The channel.
        channel: Channel,
        /// The address.
        source: Ipv4Addr,
    },
    /// The kernel refused a membership; it is tried again every second until it works or nobody has the channel any more.
    JoinFailed {
        /// The channel.
        channel: Channel,
        /// Name of the interface.
        interface: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// DATA of this tunnel was forwarded, told once a second.
    Activity {
        /// The client's address.
        tunnel: SocketAddrV4,
    },
    /// A datagram at an address of the AMT relay.
    Amt {
        /// The address of ours that it was sent to: the answer comes from there.
        local: SocketAddr,
        /// Who sent it.
        from: SocketAddr,
        /// All of it.
        datagram: Vec<u8>,
        /// It comes from the address and port of an endpoint; nothing else of it was proven.
        known: bool,
    },
    /// The kernel refused a membership for what all endpoints want; it is tried again every second until it works or nobody wants
    /// it any more.
    NativeRefused {
        /// The group.
        group: IpAddr,
        /// Name of the interface.
        interface: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// Whole packets of an interface cannot be had; it is tried again every second.
    IngressRefused {
        /// Name of the interface.
        interface: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// A datagram at a gateway's socket that is no Multicast Data.
    Gateway {
        /// The gateway.
        gateway: GatewayId,
        /// Who sent it.
        from: SocketAddr,
        /// All of it.
        datagram: Vec<u8>,
    },
    /// Data of this channel came from the relay and was forwarded, told once a second.
    GatewayData {
        /// The gateway.
        gateway: GatewayId,
        /// The source.
        source: IpAddr,
        /// The group.
        group: IpAddr,
    },
}

/// Somebody's events that wait for the control thread.
#[derive(Debug, Default)]
pub(crate) struct Share(AtomicUsize);

/// The control thread's end.
#[derive(Debug)]
pub struct Events {
    known: Receiver<Queued>,
    strangers: Receiver<Queued>,
    shared: Arc<Shared>,
}

/// Ends the current or next [`Events::recv_timeout`] early, from any thread.
#[derive(Debug, Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

/// The workers' end.
#[derive(Debug, Clone)]
pub(crate) struct EventSender {
    known: Queue,
    strangers: Queue,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
struct Queue {
    sender: SyncSender<Queued>,
    bound: usize,
}

#[derive(Debug, Default)]
struct Shared {
    known_waiting: AtomicUsize,
    strangers_waiting: AtomicUsize,
    woken: AtomicBool,
    asleep: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
}

#[derive(Debug)]
struct Queued {
    event: Event,
    /// Whose share of the queue it takes.
    share: Option<Arc<Share>>,
}

/// Two queues of these lengths.
pub(crate) fn queues(known_max: usize, strangers_max: usize) -> (EventSender, Events) {
    let shared = Arc::new(Shared::default());
    let (known_sender, known) = sync_channel(known_max);
    let (strangers_sender, strangers) = sync_channel(strangers_max);
    let sender = EventSender {
        known: Queue { sender: known_sender, bound: known_max },
        strangers: Queue { sender: strangers_sender, bound: strangers_max },
        shared: Arc::clone(&shared),
    };
    (sender, Events { known, strangers, shared })
}

impl Events {
    /// The next event, those of known tunnels first; `None` when the time is over or somebody rang the [`Waker`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Event> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(event) = self.try_recv() {
                return Some(event);
            }
            if self.shared.woken.swap(false, Ordering::SeqCst) {
                return None;
            }
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            *self.shared.sleeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
            self.shared.asleep.store(true, Ordering::SeqCst);
            // Whoever queued or rang before that line did not see us asleep: look once more.
            if self.shared.is_idle() {
                thread::park_timeout(left);
            }
            self.shared.asleep.store(false, Ordering::SeqCst);
        }
    }

    /// The next event that is there, those of known tunnels first.
    pub fn try_recv(&mut self) -> Option<Event> {
        if let Ok(Queued { event, share }) = self.known.try_recv() {
            self.shared.known_waiting.fetch_sub(1, Ordering::SeqCst);
            if let Some(share) = share {
                share.give_back();
            }
            return Some(event);
        }
        let Queued { event, share: _ } = self.strangers.try_recv().ok()?;
        self.shared.strangers_waiting.fetch_sub(1, Ordering::SeqCst);
        Some(event)
    }

    /// A bell for other threads that have something to say to this one.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker { shared: Arc::clone(&self.shared) }
    }
}

impl Waker {
    /// Rings.
    pub fn wake(&self) {
        self.shared.woken.store(true, Ordering::SeqCst);
        self.shared.rouse();
    }
}

impl Shared {
    fn is_idle(&self) -> bool {
        self.known_waiting.load(Ordering::SeqCst) == 0
            && self.strangers_waiting.load(Ordering::SeqCst) == 0
            && !self.woken.load(Ordering::SeqCst)
    }

    fn rouse(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = &*self.sleeper.lock().unwrap_or_else(PoisonError::into_inner)
        {
            thread.unpark();
        }
    }
}

impl Share {
    /// Takes a place, if there is one.
    fn take(&self) -> bool {
        let has_place = self.0.fetch_add(1, Ordering::Relaxed) < KNOWN_PER_TUNNEL_MAX;
        if !has_place {
            self.give_back();
        }
        has_place
    }

    fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl EventSender {
    /// A datagram for the control thread. `known` is the tunnel whose cookie it carries; without one, and for what has no
    /// claim to go first, it waits with the strangers.
    pub(crate) fn control(
        &self,
        from: SocketAddrV4,
        datagram: &[u8],
        known: Option<&Arc<Tunnel>>,
        first: bool,
    ) -> Result<(), DropReason> {
        let event = || Event::Control { from, datagram: datagram.to_vec(), known: known.is_some() };
        self.push_shared(event, known.filter(|_| first).map(|tunnel| &tunnel.share))
    }

    /// A datagram of AMT; `known` is the share of the endpoint that it comes from.
    pub(crate) fn amt(
        &self,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &[u8],
        known: Option<&Arc<Share>>,
    ) -> Result<(), DropReason> {
        let event = || Event::Amt { local, from, datagram: datagram.to_vec(), known: known.is_some() };
        self.push_shared(event, known)
    }

    /// A datagram at a gateway; `known` says that the relay in use sent it.
    pub(crate) fn gateway(
        &self,
        gateway: GatewayId,
        from: SocketAddr,
        datagram: &[u8],
        known: bool,
    ) -> Result<(), DropReason> {
        let event = || Event::Gateway { gateway, from, datagram: datagram.to_vec() };
        if known { self.push_known(event, None) } else { self.push_stranger(event) }
    }

    /// Something that a worker found out itself and that is rare.
    pub(crate) fn notice(&self, event: Event) -> Result<(), DropReason> {
        self.push_known(|| event, None)
    }

    /// Something that the network can make us say as often as it likes.
    pub(crate) fn lossy(&self, event: Event) -> Result<(), DropReason> {
        self.push_stranger(|| event)
    }

    /// First if somebody's share of that queue is not used up, else with the strangers.
    fn push_shared(&self, event: impl FnOnce() -> Event, share: Option<&Arc<Share>>) -> Result<(), DropReason> {
        match share {
            Some(share) if share.take() => self.push_known(event, Some(share)),
            _ => self.push_stranger(event),
        }
    }

    fn push_known(&self, event: impl FnOnce() -> Event, share: Option<&Arc<Share>>) -> Result<(), DropReason> {
        let pushed = self.push(&self.known, &self.shared.known_waiting, event, share);
        if !pushed && let Some(share) = share {
            share.give_back();
        }
        if pushed { Ok(()) } else { Err(DropReason::KnownQueueFull) }
    }

    fn push_stranger(&self, event: impl FnOnce() -> Event) -> Result<(), DropReason> {
        let pushed = self.push(&self.strangers, &self.shared.strangers_waiting, event, None);
        if pushed { Ok(()) } else { Err(DropReason::StrangerQueueFull) }
    }

    /// Takes a place first, so that a flood at a full queue costs no allocation.
    fn push(
        &self,
        queue: &Queue,
        waiting: &AtomicUsize,
        event: impl FnOnce() -> Event,
        share: Option<&Arc<Share>>,
    ) -> bool {
        if waiting.fetch_add(1, Ordering::SeqCst) >= queue.bound {
            waiting.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        let pushed = queue.sender.try_send(Queued { event: event(), share: share.cloned() }).is_ok();
        if pushed {
            self.shared.rouse();
        } else {
            // The control thread is gone.
            waiting.fetch_sub(1, Ordering::SeqCst);
        }
        pushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cookies;
    use castgate_wire::umtp::Cookie;

    const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), 9);

    #[test]
    fn a_flood_of_strangers_leaves_room_for_the_known_who_come_first() {
        let (sender, mut events) = queues(8, 4);
        let client = tunnel(1);
        let mut refused = 0;
        for _ in 0..100 {
            refused += u32::from(sender.control(STRANGER, b"?", None, false) == Err(DropReason::StrangerQueueFull));
        }
        sender.control(client.address, b"join", Some(&client), true).unwrap();
        assert_eq!(refused, 96);
        let order: Vec<_> = std::iter::from_fn(|| events.try_recv()).map(|event| is_known(&event)).collect();
        assert_eq!(order, [true, false, false, false, false]);
        sender.control(STRANGER, b"?", None, false).unwrap();
    }

    #[test]
    fn one_flooding_client_leaves_room_for_the_others() {
        let (sender, mut events) = queues(2 * KNOWN_PER_TUNNEL_MAX, 4);
        let (loud, quiet) = (tunnel(1), tunnel(2));
        let taken = (0..1000).filter(|_| sender.control(loud.address, b"x", Some(&loud), true).is_ok()).count();
        assert_eq!(taken, KNOWN_PER_TUNNEL_MAX + 4);
        sender.control(quiet.address, b"x", Some(&quiet), true).unwrap();
        // What was taken gives its place back.
        while events.try_recv().is_some() {}
        let taken = (0..1000).filter(|_| sender.control(loud.address, b"x", Some(&loud), true).is_ok()).count();
        assert_eq!(taken, KNOWN_PER_TUNNEL_MAX + 4);
    }

    #[test]
    fn data_waits_with_the_strangers_though_its_cookie_is_right() {
        let (sender, mut events) = queues(4, 4);
        let client = tunnel(1);
        sender.control(client.address, b"data", Some(&client), false).unwrap();
        sender.control(client.address, b"join", Some(&client), true).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| events.try_recv())
            .map(|event| match event {
                Event::Control { datagram, known: true, .. } => datagram,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [b"join", b"data"]);
    }

    #[test]
    fn a_sleeping_receiver_is_roused_by_an_event_and_by_the_waker() {
        let (sender, mut events) = queues(4, 4);
        let waker = events.waker();
        thread::scope(|scope| {
            let receiver = scope.spawn(move || {
                let first = events.recv_timeout(Duration::from_mins(1));
                let second = events.recv_timeout(Duration::from_mins(1));
                (first.is_some(), second.is_some())
            });
            sender.control(STRANGER, b"?", None, false).unwrap();
            // The waker may ring before the first event is taken; the event still comes first.
            waker.wake();
            assert_eq!(receiver.join().unwrap(), (true, false));
        });
    }

    #[test]
    fn time_ends_the_wait() {
        let (_sender, mut events) = queues(1, 1);
        assert!(events.recv_timeout(Duration::from_millis(1)).is_none());
    }

    fn tunnel(host: u8) -> Arc<Tunnel> {
        let cookies = Cookies { local: Cookie(1), previous: None, remote: Cookie(2) };
        Arc::new(Tunnel::new(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), 5000), cookies))
    }

    fn is_known(event: &Event) -> bool {
        matches!(event, Event::Control { known: true, .. })
    }
}
