//! Name-value pairs, as they stand in the query part of a URL or in a POST body.
//!
//! Liberal in (castgate UMTP notes): `&` or `;` between pairs, `+` for a blank, percent signs that start no escape stand
//! for themselves, one pair of quotes around a value is stripped, empty values are as good as absent. Strict out: `&`, and
//! everything escaped but what RFC 3986 §3.4 lets stand in a query and we need to read it.

use std::borrow::Cow;
use std::fmt::Write;
use std::string::FromUtf8Error;

/// The pairs of `text` in order, names and values decoded, without empty values. A value that is no UTF-8 is an error that
/// the owner of the name reports. What has no escapes is not copied.
pub(super) fn parse(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Result<Cow<'_, str>, NotUtf8>)> {
    let is_plain = is_plain(text);
    let mut rest = Some(text);
    let pairs = std::iter::from_fn(move || {
        let (pair, after) = cut(rest?, |octet| matches!(octet, b'&' | b';'));
        rest = after;
        Some(pair)
    });
    pairs.filter_map(move |pair| {
        let (name, value) = cut(pair, |octet| octet == b'=');
        let value = value.unwrap_or_default();
        if is_plain {
            return (!value.is_empty()).then_some((name.into(), Ok(value.into())));
        }
        let name = decode(name).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned().into());
        let value = decode(value).map(|value| part(value, unquote)).map_err(|_| NotUtf8);
        let said = value.as_ref().map_or(true, |value| !value.trim().is_empty());
        said.then(|| (part(name, str::trim), value))
    })
}

/// What stands before an octet of ASCII, and what stands behind it.
fn cut(text: &str, at: impl Fn(u8) -> bool) -> (&str, Option<&str>) {
    match text.bytes().position(at) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    }
}

/// Whether there is nothing to decode, to strip or to trim, as in what programs send: every part is what it says.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'+' | b'%' | b'"' | b'\''))
}

/// A value that is no UTF-8 after decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotUtf8;

fn part(text: Cow<'_, str>, cut: impl Fn(&str) -> &str) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(cut(text)),
        Cow::Owned(text) => Cow::Owned(cut(&text).to_owned()),
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, FromUtf8Error> {
    if !text.bytes().any(|octet| matches!(octet, b'+' | b'%')) {
        return Ok(Cow::Borrowed(text));
    }
    String::from_utf8(octets(text)).map(Cow::Owned)
}

fn octets(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((octet, after)) = rest.split_first() {
        rest = after;
        decoded.push(match (octet, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            _ => *octet,
        });
    }
    decoded
}

fn hex_digit(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Strips one pair of quotes. Blanks outside of the quotes go too, blanks inside do not.
fn unquote(value: &str) -> &str {
    let trimmed = value.trim();
    let stripped = ['"', '\''].into_iter().find_map(|quote| trimmed.strip_prefix(quote)?.strip_suffix(quote));
    stripped.unwrap_or(value)
}

/// Appends `name=value`, with `&` in front of all but the first.
pub(super) fn append(pairs: &mut String, name: &str, value: &str) {
    if !pairs.is_empty() {
        pairs.push('&');
    }
    pairs.push_str(name);
    pairs.push('=');
    for octet in value.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b',' => {
                pairs.push(char::from(octet));
            }
            _ => write!(pairs, "%{octet:02X}").expect("a String takes everything"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> Vec<(String, String)> {
        parse(text).map(|(name, value)| (name.into_owned(), value.expect("UTF-8").into_owned())).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn pairs_are_separated_by_ampersand_or_semicolon_and_empty_ones_ignored() {
        assert_eq!(values("A=1&B=2;C=3"), [pair("A", "1"), pair("B", "2"), pair("C", "3")]);
        assert_eq!(values("&&A=&B&=;C=+;D=4;"), [pair("D", "4")]);
    }

    #[test]
    fn escapes_are_decoded_and_half_escapes_stand_for_themselves() {
        assert_eq!(values("%41=a%2fb+c%2B"), [pair("A", "a/b c+")]);
        assert_eq!(values("A=100%&B=%4&C=%zz"), [pair("A", "100%"), pair("B", "%4"), pair("C", "%zz")]);
        assert_eq!(parse("A=%ff").next(), Some(("A".into(), Err(NotUtf8))));
    }

    #[test]
    fn one_pair_of_quotes_is_stripped_after_decoding() {
        assert_eq!(values("A=\"1\"&B='2'&C=%222%22"), [pair("A", "1"), pair("B", "2"), pair("C", "2")]);
        assert_eq!(values("A=\"\"1\"\"&B='2\"&C=\""), [pair("A", "\"1\""), pair("B", "'2\""), pair("C", "\"")]);
        assert_eq!(values("A=\"\"&B=5"), [pair("B", "5")]);
    }

    /// What the pairs are when every part is decoded and copied, escapes or not.
    fn copied(text: &str) -> Vec<(String, Result<String, NotUtf8>)> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8_lossy(&octets(name)).trim().to_owned();
            let value = String::from_utf8(octets(value)).map(|value| unquote(&value).to_owned()).map_err(|_| NotUtf8);
            (name, value)
        };
        let is_blank = |value: &Result<String, NotUtf8>| value.as_ref().is_ok_and(|value| value.trim().is_empty());
        text.split(['&', ';']).map(pair).filter(|(_, value)| !is_blank(value)).collect()
    }

    proptest! {
        #[test]
        fn what_is_not_copied_is_read_as_what_is(text in "([AB]|é|=|&|;|[+]|%|%4|%41|%ff|%20|\"|'| |\u{3000}){0,24}") {
            let parsed = parse(&text).map(|(name, value)| (name.into_owned(), value.map(Cow::into_owned)));
            prop_assert_eq!(parsed.collect::<Vec<_>>(), copied(&text));
        }

        #[test]
        fn an_appended_pair_comes_back(value in "[!#-&(-~]([^\"']{0,20}[!#-&(-~])?") {
            let mut pairs = String::new();
            append(&mut pairs, "X", "before");
            append(&mut pairs, "NAME", &value);
            prop_assert!(pairs.bytes().all(|octet| octet.is_ascii_graphic()));
            let expected = [pair("X", "before"), pair("NAME", &value)];
            prop_assert_eq!(values(&pairs), expected);
        }
    }
}
