//! Tokens of `ServiceAccount`s, reviewed by the API server, and remembered for less than a minute.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// The audience that tokens of agents are made for.
pub const AUDIENCE: &str = "castgate-operator";

/// Reviews at once: an API server that is slow must not be buried under a fleet that reconnects.
const REVIEWS_MAX: usize = 16;
/// For one review. The agent comes again.
const REVIEW_TIME: Duration = Duration::from_secs(10);
/// How long an answer is believed: a token of a pod that is gone ends with it, and the pod is looked for anyway.
const CACHE_TIME: Duration = Duration::from_secs(50);
/// Answers remembered: twice the agents of a large fleet. When it is full, new ones are not remembered.
const CACHE_MAX: usize = 4096;
/// The longest token worth asking about: real ones have some 1500 octets.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What the API server says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reviewed {
    /// As in `system:serviceaccount:isp:castgate-agent`.
    pub username: String,
    /// For whom the token is, of those that were asked about.
    pub audiences: Vec<String>,
    /// What the token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Why there is no answer about a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// It is not a token of this cluster, or no longer.
    #[error("{0}")]
    Rejected(String),
    /// Nobody could say.
    #[error("{0}")]
    Unavailable(String),
}

/// Asks about tokens.
pub trait TokenReviewer: Send + Sync + 'static {
    /// Whose token it is, if it is for this audience.
    fn review<'a>(&'a self, token: &'a str, audience: &'a str) -> BoxFuture<'a, Result<Reviewed, ReviewError>>;
}

/// Asks the API server.
pub struct KubeReviewer {
    api: Api<TokenReview>,
}

impl KubeReviewer {
    /// Asks through this client.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { api: Api::all(client) }
    }
}

impl TokenReviewer for KubeReviewer {
    fn review<'a>(&'a self, token: &'a str, audience: &'a str) -> BoxFuture<'a, Result<Reviewed, ReviewError>> {
        Box::pin(async move {
            let question = TokenReview {
                spec: TokenReviewSpec { audiences: Some(vec![audience.to_owned()]), token: Some(token.to_owned()) },
                ..TokenReview::default()
            };
            let answer = self
                .api
                .create(&PostParams::default(), &question)
                .await
                .map_err(|error| ReviewError::Unavailable(error.to_string()))?;
            read(answer.status.unwrap_or_default())
        })
    }
}

/// The answer of the API server in our words.
fn read(status: TokenReviewStatus) -> Result<Reviewed, ReviewError> {
    let TokenReviewStatus { audiences, authenticated, error, user } = status;
    if authenticated != Some(true) {
        return Err(ReviewError::Rejected(error.unwrap_or_else(|| "it is not authenticated".to_owned())));
    }
    let user = user.unwrap_or_default();
    Ok(Reviewed {
        username: user.username.unwrap_or_default(),
        audiences: audiences.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    })
}

type TokenHash = [u8; 32];

/// An answer, and until when it is believed.
type Remembered = (Instant, Result<Reviewed, ReviewError>);

/// Remembers answers for a short while and asks only so many questions at once.
pub struct CachedReviews<R> {
    reviewer: R,
    /// By the hash of the token: a dump of our memory shows no token.
    answers: Mutex<HashMap<TokenHash, Remembered>>,
    places: Semaphore,
}

impl<R: TokenReviewer> CachedReviews<R> {
    /// Remembers the answers of this reviewer.
    #[must_use]
    pub fn new(reviewer: R) -> Self {
        Self { reviewer, answers: Mutex::default(), places: Semaphore::new(REVIEWS_MAX) }
    }

    fn remembered(&self, key: &TokenHash) -> Option<Result<Reviewed, ReviewError>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, answer) = answers.get(key)?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    fn remember(&self, key: TokenHash, answer: &Result<Reviewed, ReviewError>) {
        let now = Instant::now();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= CACHE_MAX {
            answers.retain(|_, (until, _)| *until > now);
        }
        if answers.len() < CACHE_MAX {
            answers.insert(key, (now + CACHE_TIME, answer.clone()));
        }
    }
}

impl<R: TokenReviewer> TokenReviewer for CachedReviews<R> {
    fn review<'a>(&'a self, token: &'a str, audience: &'a str) -> BoxFuture<'a, Result<Reviewed, ReviewError>> {
        Box::pin(async move {
            if token.len() > TOKEN_BYTES_MAX {
                return Err(ReviewError::Rejected(format!("it has {} octets", token.len())));
            }
            let mut hasher = Sha256::new();
            hasher.update(audience);
            hasher.update([0]);
            hasher.update(token);
            let key: TokenHash = hasher.finalize().into();
            if let Some(answer) = self.remembered(&key) {
                return answer;
            }
            let late = |_| ReviewError::Unavailable("the API server takes too long".to_owned());
            let ask = async {
                let _place = self.places.acquire().await;
                // Somebody may have asked the same while this waited.
                match self.remembered(&key) {
                    Some(answer) => answer,
                    None => self.reviewer.review(token, audience).await,
                }
            };
            let answer = tokio::time::timeout(REVIEW_TIME, ask).await.map_err(late)?;
            if !matches!(answer, Err(ReviewError::Unavailable(_))) {
                self.remember(key, &answer);
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    #[test]
    fn an_answer_is_read_and_a_rejection_keeps_its_reason() {
        let status = TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![AUDIENCE.to_owned()]),
            user: Some(UserInfo { username: Some("u".to_owned()), ..UserInfo::default() }),
            error: None,
        };
        let reviewed =
            Reviewed { username: "u".to_owned(), audiences: vec![AUDIENCE.to_owned()], extra: BTreeMap::new() };
        assert_eq!(read(status.clone()), Ok(reviewed));
        for authenticated in [None, Some(false)] {
            let status =
                TokenReviewStatus { authenticated, error: Some("it has expired".to_owned()), ..status.clone() };
            assert_eq!(read(status), Err(ReviewError::Rejected("it has expired".to_owned())));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_asked_for_once_in_fifty_seconds() {
        let cached = CachedReviews::new(Fake::default());
        for (token, pause, asked) in [("good", 0, 1), ("good", 49, 1), ("bad", 0, 2), ("bad", 1, 2), ("good", 2, 3)] {
            tokio::time::advance(Duration::from_secs(pause)).await;
            assert_eq!(cached.review(token, AUDIENCE).await.is_ok(), token == "good");
            assert_eq!(cached.reviewer.asked.load(Ordering::Relaxed), asked, "{token} after {pause} s");
        }
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let cached = CachedReviews::new(Fake::default());
        for asked in 1..=3 {
            assert!(matches!(cached.review("none", AUDIENCE).await, Err(ReviewError::Unavailable(_))));
            assert_eq!(cached.reviewer.asked.load(Ordering::Relaxed), asked);
        }
    }

    #[tokio::test]
    async fn strangers_cannot_fill_the_memory() {
        let cached = CachedReviews::new(Fake::default());
        for number in 0..CACHE_MAX + 100 {
            let _ = cached.review(&format!("bad {number}"), AUDIENCE).await;
        }
        assert_eq!(cached.answers.lock().unwrap().len(), CACHE_MAX);
        assert!(cached.review(&"x".repeat(TOKEN_BYTES_MAX + 1), AUDIENCE).await.is_err());
        assert_eq!(cached.reviewer.asked.load(Ordering::Relaxed), CACHE_MAX + 100, "too long to ask about");
    }

    #[derive(Default)]
    struct Fake {
        asked: AtomicUsize,
    }

    impl TokenReviewer for Fake {
        fn review<'a>(&'a self, token: &'a str, _: &'a str) -> BoxFuture<'a, Result<Reviewed, ReviewError>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match token {
                    "good" => Ok(Reviewed { username: String::new(), audiences: Vec::new(), extra: BTreeMap::new() }),
                    "none" => Err(ReviewError::Unavailable("no API server".to_owned())),
                    _ => Err(ReviewError::Rejected("no".to_owned())),
                }
            })
        }
    }
}
