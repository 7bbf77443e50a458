//! `castgate-agent ask`: one question to a running agent, for probes and for people.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Longer than the agent takes to say that it is busy.
const TIME: Duration = Duration::from_secs(10);

/// Asks the agent behind `socket` for `/topic`: the status and what it says.
///
/// # Errors
/// One sentence that names the socket, when nobody answers there.
pub async fn ask(socket: &Path, topic: &str) -> Result<(u16, String), String> {
    let complain = |error: &dyn std::fmt::Display| format!("{}: {error}", socket.display());
    let exchange = async {
        let stream = UnixStream::connect(socket).await.map_err(|error| complain(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| complain(&error))?;
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("/{topic}"))
            .header(HOST, "agent")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| complain(&error))?;
        let (head, body) = sender.send_request(request).await.map_err(|error| complain(&error))?.into_parts();
        let body = body.collect().await.map_err(|error| complain(&error))?.to_bytes();
        connection.abort();
        Ok((head.status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
    };
    timeout(TIME, exchange)
        .await
        .unwrap_or_else(|_| Err(complain(&format_args!("no answer within {} s", TIME.as_secs()))))
}
