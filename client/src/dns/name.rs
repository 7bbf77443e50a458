//! Names of any octets as text and back, as in a zone file (RFC 1035 §5.1): instances of a service are named by people, and
//! the resolver's own reading takes host names only.

use std::fmt::Write as _;

use hickory_resolver::proto::rr::Name;

/// A name as text, with a dot at the end.
pub(super) fn text(name: &Name) -> String {
    let mut text = String::new();
    for label in name {
        for octet in label {
            match octet {
                b'.' | b'\\' => text.extend(['\\', char::from(*octet)]),
                b'!'..=b'~' => text.push(char::from(*octet)),
                other => {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "\\{other:03}");
                }
            }
        }
        text.push('.');
    }
    text
}

/// The name that stands in a text; a dot at the end changes nothing.
pub(super) fn parse(text: &str) -> Option<Name> {
    let mut labels = vec![Vec::new()];
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b'.' => {
                labels.push(Vec::new());
                continue;
            }
            b'\\' => match octets.next()? {
                first @ b'0'..=b'9' => {
                    let digits = [first, octets.next()?, octets.next()?];
                    std::str::from_utf8(&digits).ok()?.parse().ok()?
                }
                other => other,
            },
            plain => plain,
        };
        labels.last_mut()?.push(octet);
    }
    if labels.last().is_some_and(Vec::is_empty) {
        labels.pop();
    }
    // An empty label stands nowhere else; one that is too long, or a name that is, is refused here.
    let mut name = Name::from_labels(labels.iter().map(Vec::as_slice)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_octets_are_written_and_read_back() {
        let label: Vec<u8> = (0..=62).collect();
        let rest: Vec<u8> = (193..=255).collect();
        let name = Name::from_labels([&label[..], &rest, b"one two", b"_amt", b"_udp", b"example"]).unwrap();
        let read = parse(&text(&name)).unwrap();
        assert!(read.is_fqdn() && read.iter().eq(name.iter()), "{}", text(&name));
        assert!(text(&name).ends_with(r"one\032two._amt._udp.example."));
    }

    #[test]
    fn a_dot_at_the_end_changes_nothing_and_what_is_no_name_is_refused() {
        assert_eq!(parse("relay.example"), parse("relay.example."));
        for wrong in ["a..b", ".a", r"a\", r"a\25", r"a\256", &"a".repeat(64)] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
