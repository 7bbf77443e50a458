//! Domain names, uncompressed (RFC 1035 §3.1, §5.1), and the name under which a source's records are found.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::str::FromStr;

/// Octets of a label (RFC 1035 §2.3.4).
const LABEL_LEN_MAX: u8 = 63;
/// Octets of a name with all lengths and its root (RFC 1035 §2.3.4).
const NAME_LEN_MAX: usize = 255;

/// An absolute domain name. Written as in a zone file, with the dot of the root at its end; the case of letters stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    text: String,
    octets: Vec<u8>,
}

/// Why octets or a text are no domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NameError {
    /// No name at all: the root is a dot, or one zero octet.
    #[error("nothing is no name")]
    Empty,
    /// A label that runs over the end.
    #[error("a label runs over the end")]
    Truncated,
    /// A label that points elsewhere, or of a kind that is not used; holds the octet that says so.
    #[error("label type {0:#04x} is not allowed here")]
    LabelType(u8),
    /// A label of more than 63 octets, or of none; holds the number.
    #[error("a label has 1 to {LABEL_LEN_MAX} octets, not {0}")]
    LabelLength(usize),
    /// More than 255 octets in all; holds the number.
    #[error("a name has at most {NAME_LEN_MAX} octets, not {0}")]
    Length(usize),
    /// Octets behind the root; holds their number.
    #[error("{0} octets follow the name")]
    Trailing(usize),
    /// A backslash that is followed by neither three digits up to 255 nor another character.
    #[error("a backslash starts no escape")]
    Escape,
    /// A character that is not ASCII and not escaped.
    #[error("{0:?} has to be escaped")]
    Character(char),
}

impl Name {
    /// Reads all of `octets` as a name. One that lacks its root, as in the examples of RFC 8777 §4.3.2, is taken for what is
    /// meant.
    ///
    /// # Errors
    /// [`NameError`] with what is wrong. Never panics, whatever the bytes.
    pub fn parse(octets: &[u8]) -> Result<Self, NameError> {
        if octets.is_empty() {
            return Err(NameError::Empty);
        }
        let mut labels = Labels::default();
        let mut rest = octets;
        while let Some((len, after)) = rest.split_first() {
            match *len {
                0 if after.is_empty() => break,
                0 => return Err(NameError::Trailing(after.len())),
                len @ ..=LABEL_LEN_MAX => {
                    let (label, after) = after.split_at_checked(len.into()).ok_or(NameError::Truncated)?;
                    labels.push(label)?;
                    rest = after;
                }
                other => return Err(NameError::LabelType(other)),
            }
        }
        Ok(labels.finish())
    }

    /// The name in its presentation form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name in its wire form, with its root.
    #[must_use]
    pub fn as_octets(&self) -> &[u8] {
        &self.octets
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Takes what [`Display`](fmt::Display) writes; the dot at the end may be left out.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(character) = text.chars().find(|character| !character.is_ascii_graphic()) {
            return Err(NameError::Character(character));
        }
        match text {
            "" => return Err(NameError::Empty),
            "." => return Ok(Labels::default().finish()),
            _ => {}
        }
        let mut labels = Labels::default();
        let mut label = Vec::new();
        for character in Characters(text.as_bytes()) {
            match character? {
                Character::Octet(octet) => label.push(octet),
                Character::Dot => labels.push(&std::mem::take(&mut label))?,
            }
        }
        if !label.is_empty() {
            labels.push(&label)?;
        }
        Ok(labels.finish())
    }
}

/// A name that grows label by label, within its limits.
#[derive(Default)]
struct Labels {
    text: String,
    /// The wire form, without the root.
    octets: Vec<u8>,
}

impl Labels {
    fn push(&mut self, label: &[u8]) -> Result<(), NameError> {
        if label.is_empty() || label.len() > LABEL_LEN_MAX.into() {
            return Err(NameError::LabelLength(label.len()));
        }
        self.append(label);
        match self.octets.len() + 1 {
            ..=NAME_LEN_MAX => Ok(()),
            len => Err(NameError::Length(len)),
        }
    }

    /// As [`push`](Self::push), for a label that is known to fit.
    fn append(&mut self, label: &[u8]) {
        let [len, ..] = label.len().to_le_bytes();
        self.octets.push(len);
        self.octets.extend_from_slice(label);
        for octet in label {
            match octet {
                // What means something in a zone file (RFC 1035 §5.1).
                b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                    self.text.extend(['\\', char::from(*octet)]);
                }
                b'!'..=b'~' => self.text.push(char::from(*octet)),
                _ => write!(self.text, "\\{octet:03}").expect("a string takes everything"),
            }
        }
        self.text.push('.');
    }

    fn finish(mut self) -> Name {
        if self.text.is_empty() {
            self.text.push('.');
        }
        self.octets.push(0);
        Name { text: self.text, octets: self.octets }
    }
}

enum Character {
    Octet(u8),
    Dot,
}

/// The characters of a presentation form, with escapes undone.
struct Characters<'a>(&'a [u8]);

impl Iterator for Characters<'_> {
    type Item = Result<Character, NameError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (character, rest) = match self.0 {
            [] => return None,
            [b'.', rest @ ..] => (Character::Dot, rest),
            [b'\\', digits @ ..] if digits.first().is_some_and(u8::is_ascii_digit) => {
                let Some((digits, rest)) = digits.split_first_chunk::<3>() else { return Some(Err(NameError::Escape)) };
                let octet = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                let Some(octet) = octet else { return Some(Err(NameError::Escape)) };
                (Character::Octet(octet), rest)
            }
            [b'\\'] => return Some(Err(NameError::Escape)),
            [b'\\', octet, rest @ ..] | [octet, rest @ ..] => (Character::Octet(*octet), rest),
        };
        self.0 = rest;
        Some(Ok(character))
    }
}

/// The name under which the records of a source are found, in in-addr.arpa or ip6.arpa.
///
/// # Source
/// RFC 8777 §2.1, RFC 1035 §3.5, RFC 3596 §2.5.
#[must_use]
pub fn reverse_name(source: IpAddr) -> Name {
    let mut labels = Labels::default();
    // At most 34 labels of at most seven octets.
    let mut push = |label: &str| labels.append(label.as_bytes());
    match source {
        IpAddr::V4(source) => {
            source.octets().iter().rev().for_each(|octet| push(&octet.to_string()));
            push("in-addr");
        }
        IpAddr::V6(source) => {
            let nibbles = source.octets().into_iter().rev().flat_map(|octet| [octet & 0x0f, octet >> 4]);
            nibbles.for_each(|nibble| push(&format!("{nibble:x}")));
            push("ip6");
        }
    }
    push("arpa");
    labels.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_its_labels_and_the_root() {
        let name: Name = "amtrelays.example.com.".parse().unwrap();
        assert_eq!(name.as_octets(), b"\x09amtrelays\x07example\x03com\0");
        assert_eq!(Name::parse(name.as_octets()), Ok(name.clone()));
        let root: Name = ".".parse().unwrap();
        assert_eq!(root.as_octets(), b"\0");
        assert_eq!(Name::parse(b"\0"), Ok(root));
    }

    #[test]
    fn what_means_something_in_a_zone_file_is_escaped() {
        let name = Name::parse(b"\x06a.b\\;\x07\x03 @$\0").unwrap();
        assert_eq!(name.as_str(), r"a\.b\\\;\007.\032\@\$.");
        assert_eq!(name.as_str().parse(), Ok(name));
    }

    #[test]
    fn pointers_and_other_labels_are_refused() {
        assert_eq!(Name::parse(b"\x03com\xc0\x0c"), Err(NameError::LabelType(0xc0)));
        assert_eq!(Name::parse(b"\x40"), Err(NameError::LabelType(0x40)));
        assert_eq!(Name::parse(b"\x04com"), Err(NameError::Truncated));
        assert_eq!(Name::parse(b"\x03com\0\0"), Err(NameError::Trailing(1)));
        assert_eq!(Name::parse(b""), Err(NameError::Empty));
    }

    #[test]
    fn labels_and_names_have_their_limits() {
        let label = "a".repeat(63);
        assert!(label.parse::<Name>().is_ok());
        assert_eq!(format!("{label}a").parse::<Name>(), Err(NameError::LabelLength(64)));
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        assert_eq!(longest.parse::<Name>().unwrap().as_octets().len(), NAME_LEN_MAX);
        assert_eq!(format!("{longest}b").parse::<Name>(), Err(NameError::Length(256)));
        // Without a root too.
        let octets = [[&[63][..], &[b'a'; 63]].concat().repeat(3), [&[62][..], &[b'b'; 62]].concat()].concat();
        assert_eq!(octets.len(), 255);
        assert_eq!(Name::parse(&octets), Err(NameError::Length(256)));
    }

    #[test]
    fn bad_texts_are_refused() {
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("..".parse::<Name>(), Err(NameError::LabelLength(0)));
        assert_eq!(".a".parse::<Name>(), Err(NameError::LabelLength(0)));
        assert_eq!("a b".parse::<Name>(), Err(NameError::Character(' ')));
        assert_eq!("é".parse::<Name>(), Err(NameError::Character('é')));
        for text in [r"a\", r"a\1", r"a\12", r"a\256", r"a\1x2"] {
            assert_eq!(text.parse::<Name>(), Err(NameError::Escape), "{text}");
        }
    }

    #[test]
    fn a_source_is_asked_for_backwards() {
        assert_eq!(reverse_name("198.51.100.12".parse().unwrap()).as_str(), "12.100.51.198.in-addr.arpa.");
        // RFC 3596 §2.5.
        assert_eq!(
            reverse_name("4321:0:1:2:3:4:567:89ab".parse().unwrap()).as_str(),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa."
        );
        for source in ["198.51.100.12", "2001:db8::15"] {
            let name = reverse_name(source.parse().unwrap());
            assert_eq!(Name::parse(name.as_octets()), Ok(name.clone()));
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_a_name_or_a_refusal(octets in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(name) = Name::parse(&octets) {
                prop_assert_eq!(Name::parse(name.as_octets()), Ok(name.clone()));
                prop_assert_eq!(name.as_str().parse(), Ok(name));
            }
        }

        #[test]
        fn any_labels_come_back(
            labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..10),
        ) {
            let mut octets: Vec<u8> = labels
                .iter()
                .flat_map(|label| [&[u8::try_from(label.len()).expect("short")][..], label].concat())
                .collect();
            octets.push(0);
            let name = Name::parse(&octets).expect("well-formed");
            prop_assert_eq!(name.as_octets(), octets);
            prop_assert_eq!(name.as_str().parse(), Ok(name));
        }

        #[test]
        fn any_text_is_a_name_or_a_refusal(text in r"[a-c.\\0-9;é]{0,20}") {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert_eq!(name.as_str().parse(), Ok(name));
            }
        }
    }
}
