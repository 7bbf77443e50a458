//! `castgate tds`: the HTTP protocol of tunnel databases by hand (draft-liefooghe-castgate-02 §6), and the accounts of one's own
//! database.

mod account;
mod transfer;

use std::convert::Infallible;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use castgate_client::http::{Credentials, DatabaseRequest, Opened};
use castgate_client::{DatabaseAddress, Dns};
use castgate_wire::registry::{
    Bye, Country, EntryType, Prefix, Protocol, ProtocolFilter, Query, Register, Request, Scheme, Server, xml,
};
use serde_json::{Value, json};

use crate::args::{self, TrustArg};

/// The environment variable that may hold the password.
const PASSWORD_VARIABLE: &str = "CASTGATE_PASSWORD";

/// Speak to a tunnel database by hand
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate tds query --tds 127.0.4.1 --type TS --country BE")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Query(QueryArgs),
    Register(RegisterArgs),
    Bye(ByeArgs),
    Transfer(transfer::TransferArgs),
    Account(account::AccountArgs),
}

/// Whom to ask and how.
#[derive(Debug, clap::Args)]
struct Peer {
    #[arg(long, value_name = "TDS", help = "The tunnel database: URL, HOST[:PORT], or a name with SRV records")]
    tds: DatabaseAddress,
    #[command(flatten)]
    trust: TrustArg,
    /// Address of this host to ask from
    #[arg(long, value_name = "ADDRESS")]
    local: Option<IpAddr>,
    /// Report as JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// An account at the database.
#[derive(Debug, clap::Args)]
struct Account {
    /// Login of the account; the password comes from `CASTGATE_PASSWORD` or --password-file
    #[arg(long)]
    login: String,
    /// File with the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Ask for tunnel servers, or for the databases that know them
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate tds query --tds 127.0.5.1 --type TS --country BE --protocol UDP --json")]
struct QueryArgs {
    #[command(flatten)]
    peer: Peer,
    /// TS for tunnel servers, TDS for tunnel databases
    #[arg(long = "type", value_name = "TYPE", default_value = "TS", value_parser = entry_type)]
    entry_type: EntryType,
    /// Country of the place that is asked for
    #[arg(long, value_name = "CC", value_parser = args::country)]
    country: Option<Country>,
    /// Protocol of the servers: UDP, TCP, AMT or ALL
    #[arg(long, default_value = "ALL", value_parser = protocol_filter)]
    protocol: ProtocolFilter,
    /// Network to find databases for, instead of the address this question comes from
    #[arg(long, value_name = "PREFIX")]
    network: Option<Prefix>,
}

/// Register a tunnel server or a database
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  CASTGATE_PASSWORD=… castgate tds register --tds 127.0.5.1 --login brussels --source 127.0.2.1 --port 10100 \\
      --protocol UDP --networks 127.0.0.0/8 --country BE")]
struct RegisterArgs {
    #[command(flatten)]
    peer: Peer,
    #[command(flatten)]
    account: Account,
    /// TS for a tunnel server, TDS for a tunnel database
    #[arg(long = "type", value_name = "TYPE", default_value = "TS", value_parser = entry_type)]
    entry_type: EntryType,
    /// Its address
    #[arg(long, value_name = "ADDRESS")]
    source: IpAddr,
    /// Its port
    #[arg(long)]
    port: u16,
    /// Its protocol; a database has none
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Networks it is for, separated by commas
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',')]
    networks: Vec<Prefix>,
    /// Country it is for
    #[arg(long, value_name = "CC", value_parser = args::country)]
    country: Option<Country>,
    /// How the HTTP of a database is carried: http or https
    #[arg(long, value_name = "SCHEME", default_value = "http", value_parser = scheme)]
    scheme: Scheme,
}

/// Take an entry back
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  CASTGATE_PASSWORD=… castgate tds bye --tds 127.0.5.1 --login brussels --source 127.0.2.1 --port 10100")]
struct ByeArgs {
    #[command(flatten)]
    peer: Peer,
    #[command(flatten)]
    account: Account,
    /// Only an entry of this type: TS or TDS
    #[arg(long = "type", value_name = "TYPE", value_parser = entry_type)]
    entry_type: Option<EntryType>,
    /// Address of the entry
    #[arg(long, value_name = "ADDRESS")]
    source: IpAddr,
    /// Port of the entry
    #[arg(long)]
    port: u16,
    /// Only the entry of this protocol
    #[arg(long)]
    protocol: Option<Protocol>,
    /// An entry that is not there is an error
    #[arg(long)]
    strict: bool,
}

/// Carries out one action.
pub(crate) async fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Query(args) => query(args).await,
        Action::Register(args) => register(args).await,
        Action::Bye(args) => bye(args).await,
        Action::Transfer(args) => transfer::run(args).await,
        Action::Account(args) => account::run(args).await,
    }
}

async fn query(args: QueryArgs) -> Result<()> {
    let QueryArgs { peer, entry_type, country, protocol, network } = args;
    let answer = peer.ask(&Request::Query(Query { entry_type, country, protocol, network }), None).await?;
    let servers = xml::parse_servers(&answer.whole().await?.body).context("the answer is not a list of servers")?;
    for server in &servers {
        peer.print(&server_json(server), &in_words(server))?;
    }
    if servers.is_empty() {
        bail!("{} knows none", peer.tds);
    }
    Ok(())
}

async fn register(args: RegisterArgs) -> Result<()> {
    let RegisterArgs { peer, account, entry_type, source, port, protocol, networks, country, scheme } = args;
    let fed_by = Vec::new();
    let request = Register { source, port, entry_type, protocol, networks, country, fed_by, scheme };
    peer.ask(&Request::Register(request), Some(&account.credentials()?)).await?;
    peer.print(&json!({ "registered": true, "at": peer.tds.to_string() }), &format!("registered at {}", peer.tds))
}

async fn bye(args: ByeArgs) -> Result<()> {
    let ByeArgs { peer, account, entry_type, source, port, protocol, strict } = args;
    let request = Bye { source, port, entry_type, protocol, strict };
    peer.ask(&Request::Bye(request), Some(&account.credentials()?)).await?;
    peer.print(&json!({ "removed": true, "at": peer.tds.to_string() }), &format!("removed at {}", peer.tds))
}

impl Peer {
    /// Sends the request to the first address of the database that answers at all.
    async fn open(&self, dns: &Dns, request: &Request, credentials: Option<&Credentials>) -> Result<Opened> {
        let (database, trust, local) = (&self.tds, &self.trust.trust(), self.local);
        let request = DatabaseRequest { database, authority: None, trust, request, local, credentials };
        Ok(request.open(dns).await?)
    }

    /// The same, where an answer without success is an error.
    async fn ask(&self, request: &Request, credentials: Option<&Credentials>) -> Result<Opened> {
        let opened = self.open(&Dns::from_environment()?, request, credentials).await?;
        if opened.status().is_success() {
            return Ok(opened);
        }
        let peer = opened.peer();
        bail!("{peer} answered {}", opened.verdict().await)
    }

    fn print(&self, row: &Value, words: &str) -> Result<()> {
        print(self.json, row, words)
    }
}

/// One line on standard output.
fn print(json: bool, row: &Value, words: &str) -> Result<()> {
    let line = if json { row.to_string() } else { words.to_owned() };
    writeln!(std::io::stdout(), "{line}").context("standard output is closed")
}

impl Account {
    fn credentials(&self) -> Result<Credentials> {
        let password = match &self.password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            None => std::env::var(PASSWORD_VARIABLE)
                .map_err(|_| anyhow!("no password: set {PASSWORD_VARIABLE} or give --password-file"))?,
        };
        Ok(Credentials { login: self.login.clone(), password })
    }
}

fn entry_type(text: &str) -> Result<EntryType, String> {
    EntryType::parse(text).ok_or_else(|| "there are TS and TDS".to_owned())
}

fn scheme(text: &str) -> Result<Scheme, String> {
    Scheme::parse(text).ok_or_else(|| "there are http and https".to_owned())
}

fn protocol_filter(text: &str) -> Result<ProtocolFilter, Infallible> {
    if text.eq_ignore_ascii_case("ALL") { Ok(ProtocolFilter::All) } else { text.parse().map(ProtocolFilter::Only) }
}

fn kind(server: &Server) -> &'static str {
    match server.entry_type {
        EntryType::TunnelServer => "TS",
        EntryType::TunnelDatabase => "TDS",
    }
}

fn server_json(server: &Server) -> Value {
    json!({
        "type": kind(server),
        "address": server.address.to_string(),
        "port": server.port,
        "protocol": server.protocol.as_ref().map(ToString::to_string),
        "prefix_len": server.prefix_len,
        "scheme": (!server.scheme.is_http()).then(|| server.scheme.word()),
    })
}

fn in_words(server: &Server) -> String {
    let address = std::net::SocketAddr::new(server.address, server.port);
    let protocol = server.protocol.as_ref().map(|protocol| format!(" {protocol}")).unwrap_or_default();
    let prefix = match server.prefix_len {
        None => String::new(),
        // draft-liefooghe-castgate-02 §6.3: 0 is no prefix length but says that the country matched.
        Some(0) => " by country".to_owned(),
        Some(len) => format!(" by a network of /{len}"),
    };
    let scheme = if server.scheme.is_http() { "" } else { " over https" };
    format!("{} {address}{protocol}{scheme}{prefix}", kind(server))
}
