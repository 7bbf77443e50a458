//! The way to a server: first contact, doubt, the next one.

use super::super::datagram;
use super::config::Config;
use super::{Client, Event, Joined, LostReason};
use castgate_wire::umtp::{Channel, Command, Cookie, Trailer};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// Time from the last server's failure to the first round of the search: a server that has just sent us away needs a moment.
const SEARCH_DELAY: Duration = Duration::from_millis(500);
/// A tunnel that ends sooner than this after it began counts towards [`Client::dismissals`].
const SHORT_LIFE: Duration = Duration::from_secs(30);
/// An answer that comes later than this after its PROBE is unsolicited.
const ANSWER_TIME: Duration = Duration::from_secs(3);
const PURPOSE_FIRST_GUESS: u64 = 1;

/// Where the client stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing was ever joined, or the server was lost with nothing joined.
    Idle,
    /// One server of the list is asked for the first time.
    Contact { server: SocketAddrV4, servers_left: usize, tries: usize, again_at: Instant },
    /// All servers are asked, round by round.
    Searching { wait: Duration, again_at: Instant, remind_at: Instant },
    /// A server is in use.
    Up(Link),
    /// Shut down.
    Closed,
}

/// The tunnel to the server in use.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) server: SocketAddrV4,
    pub(super) local: Cookie,
    pub(super) remote: Cookie,
    up_at: Instant,
    pub(super) heard_at: Instant,
    pub(super) doubt: Option<Doubt>,
    pub(super) answered_at: Option<Instant>,
    /// When all joins were sent again.
    pub(super) rejoined_at: Instant,
    /// They are to be sent again as soon as the rate permits.
    pub(super) rejoin_at: Option<Instant>,
}

/// The server was asked whether it lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    tries: u8,
    again_at: Instant,
}

impl Link {
    pub(super) fn trailer(&self, command: Command, channel: Channel, ttl: u8) -> Trailer {
        Trailer { source_cookie: self.local, destination_cookie: self.remote, channel, ttl, command }
    }
}

impl Phase {
    pub(super) fn next_timeout(&self, config: &Config) -> Option<Instant> {
        match self {
            Self::Idle | Self::Closed => None,
            Self::Contact { again_at, .. } => Some(*again_at),
            Self::Searching { again_at, remind_at, .. } => Some(*again_at.min(remind_at)),
            Self::Up(link) => {
                let doubt_at = link.doubt.map_or(link.heard_at + config.keep_alive, |doubt| doubt.again_at);
                Some(link.rejoin_at.map_or(doubt_at, |rejoin_at| rejoin_at.min(doubt_at)))
            }
        }
    }
}

impl Client {
    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (to, datagram) in self.farewells.take_due(&self.config, now) {
            self.transmit(to, datagram);
        }
        match &self.phase {
            Phase::Idle | Phase::Closed => {}
            Phase::Contact { again_at, .. } => {
                if *again_at <= now {
                    self.ask_again(now);
                }
            }
            Phase::Searching { .. } => self.search(now),
            Phase::Up(_) => self.keep_up(now),
        }
        self.set_wake();
    }

    /// Starts at the head of the list.
    pub(super) fn contact_first(&mut self, now: Instant) {
        self.asked.clear();
        match self.servers.first() {
            Some(first) => self.contact(*first, self.servers.len() - 1, now),
            None => self.exhaust(now, SEARCH_DELAY),
        }
    }

    fn contact(&mut self, server: SocketAddrV4, servers_left: usize, now: Instant) {
        self.phase = Phase::Contact { server, servers_left, tries: 1, again_at: now + self.config.contact_waits[0] };
        self.probe(server, now);
    }

    fn ask_again(&mut self, now: Instant) {
        let Phase::Contact { server, tries, again_at, .. } = &mut self.phase else { return };
        let server = *server;
        if let Some(wait) = self.config.contact_waits.get(*tries) {
            *tries += 1;
            *again_at = now + *wait;
            self.probe(server, now);
        } else {
            self.contact_failed(LostReason::Unanswered, now);
        }
    }

    pub(super) fn contact_failed(&mut self, reason: LostReason, now: Instant) {
        let Phase::Contact { server, servers_left, .. } = self.phase else { return };
        self.event(Event::ServerLost { server, reason });
        self.contact_next(server, servers_left, now);
    }

    /// The server after `server`; the list is a ring, of which `servers_left` have not failed yet.
    fn contact_next(&mut self, server: SocketAddrV4, servers_left: usize, now: Instant) {
        if servers_left == 0 {
            return self.exhaust(now, SEARCH_DELAY);
        }
        let place = self.servers.iter().position(|listed| *listed == server);
        let next = place.map_or(0, |place| (place + 1) % self.servers.len());
        self.contact(self.servers[next], servers_left - 1, now);
    }

    fn exhaust(&mut self, now: Instant, delay: Duration) {
        self.phase = Phase::Searching {
            wait: self.config.search_interval,
            again_at: now + delay,
            remind_at: now + self.config.need_servers_interval,
        };
        self.event(Event::NeedServers);
    }

    fn search(&mut self, now: Instant) {
        let Phase::Searching { wait, again_at, remind_at } = &mut self.phase else { return };
        let is_reminder = *remind_at <= now;
        if is_reminder {
            *remind_at = now + self.config.need_servers_interval;
        }
        let is_round = *again_at <= now;
        if is_round {
            *again_at = now + *wait;
            *wait = self.config.search_interval * 2;
        }
        if is_reminder {
            self.event(Event::NeedServers);
        }
        if is_round {
            for server in self.servers.clone() {
                self.probe(server, now);
            }
        }
    }

    /// Sends a PROBE. The cookie of a server that is not known is guessed (draft-finlayson-umtp-09: arbitrary until learned).
    fn probe(&mut self, server: SocketAddrV4, now: Instant) {
        let known = match &self.phase {
            Phase::Up(link) => Some(link),
            Phase::Idle | Phase::Contact { .. } | Phase::Searching { .. } | Phase::Closed => self.last_link.as_ref(),
        };
        let remote = known.filter(|link| link.server == server).map(|link| link.remote);
        let remote = remote.unwrap_or_else(|| self.key.cookie(server, PURPOSE_FIRST_GUESS));
        let probe = Trailer::without_channel(Command::Probe, self.local_cookie(server), remote);
        self.counters.probes += 1;
        self.asked.insert(server, now);
        self.transmit(server, datagram(&probe, &[]));
    }

    /// Our cookie for one server.
    pub(super) fn local_cookie(&self, server: SocketAddrV4) -> Cookie {
        self.key.cookie(server, 0)
    }

    /// Whether an answer of `server` at `now` answers anything.
    pub(super) fn is_asked(&self, server: SocketAddrV4, now: Instant) -> bool {
        self.asked.get(&server).is_some_and(|asked_at| now.saturating_duration_since(*asked_at) <= ANSWER_TIME)
    }

    /// `server` has answered: everything is joined there.
    pub(super) fn take_up(&mut self, server: SocketAddrV4, remote: Cookie, now: Instant) {
        let local = self.local_cookie(server);
        self.asked.clear();
        self.phase = Phase::Up(Link {
            server,
            local,
            remote,
            up_at: now,
            heard_at: now,
            doubt: None,
            answered_at: None,
            rejoined_at: now,
            rejoin_at: None,
        });
        self.farewells.cancel_server(server);
        self.event(Event::TunnelUp { server });
        if let Some(from) = self.last_server.replace(server).filter(|from| *from != server) {
            self.counters.hand_overs += 1;
            self.event(Event::HandOver { from, to: server });
        }
        if let Some(old) = self.last_link.take().filter(|old| old.server != server) {
            self.part_from(&old, now);
        }
        self.start_all(now);
    }

    /// Sends all joins, as fresh ones.
    fn start_all(&mut self, now: Instant) {
        let asked = self.channels.iter().filter(|(_, joined)| matches!(joined, Joined::Asked { .. }));
        for channel in asked.map(|(channel, _)| *channel).collect::<Vec<_>>() {
            self.start_join(channel, now);
        }
    }

    pub(super) fn start_join(&mut self, channel: Channel, now: Instant) {
        if let Some(Joined::Asked { schedule, .. }) = self.channels.get_mut(&channel) {
            schedule.start(now, &self.config);
            self.send_join(channel);
        }
    }

    fn send_join(&mut self, channel: Channel) {
        let Phase::Up(link) = &self.phase else { return };
        let Some(Joined::Asked { options, .. }) = self.channels.get(&channel) else { return };
        let command = if options.rtp { Command::JoinRtpGroup } else { Command::JoinGroup };
        let (to, join) = (link.server, datagram(&link.trailer(command, channel, options.ttl), &[]));
        self.counters.joins += 1;
        self.transmit(to, join);
    }

    /// The server in use has said something with our cookie.
    pub(super) fn server_lives(&mut self, now: Instant) {
        let Phase::Up(link) = &mut self.phase else { return };
        link.heard_at = now;
        if link.doubt.take().is_none() {
            return;
        }
        let mut reminders = Vec::new();
        for (channel, joined) in &mut self.channels {
            if let Joined::Asked { schedule, .. } = joined
                && schedule.server_lives(now, &self.config)
            {
                reminders.push(*channel);
            }
        }
        for channel in reminders {
            self.send_join(channel);
        }
        self.set_wake();
    }

    /// The server did not know us: all joins again, at most once per interval.
    pub(super) fn rejoin(&mut self, now: Instant) {
        let Phase::Up(link) = &mut self.phase else { return };
        let permitted_at = link.rejoined_at + self.config.answer_interval;
        if now < permitted_at {
            link.rejoin_at = Some(permitted_at);
            return;
        }
        link.rejoined_at = now;
        link.rejoin_at = None;
        self.start_all(now);
    }

    /// What is due while a server is in use: joins, doubts, and giving up.
    fn keep_up(&mut self, now: Instant) {
        if let Phase::Up(link) = &self.phase
            && link.rejoin_at.is_some_and(|rejoin_at| rejoin_at <= now)
        {
            self.rejoin(now);
        }
        let mut joins = Vec::new();
        let mut is_doubtful = false;
        for (channel, joined) in &mut self.channels {
            if let Joined::Asked { schedule, .. } = joined {
                let due = schedule.timeout(now, &self.config);
                is_doubtful |= due.suspicion;
                if due.join {
                    joins.push(*channel);
                }
            }
        }
        for channel in joins {
            self.send_join(channel);
        }
        let Phase::Up(link) = &mut self.phase else { return };
        is_doubtful |= link.heard_at + self.config.keep_alive <= now;
        let server = link.server;
        match &mut link.doubt {
            None if is_doubtful => {
                link.doubt = Some(Doubt { tries: 1, again_at: now + self.config.probe_wait });
                self.probe(server, now);
            }
            Some(doubt) if doubt.again_at <= now && doubt.tries < self.config.probe_tries => {
                doubt.tries += 1;
                doubt.again_at = now + self.config.probe_wait;
                self.probe(server, now);
            }
            Some(doubt) if doubt.again_at <= now => self.lose(LostReason::Silent, now),
            None | Some(_) => {}
        }
    }

    /// The server in use is given up.
    pub(super) fn lose(&mut self, reason: LostReason, now: Instant) {
        let Phase::Up(link) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        let server = link.server;
        self.event(Event::ServerLost { server, reason });
        self.farewells.cancel_server(server);
        self.asked.clear();
        for joined in self.channels.values_mut() {
            if let Joined::Asked { schedule, .. } = joined {
                schedule.stop();
            }
        }
        // Servers that take us and send us away again, for a loop perhaps, must not be circled at the speed of the network.
        let was_sent_away = reason != LostReason::Silent && now.saturating_duration_since(link.up_at) < SHORT_LIFE;
        self.dismissals = if was_sent_away { self.dismissals.saturating_add(1) } else { 0 };
        let delay = (SEARCH_DELAY * 2_u32.pow(self.dismissals.min(5))).min(self.config.join_refresh);
        // One that sent us away needs no farewell; one that is silent may yet be sending.
        self.last_link = (reason == LostReason::Silent).then_some(link);
        if self.channels.is_empty() {
            return;
        }
        let others = self.servers.iter().filter(|listed| **listed != server).count();
        let is_circling = usize::try_from(self.dismissals).is_ok_and(|dismissals| dismissals > self.servers.len());
        if others == 0 || is_circling {
            self.exhaust(now, delay);
        } else {
            self.contact_next(server, others, now);
        }
    }
}
