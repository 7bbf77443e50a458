//! `castgate tds transfer`: every entry of a database, printed while it comes.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use castgate_client::Dns;
use castgate_wire::registry::xml::ParseError;
use castgate_wire::registry::{Country, Prefix, Request, Transfer, TransferEntry};

use super::{Account, Peer, in_words, print, server_json};
use crate::args;

/// Fetch all entries, as a peer of the database does
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  CASTGATE_PASSWORD=… castgate tds transfer --tds 127.0.5.1 --login peer")]
pub(super) struct TransferArgs {
    #[command(flatten)]
    peer: Peer,
    #[command(flatten)]
    account: Account,
    /// Only entries inside this network
    #[arg(long, value_name = "PREFIX")]
    network: Option<Prefix>,
    /// Only entries of this country
    #[arg(long, value_name = "CC", value_parser = args::country)]
    country: Option<Country>,
}

/// What became of the entries so far.
#[derive(Debug, Default)]
struct Printed {
    /// Standard output takes no more.
    closed: Option<anyhow::Error>,
    unreadable: usize,
    /// What is wrong with the first of them.
    first: Option<ParseError>,
}

/// Asks the first address of the database that answers at all.
pub(super) async fn run(args: TransferArgs) -> Result<()> {
    let TransferArgs { peer, account, network, country } = args;
    let request = Request::Transfer(Transfer { network, country });
    let opened = peer.open(&Dns::from_environment()?, &request, Some(&account.credentials()?)).await?;
    let printed = Arc::<Mutex<Printed>>::default();
    let (shared, json) = (printed.clone(), peer.json);
    let each = move |entry| shared.lock().unwrap_or_else(PoisonError::into_inner).take(json, entry);
    castgate_client::transfer(opened, each).await?;
    let printed = std::mem::take(&mut *printed.lock().unwrap_or_else(PoisonError::into_inner));
    printed.sum_up()
}

impl Printed {
    fn take(&mut self, json: bool, entry: Result<TransferEntry, ParseError>) -> ControlFlow<()> {
        match entry {
            Ok(entry) => {
                if let Err(error) = show(json, &entry) {
                    self.closed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            Err(error) => {
                self.unreadable += 1;
                self.first.get_or_insert(error);
            }
        }
        ControlFlow::Continue(())
    }

    fn sum_up(self) -> Result<()> {
        let Self { closed, unreadable, first } = self;
        if let Some(error) = closed {
            return Err(error);
        }
        match first {
            None => Ok(()),
            Some(error) if unreadable == 1 => Err(error).context("one entry cannot be read"),
            Some(error) => bail!("{unreadable} entries cannot be read; the first: {error}"),
        }
    }
}

fn show(json: bool, entry: &TransferEntry) -> Result<()> {
    let TransferEntry { server, login, password: _, countries, networks, expires_in_seconds: _ } = entry;
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    // The password is a hash, and still nothing for a screen.
    let words = format!("{} login {login} networks {}", in_words(server), networks.join(","));
    let mut row = server_json(server);
    row["login"] = login.clone().into();
    row["countries"] = countries.iter().map(ToString::to_string).collect();
    row["networks"] = networks.into();
    print(json, &row, &words)
}
