//! The certificate that a server of ours shows: issued anew when the signer changes or half its life is over, without a
//! restart and without a connection lost.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use castgate_control::TlsIdentity;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Authority, PkiError};

/// What the certificate says of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingNames {
    /// Names by which clients call the server.
    pub dns_names: Vec<String>,
    /// Addresses by which clients call the server.
    pub ips: Vec<IpAddr>,
    /// How long one certificate is good.
    pub lifetime: Duration,
}

/// The certificate in force. Shared between the TLS acceptor, which reads it, and whoever drives the authority.
#[derive(Debug)]
pub struct ServingCert {
    names: ServingNames,
    in_force: ArcSwap<Issued>,
}

#[derive(Debug)]
struct Issued {
    key: Arc<CertifiedKey>,
    /// The certificate that signed it.
    signer: String,
    renewal: Timestamp,
}

impl ServingCert {
    /// A certificate issued now.
    ///
    /// # Errors
    /// A name that is no DNS name, or no randomness.
    pub fn new(authority: &Authority, names: ServingNames, now: Timestamp) -> Result<Arc<Self>, PkiError> {
        let issued = Issued::new(authority, &names, now)?;
        Ok(Arc::new(Self { names, in_force: ArcSwap::from_pointee(issued) }))
    }

    /// Issues another certificate when the authority signs with another key by now, or half of this one's life is over.
    /// True when there is a new one: new connections see it, old ones stay.
    ///
    /// # Errors
    /// No randomness; the certificate before stays in force.
    pub fn refresh(&self, authority: &Authority, now: Timestamp) -> Result<bool, PkiError> {
        let in_force = self.in_force.load();
        if in_force.signer == authority.current.certificate && now < in_force.renewal {
            return Ok(false);
        }
        self.in_force.store(Arc::new(Issued::new(authority, &self.names, now)?));
        Ok(true)
    }

    /// When [`refresh`](Self::refresh) has something to do, if the authority stays the same.
    #[must_use]
    pub fn renewal(&self) -> Timestamp {
        self.in_force.load().renewal
    }

    /// A TLS server that shows the certificate in force and speaks HTTP/2.
    ///
    /// # Errors
    /// The provider of cryptography knows no protocol version: never with the one that we bring.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, PkiError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for ServingCert {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.in_force.load().key))
    }
}

impl Issued {
    fn new(authority: &Authority, names: &ServingNames, now: Timestamp) -> Result<Self, PkiError> {
        let identity = authority.issue(&names.dns_names, &names.ips, names.lifetime, now)?;
        let life = names.lifetime.min(authority.current.ends.duration_since(now).unsigned_abs());
        Ok(Self {
            key: Arc::new(certified_key(&identity)?),
            signer: authority.current.certificate.clone(),
            renewal: super::authority::after(now, life / 2)?,
        })
    }
}

/// What rustls needs of an identity.
fn certified_key(identity: &TlsIdentity) -> Result<CertifiedKey, PkiError> {
    let damaged = |error: rustls::pki_types::pem::Error| rustls::Error::General(error.to_string());
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<_, _>>().map_err(damaged)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(damaged)?;
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}

#[cfg(test)]
mod tests;
