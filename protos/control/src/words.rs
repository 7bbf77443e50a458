//! The registry's words (`TS`, `BE`, `UDP`, a channel's name) as texts in a snapshot. The types themselves belong to the wire.

use castgate_wire::registry::{Country, EntryType, Protocol, Scheme};
use castgate_wire::umtp::{Channel, ChannelError};

/// A value that a snapshot writes as one word.
pub(crate) trait Word: Sized {
    fn to_word(&self) -> String;
    fn from_word(word: &str) -> Result<Self, String>;
}

impl Word for EntryType {
    fn to_word(&self) -> String {
        self.word().to_owned()
    }

    fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "TS" => Ok(Self::TunnelServer),
            "TDS" => Ok(Self::TunnelDatabase),
            // Strict where the wire is liberal: a snapshot has one spelling.
            _ => Err(format!("{word:?} is neither TS nor TDS")),
        }
    }
}

impl Word for Protocol {
    fn to_word(&self) -> String {
        self.word().to_owned()
    }

    fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "UDP" => Ok(Self::Udp),
            "TCP" => Ok(Self::Tcp),
            "AMT" => Ok(Self::Amt),
            _ => Err(format!("{word:?} is not one of UDP, TCP, AMT")),
        }
    }
}

impl Word for Scheme {
    fn to_word(&self) -> String {
        self.word().to_owned()
    }

    fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            _ => Err(format!("{word:?} is neither http nor https")),
        }
    }
}

impl Word for Country {
    fn to_word(&self) -> String {
        self.to_string()
    }

    fn from_word(word: &str) -> Result<Self, String> {
        word.parse().map_err(|_| format!("{word:?} is not a country of two letters (ISO 3166)"))
    }
}

impl Word for Channel {
    fn to_word(&self) -> String {
        self.to_string()
    }

    fn from_word(word: &str) -> Result<Self, String> {
        word.parse().map_err(|error: ChannelError| error.to_string())
    }
}

/// `#[serde(with)]` for one word.
pub(crate) mod one {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Word;

    pub fn serialize<S: Serializer, T: Word>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_word())
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: Word>(deserializer: D) -> Result<T, D::Error> {
        T::from_word(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// `#[serde(with)]` for a word that may be absent.
pub(crate) mod optional {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Word;

    #[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
    pub fn serialize<S: Serializer, T: Word>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_some(&value.to_word()),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: Word>(deserializer: D) -> Result<Option<T>, D::Error> {
        let word = Option::<String>::deserialize(deserializer)?;
        word.map(|word| T::from_word(&word)).transpose().map_err(D::Error::custom)
    }
}

/// `#[serde(with)]` for lists of words, each under a name.
pub(crate) mod lists {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Word;

    pub fn serialize<S: Serializer, T: Word>(
        lists: &BTreeMap<String, Vec<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let words = |values: &Vec<T>| values.iter().map(Word::to_word).collect::<Vec<_>>();
        serializer.collect_map(lists.iter().map(|(name, values)| (name, words(values))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: Word>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Vec<T>>, D::Error> {
        let lists = BTreeMap::<String, Vec<String>>::deserialize(deserializer)?;
        let values = |words: Vec<String>| words.iter().map(|word| T::from_word(word)).collect::<Result<_, _>>();
        let list = |(name, words)| Ok((name, values(words)?));
        lists.into_iter().map(list).collect::<Result<_, String>>().map_err(D::Error::custom)
    }
}

/// `#[serde(with)]` for a list of words.
pub(crate) mod list {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Word;

    pub fn serialize<S: Serializer, T: Word>(values: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Word::to_word))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: Word>(deserializer: D) -> Result<Vec<T>, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        words.iter().map(|word| T::from_word(word)).collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}
