//! `castgate-operator`: custom resources to running agents, until a signal ends it.

use std::process::ExitCode;

use castgate_operator::app;
use castgate_operator::args::Args;
use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    match app::run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("castgate-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}
