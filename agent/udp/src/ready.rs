//! Waiting: for many sockets at once, for one of them, and for a word from another thread.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Descriptors reported by one [`Poller::wait`] at most.
const EVENTS_MAX: usize = 64;

/// Waits for many descriptors; each carries a token of the caller's choice.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// A poller that watches nothing yet.
    ///
    /// # Errors
    /// What the kernel says: descriptors are used up.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll })
    }

    /// Watches `source` until it is closed: it is reported by every [`wait`](Self::wait) as long as it can be read.
    ///
    /// # Errors
    /// What the kernel says: `EEXIST` when it is watched already.
    pub fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
    }

    /// Sleeps until something can be read or the time is over. The tokens of what can be read are at the front of `ready`,
    /// and the result is their number; what there was no room for is reported by the next call.
    ///
    /// # Errors
    /// What the kernel says; an interrupting signal is no error but an empty answer.
    pub fn wait(&self, timeout: Option<Duration>, ready: &mut [u64]) -> io::Result<usize> {
        let timeout = timeout.map(to_timespec);
        let mut events = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        let room = ready.len().min(EVENTS_MAX);
        match epoll::wait(&self.epoll, &mut events[..room], timeout.as_ref()) {
            Ok((events, _)) => {
                for (place, event) in ready.iter_mut().zip(&*events) {
                    *place = event.data.u64();
                }
                Ok(events.len())
            }
            Err(Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// A bell that any thread may ring and one [`Poller`] hears.
#[derive(Debug)]
pub struct Bell {
    eventfd: OwnedFd,
}

impl Bell {
    /// A bell that has not rung.
    ///
    /// # Errors
    /// What the kernel says: descriptors are used up.
    pub fn new() -> io::Result<Self> {
        Ok(Self { eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Rings: the bell can be read until it is [hushed](Self::hush). Ringing twice is as good as once.
    pub fn ring(&self) {
        // The one failure there is, a counter that is full, means that it rings already.
        let _ringing = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }

    /// Takes all rings so far.
    pub fn hush(&self) {
        // The one failure there is means that it did not ring.
        let _silent = rustix::io::read(&self.eventfd, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

/// Blocks until `socket` has a datagram; `false` when `timeout` passed first.
///
/// # Errors
/// What the kernel says.
pub fn wait_readable(socket: impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    wait_for(socket, PollFlags::IN, timeout)
}

/// Blocks until `socket` has room for another datagram; `false` when `timeout` passed first.
///
/// # Errors
/// What the kernel says.
pub fn wait_writable(socket: impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    wait_for(socket, PollFlags::OUT, timeout)
}

fn wait_for(socket: impl AsFd, flags: PollFlags, timeout: Option<Duration>) -> io::Result<bool> {
    let timeout = timeout.map(to_timespec);
    loop {
        match poll(&mut [PollFd::new(&socket, flags)], timeout.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            // Waiting the whole time again lets a signal only lengthen the wait.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn to_timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, RecvBatch, UdpSocket};
    use std::net::{Ipv4Addr, SocketAddrV4};

    #[test]
    fn a_bell_rung_by_another_thread_ends_the_wait() {
        let bell = Bell::new().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(&bell, 7).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| bell.ring());
            assert_eq!(tokens(&poller, None), [7]);
        });
        bell.hush();
        assert!(tokens(&poller, Some(Duration::ZERO)).is_empty());
    }

    #[test]
    fn a_socket_is_reported_until_it_is_read_and_forgotten_when_closed() {
        let bind = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let socket = UdpSocket::bind(&Options::new(bind)).unwrap();
        let poller = Poller::new().unwrap();
        poller.add(&socket, 3).unwrap();
        socket.send_to(b"x", socket.local_address().unwrap()).unwrap();
        for _ in 0..2 {
            assert_eq!(tokens(&poller, None), [3]);
        }
        RecvBatch::new(1, 16).receive(&socket).unwrap();
        assert!(tokens(&poller, Some(Duration::ZERO)).is_empty());
        socket.send_to(b"x", socket.local_address().unwrap()).unwrap();
        drop(socket);
        assert!(tokens(&poller, Some(Duration::ZERO)).is_empty());
    }

    #[test]
    fn waiting_for_nothing_ends_with_the_time() {
        let socket = UdpSocket::bind(&Options::new(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))).unwrap();
        assert!(!wait_readable(&socket, Some(Duration::from_millis(1))).unwrap());
        assert!(wait_writable(&socket, Some(Duration::from_millis(1))).unwrap());
    }

    fn tokens(poller: &Poller, timeout: Option<Duration>) -> Vec<u64> {
        let mut ready = [0; 4];
        let count = poller.wait(timeout, &mut ready).unwrap();
        ready[..count].to_vec()
    }
}
