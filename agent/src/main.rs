//! `castgate-agent`: runs the roles of one snapshot until a signal ends it.

use std::path::PathBuf;
use std::process::ExitCode;

use castgate_agent::{limits, service};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Runs the roles of one castgate agent: tunnel server, tunnel database, registrar, pattern sources.
///
/// The file is read again whenever it changes and on SIGHUP; what did not change goes on undisturbed. SIGTERM and SIGINT say
/// goodbye to every client and database first.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example: castgate-agent --config /etc/castgate/agent.yaml --state /var/lib/castgate")]
struct Arguments {
    /// Snapshot to run, as YAML or JSON.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where entries of the database and the last good snapshot are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/castgate")]
    state: PathBuf,
    /// What is logged, as in `info` or `castgate_agent=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = filter)]
    log: String,
    /// Log as one JSON object a line.
    #[arg(long)]
    log_json: bool,
}

fn main() -> ExitCode {
    let Arguments { config, state, log, log_json } = Arguments::parse();
    start_logging(&log, log_json);
    limits::raise_open_files();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| Ok(runtime.block_on(service::run(&config, &state))?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("castgate-agent: {error}");
            ExitCode::FAILURE
        }
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
