//! Asks a tunnel server whether it is there, without becoming its client.
//!
//! One PROBE, at most three times (draft-finlayson-umtp-09 §6; castgate UMTP notes give the number and the wait). A server
//! proves nothing and keeps nothing for it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use castgate_wire::umtp::{Command, Cookie, Trailer};
use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// PROBEs that are sent before the server counts as not there.
const TRIES: u8 = 3;
/// Wait for the answer to each.
const WAIT: Duration = Duration::from_millis(500);

/// Why a server gave no sign of life.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// It refused (`PROBE_NACK`).
    #[error("refused")]
    Refused,
    /// Nothing came back.
    #[error("no answer")]
    NoAnswer,
    /// The kernel refused.
    #[error("{0}")]
    Socket(#[from] io::Error),
}

/// Sends PROBEs to `server` from `local` and says how long the answer took.
///
/// # Errors
/// [`ProbeError`] when there is no friendly answer.
pub async fn probe(server: SocketAddrV4, local: Option<Ipv4Addr>) -> Result<Duration, ProbeError> {
    let socket = UdpSocket::bind((local.unwrap_or(Ipv4Addr::UNSPECIFIED), 0)).await?;
    let mut answer = [0; 2_048];
    for _ in 0..TRIES {
        let cookie = random_cookie();
        let mut datagram = Vec::new();
        Trailer::without_channel(Command::Probe, cookie, random_cookie()).append_to(&mut datagram);
        let sent = Instant::now();
        socket.send_to(&datagram, server).await?;
        let waiting = timeout(WAIT, async {
            loop {
                let (len, from) = socket.recv_from(&mut answer).await?;
                let Ok((_, trailer)) = Trailer::parse(&answer[..len]) else { continue };
                if from != SocketAddr::V4(server) || trailer.destination_cookie != cookie {
                    continue;
                }
                match trailer.command {
                    Command::ProbeAck => return Ok(sent.elapsed()),
                    Command::ProbeNack => return Err(ProbeError::Refused),
                    _ => {}
                }
            }
        });
        match waiting.await {
            Ok(Err(ProbeError::Socket(error))) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(outcome) => return outcome,
            Err(_elapsed) => {}
        }
    }
    Err(ProbeError::NoAnswer)
}

fn random_cookie() -> Cookie {
    let mut octets = [0; 2];
    getrandom::fill(&mut octets).expect("the kernel has random numbers");
    Cookie(u16::from_ne_bytes(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_answer_to_our_own_cookie_counts_and_a_nack_refuses() {
        for (command, alive) in [(Command::ProbeAck, true), (Command::ProbeNack, false)] {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let SocketAddr::V4(server) = socket.local_addr().unwrap() else { panic!("bound to IPv4") };
            let answering = tokio::spawn(async move {
                let mut datagram = [0; 64];
                let (len, from) = socket.recv_from(&mut datagram).await.unwrap();
                let (_, probe) = Trailer::parse(&datagram[..len]).unwrap();
                let Cookie(ours) = probe.source_cookie;
                // First an answer for somebody else, which must not count.
                for cookie in [Cookie(ours.wrapping_add(1)), Cookie(ours)] {
                    let mut answer = Vec::new();
                    let command = if cookie == Cookie(ours) { command } else { Command::ProbeAck };
                    Trailer::without_channel(command, Cookie(7), cookie).append_to(&mut answer);
                    socket.send_to(&answer, from).await.unwrap();
                }
                probe.command
            });
            let outcome = probe(server, Some("127.0.3.99".parse().unwrap())).await;
            assert_eq!(answering.await.unwrap(), Command::Probe);
            assert_eq!(outcome.is_ok(), alive, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_silent_is_given_up() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let SocketAddr::V4(server) = silent.local_addr().unwrap() else { panic!("bound to IPv4") };
        assert!(matches!(probe(server, None).await, Err(ProbeError::NoAnswer)));
        let mut datagram = [0; 64];
        for _ in 0..TRIES {
            assert_eq!(silent.try_recv(&mut datagram).unwrap(), 12);
        }
    }
}
