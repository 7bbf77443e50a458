//! Objects that are deleted: they are held until their registrations are taken back, and no longer than a bounded time. Pure.

use castgate_crds::tunnel_endpoint::{EndpointRole, TunnelEndpoint};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::time::Duration;

use crate::index::{COMPONENT, Index, OWNER};
use castgate_planner::ObjectName;
use castgate_planner::cluster::names;

/// What becomes of an object that is being deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Withdrawal {
    /// It is held: what for, and how much longer at most.
    Waits(String, Duration),
    /// Everything is taken back.
    Done,
    /// Time is up: what was not taken back goes by itself, after two intervals of the database.
    GivenUp(String),
}

/// Looks at one object with a deletion time.
#[must_use]
pub fn withdrawal(
    index: &Index,
    kind: &str,
    name: &ObjectName,
    object: &Value,
    bound: Duration,
    now: Timestamp,
) -> Withdrawal {
    // Only kinds that agents run for are held.
    let (Some(component), Some(short)) = (names::component(kind), names::prefix(kind)) else { return Withdrawal::Done };
    let pods = index.pods.iter().filter(|pod| {
        let labels = &pod["metadata"]["labels"];
        pod["metadata"]["namespace"] == *name.namespace && labels[COMPONENT] == component && labels[OWNER] == *name.name
    });
    let agents = format!("{}/{short}-{}@", name.namespace, name.name);
    let left = registrations_left(&index.endpoints, &name.namespace, &agents);
    let what = match (pods.count(), left) {
        (0, None) => return Withdrawal::Done,
        (0, Some(left)) => left,
        (pods, _) => format!("{pods} of its pods still run"),
    };
    let deleted = object["metadata"]["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let bound = SignedDuration::try_from(bound).unwrap_or(SignedDuration::MAX);
    let waited = deleted.map_or(SignedDuration::ZERO, |deleted| now.duration_since(deleted));
    match Duration::try_from(bound - waited) {
        Ok(rest) if !rest.is_zero() => Withdrawal::Waits(what, rest),
        _ => Withdrawal::GivenUp(what),
    }
}

/// What the adapter of the namespace still holds for these agents, as one sentence.
fn registrations_left(endpoints: &[TunnelEndpoint], namespace: &str, agents: &str) -> Option<String> {
    let adapters = endpoints.iter().filter(|endpoint| {
        endpoint.spec.role == EndpointRole::Adapter && endpoint.metadata.namespace.as_deref() == Some(namespace)
    });
    let registrations = adapters.filter_map(|adapter| adapter.status.as_ref()).flat_map(|status| &status.registrations);
    let mut left = registrations.filter(|row| row.agent.as_deref().is_some_and(|agent| agent.starts_with(agents)));
    left.next().map(|row| format!("{} at {} is {}", row.entry, row.parent, row.state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use castgate_crds::tunnel_endpoint::{Registration, TunnelEndpointSpec, TunnelEndpointStatus};
    use serde_json::json;

    const BOUND: Duration = Duration::from_secs(20);

    fn name() -> ObjectName {
        ObjectName { namespace: "castgate".to_owned(), name: "edge".to_owned() }
    }

    fn look(index: &Index, seconds: i64) -> Withdrawal {
        let deleted: Timestamp = "2026-11-26T10:00:00Z".parse().unwrap();
        let object = json!({"metadata": {"deletionTimestamp": deleted.to_string()}});
        withdrawal(index, "TunnelServer", &name(), &object, BOUND, deleted + SignedDuration::from_secs(seconds))
    }

    fn pod(owner: &str) -> Value {
        json!({"metadata": {"namespace": "castgate", "labels": {COMPONENT: "server", OWNER: owner}}})
    }

    fn adapter(agent: &str) -> TunnelEndpoint {
        let spec = TunnelEndpointSpec {
            role: EndpointRole::Adapter,
            owner_name: "castgate".to_owned(),
            node: "n1".to_owned(),
        };
        let mut endpoint = TunnelEndpoint::new("adapter-n1", spec);
        endpoint.metadata.namespace = Some("castgate".to_owned());
        let registration = Registration {
            parent: "tds".to_owned(),
            entry: "TS 192.0.2.1:10100 UDP".to_owned(),
            state: "leaving".to_owned(),
            agent: Some(agent.to_owned()),
            ..Registration::default()
        };
        endpoint.status =
            Some(TunnelEndpointStatus { registrations: vec![registration], ..TunnelEndpointStatus::default() });
        endpoint
    }

    #[test]
    fn it_waits_for_its_own_pods_and_not_for_those_of_others() {
        let with = |owner| Index { pods: vec![pod(owner)], ..Index::default() };
        assert!(
            matches!(look(&with("edge"), 1), Withdrawal::Waits(what, rest) if what.contains("1 of its pods") && rest == Duration::from_secs(19))
        );
        assert_eq!(look(&with("other"), 1), Withdrawal::Done);
    }

    #[test]
    fn it_waits_for_registrations_that_are_being_taken_back() {
        let with = |agent: &str| Index { endpoints: vec![adapter(agent)], ..Index::default() };
        assert!(
            matches!(look(&with("castgate/ts-edge@n1"), 1), Withdrawal::Waits(what, _) if what == "TS 192.0.2.1:10100 UDP at tds is leaving")
        );
        assert_eq!(look(&with("castgate/ts-edge-2@n1"), 1), Withdrawal::Done);
    }

    #[test]
    fn it_gives_up_after_the_bound() {
        let index = Index { pods: vec![pod("edge")], ..Index::default() };
        assert!(matches!(look(&index, 20), Withdrawal::GivenUp(_)));
    }
}
