//! Who asks: the peer of the connection, or whom a proxy of ours names (castgate UMTP notes: only configured proxies).

use std::net::{IpAddr, SocketAddr};

use hyper::header::{FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The source of a request. Walks the list of a proxy from its end, as long as those who wrote it are proxies of ours: what
/// stands before the first stranger was written by the stranger.
pub(crate) fn of(peer: IpAddr, header: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_ours = |address: IpAddr| trusted.iter().any(|range| range.contains(&address));
    if !is_ours(peer) {
        return peer;
    }
    let mut source = peer;
    for named in named(header) {
        // `unknown`, `_hidden` and nonsense: the last that we know for sure is the proxy itself.
        let Some(address) = named else { break };
        source = address;
        if !is_ours(address) {
            break;
        }
    }
    source
}

/// What the fields name, the last first; RFC 7239 wins over the older field.
fn named(header: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let mut forwarded = from_the_end(header, &FORWARDED).map(forwarded_for).peekable();
    let field = if forwarded.peek().is_some() { None } else { Some(&X_FORWARDED_FOR) };
    forwarded.chain(field.into_iter().flat_map(|field| from_the_end(header, field).map(address)))
}

/// The elements of all lines of a field, the last first.
fn from_the_end<'a>(header: &'a HeaderMap, field: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = header.get_all(field).iter().rev().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.rsplit(',')).map(str::trim)
}

/// The `for` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| address(value.trim().trim_matches('"')))?
    })
}

/// An address with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parsed = bracketed.parse::<IpAddr>().ok();
    parsed.or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip())).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proxies_of_ours_are_believed_and_only_as_far_as_they_wrote() {
        let x_forwarded_for = X_FORWARDED_FOR.as_str();
        let cases = [
            // (peer, field, value, source)
            ("192.0.2.1", x_forwarded_for, "198.51.100.1", "192.0.2.1"),
            ("10.0.0.1", x_forwarded_for, "198.51.100.1", "198.51.100.1"),
            ("::ffff:10.0.0.1", x_forwarded_for, "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", x_forwarded_for, "203.0.113.9, 198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", x_forwarded_for, "198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("10.0.0.1", x_forwarded_for, "198.51.100.1:4711", "198.51.100.1"),
            ("10.0.0.1", x_forwarded_for, "2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", x_forwarded_for, "198.51.100.1, nonsense", "10.0.0.1"),
            ("10.0.0.1", "forwarded", "for=198.51.100.1;proto=http", "198.51.100.1"),
            ("10.0.0.1", "forwarded", "proto=http;For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("10.0.0.1", "forwarded", "for=198.51.100.1, for=unknown", "10.0.0.1"),
            ("10.0.0.1", "forwarded", "for=203.0.113.9, for=198.51.100.1, for=10.0.0.2", "198.51.100.1"),
            ("10.0.0.1", "via", "198.51.100.1", "10.0.0.1"),
        ];
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (peer, field, value, source) in cases {
            let mut header = HeaderMap::new();
            header.insert(hyper::header::HeaderName::from_bytes(field.as_bytes()).unwrap(), value.parse().unwrap());
            let found = of(peer.parse().unwrap(), &header, &trusted);
            assert_eq!(found, source.parse::<IpAddr>().unwrap(), "{peer} {field}: {value}");
        }
    }

    #[test]
    fn lines_of_one_field_are_one_list_and_the_newer_field_wins() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let mut header = HeaderMap::new();
        for line in ["203.0.113.9", "198.51.100.1", "10.0.0.3, 10.0.0.2"] {
            header.append(&X_FORWARDED_FOR, line.parse().unwrap());
        }
        let found = |header: &HeaderMap| of(IpAddr::from([10, 0, 0, 1]), header, &trusted).to_string();
        assert_eq!(found(&header), "198.51.100.1");
        header.insert(FORWARDED, "for=198.51.100.2".parse().unwrap());
        assert_eq!(found(&header), "198.51.100.2");
        header.insert(FORWARDED, "by=198.51.100.2".parse().unwrap());
        assert_eq!(found(&header), "10.0.0.1", "it says nothing, and the older field is not believed beside it");
    }
}
