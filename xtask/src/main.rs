//! The project's own commands: `cargo xtask test`, `cargo xtask deps`.

mod archive;
mod checks;
mod cluster;
mod deps;
mod guest;
mod images;
mod initrd;
mod shell;
mod suite;
mod tools;

use std::process::ExitCode;

const HELP: &str = "\
The project's own commands.

    cargo xtask test            everything: installs what it needs when root, checks, tests, one count line
    cargo xtask test --quick    what needs no root: formatting, lints, rules, unit and loopback tests
    cargo xtask deps            only the rules of who may depend on whom
    cargo xtask images [--profile NAME] [--output DIR] [--prefix HOST/PATH] [--tag TAG] [agent|operator|cli]...
                                archives of our container images, built without an engine (README of e2e/)
    cargo xtask cluster up [NODES] [IMAGE.tar]...   a Kubernetes to try things on; `cargo xtask cluster help` says more
    cargo xtask guest           the machine whose kernel speaks AMT, for the tests; prints its folder
    cargo xtask gen             writes the generated files again (custom resource definitions)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test"] => suite::run(suite::Scope::Everything),
        ["test", "--quick"] => suite::run(suite::Scope::Quick),
        ["deps"] => deps::check(),
        ["gen"] => checks::generate(),
        ["guest"] => guest::ensure().map(|folder| println!("{}", folder.display())),
        ["images", rest @ ..] => images::Options::parse(rest).and_then(|options| images::build(&options)).map(drop),
        ["cluster", rest @ ..] => cluster::command(rest),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("xtask: unknown command `{}`\n\n{HELP}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
