//! One HTTP port: `/metrics`, `/livez`, `/readyz` and `/loglevel`.
//!
//! `GET /loglevel` shows the filter of the logs, `PUT /loglevel` with a filter as body changes it until the next start.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::{Level, Metrics};

/// A scraper and the kubelet need two.
const CONNECTIONS_MAX: usize = 64;
/// Longer than any filter that a person types.
const BODY_BYTES_MAX: usize = 4096;
/// From the first octet of a request to its last header.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// A whole connection, however many requests it carries.
const CONNECTION_TIME: Duration = Duration::from_mins(2);

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Which parts of the operator do their work. A part that was never named does not exist.
#[derive(Debug, Default)]
pub struct Health {
    parts: Mutex<BTreeMap<&'static str, bool>>,
}

impl Health {
    /// Says whether a part does its work. Name every part with `false` first: ready means that all of them do.
    pub fn set(&self, part: &'static str, works: bool) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, works);
    }

    /// The parts that do not work yet, or no more.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter(|(_, works)| !**works).map(|(part, _)| *part).collect()
    }
}

/// Serves the port until the task is dropped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, health: Arc<Health>, level: Level) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let page = Arc::new(Pages { metrics, health, level });
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = Arc::clone(&page);
                tokio::spawn(async move {
                    let served = tokio::time::timeout(CONNECTION_TIME, serve_connection(stream, page)).await;
                    if let Ok(Err(error)) = served {
                        debug!(%error, "an HTTP connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "the HTTP port cannot accept");
                // Out of file descriptors: some must be given back first, and there is no event for that.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Pages {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    level: Level,
}

async fn serve_connection(stream: TcpStream, pages: Arc<Pages>) -> io::Result<()> {
    let answer = service_fn(move |request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(pages.answer(request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), answer)
        .await
        .map_err(io::Error::other)
}

impl Pages {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => respond(StatusCode::OK, OPEN_METRICS, self.metrics.text()),
            // Who answers lives: everything that may hang has its own time limit.
            (&Method::GET, "/livez") => respond(StatusCode::OK, TEXT, "ok\n"),
            (&Method::GET, "/readyz") => self.readyz(),
            (&Method::GET, "/loglevel") => respond(StatusCode::OK, TEXT, format!("{}\n", self.level.filter())),
            (&Method::PUT, "/loglevel") => self.set_level(request).await,
            (_, "/metrics" | "/livez" | "/readyz" | "/loglevel") => {
                respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "this page is read with GET; /loglevel is set with PUT\n")
            }
            _ => respond(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /livez, /readyz and /loglevel\n"),
        }
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let missing = self.health.missing();
        if missing.is_empty() {
            respond(StatusCode::OK, TEXT, "ok\n")
        } else {
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {}\n", missing.join(", ")))
        }
    }

    async fn set_level(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
            return respond(
                StatusCode::PAYLOAD_TOO_LARGE,
                TEXT,
                format!("a filter has at most {BODY_BYTES_MAX} octets\n"),
            );
        };
        let body = body.to_bytes();
        let Ok(filter) = std::str::from_utf8(&body) else {
            return respond(StatusCode::BAD_REQUEST, TEXT, "a filter is a text\n");
        };
        match self.level.set(filter.trim()) {
            Ok(()) => respond(StatusCode::OK, TEXT, format!("{}\n", self.level.filter())),
            Err(error) => respond(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n")),
        }
    }
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
