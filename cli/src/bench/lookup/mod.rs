//! Lookups a second: a database with many networks on disk and in memory, beside a bare hyper server that gives a constant of equal
//! size to the same requests.
//!
//! ```text
//!   REGISTER, all servers ─▶ database ─▶ memory ─▶ kill -9 ─▶ again, from disk ─▶ memory ─▶ QUERY ┐ in turns, same
//!                                                                                   bare ─▶ QUERY ┘ requests
//! ```
//! While QUERY is measured, the server has one processor and the caller another one: what the caller costs is no part of it. Every
//! answer is looked at: an entry that got lost, or an answer of another length, ends the bench.

mod load;
mod process;
mod requests;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub(crate) use process::{ServeArgs, serve};

use super::Row;
use load::{Outcome, Wait};
use process::Process;
use requests::Size;

/// Servers that register at one time: they share the flushes of the disk.
const REGISTERING: usize = 500;
/// A caller that has less time to spare than this is what is measured.
const BUSY_MAX: f64 = 0.95;
const ENDLESS: Duration = Duration::MAX;

/// What is measured.
#[derive(Debug)]
pub(super) struct Options {
    /// Networks that are registered.
    pub(super) networks: u32,
    /// Servers that have them.
    pub(super) servers: u32,
    /// Connections that ask.
    pub(super) connections: usize,
    /// Turns of each of the two; the best counts, since nothing makes a machine faster than it is.
    pub(super) rounds: u32,
    /// Time of one turn.
    pub(super) time: Duration,
}

/// Measures, below a folder that is empty.
pub(super) fn lookup(options: &Options, state: &Path, print: &mut dyn FnMut(&Row) -> Result<()>) -> Result<()> {
    let size = Size::new(options.networks, options.servers)?;
    let networks = f64::from(size.networks());
    let mut alone = |case: &str, ours: f64, unit: &'static str| {
        print(&Row { bench: "lookup", case: case.to_owned(), ours, ceiling: None, unit, ratio: None })
    };
    let database = Process::database(size, state, None)?;
    let empty_bytes = database.resident_bytes()?;
    let registered = register(&database, size)?;
    alone("REGISTER of new entries", registered.per_second, "requests/s")?;
    let refreshed = register(&database, size)?;
    alone("REGISTER that refreshes", refreshed.per_second, "requests/s")?;
    let each = |bytes: u64| {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let bytes = bytes.saturating_sub(empty_bytes) as f64;
        bytes / networks
    };
    alone("memory after REGISTER", each(database.resident_bytes()?), "bytes/network")?;
    database.kill()?;

    let cpus = process::two_cpus();
    let cpu = cpus.map(|(server, _)| server);
    let mut query = Vec::new();
    size.write_query(0, &mut query);
    let start = Instant::now();
    let database = Process::database(size, state, cpu)?;
    let answer = load::ask(database.address, &query)?;
    alone("restart to the first answer", start.elapsed().as_secs_f64(), "s")?;
    alone("memory after a restart", each(database.resident_bytes()?), "bytes/network")?;

    let wait = if let Some((_, caller)) = cpus {
        process::stay_on(caller)?;
        Wait::Awake
    } else {
        Wait::Asleep
    };
    let bare = Process::bare(&answer, state, cpu)?;
    let (mut ours, mut ceiling) = (Best::default(), Best::default());
    for _ in 0..options.rounds {
        for (server, best) in [(&database, &mut ours), (&bare, &mut ceiling)] {
            best.round(server, size, options, answer.len(), wait)?;
        }
    }
    let case = format!("{} networks of {} servers", size.networks(), size.servers());
    for (name, unit, ours, ceiling, is_time) in [
        ("QUERY", "requests/s", ours.per_second, ceiling.per_second, false),
        ("p99 of QUERY", "µs", ours.p99_micros, ceiling.p99_micros, true),
        ("processor time of QUERY", "µs/request", ours.work_micros, ceiling.work_micros, true),
    ] {
        let ratio = if is_time { ceiling / ours } else { ours / ceiling };
        let case = format!("{name}, {case}");
        print(&Row { bench: "lookup", case, ours, ceiling: Some(ceiling), unit, ratio: Some(ratio) })?;
    }
    Ok(())
}

/// Every server registers; the first one alone, so that its password is checked once.
fn register(database: &Process, size: Size) -> Result<Outcome> {
    let mut first = Vec::new();
    size.write_register(0, &mut first);
    load::ask(database.address, &first).context("REGISTER")?;
    let mut servers = 1..size.servers();
    let outcome = load::run(database.address, REGISTERING, ENDLESS, None, Wait::Asleep, |octets| {
        let server = servers.next();
        server.inspect(|server| size.write_register(*server, octets)).is_some()
    });
    outcome.context("REGISTER")
}

/// The best of some rounds.
#[derive(Debug)]
struct Best {
    per_second: f64,
    p99_micros: f64,
    work_micros: f64,
    asked: u64,
}

impl Default for Best {
    fn default() -> Self {
        Self { per_second: 0.0, p99_micros: f64::INFINITY, work_micros: f64::INFINITY, asked: 0 }
    }
}

impl Best {
    fn round(
        &mut self,
        server: &Process,
        size: Size,
        options: &Options,
        answer_bytes: usize,
        wait: Wait,
    ) -> Result<()> {
        let before = server.work()?;
        let outcome =
            load::run(server.address, options.connections, options.time, Some(answer_bytes), wait, |octets| {
                self.asked += 1;
                size.write_query(self.asked, octets);
                true
            })
            .context("QUERY")?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let answers = outcome.answers as f64;
        let work = server.work()?.saturating_sub(before).as_secs_f64() * 1e6 / answers;
        if outcome.busy > BUSY_MAX {
            eprintln!("the caller had work for {:.0} % of its time: it was measured too", outcome.busy * 100.0);
        }
        self.per_second = self.per_second.max(outcome.per_second);
        self.p99_micros = self.p99_micros.min(outcome.p99.as_secs_f64() * 1e6);
        self.work_micros = self.work_micros.min(work);
        Ok(())
    }
}
