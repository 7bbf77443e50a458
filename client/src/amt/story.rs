//! What a search has tried, for the one sentence that says why there is no relay.

use std::collections::VecDeque;
use std::net::SocketAddr;

use castgate_endpoint::amt::discovery::{AttemptId, Channel, NoRelay, QuestionId};

/// Steps that are kept; discovery tries fewer relays and names in one search.
const STEPS_MAX: usize = 48;
/// Steps that a sentence tells.
const TOLD_MAX: usize = 8;

/// The steps of the search that runs, or of the last one.
#[derive(Debug, Default)]
pub(super) struct Story {
    steps: VecDeque<Step>,
    /// The search is over: the next step begins another.
    is_over: bool,
}

#[derive(Debug)]
enum Step {
    /// A question that led nowhere, or has not been answered.
    Question { id: QuestionId, trouble: String },
    /// A relay, and how it failed if that is known.
    Relay { attempt: AttemptId, relay: SocketAddr, failure: Option<String> },
}

impl Story {
    /// A relay is tried.
    pub(super) fn tried(&mut self, attempt: AttemptId, relay: SocketAddr) {
        self.push(Step::Relay { attempt, relay, failure: None });
    }

    /// A question is asked; what is told of it while there is no answer.
    pub(super) fn asks(&mut self, id: QuestionId, unanswered: String) {
        self.push(Step::Question { id, trouble: unanswered });
    }

    /// A question was answered, and why that leads nowhere if it does. A search that has ended keeps what was told of it.
    pub(super) fn answered(&mut self, answered: QuestionId, why: Option<String>) {
        if self.is_over {
            return;
        }
        let place = |step: &Step| matches!(step, Step::Question { id, .. } if *id == answered);
        match (self.steps.iter().position(place), why) {
            (Some(place), Some(why)) => self.steps[place] = Step::Question { id: answered, trouble: why },
            (Some(place), None) => drop(self.steps.remove(place)),
            (None, _) => {}
        }
    }

    /// It is known how an attempt failed: the end of a sentence about the relay.
    pub(super) fn failed(&mut self, failed: AttemptId, how: String) {
        let of_attempt = self.steps.iter_mut().rev().find_map(|step| match step {
            Step::Relay { attempt, failure, .. } if *attempt == failed => Some(failure),
            Step::Relay { .. } | Step::Question { .. } => None,
        });
        if let Some(failure) = of_attempt {
            *failure = Some(how);
        }
    }

    /// The same, by the relay.
    pub(super) fn failed_relay(&mut self, at: SocketAddr, how: &str) {
        for step in &mut self.steps {
            if let Step::Relay { relay, failure, .. } = step
                && *relay == at
            {
                *failure = Some(how.to_owned());
            }
        }
    }

    /// A relay was found.
    pub(super) fn found(&mut self) {
        self.steps.clear();
        self.is_over = true;
    }

    /// The search has ended without a relay.
    pub(super) fn end(&mut self, channel: Channel, reason: NoRelay) -> String {
        self.is_over = true;
        let none = match reason {
            NoRelay::NoneForSource => vec!["its source publishes that it has none".to_owned()],
            NoRelay::NotFound | NoRelay::NotConnected => Vec::new(),
        };
        let parts: Vec<String> = none.into_iter().chain(self.parts("does not answer")).collect();
        let tried = if parts.is_empty() { "nothing says where to look".to_owned() } else { parts.join("; ") };
        format!("there is no AMT relay for {channel}: {tried}")
    }

    /// How far the search has come.
    pub(super) fn so_far(&self) -> String {
        let parts: Vec<String> = self.parts("has not answered yet").collect();
        if parts.is_empty() {
            return "no AMT relay is known yet".to_owned();
        }
        format!("no AMT relay is in use: {}", parts.join("; "))
    }

    fn parts(&self, unknown: &str) -> impl Iterator<Item = String> {
        let mut parts: Vec<String> = Vec::new();
        for step in &self.steps {
            let part = match step {
                Step::Question { trouble, .. } => trouble.clone(),
                Step::Relay { relay, failure, .. } => format!("{relay} {}", failure.as_deref().unwrap_or(unknown)),
            };
            // Both families of one name tend to fail alike.
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        let more = parts.len().saturating_sub(TOLD_MAX);
        parts.truncate(TOLD_MAX);
        parts.into_iter().chain((more > 0).then(|| format!("and {more} more")))
    }

    fn push(&mut self, step: Step) {
        if std::mem::take(&mut self.is_over) {
            self.steps.clear();
        }
        if self.steps.len() < STEPS_MAX {
            self.steps.push_back(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_tells_what_was_asked_and_who_did_not_answer() {
        let mut story = Story::default();
        story.asks(QuestionId(1), "nobody has told us A".to_owned());
        story.asks(QuestionId(2), "nobody has told us B".to_owned());
        story.asks(QuestionId(3), "nobody has told us C".to_owned());
        story.answered(QuestionId(2), None);
        story.answered(QuestionId(3), Some("1.2.0.192.in-addr.arpa has no AMTRELAY record".to_owned()));
        for place in 1..=3 {
            story.tried(AttemptId(place), relay(u8::try_from(place).unwrap()));
        }
        story.failed(AttemptId(2), "cannot be reached: no route".to_owned());
        story.failed_relay(relay(3), "takes no new gateways");
        assert_eq!(
            story.end(channel(), NoRelay::NotConnected),
            "there is no AMT relay for (192.0.2.1, 232.1.2.3): nobody has told us A; \
             1.2.0.192.in-addr.arpa has no AMTRELAY record; \
             198.51.100.1:2268 does not answer; 198.51.100.2:2268 cannot be reached: no route; \
             198.51.100.3:2268 takes no new gateways"
        );
    }

    #[test]
    fn each_search_has_a_sentence_of_its_own() {
        let mut story = Story::default();
        story.tried(AttemptId(1), relay(1));
        story.end(channel(), NoRelay::NotConnected);
        story.tried(AttemptId(2), relay(2));
        assert_eq!(story.so_far(), "no AMT relay is in use: 198.51.100.2:2268 has not answered yet");
        story.found();
        assert_eq!(story.so_far(), "no AMT relay is known yet");
    }

    #[test]
    fn a_long_story_is_cut_short() {
        let mut story = Story::default();
        (0..100).for_each(|place| story.tried(AttemptId(place.into()), relay(place)));
        assert_eq!(story.steps.len(), STEPS_MAX);
        assert!(story.end(channel(), NoRelay::NotConnected).ends_with("; and 40 more"));
        let mut empty = Story::default();
        assert!(empty.end(channel(), NoRelay::NotFound).ends_with("nothing says where to look"));
    }

    fn relay(place: u8) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, place], 2268))
    }

    fn channel() -> Channel {
        Channel { source: Some("192.0.2.1".parse().unwrap()), group: "232.1.2.3".parse().unwrap() }
    }
}
