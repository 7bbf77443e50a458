//! The answer of a database while it comes: its head is there, and the rest is read in the way that the request wants.

use std::net::SocketAddr;

use bytes::Bytes;
use castgate_endpoint::hierarchy::locator::{ANSWER_BYTES_MAX, ANSWER_TIMEOUT};
use castgate_wire::registry::{Server, xml};
use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use hyper::http::response::Parts;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::HttpError;

/// The tier that matched.
const MATCH: HeaderName = HeaderName::from_static("x-castgate-match");
/// Octets that are read where the status says all: the rest is a sentence.
const SENTENCE_BYTES_MAX: usize = 16 * 1024;

/// The head of an answer, and what is still to come. Dropped, the connection is closed.
#[derive(Debug)]
pub struct Opened {
    /// Who answers, after all redirects.
    pub(crate) peer: SocketAddr,
    pub(super) head: Parts,
    pub(crate) body: Incoming,
    /// When the whole answer has to be there, but for a TRANSFER's.
    pub(super) deadline: Instant,
    pub(super) _driver: JoinSet<()>,
}

/// What a database answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Who.
    pub peer: SocketAddr,
    /// The HTTP status.
    pub status: StatusCode,
    /// Which tier matched, from `X-CastGate-Match`, where the database says so.
    pub matched: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// What a database makes of a REGISTER or a BYE.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The HTTP status, which decides.
    pub status: StatusCode,
    /// The header fields.
    pub header: HeaderMap,
    /// The first line of a body that is text; empty when there is none, or it cannot be read.
    pub said: String,
}

impl Opened {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Who answers, after all redirects.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// [`HttpError`] when it breaks off, is longer than an answer may be, or is not there in time.
    pub async fn whole(self) -> Result<Answer, HttpError> {
        let (peer, status, matched) = (self.peer, self.head.status, self.text(&MATCH));
        let collected = timeout_at(self.deadline, Limited::new(self.body, ANSWER_BYTES_MAX).collect()).await;
        let collected = collected.map_err(|_| HttpError::Timeout { peer, after: ANSWER_TIMEOUT })?;
        let body = collected.map_err(|error| HttpError::Body { peer, error })?.to_bytes();
        Ok(Answer { peer, status, matched, body })
    }

    /// Reads what the database says with its status. A body that is too long, broken off or late takes nothing away from that.
    pub async fn verdict(self) -> Verdict {
        let Parts { status, headers: header, .. } = self.head;
        let is_text = header
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_none_or(|value| value.to_ascii_lowercase().starts_with("text/plain"));
        let body = timeout_at(self.deadline, Limited::new(self.body, SENTENCE_BYTES_MAX).collect()).await;
        let said = match body {
            Ok(Ok(body)) if is_text => first_line(&body.to_bytes()),
            _ => String::new(),
        };
        Verdict { status, header, said }
    }

    pub(super) fn text(&self, name: &HeaderName) -> Option<String> {
        self.head.headers.get(name)?.to_str().ok().map(str::to_owned)
    }
}

impl Answer {
    /// The servers and databases that it names.
    ///
    /// # Errors
    /// A sentence that reads on behind the name of the database: another status than 200, or no list.
    pub fn servers(&self) -> Result<Vec<Server>, String> {
        if self.status != StatusCode::OK {
            return Err(format!("answered {}", self.status));
        }
        xml::parse_servers(&self.body).map_err(|error| error.to_string())
    }
}

impl std::fmt::Display for Verdict {
    /// The status and what was said with it, in one line.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, said, .. } = self;
        if said.is_empty() { write!(formatter, "{status}") } else { write!(formatter, "{}: {said}", status.as_u16()) }
    }
}

/// The first line that says something.
fn first_line(body: &[u8]) -> String {
    let said = String::from_utf8_lossy(body);
    said.split(char::is_control).map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}
