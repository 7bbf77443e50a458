//! When an endpoint is written. Pure: a memory, a view and a time make a time, or nothing.
//!
//! | what changed | written |
//! |---|---|
//! | the stream is lost | at once |
//! | a condition, registration, address, refusal | at once, then every 2 s at most |
//! | mere counters | every 15 s at most |
//! | nothing | never |
//!
//! And all agents together: 20 a second, 40 at a time.

use std::time::Duration;

use castgate_crds::tunnel_endpoint::{
    AmtStatus, RotationStatus, StreamHolder, TunnelEndpoint, TunnelEndpointStatus, UpstreamStatus,
};
use jiff::Timestamp;
use tokio::time::Instant;

use super::super::registry::AgentView;
use super::status::{desired, is_lost};

/// How often endpoints are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Between two writes of one endpoint for something that matters.
    pub matter: Duration,
    /// Between two writes of one endpoint for mere counters.
    pub counters: Duration,
    /// How long an agent may take to report for the first time before its endpoint says that it has not.
    pub first_report: Duration,
    /// How long an agent may take to do what is newly published before it is called not ready.
    pub settle: Duration,
    /// Writes a second, of all endpoints.
    pub per_second: f64,
    /// Writes at a time, of all endpoints.
    pub burst: f64,
}

impl Default for Pace {
    /// Two seconds, fifteen, three, five; twenty a second, forty at a time.
    fn default() -> Self {
        Self {
            matter: Duration::from_secs(2),
            counters: Duration::from_secs(15),
            first_report: Duration::from_secs(3),
            settle: Duration::from_secs(5),
            per_second: 20.0,
            burst: 40.0,
        }
    }
}

/// Our hold of an endpoint: the epoch that we took, and the object as we saw it last.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) epoch: i64,
    /// Without a resource version it is doubtful, and read again before anything is written.
    pub(super) object: TunnelEndpoint,
}

impl Claim {
    pub(super) fn doubt(&mut self) {
        self.object.metadata.resource_version = None;
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.object.metadata.resource_version.is_none()
    }
}

/// What the writer remembers of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The stream that everything here is about.
    stream: u64,
    pub(super) claim: Option<Claim>,
    /// Another replica holds a newer stream.
    pub(super) fenced: bool,
    /// The end of the stream has been written, or is nobody's business.
    finished: bool,
    last_write: Option<Instant>,
    pub(super) retry_at: Option<Instant>,
}

/// How much a change matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    Nothing,
    Counters,
    Matter,
    Lost,
}

impl Memory {
    /// Turns to the stream of this view: what was known of an earlier one holds no more, but for the time of the last write.
    pub(super) fn follow(&mut self, view: &AgentView) {
        if self.stream != view.stream {
            *self = Self { stream: view.stream, last_write: self.last_write, ..Self::default() };
        }
    }

    pub(super) fn wrote(&mut self, stream: u64, claim: Claim, connected: bool, now: Instant) {
        self.last_write = Some(now);
        self.saw(stream, claim, connected);
    }

    pub(super) fn saw(&mut self, stream: u64, claim: Claim, connected: bool) {
        if self.stream == stream {
            self.claim = Some(claim);
            self.fenced = false;
            self.finished = !connected;
        }
    }

    pub(super) fn fence(&mut self, stream: u64, look_again: Instant) {
        if self.stream == stream {
            self.fenced = true;
            self.claim = None;
            self.retry_at = Some(look_again);
        }
    }

    pub(super) fn finish(&mut self, stream: u64) {
        if self.stream == stream {
            self.finished = true;
        }
    }
}

/// When the endpoint of an agent is to be written; `None`: not before something changes.
pub(super) fn plan_write(memory: &Memory, now: Instant, view: &AgentView, pace: &Pace) -> Option<Instant> {
    if memory.finished {
        return None;
    }
    let due = match &memory.claim {
        // A stream that ended before we took hold of the endpoint, or after another did: not ours to tell of.
        None if !view.connected => return None,
        None if memory.fenced => memory.retry_at?,
        None if view.state.is_none() || !view.has_taken() => {
            (view.since + pace.first_report).max(earliest(memory, now, pace.matter))
        }
        None => earliest(memory, now, pace.matter),
        Some(claim) if claim.is_doubtful() => earliest(memory, now, pace.matter),
        Some(Claim { epoch, object }) => {
            let written = object.status.clone().unwrap_or_default();
            let holder = written.stream.clone().unwrap_or_default();
            // The time is of no importance: what differs in it alone does not differ.
            let settling = is_settling(view, now, pace);
            let holder = StreamHolder { epoch: *epoch, ..holder };
            let next = desired(view, &written, holder, Timestamp::UNIX_EPOCH, settling);
            match change(&written, &next, view) {
                // What it has not done by then is news.
                Change::Nothing if settling => settles_at(view, pace),
                Change::Nothing => return None,
                Change::Counters => earliest(memory, now, pace.counters),
                Change::Matter if view.connected && view.state.is_none() => {
                    (view.since + pace.first_report).max(earliest(memory, now, pace.matter))
                }
                Change::Matter => earliest(memory, now, pace.matter),
                Change::Lost => now,
            }
        }
    };
    Some(memory.retry_at.map_or(due, |retry| due.max(retry)))
}

/// Whether the agent still has time to do what is published.
pub(super) fn is_settling(view: &AgentView, now: Instant, pace: &Pace) -> bool {
    view.connected && view.published.is_some() && now < settles_at(view, pace)
}

fn settles_at(view: &AgentView, pace: &Pace) -> Instant {
    let published = view.published.as_ref().map_or(view.since, |published| published.since);
    published.max(view.since) + pace.settle
}

fn earliest(memory: &Memory, now: Instant, pause: Duration) -> Instant {
    memory.last_write.map_or(now, |last| (last + pause).max(now))
}

/// What differs between what is written and what should be.
pub(super) fn change(written: &TunnelEndpointStatus, next: &TunnelEndpointStatus, view: &AgentView) -> Change {
    if written == next {
        return Change::Nothing;
    }
    if !view.connected && !is_lost(written) {
        return Change::Lost;
    }
    if without_counters(written) == without_counters(next) { Change::Counters } else { Change::Matter }
}

fn without_counters(status: &TunnelEndpointStatus) -> TunnelEndpointStatus {
    let TunnelEndpointStatus {
        conditions,
        stream,
        active,
        address,
        version,
        pod,
        snapshot_generation,
        last_refusal,
        tunnels: _,
        channels: _,
        megabits_per_second: _,
        packets: _,
        dropped: _,
        drops: _,
        entries: _,
        rules: _,
        rotations,
        store_lost,
        registered,
        registrations,
        amt,
        upstream,
        upstreams,
    } = status.clone();
    let amt = amt.map(|amt| AmtStatus { endpoints: 0, groups: 0, ..amt });
    let rotations = rotations.into_iter().map(|row| RotationStatus { previous_shown: None, ..row }).collect();
    let upstreams = upstreams.into_iter().map(|row| UpstreamStatus { channels: 0, ..row }).collect();
    TunnelEndpointStatus {
        conditions,
        stream,
        active,
        address,
        version,
        pod,
        snapshot_generation,
        last_refusal,
        registered,
        registrations,
        amt,
        upstream,
        upstreams,
        rotations,
        store_lost,
        ..TunnelEndpointStatus::default()
    }
}

/// A token bucket for all writes.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Instant,
    per_second: f64,
}

impl Bucket {
    pub(super) fn full(now: Instant, pace: &Pace) -> Self {
        Self { tokens: pace.burst, filled: now, per_second: pace.per_second }
    }

    /// Takes one token; ask [`ready_at`](Self::ready_at) first.
    pub(super) fn take(&mut self, now: Instant, pace: &Pace) {
        let more = now.saturating_duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + more).min(pace.burst) - 1.0;
        self.filled = now;
    }

    /// When there is a token, `now` at the earliest.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        let missing = (1.0 - self.tokens).max(0.0) / self.per_second;
        // Rounded up to the clock's step: a wake-up just before the token would turn in circles.
        now.max(self.filled + Duration::from_secs_f64(missing) + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests;
