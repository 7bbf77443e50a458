//! The caller: many connections that live on, one request on each at a time, all in one thread and with as little work as
//! possible, so that it is the server that is measured.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{Timespec, epoll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Connections from one address: a database takes no more.
const CONNECTIONS_PER_ADDRESS: usize = 100;
/// Nobody answers for so long: something is wrong.
const PATIENCE: Duration = Duration::from_mins(1);
/// How a caller waits for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Asleep: whoever answers has to wake it.
    Asleep,
    /// Awake, on a processor of its own: waking it is no part of what is measured.
    Awake,
}

/// The longest answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What a run came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Answers a second.
    pub(super) per_second: f64,
    /// Of a hundred answers, 99 came within.
    pub(super) p99: Duration,
    /// How much of its time the caller itself had work: near 1 it is the caller that was measured.
    pub(super) busy: f64,
    /// How many there were.
    pub(super) answers: u64,
}

/// A connection and what is under way on it.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    request: Vec<u8>,
    sent_at: Instant,
    /// The beginning of an answer that came in parts.
    answer: Vec<u8>,
}

/// Sends request after request on every connection, until there are no more or time is up, and looks at every answer: its status is
/// 200 and it is as long as `answer_bytes`, when that is known.
pub(super) fn run(
    to: SocketAddr,
    connections: usize,
    time: Duration,
    answer_bytes: Option<usize>,
    wait: Wait,
    mut write: impl FnMut(&mut Vec<u8>) -> bool,
) -> Result<Outcome> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut lines = Vec::with_capacity(connections);
    for number in 0..connections {
        let stream = connect(to, number)?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&poll, &stream, data, epoll::EventFlags::IN)?;
        lines.push(Line { stream, request: Vec::new(), sent_at: Instant::now(), answer: Vec::new() });
    }
    let (patience, began) = (wait.patience(), Instant::now());
    let mut idle = Duration::ZERO;
    let mut under_way = 0;
    for line in &mut lines {
        if write(&mut line.request) {
            line.send()?;
            under_way += 1;
        }
    }
    let mut delays_nanos: Vec<u32> = Vec::new();
    let mut events = Vec::with_capacity(connections);
    let mut part = vec![0; ANSWER_BYTES_MAX];
    while under_way > 0 {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&NOT_AT_ALL))?;
        if events.is_empty() {
            let since = Instant::now();
            while events.is_empty() {
                if since.elapsed() > PATIENCE {
                    bail!("{to} answers no more");
                }
                epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&patience))?;
            }
            idle += since.elapsed();
        }
        for event in &events {
            let number = usize::try_from(event.data.u64()).expect("a number of a connection");
            let line = &mut lines[number];
            if line.request.is_empty() {
                // It has nothing more to do, and is told so in the course of time.
                epoll::delete(&poll, &line.stream)?;
                continue;
            }
            let came = match line.stream.read(&mut part) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Ok(came) if came > 0 => came,
                // A server may end a connection between two requests: the request goes out again.
                Ok(_) | Err(_) if line.answer.is_empty() => {
                    line.stream = connect(to, number)?;
                    let data = epoll::EventData::new_u64(number as u64);
                    epoll::add(&poll, &line.stream, data, epoll::EventFlags::IN)?;
                    line.send()?;
                    continue;
                }
                Ok(_) => bail!("{to} broke off an answer"),
                Err(error) => return Err(error).with_context(|| format!("{to} broke off an answer")),
            };
            let whole = if line.answer.is_empty() {
                whole(&part[..came])?
            } else {
                line.answer.extend_from_slice(&part[..came]);
                whole(&line.answer)?
            };
            let Some(length) = whole else {
                if line.answer.is_empty() {
                    line.answer.extend_from_slice(&part[..came]);
                }
                continue;
            };
            if answer_bytes.is_some_and(|wanted| wanted != length) {
                bail!("{to} answered {length} octets, and others before");
            }
            let now = Instant::now();
            delays_nanos.push(u32::try_from(now.duration_since(line.sent_at).as_nanos()).unwrap_or(u32::MAX));
            line.answer.clear();
            line.request.clear();
            if now.duration_since(began) < time && write(&mut line.request) {
                line.send()?;
            } else {
                under_way -= 1;
            }
        }
    }
    let elapsed = began.elapsed().as_secs_f64();
    let busy = 1.0 - idle.as_secs_f64() / elapsed;
    if delays_nanos.is_empty() {
        bail!("nothing was sent");
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let per_second = delays_nanos.len() as f64 / elapsed;
    let at = delays_nanos.len() * 99 / 100;
    let p99 = Duration::from_nanos((*delays_nanos.select_nth_unstable(at).1).into());
    Ok(Outcome { per_second, p99, busy, answers: delays_nanos.len() as u64 })
}

/// One request on a connection of its own, and its answer.
pub(super) fn ask(to: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(request)?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let came = stream.read(&mut part)?;
        answer.extend_from_slice(&part[..came]);
        if whole(&answer)?.is_some() {
            return Ok(answer);
        }
        if came == 0 {
            bail!("{to} broke off an answer");
        }
    }
}

const NOT_AT_ALL: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

impl Wait {
    fn patience(self) -> Timespec {
        match self {
            Self::Asleep => Timespec { tv_sec: 1, tv_nsec: 0 },
            Self::Awake => NOT_AT_ALL,
        }
    }
}

impl Line {
    fn send(&mut self) -> Result<()> {
        self.sent_at = Instant::now();
        // One request is under way at most: there is always room for it.
        match self.stream.write_all(&self.request) {
            // The end of the connection is the next that is read, and then it is sent again.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(()),
            sent => sent.context("a request cannot be sent"),
        }
    }
}

/// Connects from one of our addresses of loopback.
fn connect(to: SocketAddr, number: usize) -> Result<TcpStream> {
    let last = 1 + u8::try_from(number / CONNECTIONS_PER_ADDRESS).context("too many connections")?;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0))?;
    rustix::net::connect(&socket, &to).with_context(|| format!("no connection to {to}"))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// The length of an answer once it is whole; an error for one that is not 200.
fn whole(answer: &[u8]) -> Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|octets| octets == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&answer[..head]);
    if answer.get(9..12) != Some(&b"200"[..]) {
        bail!("answered {:?}", text.lines().next().unwrap_or_default());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let body: usize = length.context("an answer without a length")?.parse()?;
    let length = head + 4 + body;
    Ok((answer.len() >= length).then_some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body_and_only_200_counts() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: 3\r\n\r\nabc";
        for cut in 0..answer.len() {
            assert_eq!(whole(&answer[..cut]).unwrap(), None, "{cut}");
        }
        assert_eq!(whole(answer).unwrap(), Some(answer.len()));
        let error = whole(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n").unwrap_err().to_string();
        assert_eq!(error, "answered \"HTTP/1.1 429 Too Many Requests\"");
    }
}
