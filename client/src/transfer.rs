//! All entries of a database, one after the other while they come (draft-liefooghe-castgate-02 §6.4): however many there are,
//! one at a time is in memory.
//!
//! ```text
//!   connection ─▶ task: parts, at most a few ahead ─▶ thread that may block: XML ─▶ each entry
//!                                                                             ◀─ enough: the connection is closed
//! ```

use std::cell::Cell;
use std::io::{self, BufRead};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use castgate_wire::registry::TransferEntry;
use castgate_wire::registry::xml::{self, ParseError};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::http::{Opened, Verdict};

/// Time without a single octet after which the rest is not waited for.
const PART_TIME: Duration = Duration::from_secs(10);
/// Time of the whole, as long as a database of ours sends.
const TOTAL_TIME: Duration = Duration::from_mins(10);
/// Parts that wait for the reader; then the database waits.
const PARTS_MAX: usize = 16;

/// Why there are no entries, or not all.
#[derive(Debug, Error)]
pub enum TransferError {
    /// An answer, but no list.
    #[error("{peer} answered {verdict}")]
    Refused {
        /// Who.
        peer: std::net::SocketAddr,
        /// Status and sentence.
        verdict: Box<Verdict>,
    },
    /// What came before is good.
    #[error("the list of {peer} ends too early: {reason}")]
    Incomplete {
        /// Who.
        peer: std::net::SocketAddr,
        /// What happened.
        reason: String,
    },
}

/// Hands every entry of an answer to `each`, in a thread that may block, until it has had enough. An entry that cannot be read is
/// handed on as an error. `each` is dropped in that thread: before this returns, unless it is itself what takes too long.
///
/// # Errors
/// [`TransferError`]; what was handed on before is good.
pub async fn transfer(
    opened: Opened,
    each: impl FnMut(Result<TransferEntry, ParseError>) -> ControlFlow<()> + Send + 'static,
) -> Result<(), TransferError> {
    let peer = opened.peer;
    if opened.status() != StatusCode::OK {
        return Err(TransferError::Refused { peer, verdict: Box::new(opened.verdict().await) });
    }
    let incomplete = |reason: String| TransferError::Incomplete { peer, reason };
    let (parts, received) = mpsc::channel(PARTS_MAX);
    let reader = tokio::task::spawn_blocking(move || read(received, each));
    let mut body = opened.body;
    let sent = timeout(TOTAL_TIME, async {
        loop {
            let part = match timeout(PART_TIME, body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Ok(data),
                    // Trailers say nothing here.
                    Err(_) => continue,
                },
                Ok(Some(Err(error))) => Err(error.to_string()),
                Ok(None) => return,
                Err(_) => Err(format!("nothing more came within {} s", PART_TIME.as_secs())),
            };
            let is_last = part.is_err();
            // The reader may have had enough; it says why.
            if parts.send(part).await.is_err() || is_last {
                return;
            }
        }
    });
    if sent.await.is_err() {
        // Nobody waits for a reader that is slower than that.
        return Err(incomplete(format!("it took longer than {} s", TOTAL_TIME.as_secs())));
    }
    drop(parts);
    reader.await.map_err(|error| incomplete(error.to_string()))?.map_err(incomplete)
}

fn read(
    parts: mpsc::Receiver<Result<Bytes, String>>,
    mut each: impl FnMut(Result<TransferEntry, ParseError>) -> ControlFlow<()>,
) -> Result<(), String> {
    let enough = Rc::new(Cell::new(false));
    let source = Received { parts, current: Bytes::new(), ended: false, enough: enough.clone() };
    let read = xml::read_transfer(source, |entry| {
        if !enough.get() && each(entry).is_break() {
            enough.set(true);
        }
    });
    if enough.get() { Ok(()) } else { read.map_err(|error| error.to_string()) }
}

/// The parts of a body as something to read from.
struct Received {
    parts: mpsc::Receiver<Result<Bytes, String>>,
    current: Bytes,
    ended: bool,
    enough: Rc<Cell<bool>>,
}

impl io::Read for Received {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let len = from.len().min(into.len());
        into[..len].copy_from_slice(&from[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl BufRead for Received {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.enough.get() {
            return Err(io::Error::other("enough"));
        }
        while self.current.is_empty() && !self.ended {
            match self.parts.blocking_recv() {
                Some(Ok(part)) => self.current = part,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => self.ended = true,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, len: usize) {
        self.current.advance(len);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    use super::*;
    use crate::dns::Dns;
    use crate::http::Exchange;

    const ENTRY: &str = "<SERVER><ADDRESS>192.0.2.1</ADDRESS><PORT>10100</PORT><TYPE>0</TYPE><PROTOCOL>UDP</PROTOCOL>\
                         <LOGIN>be</LOGIN><PASSWORD>x</PASSWORD></SERVER>\n";

    #[tokio::test]
    async fn more_than_a_mebibyte_comes_entry_by_entry() {
        let entries = 20_000;
        assert!(ENTRY.len() * entries > 2 << 20);
        let (exchange_with, _) = serve(move |mut stream| async move {
            send(&mut stream, "HTTP/1.0 200 OK\r\n\r\n<SERVERS>").await;
            for _ in 0..entries {
                send(&mut stream, ENTRY).await;
            }
            send(&mut stream, "</SERVERS>").await;
        })
        .await;
        let count = Arc::new(Mutex::new(0));
        let counter = count.clone();
        let each = move |entry: Result<TransferEntry, ParseError>| {
            assert_eq!(entry.unwrap().login, "be");
            *counter.lock().unwrap() += 1;
            ControlFlow::Continue(())
        };
        ask(exchange_with, each).await.unwrap();
        assert_eq!(*count.lock().unwrap(), entries);
    }

    #[tokio::test]
    async fn an_entry_is_there_before_the_next_one_is_sent() {
        let (seen, first_is_seen) = oneshot::channel();
        let (exchange_with, _) = serve(move |mut stream| async move {
            send(&mut stream, &format!("HTTP/1.0 200 OK\r\n\r\n<SERVERS>{ENTRY}")).await;
            first_is_seen.await.expect("the first one comes while the second is not there");
            send(&mut stream, &format!("{ENTRY}</SERVERS>")).await;
        })
        .await;
        let mut seen = Some(seen);
        let each = move |_| {
            seen.take().map(|seen| seen.send(()));
            ControlFlow::Continue(())
        };
        ask(exchange_with, each).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_has_enough_ends_a_list_without_end() {
        let (exchange_with, ended) = serve(move |mut stream| async move {
            send(&mut stream, "HTTP/1.0 200 OK\r\n\r\n<SERVERS>").await;
            while stream.write_all(ENTRY.as_bytes()).await.is_ok() {}
        })
        .await;
        let mut left = 3;
        let each = move |_| {
            left -= 1;
            if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        ask(exchange_with, each).await.unwrap();
        ended.await.expect("the connection is closed");
    }

    #[tokio::test]
    async fn what_is_no_list_or_not_all_of_it_is_told_in_one_sentence() {
        let long = "x".repeat(2 << 20);
        for (answer, sentence) in [
            ("HTTP/1.0 401 No\r\n\r\nwho are you\r\nsecond line".to_owned(), "answered 401: who are you"),
            (format!("HTTP/1.0 503 No\r\n\r\n{long}"), "answered 503 Service Unavailable"),
            (format!("HTTP/1.0 200 OK\r\n\r\n<SERVERS>{ENTRY}"), "ends too early: "),
            (format!("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n<SERVERS>{ENTRY}"), "ends too early: "),
            (format!("HTTP/1.0 200 OK\r\n\r\n<SERVERS><SERVER><LOGIN>{long}"), "ends too early: "),
            ("HTTP/1.0 200 OK\r\n\r\n<!DOCTYPE x><SERVERS/>".to_owned(), "has a DOCTYPE"),
        ] {
            let shown = answer.chars().take(60).collect::<String>();
            let (exchange_with, _) = serve(move |mut stream| async move {
                let _ = stream.write_all(answer.as_bytes()).await;
            })
            .await;
            let error = ask(exchange_with, |_| ControlFlow::Continue(())).await.unwrap_err().to_string();
            assert!(error.contains(sentence) && !error.contains('\n') && error.len() < 300, "{shown:?}: {error}");
        }
    }

    async fn ask(
        peer: std::net::SocketAddr,
        each: impl FnMut(Result<TransferEntry, ParseError>) -> ControlFlow<()> + Send + 'static,
    ) -> Result<(), TransferError> {
        let exchange = Exchange::new(peer, "tds.example:5632", "/script/castgate.cgs?ACTION=TRANSFER");
        transfer(exchange.open(&Dns::default()).await.unwrap(), each).await
    }

    async fn send(stream: &mut TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Answers one connection.
    async fn serve<F: Future<Output = ()> + Send>(
        answer: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4_096];
            assert_ne!(stream.read(&mut head).await.unwrap(), 0);
            answer(stream).await;
        });
        (peer, server)
    }
}
