//! When a database asks its peers for all that they hold, and whether it may answer meanwhile (draft-liefooghe-castgate-02 §4.1.2).
//!
//! ```text
//!   start, with peers ─┐                                        ┌── every 2 intervals, 3/4 of one while entries are hearsay ──┐
//!                      ▼                                        ▼                                                             │
//!   in doubt ──▶ Catching up ──one gave all it has──────▶ Up to date ──────────▶ asking each, answering meanwhile ────────────┘
//!                503, ask one after the other, 1, 2 … 10 s      │
//!                      └──nobody, and the time is up──▶ On its own: answers, asks every 10 s
//! ```
//! A database that still has to find out who its peers are catches up as well: it may be known from before its start.
//!
//! A database comes into doubt when entries go by themselves while nobody at all registers ([`Doubt`]): then it is the database that
//! is not reached, and it knows as little as one that starts. When somebody is heard again it asks its peers before it answers.
//!
//! Owns when whom is asked; what is taken over decides the [`Database`](super::database::Database). Sends nothing.

use std::time::{Duration, Instant};

use super::address::DatabaseAddress;
use super::database::Doubt;

/// First wait after a round in which no peer gave anything; doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Intervals between two transfers from the same peer: peers that were apart know the same again after that, and what they answer was
/// right two intervals ago.
const TRANSFER_INTERVALS: u32 = 2;

/// The state machine.
///
/// Carry out [`poll_transfer`](Self::poll_transfer) and bring what came of it to [`handle_transfer`](Self::handle_transfer); call
/// [`handle_timeout`](Self::handle_timeout) at [`next_timeout`](Self::next_timeout).
#[derive(Debug)]
pub struct Peers {
    members: Vec<DatabaseAddress>,
    /// How long nobody is answered while no peer gives its entries.
    wait: Duration,
    phase: Phase,
    /// Whether it ever had peers: those that come later find a database that answers already.
    had_members: bool,
    doubt: Doubt,
    /// The member that is asked at this moment.
    asking: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is nobody to ask, or everybody was asked. `at`: when the next round begins.
    UpToDate { at: Option<Instant> },
    /// Asking all members, this one next, and answering meanwhile.
    Round { next: usize },
    /// Not answering until it is found out who the peers are, but no longer than then.
    Searching { until: Instant },
    /// Not answering. `next`: whom to ask next; `at`: when, if all were asked.
    CatchingUp { since: Instant, retry: Duration, next: usize, at: Option<Instant> },
    /// Nobody gave anything in time: answering with what there is.
    OnItsOwn { next: usize, at: Option<Instant> },
}

/// What came of one transfer, and what the database says after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// Whether the peer gave all that it holds.
    pub is_whole: bool,
    /// The update interval of the database.
    pub interval: Duration,
    /// How many of its entries are hearsay.
    pub hearsay: usize,
}

impl Peers {
    /// Nobody yet: a database without peers is up to date.
    #[must_use]
    pub fn new() -> Self {
        Self {
            members: Vec::new(),
            wait: Duration::ZERO,
            phase: Phase::UpToDate { at: None },
            had_members: false,
            doubt: Doubt::None,
            asking: None,
        }
    }

    /// It is being found out who the peers are.
    #[must_use]
    pub fn searching(now: Instant, wait: Duration) -> Self {
        Self { wait, phase: Phase::Searching { until: now + wait }, ..Self::new() }
    }

    /// Those that come from now on are added to a database that answers: it goes on answering, and asks them meanwhile.
    pub fn go_on_answering(&mut self) {
        self.had_members = true;
    }

    /// These are the peers, in the order in which they are asked; without any there is nothing to wait for.
    pub fn set_members(&mut self, now: Instant, members: Vec<DatabaseAddress>, wait: Duration) {
        self.wait = wait;
        self.members = members;
        self.asking = None;
        self.phase = match self.phase {
            _ if self.members.is_empty() => Phase::UpToDate { at: None },
            Phase::CatchingUp { since, retry, .. } => Phase::CatchingUp { since, retry, next: 0, at: None },
            _ if !std::mem::replace(&mut self.had_members, true) => Self::catching_up(now),
            _ => Phase::Round { next: 0 },
        };
    }

    /// Whether there is anybody.
    #[must_use]
    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether questions may be answered: all that a peer holds is here, there is nobody to wait for, or nobody gave anything in time.
    #[must_use]
    pub fn is_synchronised(&self) -> bool {
        !matches!(self.phase, Phase::Searching { .. } | Phase::CatchingUp { .. })
    }

    /// Whether everybody that there is was asked since the last change.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::UpToDate { .. } | Phase::OnItsOwn { at: Some(_), .. })
    }

    /// What the database thinks of itself. Without peers nobody could tell it more.
    pub fn handle_doubt(&mut self, now: Instant, doubt: Doubt) {
        let before = std::mem::replace(&mut self.doubt, doubt);
        if doubt != before && doubt != Doubt::None && !self.members.is_empty() {
            self.asking = None;
            self.phase = Self::catching_up(now);
        }
    }

    /// Whom to ask for all entries now; one at a time.
    pub fn poll_transfer(&mut self) -> Option<DatabaseAddress> {
        let next = match self.phase {
            Phase::Round { next } | Phase::CatchingUp { next, at: None, .. } | Phase::OnItsOwn { next, at: None } => {
                next
            }
            Phase::Searching { .. } | Phase::UpToDate { .. } | Phase::CatchingUp { .. } | Phase::OnItsOwn { .. } => {
                return None;
            }
        };
        if self.asking.is_some() {
            return None;
        }
        let member = self.members.get(next)?.clone();
        self.asking = Some(next);
        Some(member)
    }

    /// Brings what came of the transfer. One that was begun before the members changed is ignored.
    ///
    /// Returns whether the database is out of doubt: what nobody vouches for any more may go.
    pub fn handle_transfer(&mut self, now: Instant, transferred: Transferred) -> bool {
        let Transferred { is_whole, interval, hearsay } = transferred;
        let Some(asked) = self.asking.take() else { return false };
        let is_last = asked + 1 >= self.members.len();
        // Owners that cannot reach us are with a peer: nobody but it can tell whether they still live. An owner that lives was heard
        // there within an interval and a tenth, so that its entry does not go before we ask again.
        let rest = if hearsay > 0 { interval * 3 / 4 } else { interval * TRANSFER_INTERVALS };
        let up_to_date = Phase::UpToDate { at: Some(now + rest) };
        self.phase = match self.phase {
            Phase::Round { .. } if is_last => up_to_date,
            Phase::Round { .. } => Phase::Round { next: asked + 1 },
            Phase::CatchingUp { .. } | Phase::OnItsOwn { .. } if is_whole => up_to_date,
            Phase::CatchingUp { since, retry, .. } if !is_last => {
                Phase::CatchingUp { since, retry, next: asked + 1, at: None }
            }
            Phase::OnItsOwn { .. } if !is_last => Phase::OnItsOwn { next: asked + 1, at: None },
            Phase::OnItsOwn { .. } => Phase::OnItsOwn { next: 0, at: Some(now + RETRY_MAX) },
            Phase::CatchingUp { since, retry, .. } => {
                let left = self.wait.saturating_sub(now.saturating_duration_since(since));
                if left.is_zero() {
                    Phase::OnItsOwn { next: 0, at: Some(now + RETRY_MAX) }
                } else {
                    let retry_next = (retry * 2).min(RETRY_MAX);
                    Phase::CatchingUp { since, retry: retry_next, next: 0, at: Some(now + retry.min(left)) }
                }
            }
            Phase::Searching { .. } | Phase::UpToDate { .. } => return false,
        };
        if is_whole {
            self.doubt = Doubt::None;
        }
        is_whole
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::UpToDate { at } | Phase::CatchingUp { at, .. } | Phase::OnItsOwn { at, .. } => at,
            Phase::Searching { until } => Some(until),
            Phase::Round { .. } => None,
        }
    }

    /// Time has passed. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_none_or(|at| now < at) {
            return;
        }
        self.phase = match self.phase {
            Phase::UpToDate { .. } => Phase::Round { next: 0 },
            // Nobody tells us who they are.
            Phase::Searching { .. } => Phase::UpToDate { at: None },
            Phase::CatchingUp { since, retry, .. } => Phase::CatchingUp { since, retry, next: 0, at: None },
            Phase::OnItsOwn { .. } => Phase::OnItsOwn { next: 0, at: None },
            round @ Phase::Round { .. } => round,
        };
    }

    fn catching_up(now: Instant) -> Phase {
        Phase::CatchingUp { since: now, retry: RETRY_MIN, next: 0, at: None }
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
