//! The notation of `--output`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// An output as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputSpec {
    /// `stats`: count and throw away.
    Stats,
    /// `-`: standard output.
    Stdout,
    /// `file:PATH`.
    File(PathBuf),
    /// `udp://GROUP:PORT[?iface=NAME|ADDRESS&ttl=N]`.
    Udp(UdpTarget),
    /// `http://[ADDRESS]:PORT`.
    Http(SocketAddr),
}

/// Where and how to send on the local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpTarget {
    /// Group, or host, and port.
    pub address: SocketAddrV4,
    /// The interface to send from; the kernel's choice when `None`.
    pub interface: Option<String>,
    /// TTL of what is sent; 1 unless written, so that nothing leaves the local network by accident.
    pub ttl: Option<u8>,
}

/// Why a text is no output.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// None of the forms.
    #[error("the output {0:?} is not one of stats, -, file:PATH, udp://GROUP:PORT[?iface=NAME&ttl=N], http://:PORT")]
    Form(String),
    /// A part of it is wrong.
    #[error("the output {spec:?}: {part}")]
    Part {
        /// The whole text.
        spec: String,
        /// What is wrong with it.
        part: String,
    },
}

impl FromStr for OutputSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let part = |part: String| SpecError::Part { spec: text.to_owned(), part };
        if let Some(path) = text.strip_prefix("file:") {
            return if path.is_empty() {
                Err(part("a file has a path".to_owned()))
            } else {
                Ok(Self::File(path.into()))
            };
        }
        if let Some(rest) = text.strip_prefix("udp://") {
            return UdpTarget::parse(rest).map(Self::Udp).map_err(part);
        }
        if let Some(rest) = text.strip_prefix("http://") {
            let rest = rest.trim_end_matches('/');
            let whole = if rest.starts_with(':') { format!("0.0.0.0{rest}") } else { rest.to_owned() };
            let address = whole.parse().map_err(|_| part(format!("{rest:?} is not [ADDRESS]:PORT to listen on")))?;
            return Ok(Self::Http(address));
        }
        match text {
            "stats" => Ok(Self::Stats),
            "-" => Ok(Self::Stdout),
            _ => Err(SpecError::Form(text.to_owned())),
        }
    }
}

impl UdpTarget {
    /// Reads what stands after `udp://`; the error is the sentence about the wrong part.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (address, options) = text.split_once('?').unwrap_or((text, ""));
        let address: SocketAddrV4 =
            address.trim_end_matches('/').parse().map_err(|_| format!("{address:?} is not an IPv4 GROUP:PORT"))?;
        if address.port() == 0 || address.ip() == &Ipv4Addr::UNSPECIFIED {
            return Err(format!("nobody listens at {address}"));
        }
        let mut target = Self { address, interface: None, ttl: None };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("iface", name)) if !name.is_empty() => target.interface = Some(name.to_owned()),
                Some(("ttl", ttl)) => {
                    target.ttl =
                        Some(ttl.parse().map_err(|_| format!("the ttl {ttl:?} is not a number from 0 to 255"))?);
                }
                _ => return Err(format!("{option:?} is neither iface=NAME|ADDRESS nor ttl=N")),
            }
        }
        Ok(target)
    }
}

impl fmt::Display for OutputSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stats => formatter.write_str("stats"),
            Self::Stdout => formatter.write_str("-"),
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Udp(target) => write!(formatter, "udp://{target}"),
            Self::Http(address) if address.ip().is_unspecified() => write!(formatter, "http://:{}", address.port()),
            Self::Http(address) => write!(formatter, "http://{address}"),
        }
    }
}

impl fmt::Display for UdpTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.address)?;
        match (&self.interface, self.ttl) {
            (None, None) => Ok(()),
            (Some(name), None) => write!(formatter, "?iface={name}"),
            (None, Some(ttl)) => write!(formatter, "?ttl={ttl}"),
            (Some(name), Some(ttl)) => write!(formatter, "?iface={name}&ttl={ttl}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_and_prints_again() {
        for text in [
            "stats",
            "-",
            "file:/media/a b.ts",
            "udp://239.1.2.3:5004",
            "udp://239.1.2.3:5004?iface=eth0",
            "udp://239.1.2.3:5004?iface=192.0.2.1&ttl=4",
            "http://:8080",
            "http://127.0.0.1:8080",
        ] {
            assert_eq!(text.parse::<OutputSpec>().unwrap().to_string(), text);
        }
        assert_eq!("http://:8080/".parse::<OutputSpec>().unwrap().to_string(), "http://:8080");
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence_that_quotes_it() {
        for (text, cause) in [
            ("", "not one of"),
            ("rtmp://x", "not one of"),
            ("file:", "path"),
            ("udp://239.1.2.3", "GROUP:PORT"),
            ("udp://[ff02::1]:5004", "IPv4"),
            ("udp://239.1.2.3:5004?ttl=300", "300"),
            ("udp://239.1.2.3:5004?interface=eth0", "interface=eth0"),
            ("udp://0.0.0.0:5004", "nobody"),
            ("http://8080", "8080"),
        ] {
            let sentence = text.parse::<OutputSpec>().unwrap_err().to_string();
            assert!(sentence.contains(cause) && !sentence.contains('\n'), "{text}: {sentence}");
        }
    }
}
