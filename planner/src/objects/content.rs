//! What objects refer to: texts, channels, Secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;

use castgate_control::Ports;
use castgate_crds::units::Rate;

/// Texts by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMap {
    pub(crate) values: BTreeMap<String, String>,
}

/// Channels under names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The channels in the order of the manifest.
    pub channels: Vec<BundleChannel>,
}

/// One channel, or the same on a range of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleChannel {
    /// What people call it.
    pub name: String,
    /// The group.
    pub group: IpAddr,
    /// The only source; `None`: any.
    pub source: Option<IpAddr>,
    /// The ports.
    pub ports: Ports,
    /// Whether clients may send into it.
    pub send: bool,
    /// Highest TTL of what clients send; `None`: the limit of the server.
    pub ttl: Option<NonZeroU8>,
    /// Rate of the pattern that is sent into it; `None`: somebody else sends.
    pub pattern: Option<Rate>,
    /// What it carries, for people.
    pub description: Option<String>,
}

impl BundleChannel {
    /// `232.1.2.3@192.0.2.10`, `[ff3e::8000:1]@[2001:db8::1]`, or the group alone.
    pub(crate) fn name_of_addresses(&self) -> String {
        let text = |address: IpAddr| if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        match self.source {
            Some(source) => format!("{}@{}", text(self.group), text(source)),
            None => text(self.group),
        }
    }
}

/// A Secret of Kubernetes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub(crate) values: BTreeMap<String, Vec<u8>>,
}

impl Secret {
    /// The value of a key as text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.values.get(key)?).ok()
    }
}

/// Without the values: objects end up in logs.
impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_struct("Secret").field("keys", &self.values.keys()).finish_non_exhaustive()
    }
}
