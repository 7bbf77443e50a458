//! Events of events.k8s.io: one when the state of an object flips, never one for a tunnel or a packet.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::Value;

/// Longest note that the API server takes.
const NOTE_OCTETS_MAX: usize = 1024;

/// Writes events.
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events of this replica.
    #[must_use]
    pub fn new(client: Client, pod: &str) -> Self {
        let reporter = Reporter { controller: "castgate-operator".to_owned(), instance: Some(pod.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// A condition holds now, or no more.
    pub async fn condition(&self, object: &Value, condition: &Condition) {
        // Ready says it all; the others follow from it, and Accepted matters when it is refused.
        let wrong = match (condition.type_.as_str(), condition.status.as_str()) {
            ("Ready", "True") => false,
            ("Ready", _) | ("Accepted", "False") => true,
            _ => return,
        };
        self.publish(object, wrong, &condition.reason, "Observe", &condition.message).await;
    }

    /// A deleted object went before its registrations did.
    pub async fn left_behind(&self, object: &Value, what: &str) {
        let note = format!("let go before its registrations were taken back, which then end by themselves: {what}");
        self.publish(object, true, "RegistrationsLeft", "Withdraw", &note).await;
    }

    async fn publish(&self, object: &Value, wrong: bool, reason: &str, action: &str, note: &str) {
        let event = Event {
            type_: if wrong { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(shortened(note)),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &reference(object)).await {
            tracing::warn!(%error, reason, "event not written");
        }
    }
}

fn reference(object: &Value) -> ObjectReference {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let metadata = &object["metadata"];
    ObjectReference {
        api_version: text(&object["apiVersion"]),
        kind: text(&object["kind"]),
        name: text(&metadata["name"]),
        namespace: text(&metadata["namespace"]),
        uid: text(&metadata["uid"]),
        resource_version: text(&metadata["resourceVersion"]),
        field_path: None,
    }
}

fn shortened(note: &str) -> String {
    let mut end = note.len().min(NOTE_OCTETS_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_letters() {
        let note = "é".repeat(1000);
        let cut = shortened(&note);
        assert!(cut.len() <= NOTE_OCTETS_MAX && note.starts_with(&cut));
        assert_eq!(shortened("short"), "short");
    }
}
