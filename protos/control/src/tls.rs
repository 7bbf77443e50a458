//! What proves a server to those who connect to it, and who is believed.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::SnapshotError;

/// A certificate and its key, both as PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsIdentity {
    /// The certificate, then those that signed it.
    pub certificate: String,
    /// Its private key, PKCS #8.
    pub key: String,
}

/// Files with what proves a server, each relative to the folder of the file with the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, then those that signed it, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

/// What every certificate and key in PEM begins with.
const PEM_BEGIN: &str = "-----BEGIN ";

impl TlsIdentity {
    /// Whether both are PEM; that they belong together, the agent finds out.
    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        let Self { certificate, key } = self;
        check_ca(Some(certificate)).map_err(|_| SnapshotError::new("certificate", "holds no certificate in PEM"))?;
        if !(key.contains(PEM_BEGIN) && key.contains("PRIVATE KEY-----")) {
            return Err(SnapshotError::new("key", "holds no private key in PEM"));
        }
        Ok(())
    }
}

/// Whether what proves a server over https can be used; it stands in the snapshot or in files, not in both.
pub(crate) fn check_tls(tls: Option<&TlsIdentity>, files: Option<&TlsFiles>) -> Result<(), SnapshotError> {
    tls.map_or(Ok(()), TlsIdentity::check).map_err(|error| error.within("tls"))?;
    let Some(TlsFiles { certificate, key }) = files else { return Ok(()) };
    if tls.is_some() {
        return Err(SnapshotError::new("tlsFiles", "are there beside tls: name one of the two"));
    }
    for (field, file) in [("certificate", certificate), ("key", key)] {
        if file.as_os_str().is_empty() {
            return Err(SnapshotError::new(field, "is empty").within("tlsFiles"));
        }
    }
    Ok(())
}

/// Certificates that vouch for a database, where some are given.
pub(crate) fn check_ca(ca: Option<&String>) -> Result<(), SnapshotError> {
    match ca {
        Some(ca) if !ca.contains("-----BEGIN CERTIFICATE-----") => {
            Err(SnapshotError::new("ca", "holds no certificate in PEM"))
        }
        _ => Ok(()),
    }
}

/// Without the key: a snapshot may end up in a log.
impl fmt::Debug for TlsIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}
