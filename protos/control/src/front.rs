//! The front role: the draft's HTTP for those who speak nothing else, answered by whoever serves the gRPC `Hierarchy`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::tls::check_tls;
use crate::{AdapterRef, SnapshotError, TlsFiles, TlsIdentity, integer};

/// A front: where it answers, and who is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrontSnapshot {
    /// Address and TCP port of its HTTP.
    pub listen: SocketAddr,
    /// What proves it to those who ask: then it is https that it speaks there, and nothing else. Default: it speaks http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsIdentity>,
    /// The same in two files: only an agent that takes its snapshot from a file has them. What runs holds what was in them.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_files: Option<TlsFiles>,
    /// The service behind it, and what this agent shows there when it asks where servers are. Whoever registers shows his own:
    /// his login is the name of an agent, his password its key.
    pub upstream: AdapterRef,
    /// How often an entry is to be refreshed, in seconds; it is gone after two. Default: 300.
    #[serde(default = "crate::registrar::default_interval", deserialize_with = "integer::read")]
    pub update_interval_seconds: NonZeroU32,
    /// Requests that one address may make in a minute before it is told to wait. Default: 600.
    #[serde(default = "default_requests_per_minute_max", deserialize_with = "integer::read")]
    pub requests_per_minute_max: NonZeroU32,
    /// Proxies whose `Forwarded` and `X-Forwarded-For` are believed. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<IpNet>,
}

impl FrontSnapshot {
    /// A front with the defaults of everything that has one.
    #[must_use]
    pub fn new(listen: SocketAddr, upstream: AdapterRef) -> Self {
        Self {
            listen,
            tls: None,
            tls_files: None,
            upstream,
            update_interval_seconds: crate::registrar::default_interval(),
            requests_per_minute_max: default_requests_per_minute_max(),
            trusted_proxies: Vec::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        if matches!(self.listen.ip(), ip if ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255])) {
            return Err(SnapshotError::new("listen", format_args!("{} is not an address of a host", self.listen.ip())));
        }
        check_tls(self.tls.as_ref(), self.tls_files.as_ref())?;
        self.upstream.check().map_err(|error| error.within("upstream"))
    }
}

const fn default_requests_per_minute_max() -> NonZeroU32 {
    NonZeroU32::new(600).expect("600 is not zero")
}

#[cfg(test)]
mod tests {
    use crate::AgentSnapshot;

    #[test]
    fn a_front_is_read_with_its_defaults_and_what_is_wrong_is_named() {
        let text = |listen: &str, endpoint: &str| {
            format!("agent: demo/front\nfront: {{listen: '{listen}', upstream: {{endpoint: '{endpoint}', key: k}}}}\n")
        };
        let front = AgentSnapshot::from_yaml(&text("127.0.4.1:5632", "https://adapter:8444")).unwrap().front.unwrap();
        assert_eq!((front.update_interval_seconds.get(), front.requests_per_minute_max.get()), (300, 600));
        for (listen, endpoint, sentence) in [
            ("224.0.0.1:1", "https://adapter:8444", "front.listen: 224.0.0.1 is not an address of a host"),
            ("127.0.4.1:1", "http://adapter", "front.upstream.endpoint: \"http://adapter\" is not https://HOST:PORT"),
        ] {
            let error = AgentSnapshot::from_yaml(&text(listen, endpoint)).unwrap_err().to_string();
            assert_eq!(error, sentence);
        }
        for (field, sentence) in [
            ("tls: {certificate: x, key: y}", "front.tls.certificate: holds no certificate in PEM"),
            ("tlsFiles: {certificate: tls.crt, key: ''}", "front.tlsFiles.key: is empty"),
        ] {
            let text =
                text("127.0.4.1:5632", "https://adapter:8444").replace("front: {", &format!("front: {{{field}, "));
            let error = AgentSnapshot::from_yaml(&text).unwrap_err().to_string();
            assert_eq!(error, sentence);
        }
    }
}
