//! Plain sockets of a LAN, of either address family: members that keep what they hear, and sources.

use crate::lab::{Host, wait};
use anyhow::{Context, Result};
use castgate_udp::UdpSocket as Memberships;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the thread looks whether it shall end.
const LOOK_UP: Duration = Duration::from_millis(50);
/// Of everything that sources send.
const HOPS: u32 = 16;

/// From whom, and what.
pub type Heard = (SocketAddr, Vec<u8>);

/// A member of a group on a LAN. Dropping it leaves.
#[derive(Debug)]
pub struct Member {
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The kernel leaves when this closes.
    _membership: Memberships,
}

/// Gives a host an IPv6 address in a LAN: labs are without IPv6 until somebody wants it.
///
/// # Errors
/// When the kernel refuses.
pub fn add_ipv6(host: &Host, lan: &str, address: Ipv6Addr) -> Result<()> {
    host.namespace().set(&format!("ipv6/conf/{lan}/disable_ipv6"), "0")?;
    host.ip(&format!("addr add {address}/64 dev {lan} nodad\n"))
}

/// Whether the kernel of a host is a member of a group, for whatever program.
#[must_use]
pub fn is_member(host: &Host, group: IpAddr) -> bool {
    let IpAddr::V6(group) = group else { return matches!(group, IpAddr::V4(group) if host.is_member(group)) };
    let digits = format!("{:032x}", u128::from(group));
    // Of this very thread: a process's own table is that of its first.
    let read = || std::fs::read_to_string("/proc/thread-self/net/igmp6");
    let table = host.enter(read).ok().and_then(Result::ok).unwrap_or_default();
    table.lines().any(|line| line.split_whitespace().nth(2) == Some(&digits))
}

impl Member {
    /// Joins a group, from one source or from all, on a host's interface to a LAN, and keeps what is sent to this port.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn join(host: &Host, lan: &str, group: IpAddr, source: Option<IpAddr>, port: u16) -> Result<Self> {
        let open = || -> io::Result<(UdpSocket, Memberships)> {
            // Bound to the group: it hears what the host is a member of. The membership is held by another socket.
            let socket = udp(group)?;
            socket.bind(&SocketAddr::from((group, port)).into())?;
            let membership = Memberships::for_memberships(group)?;
            membership.join(group, source, interface(lan)?)?;
            Ok((socket.into(), membership))
        };
        let (socket, membership) = host.enter(open)?.with_context(|| format!("{} joins {group}", host.name()))?;
        socket.set_read_timeout(Some(LOOK_UP)).context("a socket without a time-out")?;
        let (heard, stop) = (Arc::<Mutex<Vec<Heard>>>::default(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (heard, stop) = (heard.clone(), stop.clone());
            move || {
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                        lock(&heard).push((from, buffer[..len].to_vec()));
                    }
                }
            }
        });
        Ok(Self { heard, stop, thread: Some(thread), _membership: membership })
    }

    /// Everything heard so far.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.heard).clone()
    }

    /// How much was heard so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.heard).len()
    }

    /// Waits until `count` more datagrams were heard than now.
    ///
    /// # Errors
    /// When they have not come in time.
    pub fn wait_more(&self, count: usize, longest: Duration) -> Result<()> {
        let wanted = self.count() + count;
        wait::until(&format!("{count} more datagrams"), longest, || (self.count() >= wanted).then_some(()))
            .with_context(|| format!("{} heard", self.count()))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Sends numbered datagrams until it is dropped.
#[derive(Debug)]
pub struct Source {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    /// Starts to send to a group and port, from an address of a host's interface to a LAN: a datagram every `pause`. Its
    /// first eight octets are its number, from 0.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(host: &Host, lan: &str, from: IpAddr, to: SocketAddr, pause: Duration) -> Result<Self> {
        let socket = sender(host, lan, from)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let payload = [number.to_be_bytes().as_slice(), &[b'.'; 192]].concat();
                    // A lab that is being removed takes nothing any more.
                    if socket.send_to(&payload, to).is_err() {
                        return;
                    }
                    number += 1;
                    // The pace of the source itself, not a wait for something to happen.
                    std::thread::sleep(pause);
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A socket that sends multicast from an address of a host's interface to a LAN.
///
/// # Errors
/// When the kernel refuses.
pub fn sender(host: &Host, lan: &str, from: IpAddr) -> Result<UdpSocket> {
    let open = || -> io::Result<UdpSocket> {
        let socket = udp(from)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        match from {
            IpAddr::V4(address) => {
                socket.set_multicast_if_v4(&address)?;
                socket.set_multicast_ttl_v4(HOPS)?;
            }
            IpAddr::V6(_) => {
                socket.set_multicast_if_v6(interface(lan)?)?;
                socket.set_multicast_hops_v6(HOPS)?;
            }
        }
        Ok(socket.into())
    };
    host.enter(open)?.with_context(|| format!("{} cannot send multicast from {from}", host.name()))
}

fn udp(of: IpAddr) -> io::Result<Socket> {
    let domain = if of.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// The index of an interface in the namespace of the calling thread.
fn interface(name: &str) -> io::Result<u32> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(any, name)?)
}

fn lock<T>(heard: &Mutex<T>) -> MutexGuard<'_, T> {
    heard.lock().expect("nobody panics while he adds a datagram")
}
