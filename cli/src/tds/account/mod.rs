//! `castgate tds account`: the accounts of a database outside a cluster, in the file that its agent reads
//! (`database.accountsFile`).
//!
//! ```text
//!   add ──▶ one password ──rotate──▶ the new one and the one before ──settle──▶ the new one ──remove──▶ nobody
//! ```
//! A running agent takes every step by itself, and nobody who has a right password is turned away meanwhile.

mod file;
mod password;
mod rotations;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use castgate_control::{AccountsFile, Allow};
use castgate_wire::registry::{Country, EntryType, Prefix};
use serde_json::{Value, json};

use super::entry_type;
use crate::args;
use file::Locked;
use password::Password;
use rotations::Rotations;

/// Edit the accounts of a database that runs outside a cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  castgate tds account add brussels --type TS --network 134.184.0.0/16 --country BE --file /etc/castgate/accounts.yaml
  castgate tds account rotate brussels     the password before stays good, until:
  castgate tds account settle brussels

The agent's configuration names the file as database.accountsFile.")]
pub(super) struct AccountArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Add(AddArgs),
    Rotate(RotateArgs),
    /// Drop the password before the last `rotate`
    #[command(after_help = "Example:\n  castgate tds account settle brussels")]
    Settle(LoginArgs),
    /// Drop an account, and with it what it registered
    #[command(after_help = "Example:\n  castgate tds account remove brussels")]
    Remove(LoginArgs),
    List(ListArgs),
}

/// Which file, and how to report.
#[derive(Debug, clap::Args)]
struct Place {
    /// File with the accounts
    #[arg(long, value_name = "FILE", env = "CASTGATE_ACCOUNTS", default_value = "/etc/castgate/accounts.yaml")]
    file: PathBuf,
    /// Report as JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Make an account, and print its password once
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate tds account add brussels --type TS --network 134.184.0.0/16 --country BE")]
struct AddArgs {
    /// User name
    login: String,
    /// What it may register: TS, TDS, or both
    #[arg(long = "type", value_name = "TYPE", value_parser = entry_type, required = true)]
    types: Vec<EntryType>,
    /// A range that every network of its entries lies within, or within another one of these
    #[arg(long = "network", value_name = "PREFIX")]
    networks: Vec<Prefix>,
    /// An Autonomous System whose networks its entries may have, by the route table of the database (database.routes)
    #[arg(long = "as", value_name = "NUMBER", value_parser = asn)]
    asns: Vec<u32>,
    /// A country that its entries may name
    #[arg(long = "country", value_name = "CC", value_parser = args::country)]
    countries: Vec<Country>,
    /// A range that the addresses of its entries lie within, or within another one of these; none: any address
    #[arg(long = "source", value_name = "RANGE")]
    sources: Vec<Prefix>,
    /// Take networks only where the address of the entry is in the same network of the account
    #[arg(long)]
    strict_source: bool,
    /// Read the password from standard input instead of making one
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    place: Place,
}

/// Give an account another password; the one before stays good until it is settled
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate tds account rotate brussels")]
struct RotateArgs {
    /// User name
    login: String,
    /// Nobody has the password that the last `rotate` printed: another one in its place
    #[arg(long)]
    lost: bool,
    /// Read the password from standard input instead of making one
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct LoginArgs {
    /// User name
    login: String,
    #[command(flatten)]
    place: Place,
}

/// List the accounts and what they may register
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  castgate tds account list --json\n  castgate tds account list --socket /run/castgate/agent.sock"
)]
struct ListArgs {
    /// Ask the agent behind this socket whether passwords before are still in use
    #[arg(long, value_name = "FILE", env = "CASTGATE_SOCKET")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Carries out one action.
pub(super) async fn run(args: AccountArgs) -> Result<()> {
    match args.action {
        Action::Add(args) => add(args),
        Action::Rotate(args) => rotate(&args),
        Action::Settle(args) => settle(&args),
        Action::Remove(args) => remove(&args),
        Action::List(args) => list(&args).await,
    }
}

fn add(args: AddArgs) -> Result<()> {
    let AddArgs { login, types, networks, asns, countries, sources, strict_source, password_stdin, place } = args;
    let password = Password::new(password_stdin)?;
    let allow = Allow { types, networks, asns, countries, sources, strict_source };
    let account = castgate_control::Account {
        login: login.clone(),
        password_hash: password.hash()?,
        previous_password_hash: None,
        allow,
    };
    place.edit(&login, |file| {
        if file.accounts.iter().any(|other| other.login == login) {
            bail!("{login} is there already; `rotate` gives it another password");
        }
        file.accounts.push(account);
        Ok(())
    })?;
    place.tell_password(&login, "added", &password)
}

fn rotate(args: &RotateArgs) -> Result<()> {
    let RotateArgs { login, lost, password_stdin, place } = args;
    let password = Password::new(*password_stdin)?;
    let hash = password.hash()?;
    place.edit(login, |file| {
        let account = find(file, login)?;
        let before = std::mem::replace(&mut account.password_hash, hash);
        match (account.previous_password_hash.is_some(), *lost) {
            // A third password would take away the first, which may still be in use.
            (true, false) => bail!(
                "{login} has a password before this one that is still good: `settle` it first, or --lost if nobody has this one"
            ),
            (true, true) => {}
            (false, false) => account.previous_password_hash = Some(before),
            (false, true) => bail!("{login} is not being rotated: no new password can be lost"),
        }
        Ok(())
    })?;
    place.tell_password(login, "rotated", &password)
}

fn settle(args: &LoginArgs) -> Result<()> {
    let LoginArgs { login, place } = args;
    place.edit(login, |file| match find(file, login)?.previous_password_hash.take() {
        Some(_) => Ok(()),
        None => bail!("{login} has one password only: nothing is to be settled"),
    })?;
    place.tell(&json!({ "login": login, "settled": true }), &format!("{login} has one password again"))
}

fn remove(args: &LoginArgs) -> Result<()> {
    let LoginArgs { login, place } = args;
    place.edit(login, |file| {
        find(file, login)?;
        file.accounts.retain(|account| account.login != *login);
        Ok(())
    })?;
    place.tell(&json!({ "login": login, "removed": true }), &format!("{login} is removed"))
}

async fn list(args: &ListArgs) -> Result<()> {
    let ListArgs { socket, place } = args;
    let rotations = match socket {
        Some(socket) => Some(Rotations::ask(socket).await?),
        None => None,
    };
    for account in file::read(&place.file)?.accounts {
        let castgate_control::Account { login, password_hash: _, previous_password_hash, allow } = account;
        let rotating = previous_password_hash.is_some();
        let Allow { types, networks, asns, countries, sources, strict_source } = allow;
        let mut row = json!({
            "login": login, "types": words(&types), "networks": words(&networks), "asns": asns,
            "countries": words(&countries), "sources": words(&sources), "strictSource": strict_source,
            "rotating": rotating,
        });
        let [types, networks, asns, countries, sources] =
            [words(&types), words(&networks), words(&asns), words(&countries), words(&sources)];
        let mut line = format!("{login} types {}", types.join(","));
        for (name, values) in [("networks", networks), ("as", asns), ("countries", countries), ("sources", sources)] {
            if !values.is_empty() {
                line = format!("{line} {name} {}", values.join(","));
            }
        }
        if strict_source {
            line.push_str(" strict source");
        }
        let told = rotations.as_ref().filter(|_| rotating).map(|rotations| rotations.of(&login));
        if let Some(told) = &told {
            row["previous"] = told.row.clone();
        }
        let hint = match &told {
            Some(told) => format!(" (two passwords: {})", told.words),
            None if rotating => " (two passwords: settle)".to_owned(),
            None => String::new(),
        };
        place.tell(&row, &(line + &hint))?;
    }
    Ok(())
}

impl Place {
    /// Changes the file, alone and in one step.
    fn edit(&self, login: &str, change: impl FnOnce(&mut AccountsFile) -> Result<()>) -> Result<()> {
        check_login(login)?;
        let mut file = Locked::open(&self.file)?;
        change(file.content())?;
        file.content().changed_by = Some(whoever_runs_this());
        file.save()
    }

    fn tell_password(&self, login: &str, what: &str, password: &Password) -> Result<()> {
        let Password { text, is_made } = password;
        let mut row = json!({ "login": login, what: true });
        let mut line = format!("{login} is {what}");
        if *is_made {
            row["password"] = text.as_str().into();
            line = format!("{line}; its password, shown this once: {text}");
        }
        self.tell(&row, &line)
    }

    fn tell(&self, row: &Value, words: &str) -> Result<()> {
        super::print(self.json, row, words)
    }
}

/// The number of an Autonomous System, with or without `AS` before it.
fn asn(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("AS").unwrap_or(text);
    let number = digits.parse::<u32>().ok().filter(|number| !matches!(*number, 0 | u32::MAX));
    number.ok_or_else(|| "is not the number of an Autonomous System, such as 64500".to_owned())
}

/// Before the file is touched.
fn check_login(login: &str) -> Result<()> {
    if login.is_empty() || login.contains(|c: char| c == ':' || c.is_control()) {
        bail!("{login:?} cannot be a login");
    }
    Ok(())
}

fn find<'a>(file: &'a mut AccountsFile, login: &str) -> Result<&'a mut castgate_control::Account> {
    let known = file.accounts.iter_mut().find(|account| account.login == login);
    known.with_context(|| format!("there is no account {login}"))
}

fn words<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// For the database's audit log: the user, the one behind sudo, and the machine.
fn whoever_runs_this() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME"));
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let user = variable("SUDO_USER").map_or(user.clone(), |behind| format!("{behind} as {user}"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = format!("{user}@{}", host.trim());
    name.chars().filter(|character| !character.is_control()).take(200).collect()
}
