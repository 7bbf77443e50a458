//! The values of the chart `charts/castgate` as types: what `values.schema.json` is generated from.
//!
//! Owns no default: those stand in `values.yaml`, where a person looks for them, and nowhere else. Every field is therefore
//! required, and a default that is forgotten there fails the test below. The operator itself never reads these values; the
//! chart's templates turn them into its options ([`crate::args`]).

use std::collections::BTreeMap;

use castgate_crds::placement::Toleration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// Writes the schema as it is committed.
///
/// # Panics
///
/// Never: a schema is plain JSON.
#[must_use]
pub fn schema() -> String {
    let schema = schemars::generate::SchemaSettings::draft07().into_generator().into_root_schema_for::<Values>();
    serde_json::to_string_pretty(&schema).expect("a schema is plain JSON") + "\n"
}

/// Values of the chart castgate.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Values {
    /// The operator.
    pub operator: Operator,
    /// The agents that it runs.
    pub agents: Agents,
    /// What it watches.
    pub scope: Scope,
    /// Roles for people.
    pub rbac: Rbac,
    /// A policy of the API server.
    pub admission_policy: Switch,
    /// The AMTRELAY zones of the fleet's sources (RFC 8777).
    pub zone: ZoneValues,
    /// What monitoring finds. All of it needs the kinds of the Prometheus operator, but for the dashboard.
    pub metrics: Metrics,
    /// `helm test`.
    pub test: Test,
    /// What Helm hands to a chart within a chart. Not read here.
    #[serde(default)]
    pub global: BTreeMap<String, serde_json::Value>,
}

/// The operator.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operator {
    /// Where it lives.
    pub namespace: Namespace,
    /// Its image.
    pub image: Image,
    /// Secrets of its namespace with which nodes fetch the image.
    #[schemars(schema_with = "names")]
    pub image_pull_secrets: Vec<String>,
    /// How many of it run. Each serves agents; one of them, which holds the Lease, writes. 0 stops it; agents go on.
    #[schemars(range(min = 0, max = 16), with = "i32")]
    pub replicas: u8,
    /// What it logs, as in `info` or `castgate_operator=debug`.
    #[schemars(length(min = 1, max = 1000))]
    pub log: String,
    /// Log as one JSON object a line.
    pub log_json: bool,
    /// Where traces and logs go by OTLP over gRPC, such as `http://collector.observability:4317`; empty: nowhere.
    #[schemars(regex(pattern = r"^(https?://[^\s/]+)?$"))]
    pub otlp_endpoint: String,
    /// How long the deletion of an object waits for the databases above to confirm its BYE.
    #[schemars(schema_with = "span")]
    pub withdraw_timeout: String,
    /// Its priority class; empty: the cluster's default.
    #[schemars(schema_with = "name_or_empty")]
    pub priority_class_name: String,
    /// What a pod of it asks for, and may use.
    pub resources: Resources,
    /// Nodes it may run on: those with all of these labels.
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that it may run on all the same.
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Further labels of its pods.
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of its pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// Keeps a drain of nodes from taking more than one of it at a time; made when there are two or more.
    pub pod_disruption_budget: Switch,
    /// Lets in the two ports of the operator and nothing else.
    pub network_policy: Switch,
}

/// The agents.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agents {
    /// Where objects and agents live. Removing the chart leaves it.
    pub namespace: Namespace,
    /// Their image. Apart from the operator's, so that a new operator restarts no agent.
    pub image: Image,
    /// Secrets of the objects' namespaces with which nodes fetch the image.
    #[schemars(schema_with = "names")]
    pub image_pull_secrets: Vec<String>,
    /// Their priority class; empty: the cluster's default.
    #[schemars(schema_with = "name_or_empty")]
    pub priority_class_name: String,
    /// What they log, as in `info` or `castgate_agent=debug`.
    #[schemars(length(min = 1, max = 1000))]
    pub log: String,
}

/// A namespace.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// Whether the chart makes it and labels it for pod security. The namespace that Helm installs into is never made.
    pub create: bool,
    /// Its name.
    #[schemars(schema_with = "name")]
    pub name: String,
}

/// An image.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Registry and path, without a tag.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9][a-z0-9._:/-]*$"))]
    pub repository: String,
    /// The tag.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"))]
    pub tag: String,
    /// When nodes fetch it.
    pub pull_policy: PullPolicy,
}

/// When a node fetches an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never: somebody brought it.
    Never,
}

/// What a container asks for, and may use: quantities of Kubernetes by resource.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// What is set aside for it.
    #[serde(default)]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, serde_json::Value>,
    /// What it may use.
    #[serde(default)]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, serde_json::Value>,
}

/// What the operator watches.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scope {
    /// Namespaces whose objects are served; none: all. With names, the operator may read and write there and nowhere else.
    #[schemars(schema_with = "names")]
    pub namespaces: Vec<String>,
}

/// Roles for people.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rbac {
    /// Adds our kinds to the roles view, edit and admin that every cluster has.
    pub aggregate: bool,
}

/// Something that is made or not.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Switch {
    /// Whether it is made.
    pub create: bool,
}

/// What monitoring finds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metrics {
    /// Tells Prometheus where the metrics are.
    pub pod_monitor: PodMonitor,
    /// Alerts.
    pub prometheus_rule: Labelled,
    /// A dashboard for Grafana, as a `ConfigMap` that its sidecar finds by the labels.
    pub dashboard: Labelled,
}

/// Tells Prometheus where the metrics are.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodMonitor {
    /// Whether it is made.
    pub create: bool,
    /// How often Prometheus looks.
    #[schemars(schema_with = "span")]
    pub interval: String,
    /// Labels by which Prometheus picks it.
    pub labels: BTreeMap<String, String>,
}

/// The AMTRELAY zones that the operator serves over DNS.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ZoneValues {
    /// Reverse zones of the sources, such as `2.0.192.in-addr.arpa`; none: nothing is served.
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub names: Vec<String>,
    /// The name server that they name; empty: the Service within the cluster.
    #[schemars(length(max = 253))]
    pub name_server: String,
    /// The Service that answers at port 53, UDP and TCP.
    pub service: ZoneService,
}

/// How resolvers reach the zones.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ZoneService {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ServiceKind,
    /// What a load balancer of your cloud wants to know.
    pub annotations: BTreeMap<String, String>,
}

/// The types of Services.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub enum ServiceKind {
    /// For resolvers within the cluster.
    ClusterIP,
    /// At a port of every node.
    NodePort,
    /// At an address of its own.
    LoadBalancer,
}

/// An object that somebody picks by labels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Labelled {
    /// Whether it is made.
    pub create: bool,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// `helm test`: joins a channel through a tunnel.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Test {
    /// The image with the `castgate` command.
    pub image: Image,
    /// Secrets of the operator's namespace with which nodes fetch the image.
    #[schemars(schema_with = "names")]
    pub image_pull_secrets: Vec<String>,
    /// A channel that is carried already, such as `ham:ip:232.1.2.3@192.0.2.10:5004`; empty: one that the test brings and
    /// removes.
    #[schemars(regex(pattern = r"^(ham:ip:\S+)?$"))]
    pub channel: String,
    /// The `TunnelServer` to join at; empty: the first that is Ready.
    #[schemars(schema_with = "name_or_empty")]
    pub server: String,
    /// How long the first packet may take.
    #[schemars(range(min = 1, max = 600), with = "i32")]
    pub seconds: u16,
}

/// A DNS label, as names of namespaces and of most of our objects are.
fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63 })
}

fn name_or_empty(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$", "maxLength": 253 })
}

fn names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 64, "uniqueItems": true,
        "items": { "type": "string", "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", "maxLength": 253 },
    })
}

/// A span of time in one unit, as both Prometheus and our options take it.
fn span(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[1-9][0-9]*(ms|s|m|h)$", "maxLength": 12 })
}

/// A person writes `1` as readily as `"1"` or `500m`.
fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {
            "anyOf": [
                { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$" },
                { "type": "number", "minimum": 0 },
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use crate::observe::{Carried, Metrics};
    use clap::Parser as _;
    use std::path::PathBuf;

    #[test]
    fn the_committed_schema_is_the_generated_one() {
        let path = chart().join("values.schema.json");
        if std::env::var_os("CASTGATE_BLESS").is_some() {
            std::fs::write(&path, schema()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == schema(), "{} is stale: run this test with CASTGATE_BLESS=1", path.display());
    }

    #[test]
    fn values_yaml_holds_every_value_and_no_other() {
        let values = read_defaults();
        assert_eq!(values.operator.replicas, 2);
        assert_eq!(values.operator.namespace.name, "castgate-system");
        assert!(values.scope.namespaces.is_empty());
        let forgotten = defaults().replace("  replicas: 2\n", "");
        assert!(serde_saphyr::from_str::<Values>(&forgotten).unwrap_err().to_string().contains("replicas"));
        let misspelt = defaults().replace("  replicas: 2\n", "  replicas: 2\n  replica: 3\n");
        assert!(serde_saphyr::from_str::<Values>(&misspelt).unwrap_err().to_string().contains("replica"));
    }

    #[test]
    fn the_withdraw_timeout_of_the_chart_is_one_that_the_operator_reads() {
        let span = castgate_crds::units::TimeSpan::new(&read_defaults().operator.withdraw_timeout);
        let span: std::time::Duration = span.parse().unwrap();
        assert_eq!(span.as_secs(), 20);
    }

    #[test]
    fn no_whole_number_is_without_bounds() {
        fn check(path: &str, value: &serde_json::Value) {
            if value["type"] == "integer" {
                assert!(value["minimum"].is_number() && value["maximum"].is_number(), "{path} has no bounds");
            }
            for (key, inner) in value.as_object().into_iter().flatten() {
                check(&format!("{path}.{key}"), inner);
            }
        }
        check("", &serde_json::from_str(&schema()).unwrap());
    }

    #[test]
    fn the_operator_reads_the_options_that_the_chart_writes() {
        for (golden, namespaces, image) in [
            ("default", 0, "castgate.local/agent:dev"),
            ("everything", 2, "registry.example.net:5000/castgate/agent:1.2.0"),
        ] {
            let rendered = std::fs::read_to_string(chart().join(format!("tests/golden/{golden}.yaml"))).unwrap();
            let deployment =
                rendered.split("\n---\n").find(|document| document.contains("\nkind: Deployment\n")).unwrap();
            let lines = deployment.lines().skip_while(|line| line.trim() != "args:").skip(1);
            let words = lines.map_while(|line| line.trim().strip_prefix("- ")).map(|word| word.trim_matches('"'));
            let own = ["castgate-operator", "--namespace", "castgate-system", "--pod", "castgate-operator-0"];
            let args = Args::try_parse_from(own.into_iter().chain(words)).unwrap();
            assert_eq!((args.watch_namespaces.len(), args.agent_image.as_str()), (namespaces, image));
            assert!(args.control_host().unwrap().starts_with("castgate-operator."), "{}", args.control_endpoint);
        }
    }

    #[test]
    fn alerts_and_dashboard_ask_for_metrics_that_exist() {
        let metrics = Metrics::new();
        metrics.agent_connected("server");
        metrics.agent_refused("no-token");
        metrics.api_written("castgate-fleet", "create");
        let carried = |drops: u64| Carried { drops: BTreeMap::from([("own".to_owned(), drops)]), ..Carried::default() };
        metrics.carried("n/ts-a@n1", "n", "a", carried(0));
        metrics.carried("n/ts-a@n1", "n", "a", carried(1));
        let page = metrics.text();
        let mut asked = 0;
        for file in ["rules.yaml", "dashboard.json"] {
            let text = std::fs::read_to_string(chart().join("monitoring").join(file)).unwrap();
            let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
            for name in text.split(|letter| !is_name(letter)).filter(|word| word.starts_with("castgate_")) {
                let shown =
                    page.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
                assert!(shown, "{file} asks for {name}, which is not in\n{page}");
                asked += 1;
            }
        }
        assert!(asked > 10, "only {asked} names were found");
    }

    fn chart() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/castgate")
    }

    fn defaults() -> String {
        std::fs::read_to_string(chart().join("values.yaml")).unwrap()
    }

    fn read_defaults() -> Values {
        serde_saphyr::from_str(&defaults()).unwrap()
    }
}
