//! Times and limits of a client.

use super::super::LoopCheck;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Times and limits. [`Config::default`] holds the documented values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Waits between the JOINs of a fresh join, until the channel's first `DATA`. Default 0.5, 1, 2, 4 s.
    pub join_backoff: [Duration; 4],
    /// Interval of the JOINs after that. Default 15 s.
    pub join_refresh: Duration,
    /// A channel silent for so long makes the client ask whether its server lives; `None` for channels that are often silent.
    /// Default 2 s.
    pub silence: Option<Duration>,
    /// A channel that stays silent at a living server doubles its patience up to this. Default 8 s.
    pub silence_max: Duration,
    /// Wait for the answer to one PROBE of a server that is in use. Default 500 ms.
    pub probe_wait: Duration,
    /// Unanswered PROBEs before such a server is given up. Default 3.
    pub probe_tries: u8,
    /// Waits for the answers to the PROBEs of the first contact; after the last the next server is taken. Default 500, 750,
    /// 1000 ms: a server answers an unproven address once a second, so the third PROBE comes more than that after the first.
    pub contact_waits: [Duration; 3],
    /// Once every server has failed, all are asked at this interval, which doubles once. Default 1 s.
    pub search_interval: Duration,
    /// How often the driver is reminded that new servers are needed. Default 10 s.
    pub need_servers_interval: Duration,
    /// A server that was not heard for so long is asked whether it lives. Default 30 s.
    pub keep_alive: Duration,
    /// How often a LEAVE and a `TEAR_DOWN` are sent. Default 3.
    pub leave_times: u8,
    /// Time between them. Default 200 ms.
    pub leave_interval: Duration,
    /// All joins are sent again at most once in this time, and a wrong cookie is answered at most as often. Default 1 s.
    pub answer_interval: Duration,
    /// The TTL asked for in JOINs: what the server assumes for packets whose own it does not know. Default 63.
    pub ttl: u8,
    /// What happens when a native packet that is to go upstream comes from the server's address. Default
    /// [`LoopCheck::Endpoint`].
    pub loop_check: LoopCheck,
    /// Our own addresses; a native packet from one of them is no loop, though the server be on this machine.
    pub own_addresses: Vec<Ipv4Addr>,
    /// Channels at one time. Default 1024.
    pub channels_max: usize,
    /// Servers that are kept of a list. Default 16.
    pub servers_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            join_backoff: [500, 1000, 2000, 4000].map(Duration::from_millis),
            join_refresh: Duration::from_secs(15),
            silence: Some(Duration::from_secs(2)),
            silence_max: Duration::from_secs(8),
            probe_wait: Duration::from_millis(500),
            probe_tries: 3,
            contact_waits: [500, 750, 1000].map(Duration::from_millis),
            search_interval: Duration::from_secs(1),
            need_servers_interval: Duration::from_secs(10),
            keep_alive: Duration::from_secs(30),
            leave_times: 3,
            leave_interval: Duration::from_millis(200),
            answer_interval: Duration::from_secs(1),
            ttl: 63,
            loop_check: LoopCheck::Endpoint,
            own_addresses: Vec::new(),
            channels_max: 1024,
            servers_max: 16,
        }
    }
}

/// How one channel is joined. [`JoinOptions::new`] takes the defaults of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinOptions {
    /// Joins the port and the next one with one command, as RTP and RTCP.
    pub rtp: bool,
    /// As [`Config::silence`], for this channel.
    pub silence: Option<Duration>,
    /// As [`Config::ttl`], for this channel.
    pub ttl: u8,
}

impl JoinOptions {
    /// What [`super::Client::join`] uses.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { rtp: false, silence: config.silence, ttl: config.ttl }
    }
}
