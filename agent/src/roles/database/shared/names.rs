//! What an entry is called in etcd, and what stands there.
//!
//! ```text
//!   /castgate/isp/be/entries/192.0.2.1 10100 TS UDP  →  {"type":"TS","source":"192.0.2.1","port":10100,…}
//!   └──── prefix ───┘        └──── place ───┘
//! ```
//! The place comes first, so that one range has all that a BYE may be about.

use std::net::IpAddr;

use castgate_endpoint::hierarchy::database::{Entry, Key, StoredEntry};
use castgate_wire::registry::EntryType;

/// Names below one prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    entries: String,
}

impl Names {
    pub(super) fn below(prefix: &str) -> Self {
        Self { entries: format!("{prefix}entries/") }
    }

    /// What all entries begin with.
    pub(super) fn all(&self) -> &[u8] {
        self.entries.as_bytes()
    }

    /// What the entries of one place begin with.
    pub(super) fn place(&self, source: IpAddr, port: u16) -> Vec<u8> {
        format!("{}{source} {port} ", self.entries).into_bytes()
    }

    pub(super) fn of(&self, key: &Key) -> Vec<u8> {
        let Key { entry_type, source, port, protocol } = key;
        format!("{}{source} {port} {} {}", self.entries, entry_type.word(), protocol.word()).into_bytes()
    }

    /// Whose name it is; `None`: it is none of ours.
    pub(super) fn read(&self, name: &[u8]) -> Option<Key> {
        let name = std::str::from_utf8(name).ok()?.strip_prefix(&self.entries)?;
        let mut words = name.splitn(4, ' ');
        let source = words.next()?.parse().ok()?;
        let port = words.next()?.parse().ok()?;
        let entry_type = EntryType::parse(words.next()?)?;
        let protocol = words.next()?.parse().ok()?;
        Some(Key { entry_type, source, port, protocol })
    }
}

/// What stands at a name.
pub(super) fn write(entry: &StoredEntry) -> Vec<u8> {
    serde_json::to_vec(entry).expect("texts and numbers can be written as JSON")
}

/// The entry of this key.
///
/// # Errors
/// One sentence when it is none.
pub(super) fn read(key: &Key, value: &[u8]) -> Result<Entry, String> {
    let stored: StoredEntry = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let entry = stored.to_entry().map_err(|error| error.to_string())?;
    if entry.key == *key { Ok(entry) } else { Err(format!("it is the entry {}", entry.key)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_others_are_not() {
        let names = Names::below("/castgate/");
        for text in ["192.0.2.1 10100 TS UDP", "2001:db8::1 5632 TDS TCP", "10.0.0.1 1 TS A WORD OF ITS OWN"] {
            let name = format!("/castgate/entries/{text}");
            let key = names.read(name.as_bytes()).unwrap();
            assert_eq!(names.of(&key), name.as_bytes());
            assert!(name.as_bytes().starts_with(&names.place(key.source, key.port)));
            assert!(!name.as_bytes().starts_with(&names.place(key.source, key.port / 10)));
        }
        for text in
            ["", "entries/", "entries/x 1 TS UDP", "entries/10.0.0.1 1 TX UDP", "entries/10.0.0.1 1 TS", "other"]
        {
            assert_eq!(names.read(format!("/castgate/{text}").as_bytes()), None, "{text}");
        }
        assert_eq!(names.read(b"/other/entries/10.0.0.1 1 TS UDP"), None);
        assert_eq!(names.read(b"/castgate/entries/\xff 1 TS UDP"), None);
    }

    #[test]
    fn an_entry_at_the_name_of_another_is_none() {
        let names = Names::below("/castgate/");
        let value = br#"{"type":"TS","source":"10.0.0.1","port":1,"protocol":"UDP","login":"be","networks":[],"countries":["BE"],"expires":5}"#;
        let key = |port| names.read(format!("/castgate/entries/10.0.0.1 {port} TS UDP").as_bytes()).unwrap();
        assert_eq!(read(&key(1), value).unwrap().login, "be");
        assert_eq!(read(&key(2), value).unwrap_err(), "it is the entry TS 10.0.0.1 1 UDP");
        assert!(read(&key(1), b"{").is_err());
    }
}
