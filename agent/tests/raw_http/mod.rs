//! HTTP by hand: what a test sends is what it says, octet for octet.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// One field with a login and a password.
pub fn basic(credentials: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(credentials))
}

/// A GET of our path on a connection of its own.
pub async fn get(address: SocketAddr, pairs: &str, credentials: Option<&str>) -> Reply {
    try_get(address, pairs, credentials).await.expect("an answer")
}

/// The same with somebody who may be dead.
pub async fn try_get(address: SocketAddr, pairs: &str, credentials: Option<&str>) -> Option<Reply> {
    let authorization = credentials.map(basic).unwrap_or_default();
    let request = format!(
        "GET /script/castgate.cgs?{pairs} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{authorization}\r\n"
    );
    try_exchange("127.0.0.1".parse().unwrap(), address, request.as_bytes()).await
}

/// Sends octets and reads the answer.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Reply {
    exchange_from("127.0.0.1".parse().unwrap(), address, request).await
}

/// The same from a chosen address.
pub async fn exchange_from(source: IpAddr, address: SocketAddr, request: &[u8]) -> Reply {
    try_exchange(source, address, request).await.expect("an answer")
}

/// The same with somebody who may be dead.
pub async fn try_exchange(source: IpAddr, address: SocketAddr, request: &[u8]) -> Option<Reply> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source, 0)).unwrap();
    let mut stream = socket.connect(address).await.ok()?;
    // The answer to a request that is too long may come before all of it is sent.
    let _ = stream.write_all(request).await;
    let mut octets = Vec::new();
    let mut part = [0; 4096];
    loop {
        if let Some(reply) = parse(&octets, false) {
            return Some(reply);
        }
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return parse(&octets, true),
            Ok(length) => octets.extend_from_slice(&part[..length]),
        }
    }
}

/// Sends octets, then nothing more, until the other side closes.
pub async fn octets_until_closed(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpSocket::new_v4().unwrap().connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut octets = Vec::new();
    let _ = stream.read_to_end(&mut octets).await;
    octets
}

/// The answer, once it is whole.
fn parse(octets: &[u8], closed: bool) -> Option<Reply> {
    let text = String::from_utf8_lossy(octets);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let field =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let fields: Vec<(String, String)> = lines.filter_map(field).collect();
    let length = fields.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let whole = length.is_some_and(|length: usize| body.len() >= length);
    (closed || whole).then(|| Reply { status, fields, body: body.to_owned() })
}
