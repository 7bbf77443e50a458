//! Who asks: the peer of the connection, or whom a proxy of ours names (castgate UMTP notes: only configured proxies).

use std::net::{IpAddr, SocketAddr};

use hyper::header::{FORWARDED, HeaderMap};
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The source of a request. Walks the list of a proxy from its end, as long as those who wrote it are proxies of ours: what
/// stands before the first stranger was written by the stranger.
pub(crate) fn of(peer: IpAddr, header: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_ours = |address: IpAddr| trusted.iter().any(|range| range.contains(&address));
    if !is_ours(peer) {
        return peer;
    }
    let mut source = peer;
    for named in named(header).into_iter().rev() {
        // `unknown`, `_hidden` and nonsense: the last that we know for sure is the proxy itself.
        let Some(address) = named else { break };
        source = address;
        if !is_ours(address) {
            break;
        }
    }
    source
}

/// What the fields name, in order; RFC 7239 wins over the older field.
fn named(header: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = |name: &str| -> Vec<String> {
        let lines = header.get_all(name).iter().filter_map(|value| value.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(|part| part.trim().to_owned()).collect()
    };
    let forwarded = values(FORWARDED.as_str());
    if !forwarded.is_empty() {
        return forwarded.iter().map(|element| forwarded_for(element)).collect();
    }
    values(X_FORWARDED_FOR).iter().map(|text| address(text)).collect()
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
        let cases = [
            // (peer, field, value, source)
            ("192.0.2.1", X_FORWARDED_FOR, "198.51.100.1", "192.0.2.1"),
            ("10.0.0.1", X_FORWARDED_FOR, "198.51.100.1", "198.51.100.1"),
            ("::ffff:10.0.0.1", X_FORWARDED_FOR, "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", X_FORWARDED_FOR, "203.0.113.9, 198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", X_FORWARDED_FOR, "198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("10.0.0.1", X_FORWARDED_FOR, "198.51.100.1:4711", "198.51.100.1"),
            ("10.0.0.1", X_FORWARDED_FOR, "2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", X_FORWARDED_FOR, "198.51.100.1, nonsense", "10.0.0.1"),
            ("10.0.0.1", "forwarded", "for=198.51.100.1;proto=http", "198.51.100.1"),
            ("10.0.0.1", "forwarded", "proto=http;For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("10.0.0.1", "forwarded", "for=198.51.100.1, for=unknown", "10.0.0.1"),
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
}
