//! The counters of the operator, and those of the fleet as its agents report them.
//!
//! Labels are bounded: names come from objects of the cluster, reasons from our own enums; what an agent brings is cut.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Reasons of drops that one agent may bring: a dataplane has about twenty.
const DROP_REASONS_MAX: usize = 64;

/// Seconds of one pass of the reconciler: from a glance to a slow API server.
const RECONCILE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    agents_connected: Family<Role, Gauge>,
    agent_streams: Counter,
    agent_refusals: Family<Reason, Counter>,
    endpoint_writes: Counter,
    endpoint_fenced: Counter,
    api_writes: Family<Write, Counter>,
    reconcile_seconds: Histogram,
    snapshots_published: Counter,
    tunnels: Family<Server, Gauge>,
    channels: Family<Server, Gauge>,
    packets_dropped: Family<Dropped, Counter>,
    /// What each agent reported last: the base of sums and differences.
    reported: Mutex<BTreeMap<String, Reported>>,
}

/// What one agent of a tunnel server carries, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// Tunnels now.
    pub tunnels: u64,
    /// Channels that some tunnel has joined now.
    pub channels: u64,
    /// Datagrams dropped since the agent started, by reason.
    pub drops: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Reported {
    server: Server,
    carried: Carried,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Role {
    role: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    manager: String,
    verb: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Server {
    namespace: String,
    server: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    namespace: String,
    server: String,
    reason: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that count from zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("castgate"),
            agents_connected: Family::default(),
            agent_streams: Counter::default(),
            agent_refusals: Family::default(),
            endpoint_writes: Counter::default(),
            endpoint_fenced: Counter::default(),
            api_writes: Family::default(),
            reconcile_seconds: Histogram::new(RECONCILE_BUCKETS),
            snapshots_published: Counter::default(),
            tunnels: Family::default(),
            channels: Family::default(),
            packets_dropped: Family::default(),
            reported: Mutex::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "agents_connected",
            "Agents whose stream this replica holds",
            metrics.agents_connected.clone(),
        );
        registry.register("agent_streams", "Streams that agents opened here", metrics.agent_streams.clone());
        registry.register("agent_refusals", "Streams that were refused, by reason", metrics.agent_refusals.clone());
        registry.register(
            "endpoint_writes",
            "Writes of the status of TunnelEndpoints",
            metrics.endpoint_writes.clone(),
        );
        registry.register(
            "endpoint_fenced",
            "Endpoints left to the replica that holds a newer stream",
            metrics.endpoint_fenced.clone(),
        );
        registry.register("api_writes", "Writes to the API server", metrics.api_writes.clone());
        registry.register("reconcile_seconds", "Time of one pass of the reconciler", metrics.reconcile_seconds.clone());
        registry.register(
            "snapshots_published",
            "Snapshots that changed and were published to their agents",
            metrics.snapshots_published.clone(),
        );
        registry.register("tunnels", "Tunnels, of the agents connected here", metrics.tunnels.clone());
        registry.register(
            "channels",
            "Channels that some tunnel has joined, summed over the agents connected here",
            metrics.channels.clone(),
        );
        registry.register(
            "packets_dropped",
            "Datagrams that agents dropped while connected here, by reason",
            metrics.packets_dropped.clone(),
        );
        metrics
    }

    /// An agent's stream has begun.
    pub fn agent_connected(&self, role: &str) {
        self.agent_streams.inc();
        self.agents_connected.get_or_create(&Role { role: role.to_owned() }).inc();
    }

    /// An agent's stream has ended.
    pub fn agent_disconnected(&self, role: &str) {
        self.agents_connected.get_or_create(&Role { role: role.to_owned() }).dec();
    }

    /// A stream was refused.
    pub fn agent_refused(&self, reason: &'static str) {
        self.agent_refusals.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    /// The status of an endpoint was written.
    pub fn endpoint_written(&self) {
        self.endpoint_writes.inc();
    }

    /// An endpoint was left to another replica.
    pub fn endpoint_fenced(&self) {
        self.endpoint_fenced.inc();
    }

    /// Something was written to the API server.
    pub fn api_written(&self, manager: &'static str, verb: &'static str) {
        self.api_writes.get_or_create(&Write { manager: manager.to_owned(), verb: verb.to_owned() }).inc();
    }

    /// One pass of the reconciler took that long.
    pub fn reconciled(&self, took: Duration) {
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// So many snapshots changed.
    pub fn snapshots_published(&self, count: u64) {
        self.snapshots_published.inc_by(count);
    }

    /// An agent of a tunnel server reports what it carries.
    pub fn carried(&self, agent: &str, namespace: &str, server: &str, carried: Carried) {
        let server = Server { namespace: namespace.to_owned(), server: server.to_owned() };
        let mut reported = self.reported.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = reported.get(agent).map(|reported| &reported.carried.drops);
        for (reason, count) in carried.drops.iter().take(DROP_REASONS_MAX) {
            let known = before.and_then(|drops| drops.get(reason)).copied();
            // Fewer than before: the agent has started anew and counts from zero. Never seen: what it counted before its
            // stream began belongs to the past of another replica.
            let more = match known {
                Some(known) => count.checked_sub(known).unwrap_or(*count),
                None if before.is_some() => *count,
                None => 0,
            };
            let Server { namespace, server } = server.clone();
            let dropped = Dropped { namespace, server, reason: label(reason) };
            self.packets_dropped.get_or_create(&dropped).inc_by(more);
        }
        reported.insert(agent.to_owned(), Reported { server: server.clone(), carried });
        self.sum(&reported, &server);
    }

    /// The agent is connected here no more: its numbers leave the sums.
    pub fn carried_no_more(&self, agent: &str) {
        let mut reported = self.reported.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(Reported { server, .. }) = reported.remove(agent) {
            self.sum(&reported, &server);
        }
    }

    /// Everything as text for a scraper.
    ///
    /// # Panics
    /// Never: a text takes what is written to it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("a text takes what is written to it");
        page
    }

    fn sum(&self, reported: &BTreeMap<String, Reported>, server: &Server) {
        let agents: Vec<_> = reported.values().filter(|reported| reported.server == *server).collect();
        if agents.is_empty() {
            self.tunnels.remove(server);
            self.channels.remove(server);
            return;
        }
        let total = |of: fn(&Carried) -> u64| {
            let sum = agents.iter().map(|agent| of(&agent.carried)).fold(0, u64::saturating_add);
            i64::try_from(sum).unwrap_or(i64::MAX)
        };
        self.tunnels.get_or_create(server).set(total(|carried| carried.tunnels));
        self.channels.get_or_create(server).set(total(|carried| carried.channels));
    }
}

/// A reason from outside as a label: short, and of letters that nobody must quote.
fn label(reason: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-' || letter == '.';
    let label: String = reason.chars().filter(|letter| plain(*letter)).take(48).collect();
    if label.is_empty() { "other".to_owned() } else { label }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_shown_under_its_name() {
        let metrics = Metrics::new();
        metrics.agent_connected("server");
        metrics.agent_refused("no-token");
        metrics.endpoint_written();
        metrics.endpoint_fenced();
        metrics.api_written("castgate-fleet", "create");
        metrics.reconciled(Duration::from_millis(3));
        metrics.snapshots_published(2);
        metrics.carried("isp/ts-edge@n1", "isp", "edge", carried(3, 1, 0));
        metrics.carried("isp/ts-edge@n1", "isp", "edge", carried(3, 1, 5));
        let page = metrics.text();
        for line in [
            r#"castgate_agents_connected{role="server"} 1"#,
            "castgate_agent_streams_total 1",
            r#"castgate_agent_refusals_total{reason="no-token"} 1"#,
            "castgate_endpoint_writes_total 1",
            "castgate_endpoint_fenced_total 1",
            r#"castgate_api_writes_total{manager="castgate-fleet",verb="create"} 1"#,
            "castgate_reconcile_seconds_count 1",
            "castgate_snapshots_published_total 2",
            r#"castgate_tunnels{namespace="isp",server="edge"} 3"#,
            r#"castgate_channels{namespace="isp",server="edge"} 1"#,
            r#"castgate_packets_dropped_total{namespace="isp",server="edge",reason="no_tunnel"} 5"#,
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn numbers_of_the_agents_of_one_server_are_summed_and_leave_with_them() {
        let metrics = Metrics::new();
        metrics.carried("isp/ts-edge@n1", "isp", "edge", carried(3, 1, 0));
        metrics.carried("isp/ts-edge@n2", "isp", "edge", carried(4, 1, 0));
        metrics.carried("isp/ts-core@n1", "isp", "core", carried(9, 1, 0));
        assert!(metrics.text().contains(r#"castgate_tunnels{namespace="isp",server="edge"} 7"#));
        metrics.carried_no_more("isp/ts-edge@n1");
        assert!(metrics.text().contains(r#"castgate_tunnels{namespace="isp",server="edge"} 4"#));
        metrics.carried_no_more("isp/ts-edge@n2");
        assert!(!metrics.text().contains(r#"castgate_tunnels{namespace="isp",server="edge"}"#));
    }

    #[test]
    fn drops_go_on_when_an_agent_starts_anew_and_the_past_is_not_counted_twice() {
        let metrics = Metrics::new();
        for (drops, total) in [(100, 0), (107, 7), (2, 9), (2, 9)] {
            metrics.carried("isp/ts-edge@n1", "isp", "edge", carried(0, 0, drops));
            let line = format!(
                r#"castgate_packets_dropped_total{{namespace="isp",server="edge",reason="no_tunnel"}} {total}"#
            );
            assert!(metrics.text().contains(&line), "after {drops}:\n{}", metrics.text());
        }
    }

    #[test]
    fn an_agent_cannot_make_labels_without_end() {
        let metrics = Metrics::new();
        let drops: BTreeMap<_, _> = (0..1000).map(|number| (format!("reason {number:04}\"\n"), 1)).collect();
        metrics.carried("isp/ts-edge@n1", "isp", "edge", Carried { drops, ..Carried::default() });
        let lines = metrics.text().lines().filter(|line| line.starts_with("castgate_packets_dropped_total{")).count();
        assert_eq!(lines, DROP_REASONS_MAX);
    }

    fn carried(tunnels: u64, channels: u64, drops: u64) -> Carried {
        Carried { tunnels, channels, drops: [("no_tunnel".to_owned(), drops)].into() }
    }
}
