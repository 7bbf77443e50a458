//! What proves a role to those who connect to it: an identity that may change while connections live.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use castgate_control::TlsIdentity;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// The identity that new connections are shown.
pub(crate) struct Identities {
    current: RwLock<Arc<CertifiedKey>>,
    provider: Arc<CryptoProvider>,
}

impl Identities {
    /// Reads the first one.
    pub(crate) fn new(identity: &TlsIdentity) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let current = RwLock::new(Arc::new(read(identity, &provider)?));
        Ok(Self { current, provider })
    }

    /// Shows another one from now on; connections that exist keep theirs.
    pub(crate) fn replace(&self, identity: &TlsIdentity) -> Result<(), String> {
        let fresh = Arc::new(read(identity, &self.provider)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What makes TLS of a connection, on which this is spoken (RFC 7301).
    pub(crate) fn acceptor(self: &Arc<Self>, protocol: &[u8]) -> Result<TlsAcceptor, String> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Without the key.
impl fmt::Debug for Identities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identities").finish_non_exhaustive()
    }
}

/// What makes TLS of connections, for those that show themselves in logs.
#[derive(Clone)]
pub(crate) struct Acceptor(pub(crate) TlsAcceptor);

impl fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// What a port speaks: https as this identity, or http. It changes while connections live.
#[derive(Debug)]
pub(crate) struct Port {
    identity: Option<TlsIdentity>,
    acceptor: watch::Sender<Option<Acceptor>>,
}

/// What a port is to speak from some moment on.
#[derive(Debug)]
pub(crate) struct Change {
    identity: Option<TlsIdentity>,
    acceptor: Option<Acceptor>,
}

impl Port {
    /// An error is a sentence that names the part.
    pub(crate) fn new(identity: Option<&TlsIdentity>) -> Result<Self, String> {
        Ok(Self { identity: identity.cloned(), acceptor: watch::Sender::new(http_acceptor(identity)?) })
    }

    /// What makes TLS of new connections; `None`: http is spoken.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Acceptor>> {
        self.acceptor.subscribe()
    }

    /// Reads another identity. The same one is left alone: it remembers those who come again.
    pub(crate) fn prepare(&self, identity: Option<&TlsIdentity>) -> Result<Option<Change>, String> {
        if identity == self.identity.as_ref() {
            return Ok(None);
        }
        Ok(Some(Change { identity: identity.cloned(), acceptor: http_acceptor(identity)? }))
    }

    /// Shows it from now on; connections that exist keep theirs.
    pub(crate) fn put(&mut self, Change { identity, acceptor }: Change) {
        tracing::info!(https = identity.is_some(), "new connections are shown another certificate");
        self.identity = identity;
        self.acceptor.send_replace(acceptor);
    }
}

fn http_acceptor(identity: Option<&TlsIdentity>) -> Result<Option<Acceptor>, String> {
    let made = identity.map(|identity| Arc::new(Identities::new(identity)?).acceptor(b"http/1.1"));
    made.transpose().map(|made| made.map(Acceptor))
}

/// Certificate and key, which must belong together.
fn read(identity: &TlsIdentity, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let TlsIdentity { certificate, key } = identity;
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("certificate: {error}"))?;
    if chain.is_empty() {
        return Err("certificate: holds none in PEM".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("key: {error}"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| format!("certificate and key: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_that_is_none_is_refused_and_the_one_before_stays() {
        let [good, other] = [(); 2].map(|()| {
            let made = rcgen::generate_simple_self_signed(vec!["adapter.example".to_owned()]).unwrap();
            TlsIdentity { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
        });
        let identities = Identities::new(&good).unwrap();
        let before = identities.current.read().unwrap().cert.clone();
        let cases = [
            (TlsIdentity { certificate: String::new(), ..good.clone() }, "certificate: holds none"),
            (TlsIdentity { key: "nonsense".to_owned(), ..good.clone() }, "key: "),
            (TlsIdentity { key: other.key.clone(), ..good }, "certificate and key: "),
        ];
        for (identity, sentence) in cases {
            let error = identities.replace(&identity).unwrap_err();
            assert!(error.starts_with(sentence), "{error}");
            assert_eq!(identities.current.read().unwrap().cert, before);
        }
        identities.replace(&other).unwrap();
        assert_ne!(identities.current.read().unwrap().cert, before);
    }
}
