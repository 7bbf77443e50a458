//! What a client does with each datagram.

use super::super::datagram;
use super::link::Phase;
use super::output::{Reason, Received};
use super::{Client, Event, Joined, LostReason};
use castgate_wire::umtp::{Channel, Command, Trailer};
use std::net::SocketAddrV4;
use std::time::Instant;

impl Client {
    /// Takes one datagram; a payload of a joined channel comes back at once, without a copy.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        from: SocketAddrV4,
        datagram: &'a [u8],
    ) -> Option<Received<'a>> {
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += datagram.len() as u64;
        match self.receive(now, from, datagram) {
            Ok(received) => received,
            Err(reason) => {
                self.counters.drops.add(reason);
                None
            }
        }
    }

    fn receive<'a>(
        &mut self,
        now: Instant,
        from: SocketAddrV4,
        datagram: &'a [u8],
    ) -> Result<Option<Received<'a>>, Reason> {
        let (head, trailer) = Trailer::parse(datagram).map_err(|_| Reason::Malformed)?;
        let local = match &self.phase {
            Phase::Up(link) if link.server == from => link.local,
            Phase::Up(_) | Phase::Idle | Phase::Closed => return self.refuse_stranger(now, from, &trailer),
            Phase::Contact { .. } | Phase::Searching { .. } => {
                self.answered(now, from, &trailer)?;
                return Ok(None);
            }
        };
        if trailer.destination_cookie != local {
            self.challenge(now, &trailer);
            return Err(Reason::WrongCookie);
        }
        self.server_lives(now);
        match trailer.command {
            Command::Data => {
                self.learn(&trailer);
                self.deliver(now, from, trailer.channel, trailer.ttl, head).map(Some)
            }
            Command::ProbeAck => {
                let is_new = self.learn(&trailer);
                let is_answer = self.is_asked(from, now);
                if is_new || !is_answer {
                    self.rejoin(now);
                }
                self.set_wake();
                Ok(None)
            }
            Command::Probe => {
                self.learn(&trailer);
                self.acknowledge(&trailer);
                Ok(None)
            }
            Command::TearDown => {
                self.lose(LostReason::TornDown, now);
                self.set_wake();
                Ok(None)
            }
            // What stands in it is an echo of ours: nothing is learned from it.
            Command::ProbeNack if self.is_asked(from, now) => {
                self.lose(LostReason::Refused, now);
                self.set_wake();
                Ok(None)
            }
            Command::ProbeNack
            | Command::JoinGroup
            | Command::LeaveGroup
            | Command::JoinRtpGroup
            | Command::LeaveRtpGroup
            | Command::JoinAck
            | Command::JoinNack
            | Command::FlowData
            | Command::Proxy
            | Command::Unknown(_) => Err(Reason::Unexpected),
        }
    }

    /// The server's cookie is whatever its last datagram says; true when that is news.
    fn learn(&mut self, trailer: &Trailer) -> bool {
        let Phase::Up(link) = &mut self.phase else { return false };
        let is_new = link.remote != trailer.source_cookie;
        link.remote = trailer.source_cookie;
        is_new
    }

    fn deliver<'a>(
        &mut self,
        now: Instant,
        server: SocketAddrV4,
        channel: Channel,
        ttl: u8,
        payload: &'a [u8],
    ) -> Result<Received<'a>, Reason> {
        match self.channels.get_mut(&channel).ok_or(Reason::NotJoined)? {
            Joined::Asked { schedule, .. } => {
                if schedule.data(now, &self.config) {
                    self.event(Event::FirstData { channel, server });
                }
            }
            Joined::Rtcp => {}
        }
        self.counters.data += 1;
        Ok(Received { channel, ttl, payload })
    }

    /// Datagrams of servers that are being asked: only their answers matter.
    fn answered(&mut self, now: Instant, from: SocketAddrV4, trailer: &Trailer) -> Result<(), Reason> {
        if !self.is_asked(from, now) {
            self.refuse_stranger(now, from, trailer)?;
            return Ok(());
        }
        if trailer.destination_cookie != self.local_cookie(from) {
            return Err(Reason::WrongCookie);
        }
        match trailer.command {
            Command::ProbeAck => self.take_up(from, trailer.source_cookie, now),
            Command::ProbeNack | Command::TearDown => {
                let reason =
                    if trailer.command == Command::TearDown { LostReason::TornDown } else { LostReason::Refused };
                if matches!(self.phase, Phase::Contact { server, .. } if server == from) {
                    self.asked.remove(&from);
                    self.contact_failed(reason, now);
                }
            }
            // A server that we gave up and that still sends: it is asked again, or left, in a moment.
            Command::Data
            | Command::Probe
            | Command::JoinGroup
            | Command::LeaveGroup
            | Command::JoinRtpGroup
            | Command::LeaveRtpGroup
            | Command::JoinAck
            | Command::JoinNack
            | Command::FlowData
            | Command::Proxy
            | Command::Unknown(_) => return Err(Reason::Unexpected),
        }
        self.set_wake();
        Ok(())
    }

    /// draft-finlayson-umtp-09: a PROBE from an unknown address is refused with its cookies swapped, all else is dropped.
    fn refuse_stranger<'a>(
        &mut self,
        now: Instant,
        from: SocketAddrV4,
        trailer: &Trailer,
    ) -> Result<Option<Received<'a>>, Reason> {
        let may_answer = self
            .stranger_answered_at
            .is_none_or(|answered_at| now.saturating_duration_since(answered_at) >= self.config.answer_interval);
        if trailer.command == Command::Probe && may_answer && !matches!(self.phase, Phase::Closed) {
            self.stranger_answered_at = Some(now);
            let answer = Trailer {
                source_cookie: trailer.destination_cookie,
                destination_cookie: trailer.source_cookie,
                command: Command::ProbeNack,
                ..*trailer
            };
            self.transmit(from, datagram(&answer, &[]));
        }
        Err(Reason::Stranger)
    }

    /// The server does not know our cookie: it is told, at most once per interval.
    fn challenge(&mut self, now: Instant, question: &Trailer) {
        let Phase::Up(link) = &mut self.phase else { return };
        let may_answer = link
            .answered_at
            .is_none_or(|answered_at| now.saturating_duration_since(answered_at) >= self.config.answer_interval);
        // Answers are never answered: two peers would do so for ever.
        if may_answer && !matches!(question.command, Command::ProbeAck | Command::ProbeNack) {
            link.answered_at = Some(now);
            self.acknowledge(question);
        }
    }

    fn acknowledge(&mut self, question: &Trailer) {
        let Phase::Up(link) = &self.phase else { return };
        let answer = Trailer {
            source_cookie: link.local,
            destination_cookie: question.source_cookie,
            command: Command::ProbeAck,
            ..*question
        };
        let to = link.server;
        self.transmit(to, datagram(&answer, &[]));
    }
}
