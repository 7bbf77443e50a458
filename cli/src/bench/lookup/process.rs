//! The servers that are measured, each a process of its own: its memory, its time and its end are its own.
//!
//! ```text
//!   castgate bench lookup ──▶ castgate bench serve database │ bare
//!                         ◀── its address, a line
//!                     end of its standard input: it ends, also when we are gone
//! ```

use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use castgate_agent::roles::database::Database;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::requests::Size;

/// A server as the other process runs it.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    server: Server,
    /// Folder of the database, or of the answer
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The one processor that it runs on
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    #[arg(long, value_name = "N", default_value_t = 1)]
    networks: u32,
    #[arg(long, value_name = "N", default_value_t = 1)]
    servers: u32,
}

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Server {
    /// The role `database` of an agent.
    Database,
    /// hyper with one answer to everything.
    Bare,
}

/// Name of the file with the answer of the bare server.
const ANSWER: &str = "answer";
/// What the agent's server sets as well: without them it would be another server.
const HEADER_TIME: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: usize = 80 * 1024;

/// A running one.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Process {
    /// The role `database` with what its folder holds.
    pub(super) fn database(size: Size, state: &Path, cpu: Option<usize>) -> Result<Self> {
        let numbers = [("--networks", size.networks()), ("--servers", size.servers())];
        Self::start(Server::Database, state, cpu, &numbers)
    }

    /// A server that gives this answer to everything.
    pub(super) fn bare(answer: &[u8], state: &Path, cpu: Option<usize>) -> Result<Self> {
        std::fs::write(state.join(ANSWER), answer)?;
        Self::start(Server::Bare, state, cpu, &[])
    }

    fn start(server: Server, state: &Path, cpu: Option<usize>, numbers: &[(&str, u32)]) -> Result<Self> {
        let word = match server {
            Server::Database => "database",
            Server::Bare => "bare",
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "serve", word, "--state"]).arg(state);
        let cpu = cpu.map(|cpu| ("--cpu", cpu.to_string()));
        let numbers = numbers.iter().map(|(name, number)| (*name, number.to_string()));
        for (name, value) in numbers.chain(cpu) {
            command.args([name, &value]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("no other process")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let Ok(address) = line.trim_end().parse() else {
            let status = child.wait()?;
            bail!("the server to be measured ended with {status}");
        };
        Ok(Self { child, address })
    }

    /// Memory that it has at this moment.
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Time that its threads have worked, those that have ended included.
    pub(super) fn work(&self) -> Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in brackets, may hold anything; `utime` and `stime` are the 12th and 13th field behind it.
        let (_, behind) = text.rsplit_once(')').context("no stat")?;
        let mut fields = behind.split_whitespace().skip(11);
        let mut ticks = || anyhow::Ok(fields.next().context("no time in stat")?.parse::<u64>()?);
        let millis = (ticks()? + ticks()?) * 1_000 / rustix::param::clock_ticks_per_second();
        Ok(Duration::from_millis(millis))
    }

    /// As by `kill -9`.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is gone already, or goes with its standard input.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two processors to run on, one for the server and one for the caller, when there are two.
pub(super) fn two_cpus() -> Option<(usize, usize)> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    Some((cpus.next()?, cpus.next()?))
}

/// Lets this thread, and those that it starts, run on one processor alone.
pub(super) fn stay_on(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).context("no processor of one's own")
}

/// Runs a server until standard input ends.
pub(crate) fn serve(args: &ServeArgs) -> Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(cpu) = args.cpu {
        stay_on(cpu)?;
        runtime.worker_threads(1);
    }
    let runtime = runtime.enable_all().build()?;
    let (end, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = end.send(());
    });
    runtime.block_on(async {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        match args.server {
            Server::Database => {
                // An agent writes its log as well.
                let log = File::options().create(true).append(true).open(args.state.join("log"))?;
                tracing_subscriber::fmt().with_writer(Mutex::new(log)).with_ansi(false).init();
                let snapshot = Size::new(args.networks, args.servers)?.snapshot(listen);
                let database = Database::start(snapshot, &args.state).await?;
                announce(database.local_address())?;
                let _ = ended.await;
                database.stop().await;
            }
            Server::Bare => {
                let answer = Constant::read(&std::fs::read(args.state.join(ANSWER))?)?;
                let listener = TcpListener::bind(listen).await?;
                announce(listener.local_addr()?)?;
                let listening = tokio::spawn(bare(listener, answer));
                let _ = ended.await;
                listening.abort();
            }
        }
        anyhow::Ok(())
    })
}

fn announce(address: SocketAddr) -> Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{address}")?;
    output.flush().context("standard output is closed")
}

/// The answer of the bare server: what the database answered once.
#[derive(Debug, Clone)]
struct Constant {
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Constant {
    fn read(answer: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(answer)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
        // hyper writes these itself.
        let fields = fields.filter(|(name, _)| !matches!(*name, "content-length" | "date"));
        let fields =
            fields.map(|(name, value)| anyhow::Ok((name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?)));
        Ok(Self { fields: fields.collect::<Result<_>>()?, body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        for (name, value) in &self.fields {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response
    }
}

async fn bare(listener: TcpListener, answer: Constant) {
    while let Ok((stream, _)) = listener.accept().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |_: Request<Incoming>| {
                let response = answer.response();
                async move { Ok::<_, Infallible>(response) }
            });
            // A broken connection is the caller's to tell.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(HEADER_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
