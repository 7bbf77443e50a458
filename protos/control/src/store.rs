//! Where a database keeps its entries: in its own file, or in an etcd that several databases share.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{SnapshotError, TlsIdentity};

/// Members of one etcd; nobody runs more than nine.
const ENDPOINTS_MAX: usize = 32;
/// Octets of a prefix: it stands before the name of every entry.
const PREFIX_BYTES_MAX: usize = 256;
const PEM_BEGIN: &str = "-----BEGIN ";

/// Where the entries of a database are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StoreSnapshot {
    /// In a file in the agent's state directory, for one database alone.
    #[default]
    Embedded,
    /// In etcd, for all databases that name the same one and the same prefix.
    Etcd(Box<EtcdSnapshot>),
}

/// An etcd and our place in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EtcdSnapshot {
    /// `http://HOST:PORT` or `https://HOST:PORT` of each member.
    pub endpoints: Vec<String>,
    /// What all keys of this database begin with, `/` at both ends. Default: `/castgate/`.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// Certificates that vouch for the members, as PEM; for https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// What proves this database to the members, for https. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<TlsIdentity>,
    /// User of an etcd where authentication is on. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// Without the password: a snapshot may end up in a log.
impl fmt::Debug for EtcdSnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Self { endpoints, prefix, ca: _, identity, login, password: _ } = self;
        formatter
            .debug_struct("EtcdSnapshot")
            .field("endpoints", endpoints)
            .field("prefix", prefix)
            .field("identity", identity)
            .field("login", login)
            .finish_non_exhaustive()
    }
}

impl StoreSnapshot {
    /// Whether each database keeps its own entries.
    #[must_use]
    pub const fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded)
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        match self {
            Self::Embedded => Ok(()),
            Self::Etcd(etcd) => etcd.check().map_err(|error| error.within("etcd")),
        }
    }
}

impl EtcdSnapshot {
    /// These members, without TLS and login, with the default prefix.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, prefix: default_prefix(), ca: None, identity: None, login: None, password: None }
    }

    fn check(&self) -> Result<(), SnapshotError> {
        let Self { endpoints, prefix, ca, identity, login, password } = self;
        if endpoints.is_empty() || endpoints.len() > ENDPOINTS_MAX {
            let reason = format_args!("there are {}, not 1 to {ENDPOINTS_MAX}", endpoints.len());
            return Err(SnapshotError::new("endpoints", reason));
        }
        let mut secure = 0;
        for (index, endpoint) in endpoints.iter().enumerate() {
            let place = endpoint.strip_prefix("https://").inspect(|_| secure += 1);
            let place = place.or_else(|| endpoint.strip_prefix("http://")).map(|place| place.trim_end_matches('/'));
            let is_place = |place: &str| {
                !place.is_empty() && !place.contains(|c: char| c == '/' || c == '@' || !c.is_ascii_graphic())
            };
            if !place.is_some_and(is_place) {
                let reason = format_args!("{endpoint:?} is not http://HOST:PORT or https://HOST:PORT");
                return Err(SnapshotError::new(format!("endpoints[{index}]"), reason));
            }
        }
        if secure != 0 && secure != endpoints.len() {
            return Err(SnapshotError::new("endpoints", "some begin with http:// and some with https://"));
        }
        if !(prefix.starts_with('/') && prefix.ends_with('/') && prefix.len() > 1 && prefix.len() <= PREFIX_BYTES_MAX) {
            let reason = format_args!("{prefix:?} has not 2 to {PREFIX_BYTES_MAX} octets with a / at both ends");
            return Err(SnapshotError::new("prefix", reason));
        }
        match ca {
            None if secure > 0 => {
                return Err(SnapshotError::new("ca", "is missing: nothing vouches for https:// endpoints"));
            }
            Some(_) if secure == 0 => return Err(SnapshotError::new("ca", "is not for http:// endpoints")),
            Some(ca) if !ca.contains(PEM_BEGIN) => return Err(SnapshotError::new("ca", "is not PEM")),
            _ => {}
        }
        if let Some(TlsIdentity { certificate, key }) = identity {
            if secure == 0 {
                return Err(SnapshotError::new("identity", "is not for http:// endpoints"));
            }
            for (field, text) in [("identity.certificate", certificate), ("identity.key", key)] {
                if !text.contains(PEM_BEGIN) {
                    return Err(SnapshotError::new(field, "is not PEM"));
                }
            }
        }
        match (login.as_deref(), password.as_deref()) {
            (Some(""), _) => Err(SnapshotError::new("login", "is empty")),
            (Some(_), None | Some("")) => Err(SnapshotError::new("password", "is missing beside login")),
            (None, Some(_)) => Err(SnapshotError::new("login", "is missing beside password")),
            _ => Ok(()),
        }
    }
}

fn default_prefix() -> String {
    "/castgate/".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_field_is_named() {
        type Spoil = fn(&mut EtcdSnapshot);
        let pem = || Some("-----BEGIN CERTIFICATE-----".to_owned());
        let identity = |certificate: &str, key: &str| {
            Some(TlsIdentity { certificate: certificate.to_owned(), key: key.to_owned() })
        };
        let cases: [(&str, Spoil); 10] = [
            ("endpoints: there are 0", |etcd| etcd.endpoints.clear()),
            ("endpoints[1]: \"etcd-1:2379\" is not", |etcd| etcd.endpoints.push("etcd-1:2379".to_owned())),
            ("endpoints[1]: \"http://a/b\" is not", |etcd| etcd.endpoints.push("http://a/b".to_owned())),
            ("endpoints: some begin", |etcd| etcd.endpoints.push("https://etcd-1:2379".to_owned())),
            ("prefix: \"castgate\" has not", |etcd| etcd.prefix = "castgate".to_owned()),
            ("prefix: \"/\" has not", |etcd| etcd.prefix = "/".to_owned()),
            ("ca: is missing", |etcd| etcd.endpoints = vec!["https://etcd-0:2379".to_owned()]),
            ("login: is missing", |etcd| etcd.password = Some("s3cret".to_owned())),
            ("password: is missing", |etcd| etcd.login = Some("castgate".to_owned())),
            ("login: is empty", |etcd| etcd.login = Some(String::new())),
        ];
        for (sentence, spoil) in cases {
            let mut etcd = EtcdSnapshot::new(vec!["http://etcd-0:2379".to_owned()]);
            etcd.check().unwrap();
            spoil(&mut etcd);
            let error = etcd.check().unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{error}");
        }
        let plain = || EtcdSnapshot::new(vec!["http://etcd-0:2379".to_owned()]);
        let secure = || EtcdSnapshot { ca: pem(), ..EtcdSnapshot::new(vec!["https://[2001:db8::1]:2379/".to_owned()]) };
        secure().check().unwrap();
        let cases = [
            (EtcdSnapshot { ca: pem(), ..plain() }, "ca: is not for http://"),
            (EtcdSnapshot { identity: identity("", ""), ..plain() }, "identity: is not for http://"),
            (EtcdSnapshot { ca: Some("/etc/ca.pem".to_owned()), ..secure() }, "ca: is not PEM"),
            (EtcdSnapshot { identity: identity("x", "-----BEGIN "), ..secure() }, "identity.certificate: is not PEM"),
            (EtcdSnapshot { identity: identity("-----BEGIN ", "x"), ..secure() }, "identity.key: is not PEM"),
        ];
        for (etcd, sentence) in cases {
            let error = etcd.check().unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{error}");
        }
    }

    #[test]
    fn what_is_secret_is_not_shown() {
        let mut etcd = EtcdSnapshot::new(vec!["http://etcd-0:2379".to_owned()]);
        (etcd.login, etcd.password) = (Some("castgate".to_owned()), Some("s3cret".to_owned()));
        let shown = format!("{:?}", StoreSnapshot::Etcd(Box::new(etcd)));
        assert!(shown.contains("etcd-0") && !shown.contains("s3cret"), "{shown}");
    }
}
