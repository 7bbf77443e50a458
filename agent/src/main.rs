//! `castgate-agent`: runs the roles of one snapshot until a signal ends it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use castgate_agent::admin::ask;
use castgate_agent::config::stream::Upstream;
use castgate_agent::service::{self, Settings, Source};
use castgate_agent::{Surroundings, limits};
use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Runs the roles of one castgate agent: tunnel server, tunnel database, registrar, adapter, front, pattern sources.
///
/// What to do comes from a file (--config), which is read again whenever it changes and on SIGHUP, or from the operator
/// (--control, --name, --node). What did not change goes on undisturbed. The last good snapshot is kept in the state
/// directory: the agent starts with it when the file is broken or the operator is gone. SIGTERM and SIGINT say goodbye to
/// every client and database first.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  castgate-agent --config /etc/castgate/agent.yaml --state /var/lib/castgate\n  castgate-agent ask ready"
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Snapshot to run, as YAML or JSON.
    #[arg(long, value_name = "FILE", env = "CASTGATE_CONFIG")]
    config: Option<PathBuf>,
    /// The operator that gives snapshots: https://HOST:PORT.
    #[arg(long, value_name = "URL", env = "CASTGATE_CONTROL", value_parser = control)]
    control: Option<String>,
    /// Name of this agent at the operator, as in `castgate/ts-brussels@node-1`.
    #[arg(long, value_name = "NAME", env = "CASTGATE_AGENT")]
    name: Option<String>,
    /// Name of the node it runs on.
    #[arg(long, value_name = "NODE", env = "CASTGATE_NODE")]
    node: Option<String>,
    /// File with the token that proves this agent to the operator; read at each connect.
    #[arg(long, value_name = "FILE", env = "CASTGATE_TOKEN", default_value = "/var/run/castgate/token/token")]
    token: PathBuf,
    /// File with the certificates that operator and adapter must be vouched for by; read at each connect.
    #[arg(long, value_name = "FILE", env = "CASTGATE_CA", default_value = "/var/run/castgate/token/ca.crt")]
    ca: PathBuf,
    /// Where entries of the database and the last good snapshot are kept.
    #[arg(long, value_name = "DIR", env = "CASTGATE_STATE", default_value = "/var/lib/castgate")]
    state: PathBuf,
    /// Unix socket on which `castgate-agent ask` is answered; without it nobody is.
    #[arg(long, value_name = "FILE", env = "CASTGATE_SOCKET")]
    socket: Option<PathBuf>,
    /// How often the operator is told what this agent carries, as in `5s` or `500ms`.
    #[arg(long, value_name = "TIME", env = "CASTGATE_REPORT_INTERVAL", default_value = "5s", value_parser = time)]
    report_interval: Duration,
    /// What is logged, as in `info` or `castgate_agent=debug`.
    #[arg(long, value_name = "FILTER", env = "CASTGATE_LOG", default_value = "info", value_parser = filter)]
    log: String,
    /// Log as one JSON object a line.
    #[arg(long, env = "CASTGATE_LOG_JSON")]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks the agent that runs on this machine; exit status 0 when it says yes.
    #[command(after_help = "Example: castgate-agent ask report --socket /run/castgate/agent.sock")]
    Ask {
        /// What is asked.
        topic: Topic,
        /// Its unix socket.
        #[arg(long, value_name = "FILE", env = "CASTGATE_SOCKET", default_value = "/run/castgate/agent.sock")]
        socket: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Topic {
    /// Does it do its work?
    Live,
    /// Is a snapshot in force, and does every role of it run?
    Ready,
    /// What does it carry, as JSON?
    Report,
    /// Which snapshot is in force?
    SnapshotDigest,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse() {
        Arguments { command: Some(Command::Ask { topic, socket }), .. } => question(topic, &socket),
        arguments => run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("castgate-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { command: _, config, control, name, node, token, ca, state, socket, report_interval, log, log_json } =
        arguments;
    let source = match (config, control) {
        (Some(config), None) => Source::File(config),
        (None, Some(control)) => {
            let needed = |what| anyhow::anyhow!("--{what} is needed beside --control");
            let agent = name.ok_or_else(|| needed("name"))?;
            let node = node.ok_or_else(|| needed("node"))?;
            Source::Operator(Upstream { control, agent, node, token: Some(token), ca: Some(ca.clone()) })
        }
        (None, None) => anyhow::bail!("one of --config and --control is needed"),
        (Some(_), Some(_)) => anyhow::bail!("--config and --control exclude each other"),
    };
    start_logging(&log, log_json);
    limits::raise_open_files();
    // Two crates of ours might otherwise bring two providers of cryptography, and TLS would not know which to take.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("TLS has a provider of cryptography before main gave it one");
    }
    let surroundings = Surroundings::new(&state).trusting(&ca);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(service::run(Settings { source, surroundings, socket, report_interval }))?;
    Ok(())
}

fn question(topic: Topic, socket: &std::path::Path) -> anyhow::Result<()> {
    let path = topic.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(ask::ask(socket, &path)).map_err(anyhow::Error::msg)? {
        (200, said) => {
            println!("{}", said.trim_end());
            Ok(())
        }
        (_, sentence) => anyhow::bail!("{}", sentence.trim_end()),
    }
}

fn control(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("https://").unwrap_or_default().trim_end_matches('/');
    let good = authority.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if good { Ok(text.to_owned()) } else { Err(format!("{text:?} is not https://HOST:PORT")) }
}

fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1_000),
        (None, None) => (text, 1_000),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match millis {
        Some(millis @ 100..=3_600_000) => Ok(Duration::from_millis(millis)),
        Some(_) => Err(format!("{text} is not in 100ms..=3600s")),
        None => Err(format!("{text:?} is not a time as in 5s or 500ms")),
    }
}

/// Refuses a filter before anything starts; the filter itself cannot be cloned, so its text is kept.
fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn start_logging(filter: &str, json: bool) {
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json { log.json().init() } else { log.init() }
}
