//! Players over HTTP: whoever opens `http://HOST:PORT/` gets the channel from now on, as one endless body.
//!
//! ```text
//!   payload ──RTP header off──▶ one copy ──▶ [ QUEUE ] ──▶ connection of player 1
//!                                       └──▶ [ full  ] ──▶ connection of player 2: cut off
//! ```
//! A player that does not keep up is cut off, because neither waiting for it nor buffering without end would be fair to
//! the others. Nobody playing costs nothing: the payload is not even copied.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use castgate_wire::rtp;
use http_body_util::Either;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::OutputError;

/// Datagrams that wait for one player: 2.7 MB of video packets, or 3 s of a channel of 8 Mbit/s.
const QUEUE: usize = 2_048;
/// Players at the same time; one more is answered with 503.
const PLAYERS_MAX: usize = 64;
/// What a player is told to expect. Other payloads are its own affair.
const MEDIA_TYPE: &str = "video/mp2t";

/// The listening socket and everybody who plays.
#[derive(Debug)]
pub(super) struct Players {
    address: SocketAddr,
    list: PlayerList,
    acceptor: JoinHandle<()>,
}

type PlayerList = Arc<Mutex<Vec<Player>>>;

#[derive(Debug)]
struct Player {
    queue: mpsc::Sender<Bytes>,
    /// Ends the connection, also while it is stuck in a write.
    cut_off: Arc<Notify>,
}

impl Players {
    pub(super) async fn listen(address: SocketAddr) -> Result<Self, OutputError> {
        let failed = |error| OutputError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let list = PlayerList::default();
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&list)));
        Ok(Self { address, list, acceptor })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives one payload to everybody who plays.
    pub(super) fn write(&mut self, payload: &[u8]) {
        let mut players = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if players.is_empty() {
            return;
        }
        let media = rtp::media(payload).unwrap_or(payload);
        let media = Bytes::copy_from_slice(media);
        players.retain(|player| match player.queue.try_send(media.clone()) {
            Ok(()) => true,
            Err(_full_or_gone) => {
                player.cut_off.notify_one();
                false
            }
        });
    }
}

impl Drop for Players {
    fn drop(&mut self) {
        self.acceptor.abort();
        // Without their queues the bodies end, and each player hears a proper end of its file.
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

async fn accept(listener: TcpListener, list: PlayerList) {
    loop {
        match listener.accept().await {
            Ok((stream, _from)) => {
                tokio::spawn(serve(stream, Arc::clone(&list)));
            }
            // Out of descriptors, or a connection that was gone at once: the next one may do better.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

async fn serve(stream: TcpStream, list: PlayerList) {
    let cut_off = Arc::new(Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, &list, &cut_off);
        async move { Ok::<_, Infallible>(response) }
    });
    // The end of the channel is the end of the connection: nothing else is to be had here.
    let connection =
        hyper::server::conn::http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A player that hangs up is no error worth telling.
        _ended = connection => {}
        () = cut_off.notified() => {}
    }
}

type PlayerBody = Either<Feed, Full<Bytes>>;

fn respond(request: &Request<Incoming>, list: &PlayerList, cut_off: &Arc<Notify>) -> Response<PlayerBody> {
    let builder = Response::builder().header(CACHE_CONTROL, "no-store");
    let response = match *request.method() {
        Method::GET => {
            let mut players = list.lock().unwrap_or_else(PoisonError::into_inner);
            players.retain(|player| !player.queue.is_closed());
            if players.len() >= PLAYERS_MAX {
                let sentence = format!("{PLAYERS_MAX} players are being served, which is as many as there may be\n");
                builder.status(StatusCode::SERVICE_UNAVAILABLE).body(Either::Right(Full::from(sentence)))
            } else {
                let (queue, feed) = mpsc::channel(QUEUE);
                players.push(Player { queue, cut_off: Arc::clone(cut_off) });
                builder.header(CONTENT_TYPE, MEDIA_TYPE).body(Either::Left(Feed(feed)))
            }
        }
        Method::HEAD => builder.header(CONTENT_TYPE, MEDIA_TYPE).body(Either::Right(Full::default())),
        _ => builder
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .header(ALLOW, "GET, HEAD")
            .body(Either::Right(Full::default())),
    };
    response.expect("constant headers are valid")
}

/// The endless body of one player.
struct Feed(mpsc::Receiver<Bytes>);

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|media| media.map(|media| Ok(Frame::data(media))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const MEDIA: [u8; 188] = [0x47; 188];

    #[tokio::test]
    async fn several_players_hear_the_same_octets_as_transport_stream() {
        let mut players = listen().await;
        let mut streams = vec![play(&players).await, play(&players).await];
        players.write(&MEDIA);
        for stream in &mut streams {
            let head = read_until(stream, &MEDIA).await;
            assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("content-type: video/mp2t"), "{head}");
        }
    }

    #[tokio::test]
    async fn an_rtp_header_is_taken_off() {
        let mut players = listen().await;
        let mut stream = play(&players).await;
        let rtp = [&[0x80, 33, 0, 1, 0, 0, 0, 0, 9, 9, 9, 9][..], &MEDIA].concat();
        players.write(&rtp);
        // The chunk's length says that nothing but the media is in it.
        let head = read_until(&mut stream, &MEDIA).await;
        assert!(head.to_lowercase().contains(&format!("\r\n{:x}\r\n", MEDIA.len())), "{head}");
    }

    #[tokio::test]
    async fn a_player_that_does_not_read_is_cut_off_and_the_others_go_on() {
        let mut players = listen().await;
        let (_lazy, mut eager) = (play(&players).await, play(&players).await);
        let eager_queue = players.list.lock().unwrap()[1].queue.clone();
        let reader = tokio::spawn(async move {
            let (mut octets, mut buffer) = (0, vec![0; 1 << 16]);
            while let Ok(len @ 1..) = eager.read(&mut buffer).await {
                octets += len;
            }
            octets
        });
        let (burst, mut sent) = (vec![0x47; 32_768], 0);
        while players.list.lock().unwrap().len() == 2 {
            players.write(&burst);
            sent += 32_768;
            assert!(sent < 1 << 30, "a lazy player must not be fed for ever");
            // The eager one gets the time that a channel leaves between its packets.
            while players
                .list
                .lock()
                .unwrap()
                .iter()
                .any(|player| player.queue.same_channel(&eager_queue) && player.queue.capacity() < QUEUE / 2)
            {
                tokio::task::yield_now().await;
            }
        }
        let left = players.list.lock().unwrap().len();
        drop((players, eager_queue));
        assert_eq!(left, 1);
        assert!(reader.await.unwrap() >= sent);
    }

    #[tokio::test]
    async fn only_reading_is_allowed_and_an_occupied_port_is_named() {
        let players = listen().await;
        let mut stream = TcpStream::connect(players.address()).await.unwrap();
        stream.write_all(b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let answer = read_until(&mut stream, b"\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        let error = Players::listen(players.address()).await.unwrap_err();
        assert!(error.to_string().contains(&players.address().to_string()), "{error}");
    }

    async fn listen() -> Players {
        Players::listen("127.0.0.1:0".parse().unwrap()).await.unwrap()
    }

    /// Opens a player and waits until it is on the list.
    async fn play(players: &Players) -> TcpStream {
        let before = players.list.lock().unwrap().len();
        let mut stream = TcpStream::connect(players.address()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        while players.list.lock().unwrap().len() == before {
            tokio::task::yield_now().await;
        }
        stream
    }

    /// Reads until the wanted octets have come; what came before them, as text.
    async fn read_until(stream: &mut TcpStream, wanted: &[u8]) -> String {
        let (mut all, mut buffer) = (Vec::new(), [0; 4_096]);
        loop {
            if let Some(at) = all.windows(wanted.len()).position(|window| window == wanted) {
                return String::from_utf8_lossy(&all[..at]).into_owned()
                    + if wanted == b"\r\n\r\n" { "\r\n\r\n" } else { "" };
            }
            let len = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.unwrap().unwrap();
            assert!(len > 0, "the stream ended early");
            all.extend(&buffer[..len]);
        }
    }
}
