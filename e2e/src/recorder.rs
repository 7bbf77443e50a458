//! A plain receiver: an ordinary socket that keeps everything, as any application of the LAN would hear it.

use crate::lab::{Host, wait};
use anyhow::{Context, Result};
use castgate_wire::umtp::Channel;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the thread looks whether it shall end.
const LOOK_UP: Duration = Duration::from_millis(50);
/// Far above what arrives while a busy machine does something else; the kernel caps it at `rmem_max`.
const RECEIVE_BUFFER_OCTETS: usize = 4 << 20;

/// A datagram as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// When.
    pub at: Instant,
    /// From whom.
    pub from: SocketAddrV4,
    /// What.
    pub payload: Vec<u8>,
}

/// A receiver that listens until it is dropped.
#[derive(Debug)]
pub struct Recorder {
    heard: Arc<Mutex<Vec<Datagram>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Joins a channel on a host's interface to a LAN and starts to record.
    ///
    /// # Errors
    /// When the kernel refuses the join.
    pub fn start(host: &Host, lan: &str, channel: Channel) -> Result<Self> {
        let interface = host.address(lan);
        let socket = host.enter(|| join(interface, channel))?.with_context(|| format!("{channel} is not joined"))?;
        Ok(Self::record(socket))
    }

    /// Records what arrives at a socket of any kind.
    #[must_use]
    pub fn record(socket: UdpSocket) -> Self {
        // Refused only when it is zero.
        socket.set_read_timeout(Some(LOOK_UP)).ok();
        let (heard, stop) = (Arc::<Mutex<Vec<Datagram>>>::default(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (heard, stop) = (heard.clone(), stop.clone());
            move || {
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    match socket.recv_from(&mut buffer) {
                        Ok((len, std::net::SocketAddr::V4(from))) => {
                            let payload = buffer[..len].to_vec();
                            lock(&heard).push(Datagram { at: Instant::now(), from, payload });
                        }
                        Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
                        _ => {}
                    }
                }
            }
        });
        Self { heard, stop, thread: Some(thread) }
    }

    /// Everything heard so far.
    #[must_use]
    pub fn heard(&self) -> Vec<Datagram> {
        lock(&self.heard).clone()
    }

    /// How much was heard so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.heard).len()
    }

    /// The payloads heard so far, one behind the other.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        lock(&self.heard).iter().flat_map(|datagram| datagram.payload.iter().copied()).collect()
    }

    /// Forgets what was heard.
    pub fn clear(&self) {
        lock(&self.heard).clear();
    }

    /// Waits until so many datagrams were heard.
    ///
    /// # Errors
    /// When they have not come in time.
    pub fn wait_count(&self, count: usize, longest: Duration) -> Result<()> {
        wait::until(&format!("{count} datagrams"), longest, || (self.count() >= count).then_some(()))
            .with_context(|| format!("{} heard", self.count()))
    }

    /// Waits until nothing has been heard for `quiet`, at most `longest`.
    ///
    /// # Errors
    /// When datagrams keep coming.
    pub fn wait_quiet(&self, quiet: Duration, longest: Duration) -> Result<()> {
        let start = Instant::now();
        wait::until("silence", longest, || {
            let last = lock(&self.heard).last().map_or(start, |datagram| datagram.at);
            (last.elapsed() >= quiet).then_some(())
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A socket that has joined `channel` on the interface with this address, in the namespace of the calling thread.
fn join(interface: Ipv4Addr, channel: Channel) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_OCTETS)?;
    // Bound to the group: what is sent to other groups on this port is somebody else's.
    socket.bind(&SockAddr::from(SocketAddrV4::new(channel.group, channel.port)))?;
    match channel.source {
        Some(source) => socket.join_ssm_v4(&source, &channel.group, &interface)?,
        None => socket.join_multicast_v4(&channel.group, &interface)?,
    }
    Ok(socket.into())
}

/// A socket that sends multicast from the address of a host's interface to a LAN.
///
/// # Errors
/// When the kernel refuses.
pub fn sender(host: &Host, lan: &str) -> Result<UdpSocket> {
    let address = host.address(lan);
    let open = || -> std::io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SockAddr::from(SocketAddrV4::new(address, 0)))?;
        socket.set_multicast_if_v4(&address)?;
        socket.set_multicast_ttl_v4(16)?;
        Ok(socket.into())
    };
    host.enter(open)?.with_context(|| format!("{} cannot send multicast", host.name()))
}

fn lock(heard: &Mutex<Vec<Datagram>>) -> MutexGuard<'_, Vec<Datagram>> {
    heard.lock().expect("nobody panics while he adds a datagram")
}
