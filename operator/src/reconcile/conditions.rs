//! Conditions: what is said about an object, and since when.
//!
//! A time changes only when the status of its condition does, so that saying the same again is no change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// One thing to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saying {
    /// Type of the condition.
    pub kind: &'static str,
    /// Whether it holds; `None`: nobody knows.
    pub holds: Option<bool>,
    /// One word, for programs.
    pub reason: &'static str,
    /// One sentence, for people.
    pub message: String,
}

impl Saying {
    /// Says that `kind` holds, or does not.
    pub fn new(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(holds), reason, message: message.into() }
    }
}

/// Longest message that the API server takes.
const MESSAGE_LENGTH_MAX: usize = 32_768;

/// The conditions of an object, from what they were and what there is to say.
#[must_use]
pub fn conditions(before: &[Condition], sayings: &[Saying], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let condition = |saying: &Saying| {
        let status = match saying.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let same = before.iter().find(|condition| condition.type_ == saying.kind && condition.status == status);
        let message: String = saying.message.chars().take(MESSAGE_LENGTH_MAX).collect();
        Condition {
            type_: saying.kind.to_owned(),
            status: status.to_owned(),
            reason: saying.reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: same
                .map_or(Time(whole_seconds(now)), |condition| condition.last_transition_time.clone()),
        }
    };
    sayings.iter().map(condition).collect()
}

/// What the API server keeps of a time.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Conditions whose status is another than before: worth an event.
#[must_use]
pub fn flips<'a>(before: &[Condition], after: &'a [Condition]) -> Vec<&'a Condition> {
    let flipped = |condition: &&Condition| {
        let was = before.iter().find(|before| before.type_ == condition.type_);
        was.map(|was| (&was.status, &was.reason)) != Some((&condition.status, &condition.reason))
    };
    after.iter().filter(flipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_time_moves_only_when_the_status_flips() {
        let ready = |holds, message: &str| [Saying::new("Ready", holds, "Because", message)];
        let first = conditions(&[], &ready(false, "one"), Some(1), at(10));
        let same = conditions(&first, &ready(false, "two"), Some(2), at(20));
        assert_eq!(same[0].last_transition_time, first[0].last_transition_time);
        assert_eq!((same[0].message.as_str(), same[0].observed_generation), ("two", Some(2)));
        let flipped = conditions(&same, &ready(true, "three"), Some(2), at(30));
        assert_eq!(flipped[0].last_transition_time.0, at(30));
    }

    #[test]
    fn another_message_alone_is_no_flip() {
        let saying = |reason, message: &str| [Saying::new("Ready", false, reason, message)];
        let before = conditions(&[], &saying("A", "one"), None, at(1));
        assert!(flips(&before, &conditions(&before, &saying("A", "two"), None, at(2))).is_empty());
        assert_eq!(flips(&before, &conditions(&before, &saying("B", "two"), None, at(2))).len(), 1);
        assert_eq!(flips(&[], &before).len(), 1);
    }
}
