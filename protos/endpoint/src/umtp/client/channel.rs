//! One channel as its receiver sees it: when to JOIN, and when silence is suspicious.
//!
//! Owns the times of one channel at one server. Knows no bytes, no cookies and no other channel.
//!
//! ```text
//!              start                   data                   silent for 2 s
//!   Waiting ───────────▶ Joining ────────────────▶ Flowing ───────────────────▶ ask the server; it lives:
//!      ▲                  │  ▲ 0.5, 1, 2, 4 s        │  ▲ every 15 s              JOIN again, and be twice as patient
//!      │                  └──┘ JOIN                  └──┘ JOIN
//!      └──────── stop: the server is gone ───────────┘
//! ```

use super::config::{Config, JoinOptions};
use std::time::{Duration, Instant};

/// The times of one channel.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    state: State,
    silence: Option<Duration>,
    silent_since: Instant,
    patience: Duration,
    /// The server was asked because of this channel and has not answered yet.
    is_suspect: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Joining { joins: usize, again_at: Instant },
    Flowing { refresh_at: Instant },
}

/// What a timeout brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Due {
    /// Send a JOIN.
    pub(super) join: bool,
    /// Ask whether the server lives.
    pub(super) suspicion: bool,
}

impl Schedule {
    pub(super) fn new(options: JoinOptions, now: Instant) -> Self {
        let patience = options.silence.unwrap_or_default();
        Self { state: State::Waiting, silence: options.silence, silent_since: now, patience, is_suspect: false }
    }

    /// There is a server: the caller sends the first JOIN.
    pub(super) fn start(&mut self, now: Instant, config: &Config) {
        self.state = State::Joining { joins: 1, again_at: now + config.join_backoff[0] };
        self.be_patient(now, self.silence.unwrap_or_default());
    }

    /// There is no server.
    pub(super) fn stop(&mut self) {
        self.state = State::Waiting;
        self.is_suspect = false;
    }

    fn be_patient(&mut self, now: Instant, patience: Duration) {
        self.silent_since = now;
        self.patience = patience;
        self.is_suspect = false;
    }

    /// A packet has come; true when it is the first since the join.
    pub(super) fn data(&mut self, now: Instant, config: &Config) -> bool {
        self.be_patient(now, self.silence.unwrap_or_default());
        let is_first = !matches!(self.state, State::Flowing { .. });
        if is_first {
            self.state = State::Flowing { refresh_at: now + config.join_refresh };
        }
        is_first
    }

    /// The server lives; true when this channel had doubted it and its JOIN is to be sent again.
    ///
    /// A server that lives and is silent may have lost the join. A fresh join needs no reminder: it repeats itself anyway.
    pub(super) fn server_lives(&mut self, now: Instant, config: &Config) -> bool {
        if !self.is_suspect {
            return false;
        }
        self.be_patient(now, (self.patience * 2).min(config.silence_max).max(self.patience));
        match &mut self.state {
            State::Waiting | State::Joining { .. } => false,
            State::Flowing { refresh_at } => {
                *refresh_at = now + config.join_refresh;
                true
            }
        }
    }

    fn silent_at(&self) -> Option<Instant> {
        let is_watched = self.silence.is_some() && !self.is_suspect && self.state != State::Waiting;
        is_watched.then(|| self.silent_since + self.patience)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let join_at = match self.state {
            State::Waiting => None,
            State::Joining { again_at: at, .. } | State::Flowing { refresh_at: at } => Some(at),
        };
        join_at.into_iter().chain(self.silent_at()).min()
    }

    pub(super) fn timeout(&mut self, now: Instant, config: &Config) -> Due {
        let mut due = Due::default();
        match self.state {
            State::Joining { joins, again_at } if now >= again_at => {
                let wait = config.join_backoff.get(joins).copied().unwrap_or(config.join_refresh);
                self.state = State::Joining { joins: joins + 1, again_at: now + wait };
                due.join = true;
            }
            State::Flowing { refresh_at } if now >= refresh_at => {
                self.state = State::Flowing { refresh_at: now + config.join_refresh };
                due.join = true;
            }
            State::Waiting | State::Joining { .. } | State::Flowing { .. } => {}
        }
        if self.silent_at().is_some_and(|silent_at| now >= silent_at) {
            self.is_suspect = true;
            due.suspicion = true;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_join_is_repeated_after_half_a_second_one_two_and_four_and_then_every_fifteen() {
        let mut lab = Lab::new();
        let joins = lab.run(40_000, |_| false).joins;
        assert_eq!(joins, [500, 1_500, 3_500, 7_500, 22_500, 37_500]);
    }

    #[test]
    fn the_first_packet_ends_the_repeats_and_starts_the_refresh() {
        let mut lab = Lab::new();
        let joins = lab.run(40_000, |millis| millis >= 700 && millis % 100 == 0).joins;
        assert_eq!(joins, [500, 15_700, 30_700]);
    }

    #[test]
    fn two_seconds_without_a_packet_are_suspicious_and_a_packet_is_not() {
        let mut lab = Lab::new();
        let seen = lab.run(9_000, |millis| millis % 500 == 0 && millis <= 5_000);
        assert_eq!(seen.suspicions, [7_000]);
    }

    #[test]
    fn a_silent_channel_at_a_living_server_joins_again_and_doubles_its_patience() {
        let mut lab = Lab::new();
        lab.answers = true;
        let seen = lab.run(60_000, |millis| millis == 100);
        assert_eq!(seen.suspicions, [2_100, 6_100, 14_100, 22_100, 30_100, 38_100, 46_100, 54_100]);
        assert_eq!(seen.reminders, seen.suspicions);
    }

    #[test]
    fn a_sparse_channel_is_never_suspicious() {
        let mut lab = Lab::new();
        lab.schedule = Schedule::new(JoinOptions { silence: None, ..JoinOptions::new(&lab.config) }, lab.start);
        lab.schedule.start(lab.start, &lab.config);
        assert!(lab.run(60_000, |_| false).suspicions.is_empty());
    }

    #[test]
    fn without_a_server_nothing_is_due() {
        let mut lab = Lab::new();
        lab.schedule.stop();
        assert_eq!(lab.schedule.next_timeout(), None);
        assert_eq!(lab.run(40_000, |_| false), Seen::default());
    }

    /// A channel under a clock that we turn, always to the next millisecond.
    struct Lab {
        start: Instant,
        config: Config,
        schedule: Schedule,
        answers: bool,
    }

    #[derive(Debug, Default, PartialEq)]
    struct Seen {
        joins: Vec<u64>,
        suspicions: Vec<u64>,
        reminders: Vec<u64>,
    }

    impl Lab {
        fn new() -> Self {
            let (start, config) = (Instant::now(), Config::default());
            let mut schedule = Schedule::new(JoinOptions::new(&config), start);
            schedule.start(start, &config);
            Self { start, config, schedule, answers: false }
        }

        fn run(&mut self, until_millis: u64, data_at: impl Fn(u64) -> bool) -> Seen {
            let mut seen = Seen::default();
            for millis in 1..=until_millis {
                let now = self.start + Duration::from_millis(millis);
                if data_at(millis) {
                    self.schedule.data(now, &self.config);
                }
                let due_at = self.schedule.next_timeout();
                let due = self.schedule.timeout(now, &self.config);
                assert_eq!(due != Due::default(), due_at.is_some_and(|at| at <= now));
                if due.join {
                    seen.joins.push(millis);
                }
                if due.suspicion {
                    seen.suspicions.push(millis);
                    if self.answers && self.schedule.server_lives(now, &self.config) {
                        seen.reminders.push(millis);
                    }
                }
            }
            seen
        }
    }
}
