//! Which relay for which channel: RFC 8777, without sockets and without a resolver.
//!
//! ```text
//!   find ──▶ Looking: questions of all methods at once, at most ten in 100 ms
//!               │  candidates by (method, precedence, RFC 6724, chance), one attempt every 250 ms
//!               ▼
//!            the first valid Membership Query without L ──▶ Using ── silence, loss ──▶ hold-down, Looking again
//!               │ nothing has connected
//!               ▼
//!            Resting: random time in [4 s, 4 s · 2^n], at most 120 s ──▶ Looking
//! ```
//! * Methods are asked in the order of [`Config::methods`]: what is configured, DNS-SD, the anycast addresses, DRIAD. A less
//!   preferred relay waits for the answers of more preferred methods, but not longer than [`Config::resolution_delay`] for each.
//! * A channel whose source is served already shares that connection.
//! * Losers of a race are dropped without a report; the connections of others stay.
//! * Relays that bring no traffic are avoided for that source for 3 to 10 minutes, full ones for everybody for 10.
//! * AMTRELAY type 0 says that no relay is to be used: it ends the list at its precedence. Unknown types are ignored.

mod answers;
mod config;
mod hold;
mod output;
mod rank;
mod search;
mod throttle;

#[cfg(test)]
mod tests;

pub use config::{Channel, Config, Mapping, Method, Place};
pub use output::{Answer, AttemptId, Counters, NoRelay, Output, Question, QuestionId, Service};

use super::canonical;
use super::random::Random;
use crate::deadlines::Deadlines;
use hold::HoldDowns;
use search::{Attempt, Open, Phase, Search};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;
use throttle::Throttle;

/// Finds relays for any number of channels. See the [module](self) and, for the contract with its driver, [`super`].
#[derive(Debug)]
pub struct Discovery {
    config: Config,
    random: Random,
    searches: BTreeMap<Channel, Search>,
    attempts: BTreeMap<AttemptId, Attempt>,
    questions: BTreeMap<QuestionId, Open>,
    /// Questions that wait for their turn.
    queue: VecDeque<QuestionId>,
    throttle: Throttle,
    held: HoldDowns,
    timers: Deadlines<Timer>,
    outputs: VecDeque<Output>,
    counters: Counters,
    last_id: u64,
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The next attempt of a search, or a candidate that has waited long enough (RFC 8305 §5).
    Drive(Channel),
    /// A search begins again (RFC 8777 §3.3.4.1).
    Rest(Channel),
    /// An attempt that has not connected.
    Attempt(AttemptId),
    /// A question that nobody has answered (RFC 8777 §3.5).
    Question(QuestionId),
    /// There is room for more questions (RFC 8777 §3.2.2).
    Queue,
}

impl Discovery {
    /// A discovery that looks for nothing yet. `key` must be random.
    #[must_use]
    pub fn new(config: Config, key: [u8; 16]) -> Self {
        Self {
            config,
            random: Random::new(key),
            searches: BTreeMap::new(),
            attempts: BTreeMap::new(),
            questions: BTreeMap::new(),
            queue: VecDeque::new(),
            throttle: Throttle::default(),
            held: HoldDowns::default(),
            timers: Deadlines::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            last_id: 0,
        }
    }

    /// Replaces the configuration. Searches that run go on as they are; connections stay.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// Looks for a relay for `channel`; one that is looked for or served already stays as it is.
    pub fn find(&mut self, channel: Channel, now: Instant) {
        if self.searches.contains_key(&channel) {
            return;
        }
        if self.searches.len() >= self.config.channels_max {
            self.counters.beyond_limits += 1;
            return;
        }
        self.searches.insert(channel, Search::default());
        match self.serving(channel) {
            Some(attempt) => self.settle_on(channel, attempt),
            None => self.look(channel, now),
        }
    }

    /// The connection that serves the source of `channel` already (RFC 8777 §3.1.1, condition 2).
    fn serving(&self, channel: Channel) -> Option<AttemptId> {
        let source = channel.source?;
        self.searches.iter().find_map(|(other, search)| match search.phase {
            Phase::Using(attempt) if other.source == Some(source) => Some(attempt),
            Phase::Using(_) | Phase::Looking(_) | Phase::Resting => None,
        })
    }

    /// Looks for it no more; a connection that nobody else uses is dropped.
    pub fn forget(&mut self, channel: Channel) {
        self.stop(channel);
        self.searches.remove(&channel);
    }

    /// Begins again for every channel and avoids nobody: the network is another one (RFC 8777 §3.3.2, event 7).
    pub fn restart_all(&mut self, now: Instant) {
        self.held.clear();
        let channels: Vec<Channel> = self.searches.keys().copied().collect();
        for channel in channels {
            self.restart(channel, now);
        }
    }

    /// Begins again for one channel.
    pub fn restart(&mut self, channel: Channel, now: Instant) {
        if self.searches.contains_key(&channel) {
            self.stop(channel);
            self.look(channel, now);
        }
    }

    /// The relay of an attempt has said that another address is the one to use (Relay Advertisement).
    pub fn handle_advertised(&mut self, attempt: AttemptId, relay: SocketAddr, now: Instant) {
        let Some(known) = self.attempts.get_mut(&attempt) else { return };
        let relay = canonical(relay);
        known.relay = relay;
        let (channel, is_chosen) = (known.channel, known.is_chosen);
        if !is_chosen && self.held.holds(now, relay, channel.source) {
            self.counters.held_down += 1;
            self.give_up(attempt, now);
        }
    }

    /// A valid Membership Query without L has come from the relay of an attempt (RFC 8777 §3.2.3).
    pub fn handle_connected(&mut self, attempt: AttemptId, now: Instant) {
        let Some(known) = self.attempts.get_mut(&attempt) else { return };
        if known.is_chosen {
            return;
        }
        known.is_chosen = true;
        let channel = known.channel;
        self.timers.disarm(Timer::Attempt(attempt));
        self.end_race(channel, Some(attempt));
        self.counters.connections += 1;
        self.settle_on(channel, attempt);
        self.held.expire(now);
    }

    /// The relay of an attempt takes no new gateways (L). A connection in use goes on (RFC 7450 §5.2.3.5.4).
    pub fn handle_limited(&mut self, attempt: AttemptId, now: Instant) {
        let Some(known) = self.attempts.get(&attempt) else { return };
        let until = now + self.config.limit_hold_down;
        let is_chosen = known.is_chosen;
        self.held.hold(known.relay, None, until, self.config.hold_downs_max);
        if !is_chosen {
            self.give_up(attempt, now);
        }
    }

    /// An attempt has failed, or the relay of a connection does not answer any more: all its channels look for another.
    pub fn handle_lost(&mut self, attempt: AttemptId, now: Instant) {
        let Some(known) = self.attempts.get(&attempt) else { return };
        if !known.is_chosen {
            return self.give_up(attempt, now);
        }
        let relay = known.relay;
        self.hold_silent(relay, None, now);
        let channels: Vec<Channel> = self
            .searches
            .iter()
            .filter(|(_, search)| matches!(search.phase, Phase::Using(used) if used == attempt))
            .map(|(channel, _)| *channel)
            .collect();
        for channel in channels {
            self.restart(channel, now);
        }
    }

    /// Nothing of the channel comes through the connection that it was joined at (RFC 8777 §3.3.4.1).
    pub fn handle_silent(&mut self, channel: Channel, now: Instant) {
        let Some(search) = self.searches.get_mut(&channel) else { return };
        let Phase::Using(attempt) = search.phase else { return };
        search.silences = search.silences.saturating_add(1);
        if let Some(known) = self.attempts.get(&attempt) {
            self.hold_silent(known.relay, channel.source, now);
        }
        self.restart(channel, now);
    }

    /// Packets of the channel come: earlier silences are forgotten.
    pub fn handle_traffic(&mut self, channel: Channel) {
        if let Some(search) = self.searches.get_mut(&channel) {
            search.silences = 0;
        }
    }

    /// How often in a row the channel was silent: what a gateway's patience grows with.
    #[must_use]
    pub fn silences(&self, channel: Channel) -> u32 {
        self.searches.get(&channel).map_or(0, |search| search.silences)
    }

    fn hold_silent(&mut self, relay: SocketAddr, source: Option<std::net::IpAddr>, now: Instant) {
        let Config { silent_hold_down_min, silent_hold_down_max, hold_downs_max, .. } = self.config;
        let until = now + self.random.between(silent_hold_down_min, silent_hold_down_max);
        self.held.hold(relay, source, until, hold_downs_max);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Drive(channel) => self.drive(channel, now),
                Timer::Rest(channel) => self.look(channel, now),
                Timer::Attempt(attempt) => self.give_up(attempt, now),
                Timer::Question(id) => self.handle_answer(id, Answer::Failed, now),
                Timer::Queue => self.ask_queued(now),
            }
        }
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The relay in use for a channel, and how it was found.
    #[must_use]
    pub fn relay(&self, channel: Channel) -> Option<(SocketAddr, Method)> {
        match self.searches.get(&channel)?.phase {
            Phase::Using(attempt) => self.attempts.get(&attempt).map(|known| (known.relay, known.method)),
            Phase::Looking(_) | Phase::Resting => None,
        }
    }

    /// All channels, in order.
    #[must_use]
    pub fn channels(&self) -> impl ExactSizeIterator<Item = Channel> + '_ {
        self.searches.keys().copied()
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}
