//! TLS to a tunnel database: whom we trust, under which name, and how a refusal reads.
//!
//! A database is vouched for under the name by which it was asked for: a host name, or an address where another database named
//! it by that. Owns no connection: [`Trust::connect`] is given one. Used by the client and by the agent's roles that speak to
//! databases.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use castgate_wire::registry::Scheme;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A bundle of certificates is some hundred kilobytes; what is larger is something else.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Whose certificates are believed. Clones share what was read.
#[derive(Clone)]
pub struct Trust(Arc<Inner>);

static SYSTEM: OnceLock<Trust> = OnceLock::new();

struct Inner {
    /// Those that were given.
    named: Vec<CertificateDer<'static>>,
    /// Whether those that the system trusts count too; they are read when they are needed first.
    with_system: bool,
    config: OnceLock<Result<Arc<ClientConfig>, TlsError>>,
}

/// Why there is no TLS with a database. Reads on behind its name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsError {
    /// The certificate is for somebody else.
    #[error("has a certificate that is not for this name")]
    Name,
    /// The certificate was good once.
    #[error("has a certificate that has expired")]
    Expired,
    /// The certificate will be good, or our clock is wrong.
    #[error("has a certificate that is not valid yet")]
    NotYet,
    /// The certificate is signed by a stranger, or by itself.
    #[error("has a certificate that nobody has signed whom we trust")]
    Untrusted,
    /// The certificate cannot be used for another reason.
    #[error("has a certificate that cannot be used: {0}")]
    Certificate(String),
    /// What answers speaks something else.
    #[error("does not speak TLS")]
    NotTls,
    /// The handshake failed otherwise.
    #[error("breaks off the TLS handshake: {0}")]
    Handshake(String),
    /// The name cannot be one of TLS.
    #[error("has a name that no certificate can have")]
    NoName,
    /// The system names nobody to trust.
    #[error("cannot be trusted: no certificate of the system is found ({0})")]
    NoRoots(String),
    /// The parts of TLS do not fit together.
    #[error("cannot be spoken to: {0}")]
    Config(String),
}

/// Why a file does not say whom to trust: one sentence that names it.
#[derive(Debug, Error)]
pub enum CaError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(String, io::Error),
    /// It is no bundle of certificates.
    #[error("{0}: has more than {mib} MiB, and is no bundle of certificates", mib = FILE_BYTES_MAX >> 20)]
    TooLong(String),
    /// It holds no certificate.
    #[error("{0}: holds no certificate in PEM")]
    Empty(String),
}

/// What HTTP is spoken over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Trust {
    /// Those that the system trusts: `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set. Read once in the life of a process.
    #[must_use]
    pub fn system() -> Self {
        SYSTEM.get_or_init(|| Self::new(Vec::new(), true)).clone()
    }

    /// The certificates of this text in PEM, and no others; `None` when it holds none that can be read.
    #[must_use]
    pub fn only(pem: &str) -> Option<Self> {
        let named: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()?;
        (!named.is_empty()).then(|| Self::new(named, false))
    }

    /// Nobody: no certificate is good.
    #[must_use]
    pub fn nobody() -> Self {
        Self::new(Vec::new(), false)
    }

    /// Whoever is believed by one of the two.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let named = self.0.named.iter().chain(&other.0.named).cloned().collect();
        Self::new(named, self.0.with_system || other.0.with_system)
    }

    fn new(named: Vec<CertificateDer<'static>>, with_system: bool) -> Self {
        Self(Arc::new(Inner { named, with_system, config: OnceLock::new() }))
    }

    /// The certificates of a file in PEM, and no others. Blocks.
    ///
    /// # Errors
    /// [`CaError`] with one sentence that names the file.
    pub fn of_file(path: &Path) -> Result<Self, CaError> {
        use io::Read as _;
        let shown = || path.display().to_string();
        let mut text = String::new();
        // One octet more than there may be, to see that there are more.
        let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
        let octets = read.map_err(|error| CaError::Read(shown(), error))?;
        if octets as u64 > FILE_BYTES_MAX {
            return Err(CaError::TooLong(shown()));
        }
        Self::only(&text).ok_or_else(|| CaError::Empty(shown()))
    }

    /// What is spoken over: the connection itself, or TLS on it with the database that is called `authority` (`HOST[:PORT]`).
    ///
    /// # Errors
    /// [`TlsError`] when the database does not prove that it is the one that was asked for.
    pub async fn connect(
        &self,
        scheme: Scheme,
        stream: TcpStream,
        authority: &str,
    ) -> Result<Box<dyn Stream>, TlsError> {
        if scheme == Scheme::Http {
            return Ok(Box::new(stream));
        }
        let name = server_name(authority).ok_or(TlsError::NoName)?;
        let connector = TlsConnector::from(self.config().await?);
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(cause(&error)),
        }
    }

    async fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        if let Some(config) = self.0.config.get() {
            return config.clone();
        }
        let inner = self.0.clone();
        // The system's certificates are files.
        let made = tokio::task::spawn_blocking(move || {
            inner.config.get_or_init(|| configure(&inner.named, inner.with_system)).clone()
        });
        made.await.map_err(|error| TlsError::Config(error.to_string()))?
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self::system()
    }
}

/// Whom it trusts is long and no secret.
impl fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Trust").field("named", &self.0.named.len()).finish_non_exhaustive()
    }
}

fn configure(named: &[CertificateDer<'static>], with_system: bool) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in named {
        roots.add(certificate.clone()).map_err(|error| TlsError::Config(format!("its CA: {error}")))?;
    }
    if with_system {
        let rustls_native_certs::CertificateResult { certs, errors, .. } = rustls_native_certs::load_native_certs();
        // A system may have an old one that cannot be read; the others are good.
        roots.add_parsable_certificates(certs);
        if roots.is_empty() {
            let first = errors.first().map_or_else(|| "it has none".to_owned(), ToString::to_string);
            return Err(TlsError::NoRoots(first));
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Config(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The host of `HOST[:PORT]`, as certificates name it.
fn server_name(authority: &str) -> Option<ServerName<'static>> {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    ServerName::try_from(host.trim_end_matches('.').to_owned()).ok()
}

fn cause(error: &io::Error) -> TlsError {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return TlsError::Handshake(error.to_string());
    };
    match inner {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsError::Name,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsError::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsError::NotYet,
            CertificateError::UnknownIssuer => TlsError::Untrusted,
            other => TlsError::Certificate(other.to_string()),
        },
        rustls::Error::InvalidMessage(_) => TlsError::NotTls,
        other => TlsError::Handshake(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_certificate_is_the_host_of_the_authority() {
        for (authority, name) in [
            ("tds.example:5632", "tds.example"),
            ("tds.example.:443", "tds.example"),
            ("192.0.2.1:5632", "192.0.2.1"),
            ("[2001:db8::1]:5632", "2001:db8::1"),
        ] {
            assert_eq!(server_name(authority).expect(authority).to_str(), name);
        }
        for authority in ["", ":5632", "a b:1", "[::1"] {
            assert_eq!(server_name(authority), None, "{authority}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Trust::of_file(file.path()).unwrap_err().to_string();
        assert_eq!(error, format!("{}: holds no certificate in PEM", file.path().display()));
        let error = Trust::of_file(Path::new("/nowhere/ca.pem")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/ca.pem: "), "{error}");
        assert!(Trust::only("-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n").is_none());
    }

    #[test]
    fn a_file_that_is_too_long_is_not_cut_off() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
        let error = Trust::of_file(file.path()).unwrap_err().to_string();
        assert_eq!(error, format!("{}: has more than 4 MiB, and is no bundle of certificates", file.path().display()));
    }
}
