//! A name server that says whatever a test wants: what BIND refuses to load, nothing at all, or something else later.

use crate::lab::Host;
use anyhow::{Context, Result};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// A record that gives a name another name.
pub const CNAME: u16 = 5;
/// A record that gives everything below a name another name.
pub const DNAME: u16 = 39;
/// RFC 8777.
pub const AMTRELAY: u16 = 260;
/// "There is no such name".
pub const NXDOMAIN: u8 = 3;
/// "The server could not".
pub const SERVFAIL: u8 = 2;

const CLASS_IN: u16 = 1;
const HEADER_LEN: usize = 12;
/// How often the thread looks whether it shall end.
const LOOK_UP: Duration = Duration::from_millis(50);

/// What a client asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// In lower case, without the last dot.
    pub name: String,
    /// The type of record.
    pub kind: u16,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// These records, in this order.
    Records(Vec<Record>),
    /// No records and this status, such as [`NXDOMAIN`].
    Status(u8),
    /// "There is more": the answer did not fit, and there is none over TCP.
    Truncated,
    /// Nothing: the question got lost.
    Silence,
}

/// A record with whatever octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The owner, without the last dot.
    pub name: String,
    /// The type of record.
    pub kind: u16,
    /// How long it may be kept, in seconds.
    pub ttl_seconds: u32,
    /// The data, right or wrong.
    pub data: Vec<u8>,
}

/// A server that runs until it is dropped. UDP alone.
#[derive(Debug)]
pub struct RawDns {
    asked: Arc<Mutex<Vec<Question>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Record {
    /// An AMTRELAY record with these octets.
    #[must_use]
    pub fn amtrelay(name: &str, data: &[u8]) -> Self {
        Self { name: name.to_owned(), kind: AMTRELAY, ttl_seconds: 60, data: data.to_vec() }
    }

    /// A record whose data is a name: [`CNAME`], [`DNAME`].
    #[must_use]
    pub fn pointing(name: &str, kind: u16, to: &str) -> Self {
        Self { name: name.to_owned(), kind, ttl_seconds: 60, data: name_octets(to) }
    }
}

impl RawDns {
    /// Starts a server at an address of the host that answers as `reply` says.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(host: &Host, listen: SocketAddr, reply: impl Fn(&Question) -> Reply + Send + 'static) -> Result<Self> {
        let socket = host.enter(|| UdpSocket::bind(listen))?.with_context(|| format!("{listen} is not to be had"))?;
        socket.set_read_timeout(Some(LOOK_UP)).context("a socket without a time-out")?;
        let (asked, stop) = (Arc::<Mutex<Vec<Question>>>::default(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (asked, stop) = (asked.clone(), stop.clone());
            move || {
                let mut buffer = [0; 1_024];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                    let Some((question, end)) = parse(&buffer[..len]) else { continue };
                    let reply = reply(&question);
                    lock(&asked).push(question);
                    if let Some(answer) = answer(&buffer[..end], &reply) {
                        // Whoever has gone away in the meantime needs no answer.
                        socket.send_to(&answer, from).ok();
                    }
                }
            }
        });
        Ok(Self { asked, stop, thread: Some(thread) })
    }

    /// Every question so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Question> {
        lock(&self.asked).clone()
    }
}

impl Drop for RawDns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// The first question of a message, and where it ends.
fn parse(message: &[u8]) -> Option<(Question, usize)> {
    let mut at = HEADER_LEN;
    let mut labels = Vec::new();
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + len)?).to_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?);
    (message.len() >= at + 4).then(|| (Question { name: labels.join("."), kind }, at + 4))
}

/// The answer to a question that ends with `question`; `None` for silence.
fn answer(question: &[u8], reply: &Reply) -> Option<Vec<u8>> {
    let (records, status, truncated): (&[Record], u8, bool) = match reply {
        Reply::Records(records) => (records, 0, false),
        Reply::Status(status) => (&[], *status, false),
        Reply::Truncated => (&[], 0, true),
        Reply::Silence => return None,
    };
    let mut message = question.to_vec();
    // A response, authoritative; "recursion desired" as the client said.
    message[2] = 0x84 | (u8::from(truncated) << 1) | (question[2] & 0x01);
    message[3] = status;
    let counts = [1, u16::try_from(records.len()).expect("a test gives few records"), 0, 0];
    for (place, count) in message[4..HEADER_LEN].chunks_exact_mut(2).zip(counts) {
        place.copy_from_slice(&u16::to_be_bytes(count));
    }
    for Record { name, kind, ttl_seconds, data } in records {
        message.extend(name_octets(name));
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message.extend(ttl_seconds.to_be_bytes());
        message.extend(u16::try_from(data.len()).expect("a test gives short records").to_be_bytes());
        message.extend(data);
    }
    Some(message)
}

fn lock(asked: &Mutex<Vec<Question>>) -> MutexGuard<'_, Vec<Question>> {
    asked.lock().expect("nobody panics while he adds a question")
}

/// A name on the wire, uncompressed. The root is the empty name.
///
/// # Panics
/// When a label is longer than 255 octets: a test knows its names.
#[must_use]
pub fn name_octets(name: &str) -> Vec<u8> {
    let mut octets = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        octets.push(u8::try_from(label.len()).expect("a label of a test is short"));
        octets.extend(label.bytes());
    }
    octets.push(0);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_with_itself_and_the_records() {
        let mut message = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        message.extend(name_octets("a.Example"));
        message.extend([1, 4, 0, 1]);
        let end = message.len();
        message.extend([0, 0, 41]);
        let (question, found_end) = parse(&message).unwrap();
        assert_eq!((question.name.as_str(), question.kind, found_end), ("a.example", AMTRELAY, end));
        let reply = Reply::Records(vec![Record::amtrelay("a.example", &[10, 0])]);
        let answer = answer(&message[..end], &reply).unwrap();
        assert_eq!(answer[..12], [0x12, 0x34, 0x85, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[answer.len() - 4..], [0, 2, 10, 0]);
        assert_eq!(parse(&message[..end - 5]), None);
    }
}
