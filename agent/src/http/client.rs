//! Makes one request to a database above us or beside us: a call of the registrar with its login, a question of its walks
//! without, or the TRANSFER of a peer's entries. Over TLS where its address says https.
//!
//! What HTTP makes of it is [`castgate_client::http`]'s; here it becomes what the registrar and the database understand.

use std::ops::ControlFlow;
use std::time::Duration;

use castgate_client::http::{Credentials, DatabaseRequest, Exchange, Opened, Verdict};
use castgate_client::{Dns, Trust};
use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_endpoint::hierarchy::discovery::Ask;
use castgate_endpoint::hierarchy::locator::ANSWER_TIMEOUT;
use castgate_endpoint::hierarchy::registrar::{Call, Outcome, Parent};
use castgate_wire::registry::xml::ParseError;
use castgate_wire::registry::{Request, Server, Transfer, TransferEntry};
use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use tokio::time::timeout;

use super::UPDATE_INTERVAL;

/// Carries out a call of the registrar. Everything that can happen is an outcome.
pub(crate) async fn carry_out(dns: &Dns, call: &Call) -> Outcome {
    // Names and all addresses behind them included.
    let late = |_| Err(format!("{} did not answer within {} s", call.authority, ANSWER_TIMEOUT.as_secs()));
    match timeout(ANSWER_TIMEOUT, exchange(dns, call)).await.unwrap_or_else(late) {
        Ok(verdict) => outcome(&verdict),
        Err(sentence) => Outcome::Unreachable { sentence },
    }
}

async fn exchange(dns: &Dns, Call { id: _, parent, authority, request }: &Call) -> Result<Verdict, String> {
    let Parent { address, login, password, ca } = parent;
    let account = PeerAccount { login, password, ca: ca.as_deref() };
    Ok(open(dns, address, Some(authority), account, request).await?.verdict().await)
}

fn outcome(verdict: &Verdict) -> Outcome {
    let seconds = |name: &str| {
        let value = verdict.header.get(name)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(value))
    };
    if verdict.status == StatusCode::OK {
        return Outcome::Done { interval: seconds(UPDATE_INTERVAL.as_str()).filter(|interval| !interval.is_zero()) };
    }
    Outcome::Refused { sentence: verdict.to_string(), retry_after: seconds(RETRY_AFTER.as_str()) }
}

/// Asks a database which databases are below it. An error is a sentence.
pub(crate) async fn ask(dns: &Dns, ask: &Ask, trust: &Trust) -> Result<Vec<Server>, String> {
    let Ask { scheme, address, authority, target } = ask;
    let asked = Exchange::new(*address, authority, target);
    let answer = Exchange { scheme: *scheme, trust: Some(trust), ..asked }.run(dns).await;
    answer.map_err(|error| error.to_string())?.servers()
}

/// Whose certificates are believed: those that are named, or those that the system trusts. An error is a sentence.
pub(crate) fn trust_of(ca: Option<&str>) -> Result<Trust, String> {
    let Some(ca) = ca else { return Ok(Trust::system()) };
    Trust::only(ca).ok_or_else(|| "ca: holds no certificate that can be read".to_owned())
}

/// Who we are at another database, and whose certificates we believe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAccount<'a> {
    pub(crate) login: &'a str,
    pub(crate) password: &'a str,
    pub(crate) ca: Option<&'a str>,
}

/// Asks a peer for its entries and hands them on while they come, as [`castgate_client::transfer`] does. An error is a sentence.
pub(crate) async fn transfer(
    dns: &Dns,
    database: &DatabaseAddress,
    account: PeerAccount<'_>,
    wanted: &Transfer,
    each: impl FnMut(Result<TransferEntry, ParseError>) -> ControlFlow<()> + Send + 'static,
) -> Result<(), String> {
    let opened = open(dns, database, None, account, &Request::Transfer(wanted.clone())).await?;
    castgate_client::transfer(opened, each).await.map_err(|error| error.to_string())
}

/// Sends a request as somebody, to a database that may go by another name than its address. An error is a sentence.
async fn open(
    dns: &Dns,
    database: &DatabaseAddress,
    authority: Option<&str>,
    PeerAccount { login, password, ca }: PeerAccount<'_>,
    request: &Request,
) -> Result<Opened, String> {
    let trust = &trust_of(ca)?;
    let credentials = Credentials { login: login.to_owned(), password: password.to_owned() };
    let credentials = Some(&credentials);
    let request = DatabaseRequest { database, authority, trust, request, local: None, credentials };
    request.open(dns).await.map_err(|error| error.to_string())
}
