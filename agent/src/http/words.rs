//! What the server's side of the hierarchy's HTTP has in common, whoever is behind: which requests are looked at, where their pairs
//! and passwords are, and how refusals and answers are told.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use castgate_wire::registry::{self, Login, Request as Action};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, StatusCode};

use super::content::Content;
use super::server::{Answer, Header, Request};

/// Longest target of a GET; the caller switches to POST.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// The type of answers with servers in them.
pub(crate) static XML: HeaderValue = HeaderValue::from_static("text/xml; charset=utf-8");
static TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
static NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// What a caller is told to wait while whoever answers starts or is stuck.
pub(crate) const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Why a request is not carried out, as it is told.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) sentence: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), retry_after: None }
    }

    pub(crate) fn bad(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "login and password of an account are needed")
    }

    pub(crate) fn too_many(wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests") }
    }

    pub(crate) fn busy(sentence: &str) -> Self {
        Self { retry_after: Some(BUSY_RETRY), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence) }
    }

    pub(crate) fn into_answer(self) -> Answer {
        let mut answer = with(self.status, &TEXT, self.sentence + "\n");
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

/// An answer with a body.
pub(crate) fn with(status: StatusCode, content_type: &HeaderValue, body: String) -> Answer {
    let mut answer = empty(status);
    answer.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    *answer.body_mut() = Content::from(body);
    answer
}

/// Every answer depends on who asks and when: nobody keeps it (castgate UMTP notes).
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::new(Content::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE.clone());
    answer
}

/// Whether the request is one for us at all.
pub(crate) fn admit(header: Header<'_>) -> Result<(), Failure> {
    let Header { method, target, fields: _ } = header;
    if !registry::path_is_ours(target.path()) {
        return Err(Failure::new(StatusCode::NOT_FOUND, format!("only {} is served here", registry::PATH)));
    }
    if *method != Method::GET && *method != Method::POST {
        return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST are answered"));
    }
    if target.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX) {
        return Err(Failure::new(StatusCode::URI_TOO_LONG, "the request line is too long for GET, use POST"));
    }
    Ok(())
}

/// What is wanted, and who says that he is allowed to.
pub(crate) fn read(request: Request<'_>) -> Result<(Action, Option<Login>), Failure> {
    let Header { method, target, fields } = request.header;
    let query = target.query().unwrap_or_default();
    let is_post = *method == Method::POST;
    let pairs = if is_post { Cow::Owned(pairs_of_post(fields, request.body, query)?) } else { Cow::Borrowed(query) };
    let (action, login) = Action::parse(&pairs).map_err(|error| Failure::bad(error.to_string()))?;
    if let Action::Query(_) = action {
        // Nobody has to prove anything.
        return Ok((action, None));
    }
    // A password in a URL ends up in logs and histories: there it is not taken.
    Ok((action, basic(fields).or(login.filter(|_| is_post))))
}

/// Pairs of the body, then those of the query part. No type of the body is as good as the right one.
fn pairs_of_post(header: &HeaderMap, body: &[u8], query: &str) -> Result<String, Failure> {
    let media_type = header.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = media_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if !matches!(essence.as_deref(), None | Some("" | "application/x-www-form-urlencoded")) {
        return Err(Failure::bad("the body is not application/x-www-form-urlencoded"));
    }
    let body = std::str::from_utf8(body).map_err(|_| Failure::bad("the body is not text"))?;
    Ok(format!("{}&{query}", body.trim_end_matches(['\r', '\n'])))
}

/// Login and password of `Authorization: Basic` (RFC 7617).
fn basic(header: &HeaderMap) -> Option<Login> {
    let (scheme, coded) = header.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(coded.trim()).ok()?).ok()?;
    let (login, password) = text.split_once(':')?;
    Some(Login { login: login.to_owned(), password: password.to_owned() })
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

    #[test]
    fn credentials_are_read_as_rfc_7617_writes_them() {
        let read = |value: &str| {
            let mut header = HeaderMap::new();
            header.insert(AUTHORIZATION, value.parse().unwrap());
            basic(&header).map(|login| (login.login, login.password))
        };
        let pair = |login: &str, password: &str| Some((login.to_owned(), password.to_owned()));
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(read("basic  dGVzdDoxMjPCow=="), pair("test", "123£"));
        assert_eq!(read("Basic YTpiOmM="), pair("a", "b:c"), "the first colon ends the login");
        for wrong in ["Basic", "Basic ", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic !!!", "Basic YWJj", "Basic /w=="]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
