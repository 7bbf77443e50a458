//! One UMTP client under Tokio: its socket, its clock, and the search for servers.
//!
//! ```text
//!   socket ──batch──▶ endpoint::umtp::client ──DATA──▶ the caller's closure
//!          ◀─Transmit─┘        │      ▲
//!                       NeedServers  set_servers
//!                              ▼      │
//!                         Locator (a task of its own: data flows on while databases are asked)
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

pub use castgate_endpoint::umtp::client::Received;
use castgate_endpoint::umtp::client::{Client, Config, Event as ClientEvent, LostReason, Output, Refusal, SendError};
use castgate_udp::Options;
use castgate_wire::umtp::Channel;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tracing::debug;

use crate::event::{Event, words};
use crate::locate::{LocateError, Locator};
use crate::name::GroupName;
use crate::socket::Socket;

/// Longest time that leaving may take; then whoever still waits for us has to notice by himself.
const SHUT_DOWN_MAX: Duration = Duration::from_secs(1);

/// How long after a search without result the next one starts: at once almost, for databases and servers that start together
/// with us know each other within moments, and then ever later, for they may be away for the night.
const SEARCH_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Where a tunnel may lead.
#[derive(Debug, Clone)]
pub enum Servers {
    /// To these, in this order.
    Fixed(Vec<SocketAddrV4>),
    /// To those that the hierarchy names.
    Located(Locator),
}

/// Settings of a tunnel.
#[derive(Debug, Clone)]
pub struct TunnelSettings {
    /// Where it may lead.
    pub servers: Servers,
    /// The address it starts from; the kernel's choice when `None`.
    pub local: Option<Ipv4Addr>,
    /// A channel silent for so long makes the client ask whether its server lives; `None` never asks for that reason.
    pub silence: Option<Duration>,
}

/// Why there is no tunnel.
#[derive(Debug, Error)]
pub enum TunnelError {
    /// The local address is not ours.
    #[error("cannot bind a tunnel to {local}: {error}")]
    Bind {
        /// The wanted address.
        local: Ipv4Addr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The socket is broken.
    #[error("the tunnel's socket failed: {0}")]
    Socket(#[from] io::Error),
}

/// A tunnel to one server at a time, for any number of channels. Runs on Tokio.
#[derive(Debug)]
pub struct Tunnel {
    socket: Socket,
    client: Client,
    locator: Option<Locator>,
    search: Option<JoinHandle<Result<Vec<SocketAddrV4>, LocateError>>>,
    /// The last search found nothing; how long was waited since, and until when.
    pause: Option<(Duration, Instant)>,
    /// Why, as it was told last.
    trouble: Option<LocateError>,
    was_found: bool,
    server: Option<SocketAddrV4>,
    /// The server that was asked or lost last, and how it was lost.
    last: Option<(SocketAddrV4, LostReason)>,
    refused: Option<Refusal>,
    events: VecDeque<Event>,
}

impl Tunnel {
    /// Gets ready. The first [`join`](Self::join) starts towards the first server; where the hierarchy is to name it, that
    /// search goes on as long as it takes, and [`Event::LocateFailed`] says why it takes long.
    ///
    /// # Errors
    /// [`TunnelError`] when the local address is not ours.
    pub fn open(settings: TunnelSettings) -> Result<Self, TunnelError> {
        let local = settings.local.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let socket = Socket::bind(&Options::new(SocketAddrV4::new(local, 0)))
            .map_err(|error| TunnelError::Bind { local, error })?;
        let (servers, locator) = match settings.servers {
            Servers::Fixed(servers) => (servers, None),
            Servers::Located(locator) => {
                let locator = locator.from_address(settings.local.map(IpAddr::V4));
                (Vec::new(), Some(locator))
            }
        };
        let last = servers.first().map(|server| (*server, LostReason::Unanswered));
        let config = Config { silence: settings.silence, ..Config::default() };
        let client = Client::new(config, servers, random_key(), Instant::now());
        Ok(Self {
            socket,
            client,
            locator,
            search: None,
            pause: None,
            trouble: None,
            was_found: false,
            server: None,
            last,
            refused: None,
            events: VecDeque::new(),
        })
    }

    /// Asks for a channel; its packets come from [`receive`](Self::receive).
    pub fn join(&mut self, channel: Channel) {
        self.client.join(channel, Instant::now());
    }

    /// Leaves a channel.
    pub fn leave(&mut self, channel: Channel) {
        self.client.leave(channel, Instant::now());
    }

    /// The channels that are asked for, in order.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = Channel> + '_ {
        self.client.channels()
    }

    /// Sends one payload upstream.
    pub(crate) fn send(&mut self, channel: Channel, ttl: u8, payload: &[u8]) -> Result<(), SendError> {
        self.client.send(channel, ttl, payload)?;
        self.carry_out();
        Ok(())
    }

    /// The server in use.
    #[must_use]
    pub fn server(&self) -> Option<SocketAddrV4> {
        self.server
    }

    /// Why nothing has come so far.
    #[must_use]
    pub fn silence_reason(&self) -> String {
        match (&self.refused, self.server, self.last) {
            (Some(reason), _, _) => format!("the channel is refused: {reason}"),
            (None, Some(server), _) => {
                format!(
                    "the tunnel server {server} answers but sends nothing: the channel is silent or not permitted there"
                )
            }
            (None, None, Some((server, reason))) => format!("the tunnel server {server} {}", words(reason)),
            (None, None, None) => match (&self.trouble, &self.locator) {
                (Some(error), _) => error.to_string(),
                (None, Some(_)) => "the tunnel databases have not answered yet".to_owned(),
                (None, None) => "no tunnel server is known".to_owned(),
            },
        }
    }

    /// Waits until something has happened; gives what came, with its channel, to `sink`. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`TunnelError::Socket`] when the socket is broken.
    pub async fn receive(&mut self, mut sink: impl FnMut(Received<'_>)) -> Result<Option<Event>, TunnelError> {
        loop {
            self.carry_out();
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let now = Instant::now();
            if self.client.next_timeout().is_some_and(|at| at <= now) {
                self.client.handle_timeout(now);
                continue;
            }
            if self.search.is_none() && self.pause.is_some_and(|(_, until)| until <= now) {
                self.walk();
            }
            let client = &mut self.client;
            let mut delivered = false;
            let taken = self.socket.take(|datagram| {
                // Over IPv4, as the socket is.
                let Some(from) = datagram.source_v4() else { return };
                if let Some(received) = client.handle_datagram(now, from, datagram.payload) {
                    delivered = true;
                    sink(received);
                }
            })?;
            if delivered {
                self.carry_out();
                return Ok(self.events.pop_front());
            }
            if taken == 0 {
                self.wait().await?;
            }
        }
    }

    /// Waits for a datagram, the next deadline, or the end of a search.
    async fn wait(&mut self) -> Result<(), TunnelError> {
        let again = self.pause.filter(|_| self.search.is_none()).map(|(_, until)| until);
        let deadline = self.client.next_timeout().into_iter().chain(again).min();
        let deadline = async {
            match deadline {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let search = &mut self.search;
        let found = async {
            match search {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            readable = self.socket.readable() => readable?,
            () = deadline => {}
            found = found => {
                self.search = None;
                // A search is never cancelled and does not panic; if it were, the next reminder starts another.
                if let Ok(found) = found {
                    self.end_search(found);
                }
            }
        }
        Ok(())
    }

    fn end_search(&mut self, found: Result<Vec<SocketAddrV4>, LocateError>) {
        let now = Instant::now();
        match found {
            Ok(servers) => {
                (self.pause, self.trouble, self.was_found) = (None, None, true);
                self.client.set_servers(servers, now);
            }
            Err(error) => {
                let (first, last) = SEARCH_AGAIN;
                let pause = self.pause.map_or(first, |(pause, _)| last.min(pause * 2));
                self.pause = Some((pause, now + pause));
                // The same again and again helps nobody.
                if self.trouble.as_ref().is_none_or(|before| !before.is_like(&error)) {
                    self.events.push_back(Event::LocateFailed(error.clone()));
                    self.trouble = Some(error);
                }
            }
        }
    }

    /// Sends what the client wants sent and keeps what it wants told.
    fn carry_out(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Transmit { to, datagram } => {
                    // UMTP repeats whatever matters, so a datagram that the kernel refuses is one that the network lost.
                    if let Err(error) = self.socket.send_to(&datagram, to) {
                        debug!(%to, %error, "not sent");
                    }
                }
                Output::Event(event) => self.tell(&event),
            }
        }
    }

    fn tell(&mut self, event: &ClientEvent) {
        let event = match *event {
            ClientEvent::TunnelUp { server } => {
                self.server = Some(server);
                Event::TunnelUp { server: server.into() }
            }
            ClientEvent::FirstData { channel, server } => {
                self.server = Some(server);
                Event::FirstData { name: GroupName::new(channel), server: server.into() }
            }
            ClientEvent::ServerLost { server, reason } => {
                self.last = Some((server, reason));
                self.server = None;
                Event::ServerLost { server: server.into(), reason }
            }
            ClientEvent::HandOver { from, to } => {
                self.server = Some(to);
                Event::HandOver { from: from.into(), to: to.into() }
            }
            ClientEvent::Refused { channel, reason } => {
                self.refused = Some(reason);
                Event::Refused { channel, reason }
            }
            ClientEvent::NeedServers => return self.search(),
        };
        self.events.push_back(event);
    }

    /// The client has run out of servers. Those given by hand are all there are; it keeps trying them.
    fn search(&mut self) {
        if self.locator.is_none() || self.search.is_some() || self.pause.is_some() {
            return;
        }
        if self.was_found {
            self.events.push_back(Event::Searching);
        }
        self.walk();
    }

    /// Walks the hierarchy, one walk at a time.
    fn walk(&mut self) {
        if let (Some(locator), None) = (&self.locator, &self.search) {
            let locator = locator.clone();
            self.search = Some(tokio::spawn(async move { locator.servers().await }));
        }
    }

    /// Leaves every channel and the tunnel, as often as the draft's lossy way of saying so takes.
    pub async fn shut_down(mut self) {
        let end = Instant::now() + SHUT_DOWN_MAX;
        self.client.shut_down(Instant::now());
        self.carry_out();
        while let Some(at) = self.client.next_timeout().filter(|at| *at < end) {
            sleep_until(at.into()).await;
            self.client.handle_timeout(Instant::now());
            self.carry_out();
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(search) = &self.search {
            search.abort();
        }
    }
}

pub(crate) fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    getrandom::fill(&mut key).expect("the kernel has random numbers");
    key
}
