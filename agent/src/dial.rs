//! Connects to a gRPC service of ours: TLS, one bundle of certificates, keepalive, and waits between two tries.
//!
//! Owns how a connection is made and how its failure reads. What is said on it is the caller's: [`config::stream`] speaks to
//! the operator, [`roles::registrar`] to the adapter.
//!
//! [`config::stream`]: crate::config::stream
//! [`roles::registrar`]: crate::roles::registrar

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Time to connect, TLS included.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// A peer that is gone is noticed after two of these: a node cut from the network must be seen within 20 s.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// First wait after a connection that broke or did not come about; doubled up to the longest.
const WAIT_MIN: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(10);
/// A file of certificates or a token is a few kilobytes; what is larger is neither.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Connects to `https://HOST:PORT`; only who is vouched for by `ca` and named HOST is talked to.
///
/// # Errors
/// One sentence that names the peer or the file.
pub(crate) async fn connect(endpoint: &str, ca: Option<&Path>) -> Result<Channel, String> {
    let Some(ca) = ca else { return Err(format!("{endpoint}: no file of trusted certificates is given (--ca)")) };
    let bundle = read(ca).await?;
    if !bundle.contains("-----BEGIN CERTIFICATE-----") {
        return Err(format!("{}: holds no certificate in PEM", ca.display()));
    }
    let complain = |error: tonic::transport::Error| format!("{endpoint}: {}", sentence(&error));
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(bundle)).timeout(CONNECT_TIME);
    let endpoint = Endpoint::from_shared(endpoint.to_owned())
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(complain)?
        .connect_timeout(CONNECT_TIME)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    endpoint.connect().await.map_err(complain)
}

/// The value of `authorization` that shows a token.
///
/// # Errors
/// When the token has characters that no header may have.
pub(crate) fn bearer(token: &str) -> Result<MetadataValue<Ascii>, String> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| "the token has characters that no header may have".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads a small text, without holding up anybody else.
///
/// # Errors
/// One sentence that names the file.
pub(crate) async fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        // One octet more than there may be, to see that there are more.
        let octets = std::fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        if octets as u64 > FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!("has more than {} MiB", FILE_BYTES_MAX >> 20)));
        }
        Ok(text)
    });
    let complain = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    read.await.map_err(|error| complain(&error))?.map_err(|error| complain(&error))
}

/// The innermost cause says what happened; those around it say "transport error".
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A refusal or the end of a stream, in the words of the other side.
pub(crate) fn said(status: &tonic::Status) -> String {
    let cause = status.source().map(sentence).filter(|cause| !status.message().contains(cause.as_str()));
    match (status.message(), cause) {
        ("", None) => status.code().to_string(),
        ("", Some(cause)) => cause,
        (message, None) => message.to_owned(),
        (message, Some(cause)) => format!("{message}: {cause}"),
    }
}

/// How long to wait before the next try.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The connection was good: the next failure is a first one again.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Half a second, doubled each time up to ten; a random half of it, so that a thousand agents whose operator restarts do
    /// not come back together.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = WAIT_MIN.saturating_mul(1 << self.failures.min(16)).min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        let mut dice = [0; 2];
        // Without random numbers the wait is the longest one.
        let _ = getrandom::fill(&mut dice);
        longest.mul_f64(1.0 - f64::from(u16::from_le_bytes(dice)) / f64::from(u16::MAX) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_ten_seconds_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        for (try_number, longest) in [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000].into_iter().enumerate() {
            let longest = Duration::from_millis(longest);
            let wait = backoff.next();
            assert!(wait >= longest / 2 && wait <= longest, "{try_number}: {wait:?}");
        }
        backoff.succeeded();
        assert!(backoff.next() <= WAIT_MIN);
    }

    #[test]
    fn a_thousand_agents_do_not_wait_alike() {
        let waits: std::collections::BTreeSet<_> = (0..1000).map(|_| Backoff::default().next()).collect();
        assert!(waits.len() > 900, "{}", waits.len());
    }

    #[tokio::test]
    async fn a_file_that_is_too_long_is_refused_and_not_cut_off() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_BYTES_MAX).unwrap();
        assert_eq!(read(file.path()).await.unwrap().len() as u64, FILE_BYTES_MAX);
        file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(read(file.path()).await, Err(format!("{}: has more than 1 MiB", file.path().display())));
    }

    #[tokio::test]
    async fn without_a_bundle_nobody_is_trusted() {
        let error = connect("https://127.0.0.1:1", None).await.unwrap_err();
        assert!(error.contains("--ca"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = connect("https://127.0.0.1:1", Some(file.path())).await.unwrap_err();
        assert!(error.ends_with("holds no certificate in PEM"), "{error}");
        let error = connect("https://127.0.0.1:1", Some(Path::new("/nowhere"))).await.unwrap_err();
        assert!(error.starts_with("/nowhere: "), "{error}");
    }

    #[test]
    fn a_token_is_trimmed_and_never_shown() {
        let value = bearer("abc\n").unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer abc");
        assert!(!format!("{value:?}").contains("abc"));
        assert!(bearer("a\nb").is_err());
    }
}
