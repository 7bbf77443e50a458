//! What the log says of registrations: once that one does not stand and why, once that it does after all.

use std::collections::BTreeMap;

use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_endpoint::hierarchy::registrar::{Standing, Status};

use super::entry_name;

/// Tries in a row that fail before that is worth a word, where parents are found and not named. Whoever is to tell a root of us may
/// be on his own way to it: a hierarchy that starts turns away half of its members for some seconds. With the usual pauses the
/// fourth try is seven seconds after the first.
const PATIENCE: u32 = 4;

/// An entry at a parent.
type Place = (String, DatabaseAddress);

/// What was said and holds still.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: BTreeMap<Place, String>,
}

/// Something new to say.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// The entry does not stand there, for this reason.
    Missing(Place, String),
    /// It stands, after the log said that it does not.
    Stands(Place),
}

impl Complaints {
    /// Says what is new.
    pub(super) fn log<'a>(&mut self, statuses: impl Iterator<Item = Status<'a>>, are_found: bool) {
        for word in self.news(statuses, are_found) {
            match word {
                Word::Missing((entry, parent), reason) => {
                    tracing::warn!(%parent, entry, reason, "not registered, is tried again");
                }
                Word::Stands((entry, parent)) => tracing::info!(%parent, entry, "registered after all"),
            }
        }
    }

    fn news<'a>(&mut self, statuses: impl Iterator<Item = Status<'a>>, are_found: bool) -> Vec<Word> {
        let least = if are_found { PATIENCE } else { 1 };
        let before = std::mem::take(&mut self.said);
        let mut news = Vec::new();
        for Status { entry, parent, standing, accepted_at: _, failures, error } in statuses {
            let place =
                (entry_name(entry.entry_type, entry.source, entry.port, entry.protocol.as_ref()), parent.clone());
            let said = before.get(&place);
            match (standing, error) {
                (Standing::Registered, _) => news.extend(said.is_some().then_some(Word::Stands(place))),
                (Standing::Trying | Standing::Refused, Some(error)) if failures >= least => {
                    if said.is_none_or(|said| said != error) {
                        news.push(Word::Missing(place.clone(), error.to_owned()));
                    }
                    self.said.insert(place, error.to_owned());
                }
                // It is being tried, or on its way out.
                (Standing::Trying | Standing::Refused | Standing::Leaving, _) => {
                    self.said.extend(said.map(|said| (place, said.clone())));
                }
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castgate_wire::registry::{EntryType, Protocol, Register, Scheme};

    const ENTRY: &str = "TS 10.0.0.1:10000 UDP";

    fn entry() -> Register {
        Register {
            source: "10.0.0.1".parse().unwrap(),
            port: 10_000,
            entry_type: EntryType::TunnelServer,
            protocol: Some(Protocol::Udp),
            networks: Vec::new(),
            country: Some("BE".parse().unwrap()),
            fed_by: Vec::new(),
            scheme: Scheme::Http,
        }
    }

    /// What is said of an entry at one parent after so many failures.
    fn look(complaints: &mut Complaints, failures: u32, error: Option<&str>, are_found: bool) -> Vec<Word> {
        let (entry, parent) = (entry(), "10.0.0.9:5632".parse().unwrap());
        let standing = if error.is_some() { Standing::Refused } else { Standing::Registered };
        let status = Status { entry: &entry, parent: &parent, standing, accepted_at: None, failures, error };
        complaints.news([status].into_iter(), are_found)
    }

    fn missing(why: &str) -> Vec<Word> {
        vec![Word::Missing((ENTRY.to_owned(), "10.0.0.9:5632".parse().unwrap()), why.to_owned())]
    }

    fn stands() -> Vec<Word> {
        vec![Word::Stands((ENTRY.to_owned(), "10.0.0.9:5632".parse().unwrap()))]
    }

    #[test]
    fn a_named_parent_that_refuses_is_told_at_once_and_once_for_each_reason() {
        let mut complaints = Complaints::default();
        assert_eq!(look(&mut complaints, 1, Some("401"), false), missing("401"));
        assert_eq!(look(&mut complaints, 2, Some("401"), false), []);
        assert_eq!(look(&mut complaints, 3, Some("403"), false), missing("403"));
        assert_eq!(look(&mut complaints, 4, Some("403"), false), []);
        assert_eq!(look(&mut complaints, 0, None, false), stands());
        assert_eq!(look(&mut complaints, 0, None, false), []);
        assert_eq!(look(&mut complaints, 1, Some("403"), false), missing("403"), "that is another time");
    }

    #[test]
    fn a_parent_that_was_found_is_told_when_it_refuses_for_long() {
        let mut complaints = Complaints::default();
        for failures in 1..4 {
            assert_eq!(look(&mut complaints, failures, Some("401"), true), []);
        }
        assert_eq!(look(&mut complaints, 0, None, true), [], "nobody heard of it");
        assert_eq!(look(&mut complaints, 4, Some("401"), true), missing("401"));
        assert_eq!(look(&mut complaints, 0, None, true), stands());
    }

    #[test]
    fn what_is_announced_no_more_is_forgotten() {
        let mut complaints = Complaints::default();
        assert_eq!(look(&mut complaints, 1, Some("401"), false), missing("401"));
        assert_eq!(complaints.news(std::iter::empty(), false), []);
        assert!(complaints.said.is_empty());
    }
}
