//! How refusals and answers are told over HTTP.

use std::time::Duration;

use castgate_endpoint::hierarchy::database::Refusal;
use hyper::StatusCode;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use crate::http::server::{Answer, Content};

/// What a caller is told to wait while the database starts or its store is stuck.
pub(super) const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Why a request is not carried out, as it is told.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) sentence: String,
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), retry_after: None }
    }

    pub(super) fn bad(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "login and password of an account are needed")
    }

    pub(super) fn too_many(wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests") }
    }

    pub(super) fn busy(sentence: &str) -> Self {
        Self { retry_after: Some(BUSY_RETRY), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence) }
    }

    pub(super) fn into_answer(self) -> Answer {
        let mut answer = with(self.status, "text/plain; charset=utf-8", self.sentence + "\n");
        let header = answer.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                header
                    .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"castgate\", charset=\"UTF-8\""));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                header.insert(ALLOW, HeaderValue::from_static("GET, POST"));
            }
            _ => {}
        }
        if let Some(wait) = self.retry_after {
            // Whole seconds, never 0: a caller that comes at once comes in vain.
            header.insert(RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1_000).clamp(1, 3_600) as u64));
        }
        answer
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).expect("a refusal has a status of HTTP");
        match status {
            StatusCode::UNAUTHORIZED => Self::unauthorized(),
            StatusCode::SERVICE_UNAVAILABLE => Self::busy(&refusal.to_string()),
            _ => Self::new(status, refusal.to_string()),
        }
    }
}

pub(super) fn with(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = empty(status);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    *answer.body_mut() = Content::from(body);
    answer
}

/// Every answer depends on who asks and when: nobody keeps it (castgate UMTP notes).
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::new(Content::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_to_a_refusal_is_one_line_of_text() {
        let answer = Failure::bad("this is wrong").into_answer();
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"this is wrong\n");
    }
}
