//! The command `castgate`: thin commands over the client library, the planner and the agent.
//!
//! A command that did what was asked ends with status 0; any other says why in one sentence on standard error and ends
//! with status 1, or 2 when it was not understood.

mod args;
mod bench;
mod cluster;
mod country;
mod crds;
mod explain;
mod locate;
mod manifests;
mod receive;
mod reception;
mod relays;
mod send;
mod stop;
mod tds;
mod up;
mod validate;
mod zone;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// IP multicast for people whose network has none.
#[derive(Debug, Parser)]
#[command(name = "castgate", version, max_term_width = 110)]
#[command(after_help = "Example, on one machine and without root:\n  castgate up")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Receive(receive::Args),
    Send(send::Args),
    Locate(locate::Args),
    Tds(tds::Args),
    Validate(validate::Args),
    Explain(explain::Args),
    Crds(crds::Args),
    Zone(zone::Args),
    Bench(bench::Args),
    Status(cluster::status::Args),
    Tunnels(cluster::tunnels::Args),
    Diagnose(cluster::diagnose::Args),
    Sysdump(cluster::sysdump::Args),
    Selftest(cluster::selftest::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    let outcome = match cli.command {
        Command::Up(args) => Box::pin(up::run(args)).await,
        Command::Receive(args) => receive::run(args).await,
        Command::Send(args) => send::run(args).await,
        Command::Locate(args) => locate::run(args).await,
        Command::Tds(args) => tds::run(args).await,
        Command::Validate(args) => validate::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Crds(args) => crds::run(&args),
        Command::Zone(args) => zone::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Status(args) => cluster::status::run(args).await,
        Command::Tunnels(args) => cluster::tunnels::run(args).await,
        Command::Diagnose(args) => cluster::diagnose::run(args).await,
        Command::Sysdump(args) => cluster::sysdump::run(args).await,
        Command::Selftest(args) => cluster::selftest::run(args).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("castgate: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The command line under the name by which it was called: kubectl finds a link `kubectl-castgate` to this program.
fn command() -> clap::Command {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = program.as_deref().and_then(std::path::Path::file_name);
    named(name.is_some_and(|name| name == "kubectl-castgate"))
}

fn named(as_plugin: bool) -> clap::Command {
    let command = Cli::command();
    if as_plugin { command.bin_name("kubectl castgate") } else { command }
}

/// The error with its causes. Many causes are quoted by the error above them already, and said once is enough.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !sentence.contains(&cause) {
            sentence += if sentence.is_empty() { "" } else { ": " };
            sentence += &cause;
        }
    }
    sentence
}

/// Help goes to standard output; what was not understood becomes one sentence.
fn not_understood(error: &clap::Error) -> ExitCode {
    let help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if help {
        // Nobody is left to tell when standard output is closed.
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    let text = error.render().to_string();
    let sentence = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let words: Vec<_> = sentence.split_whitespace().collect();
    eprintln!("castgate: {}; see castgate --help", words.join(" "));
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_that_was_quoted_is_not_repeated() {
        let cause = || std::io::Error::other("address in use");
        let quoted = anyhow::Error::new(cause()).context("listen 127.0.4.1:5632: address in use");
        assert_eq!(sentence(&quoted), "listen 127.0.4.1:5632: address in use");
        let bare = anyhow::Error::new(cause()).context("cannot listen");
        assert_eq!(sentence(&bare), "cannot listen: address in use");
    }

    #[test]
    fn a_plugin_of_kubectl_is_used_by_that_name() {
        let usage = |as_plugin| {
            let error = named(as_plugin).try_get_matches_from(["castgate", "status", "--help"]).unwrap_err();
            error.render().to_string()
        };
        assert!(usage(true).contains("Usage: kubectl castgate status"), "{}", usage(true));
        assert!(usage(false).contains("Usage: castgate status"), "{}", usage(false));
    }

    #[test]
    fn every_command_shows_an_example_in_its_help() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("castgate "), "{} has no example", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
