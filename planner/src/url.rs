//! Where a database answers, as `spec.hierarchy.parents[].url` names it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::str::FromStr;

use castgate_control::Scheme;

/// TCP port of a database whose URL names none.
const PORT: u16 = 5632;
/// The path every database answers under (draft-liefooghe-castgate-02 §6); it may stand in the URL.
const PATH: &str = "/script/castgate.cgs";

/// `http://HOST:PORT` or `https://HOST:PORT`: host in lower case, port always there, so that two spellings of one place are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatabaseUrl {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// Why a text is not the URL of a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// No scheme, no host, a bad port, or something more.
    #[error("\"{0}\" is not a URL such as http://tds.example.net:5632")]
    Form(String),
    /// Another scheme than http and https.
    #[error("\"{0}\" is neither http nor https: databases are asked over nothing else")]
    Scheme(String),
    /// A login in the URL would end up in logs.
    #[error("holds a login: name it in credentialsSecretRef")]
    Login,
}

impl DatabaseUrl {
    /// How it is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The same place, spoken to over https or not.
    #[must_use]
    pub fn over(self, scheme: Scheme) -> Self {
        Self { scheme, ..self }
    }

    /// How people and clients name it: without a scheme where it is http.
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.to_string();
        text.strip_prefix("http://").map(str::to_owned).unwrap_or(text)
    }

    /// Host name or address; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The place of a database that listens on one address, over http.
impl From<SocketAddrV4> for DatabaseUrl {
    fn from(address: SocketAddrV4) -> Self {
        Self { scheme: Scheme::Http, host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        let form = || DatabaseUrlError::Form(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(DatabaseUrlError::Scheme(text.to_owned())),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err(DatabaseUrlError::Login);
        }
        if !matches!(path, "" | "/" | PATH) {
            return Err(form());
        }
        // The colons of an IPv6 address are inside its brackets.
        let host_end = if authority.starts_with('[') { authority.find(']').ok_or_else(form)? + 1 } else { 0 };
        let (host, port) = match authority[host_end..].find(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(host_end + colon);
                (host, port[1..].parse().ok().filter(|port| *port != 0).ok_or_else(form)?)
            }
            None => (authority, PORT),
        };
        if !is_host(host) {
            return Err(form());
        }
        Ok(Self { scheme, host: host.to_ascii_lowercase(), port })
    }
}

pub(crate) fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    // What looks like an address must be one: "127.0.0.300" is no name of anything.
    if host.rsplit('.').next().is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit())) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECURE: &str = "https://tds.example.net:5632";

    #[test]
    fn spellings_of_one_place_are_equal() {
        for text in [
            "http://tds.example.net",
            "http://tds.example.net/",
            "http://tds.example.net:5632",
            "http://TDS.example.net:5632/script/castgate.cgs",
        ] {
            assert_eq!(text.parse::<DatabaseUrl>().unwrap().to_string(), "http://tds.example.net:5632", "{text}");
        }
        assert_eq!("http://[2001:DB8::1]".parse::<DatabaseUrl>().unwrap().to_string(), "http://[2001:db8::1]:5632");
        let secure = "https://TDS.example.net/".parse::<DatabaseUrl>().unwrap();
        assert_eq!((secure.to_string().as_str(), secure.short().as_str()), (SECURE, SECURE));
        assert_eq!(secure.over(Scheme::Http).short(), "tds.example.net:5632");
        assert_eq!("http://127.0.4.1:80".parse::<DatabaseUrl>().unwrap().to_string(), "http://127.0.4.1:80");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "tds.example.net",
            "127.0.4.1:5632",
            "http://",
            "http://:5632",
            "http://a:0",
            "http://a:70000",
            "http://a:b",
            "http://a/b",
            "http://a?b",
            "http://a b",
            "http://127.0.0.300",
            "http://[::1",
            "http://[x]",
            "http://a..b",
            "http://-a",
        ] {
            assert_eq!(text.parse::<DatabaseUrl>(), Err(DatabaseUrlError::Form(text.into())), "{text}");
        }
        assert_eq!("http://me:secret@a".parse::<DatabaseUrl>(), Err(DatabaseUrlError::Login));
        assert!(matches!("ftp://a".parse::<DatabaseUrl>(), Err(DatabaseUrlError::Scheme(_))));
    }
}
