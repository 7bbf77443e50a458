//! The admin socket: what this agent says to who is on its machine, over HTTP/1 on a unix socket.
//!
//! ```text
//!   GET /live             200 while the agent does its work, 503 when it has been stuck for a minute
//!   GET /ready            200 when a snapshot is in force and every role of it runs, 503 and a sentence otherwise
//!   GET /report           the report, as JSON
//!   GET /snapshot-digest  digest of the snapshot that is in force
//! ```
//! Owns the socket and the words; what is true is asked of the service, which owns the agent.

pub mod ask;

use std::convert::Infallible;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Connections at one time: probes and a person.
const CONNECTIONS_MAX: usize = 16;
/// Time of a whole connection.
const CONNECTION_TIME: Duration = Duration::from_secs(15);
/// How long a question waits for the service, which may be busy with a change.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Questions that wait for the service.
const QUESTIONS_MAX: usize = 16;
/// How long a probe waits: its own time is short.
const PROBE_TIME: Duration = Duration::from_millis(300);
/// A change takes seconds, a goodbye to dead databases some more; what takes longer does not end.
const STUCK_AFTER: Duration = Duration::from_mins(1);
/// Wait after the kernel could not give us a connection, so that we do not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What somebody wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    Live,
    Ready,
    Report,
    Digest,
}

/// A question for the service.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) topic: Topic,
    /// `Err` is a 503 with that sentence.
    pub(crate) reply: oneshot::Sender<Result<String, String>>,
}

/// The socket, and the questions that came.
#[derive(Debug)]
pub(crate) struct Admin {
    questions: mpsc::Receiver<Question>,
    /// None: without a socket nobody asks.
    socket: Option<Socket>,
    _sender: mpsc::Sender<Question>,
}

#[derive(Debug)]
struct Socket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Admin {
    /// Listens, in place of whatever was left behind there.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn start(path: Option<&Path>) -> std::io::Result<Self> {
        let (sender, questions) = mpsc::channel(QUESTIONS_MAX);
        let socket = match path {
            Some(path) => {
                let listener = bind(path)?;
                let desk =
                    Arc::new(Desk { questions: sender.clone(), unanswered: Mutex::default(), ready: Mutex::default() });
                Some(Socket { path: path.to_owned(), task: tokio::spawn(serve(listener, desk)) })
            }
            None => None,
        };
        Ok(Self { questions, socket, _sender: sender })
    }

    /// The next question. Safe to drop half-way.
    pub(crate) async fn next(&mut self) -> Question {
        self.questions.recv().await.expect("its sender is kept beside it")
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(Socket { path, task }) = &self.socket {
            task.abort();
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Under another name first: at its own name the socket was never open to others, and one left behind is replaced at once.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

async fn serve(listener: UnixListener, desk: Arc<Desk>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("nobody closes the semaphore");
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION_TIME, connection(stream, desk)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection to the admin socket taken");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, desk: Arc<Desk>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.answer(request.method(), request.uri().path()).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIME)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::trace!(%error, "connection to the admin socket broken");
    }
}

/// Turns requests into questions.
struct Desk {
    questions: mpsc::Sender<Question>,
    /// Since when the service has answered nothing.
    unanswered: Mutex<Option<Instant>>,
    /// What it last said about being ready.
    ready: Mutex<Option<Result<String, String>>>,
}

impl Desk {
    async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
        }
        let answered = match path {
            "/live" => self.live().await,
            "/ready" => self.ready().await,
            "/report" => self.ask(Topic::Report, ANSWER_TIME).await.unwrap_or_else(busy),
            "/snapshot-digest" => self.ask(Topic::Digest, ANSWER_TIME).await.unwrap_or_else(busy),
            _ => {
                return text(
                    StatusCode::NOT_FOUND,
                    &format!("{path} is none of /live, /ready, /report, /snapshot-digest"),
                );
            }
        };
        match answered {
            Ok(said) if path == "/report" => {
                let mut response = Response::new(Full::from(said));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Ok(said) => text(StatusCode::OK, &said),
            Err(sentence) => text(StatusCode::SERVICE_UNAVAILABLE, &sentence),
        }
    }

    /// A service that is busy for a moment is alive.
    async fn live(&self) -> Result<String, String> {
        let answered = self.ask(Topic::Live, PROBE_TIME).await;
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answered) = answered {
            *unanswered = None;
            return answered;
        }
        let since = unanswered.get_or_insert_with(Instant::now).elapsed();
        if since < STUCK_AFTER {
            return Ok("busy with a change".to_owned());
        }
        Err(format!("has been stuck for {} s", since.as_secs()))
    }

    /// While a change is under way the last answer stands.
    async fn ready(&self) -> Result<String, String> {
        let answered = self.ask(Topic::Ready, PROBE_TIME).await;
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        match (answered, &*ready) {
            (Some(answered), _) => {
                *ready = Some(answered.clone());
                answered
            }
            (None, Some(before)) => before.clone(),
            (None, None) => busy(),
        }
    }

    /// `None`: no answer in that time.
    async fn ask(&self, topic: Topic, time: Duration) -> Option<Result<String, String>> {
        let (reply, answer) = oneshot::channel();
        // A full queue is a service that has not answered for a while.
        self.questions.try_send(Question { topic, reply }).ok()?;
        timeout(time, answer).await.ok()?.ok()
    }
}

fn busy() -> Result<String, String> {
    Err("busy with a change".to_owned())
}

fn text(status: StatusCode, sentence: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{sentence}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_ask_and_a_socket_left_behind_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        for _ in 0..2 {
            let admin = Admin::start(Some(&path)).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
            // As if killed: nobody tidies up.
            admin.socket.as_ref().unwrap().task.abort();
            std::mem::forget(admin);
            assert!(path.exists());
        }
    }

    #[tokio::test]
    async fn each_question_is_answered_and_a_no_is_a_503() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let mut admin = Admin::start(Some(&path)).unwrap();
        let service = tokio::spawn(async move {
            loop {
                let Question { topic, reply } = admin.next().await;
                let _ = reply.send(match topic {
                    Topic::Ready => Err("has no snapshot yet".to_owned()),
                    other => Ok(format!("{other:?}")),
                });
            }
        });
        assert_eq!(ask::ask(&path, "live").await, Ok((200, "Live\n".to_owned())));
        assert_eq!(ask::ask(&path, "ready").await, Ok((503, "has no snapshot yet\n".to_owned())));
        assert_eq!(ask::ask(&path, "report").await, Ok((200, "Report".to_owned())));
        assert_eq!(ask::ask(&path, "snapshot-digest").await, Ok((200, "Digest\n".to_owned())));
        assert_eq!(ask::ask(&path, "passwords").await.unwrap().0, 404);
        service.abort();
        // Its Admin is gone, and with it the socket.
        let _ = service.await;
        assert!(ask::ask(&path, "live").await.unwrap_err().contains("agent.sock"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_does_not_answer_is_alive_for_a_while() {
        let (questions, mut asked) = mpsc::channel(QUESTIONS_MAX);
        let desk = Desk { questions, unanswered: Mutex::default(), ready: Mutex::default() };
        assert_eq!(desk.live().await, Ok("busy with a change".to_owned()));
        assert_eq!(desk.ready().await, busy(), "nothing is known yet");
        *desk.unanswered.lock().unwrap() = Instant::now().checked_sub(STUCK_AFTER);
        assert_eq!(desk.live().await, Err("has been stuck for 60 s".to_owned()));
        // It turns again.
        let service = tokio::spawn(async move {
            while let Some(Question { reply, .. }) = asked.recv().await {
                let _ = reply.send(Ok("yes".to_owned()));
            }
        });
        assert_eq!(desk.live().await, Ok("yes".to_owned()));
        assert_eq!(*desk.unanswered.lock().unwrap(), None);
        assert_eq!(desk.ready().await, Ok("yes".to_owned()));
        service.abort();
        let _ = service.await;
        assert_eq!(desk.ready().await, Ok("yes".to_owned()), "the last answer stands");
    }
}
