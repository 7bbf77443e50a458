//! A tunnel database asked by hand: plain HTTP over a socket, read without any code of the product.

use crate::lab::{Host, wait};
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(5);
/// What is told may have to get further than to the database.
const TELL_TIMEOUT: Duration = Duration::from_secs(20);
/// A database answers ten questions of one address in a second.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// An answer: its status, header and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The header, as it came.
    pub header: String,
    /// What followed the header.
    pub body: String,
}

/// Asks a database from a host: `ACTION=QUERY&TYPE=TS&COUNTRY=BE`.
///
/// # Errors
/// When it cannot be reached or answers no HTTP.
pub fn ask(host: &Host, database: SocketAddr, pairs: &str) -> Result<Answer> {
    let request = format!("GET /script/castgate.cgs?{pairs} HTTP/1.1\r\nHost: {database}\r\nConnection: close\r\n\r\n");
    exchange(host, database, &request, TIMEOUT)
}

/// Tells a database something that needs a login, in the body of a POST: `ACTION=BYE&SOURCE=192.0.2.1&PORT=1`.
///
/// # Errors
/// When it cannot be reached or answers no HTTP.
pub fn tell(host: &Host, database: SocketAddr, login: &str, password: &str, pairs: &str) -> Result<Answer> {
    let body = format!("{pairs}&LOGIN={login}&PASSWORD={password}");
    let request = format!(
        "POST /script/castgate.cgs HTTP/1.1\r\nHost: {database}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(host, database, &request, TELL_TIMEOUT)
}

fn exchange(host: &Host, database: SocketAddr, request: &str, timeout: Duration) -> Result<Answer> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&database, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = host.enter(exchange)?.with_context(|| format!("{database} does not answer"))?;
    let status = text.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let (header, body) = text.split_once("\r\n\r\n").context("an answer without a body")?;
    let (header, body) = (header.to_owned(), body.to_owned());
    Ok(Answer { status: status.context("an answer without a status")?, header, body })
}

/// The addresses of all entries that a database holds, as its peers get them.
///
/// # Errors
/// When it cannot be reached, or does not give them.
pub fn held(host: &Host, database: SocketAddr, login: &str, password: &str) -> Result<BTreeSet<IpAddr>> {
    let body = format!("ACTION=TRANSFER&LOGIN={login}&PASSWORD={password}");
    // Of HTTP/1.0, so that the answer is not in chunks.
    let request = format!("POST /script/castgate.cgs HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = exchange(host, database, &request, TIMEOUT)?;
    ensure!(answer.status == 200, "{database} answers {}: {}", answer.status, answer.body.trim());
    let entries = answer.body.split("<ADDRESS>").skip(1).filter_map(|rest| rest.split_once("</ADDRESS>"));
    entries.map(|(address, _)| address.parse().with_context(|| format!("{address} is no address"))).collect()
}

/// Whether a database lists `address` when asked for tunnel servers (`TS`) or databases (`TDS`) of a country.
///
/// # Errors
/// When it does not answer, or with another status than 200.
pub fn lists(host: &Host, database: SocketAddr, entry_type: &str, country: &str, address: &str) -> Result<bool> {
    let answer = ask(host, database, &format!("ACTION=QUERY&TYPE={entry_type}&COUNTRY={country}"))?;
    ensure!(answer.status == 200, "{database} answers {}: {}", answer.status, answer.body.trim());
    Ok(answer.body.contains(&format!("<ADDRESS>{address}</ADDRESS>")))
}

/// Waits until a database lists an address.
///
/// # Errors
/// When it does not in time.
pub fn wait_listed(
    host: &Host,
    database: SocketAddr,
    entry_type: &str,
    country: &str,
    address: &str,
    longest: Duration,
) -> Result<()> {
    wait::until_every(ASK_AGAIN, &format!("{address} listed by {database}"), longest, || {
        lists(host, database, entry_type, country, address).ok().filter(|listed| *listed).map(drop)
    })
}

/// Waits until a database no longer lists an address.
///
/// # Errors
/// When it still does.
pub fn wait_unlisted(
    host: &Host,
    database: SocketAddr,
    entry_type: &str,
    country: &str,
    address: &str,
    longest: Duration,
) -> Result<()> {
    wait::until_every(ASK_AGAIN, &format!("{address} no longer listed by {database}"), longest, || {
        lists(host, database, entry_type, country, address).ok().filter(|listed| !*listed).map(drop)
    })
}

/// Asks for `span` whether a database still lists an address.
///
/// # Errors
/// As soon as it does not.
pub fn stays_listed(
    host: &Host,
    database: SocketAddr,
    entry_type: &str,
    country: &str,
    address: &str,
    span: Duration,
) -> Result<()> {
    let start = Instant::now();
    wait::until_every(ASK_AGAIN, "the end of the time", span * 2, || {
        match lists(host, database, entry_type, country, address) {
            Ok(true) if start.elapsed() < span => None,
            Ok(true) => Some(Ok(())),
            Ok(false) => Some(Err(anyhow!("{address} is no longer listed after {:?}", start.elapsed()))),
            Err(error) => Some(Err(error)),
        }
    })?
}
