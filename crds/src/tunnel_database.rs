//! `TunnelDatabase`: the registry that clients ask for the nearest tunnel server.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hierarchy::{self, Hierarchy, SecretRef};
use crate::placement::Toleration;
use crate::schema::{self, rule, rule_at};
use crate::tunnel_assignment_policy::RouteTable;
use crate::units::TimeSpan;

/// A tunnel database knows which tunnel servers, or which further databases, serve a network or a country.
#[expect(clippy::duplicated_attributes, reason = "every printer column has a type and a path")]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "castgate.dev",
    version = "v1alpha1",
    kind = "TunnelDatabase",
    plural = "tunneldatabases",
    shortname = "tdb",
    category = "castgate",
    namespaced,
    derive = "PartialEq",
    status = "TunnelDatabaseStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    selectable = ".spec.hierarchy.country",
    doc = "A tunnel database knows which tunnel servers, or which further databases, serve a network or a country.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.answering"),
    printcolumn(name = "Entries", type_ = "integer", json_path = ".status.entries"),
    printcolumn(name = "Registered", type_ = "string", json_path = ".status.registrations"),
    printcolumn(name = "Service", type_ = "string", json_path = ".status.service"),
    printcolumn(name = "Country", type_ = "string", json_path = ".spec.hierarchy.country", priority = 1),
    printcolumn(name = "Store", type_ = "string", json_path = ".spec.store.type", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".peers.serve",
        "!has(self.peers) || self.peers.serve || self.replicas <= 1",
        "replicas give their entries to each other: with more than one, serve is true"),
    rule_at(".peers", "!has(self.peers) || self.store.type != 'Etcd'",
        "peers are for store type Embedded: databases with one etcd share one view already"),
]))]
pub struct TunnelDatabaseSpec {
    /// How many copies of it a cluster runs, each on a node of its own. They hold the same entries: one that is added has them before
    /// it answers, and one that goes leaves none behind that only it had. One machine (`castgate up`) runs one.
    #[serde(default = "replicas")]
    #[schemars(schema_with = "schema::database_replicas")]
    pub replicas: u32,
    /// Databases of others that hold the same entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Peers")]
    pub peers: Option<Peers>,
    /// Where it answers.
    #[serde(default)]
    pub http: Http,
    /// Where it registers itself; a root registers nowhere.
    #[serde(default)]
    pub hierarchy: Hierarchy,
    /// How often those registered here refresh; an entry not refreshed for two intervals is removed.
    #[serde(default = "hierarchy::update_interval")]
    #[schemars(schema_with = "schema::interval")]
    pub update_interval: TimeSpan,
    /// Which Autonomous System a network belongs to: for accounts with asns, and for policies that name no table of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RouteTable")]
    pub route_table: Option<RouteTable>,
    /// Whether every account is as one with strictSource.
    #[serde(default)]
    pub strict_source: bool,
    /// Countries by the name of their region, as in Benelux: [BE, NL, LU]. Every country that is not named stays in its region of UN
    /// M49. Clients of a country without servers are sent to those of its region.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::regions")]
    pub regions: BTreeMap<String, Vec<String>>,
    /// How clients reach it in a cluster.
    #[serde(default)]
    pub service: Service,
    /// Where its entries are kept.
    #[serde(default)]
    pub store: Store,
    /// The volume that its entries live on; it never changes. With store type Etcd there is none.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = [
        rule("self == oldSelf", "storage never changes: make another database and let servers register there"),
    ]))]
    pub storage: Storage,
    /// Nodes it may run on: those with all of these labels; without any, every node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that it may run on all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
}

/// Databases of others that hold the same entries as this one: each takes what the others have (TRANSFER), and whoever registers
/// with one of them registers with all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Peers {
    /// Where they answer, such as `http://tds.example.net:5632`, `https://tds.example.net:5632` or `192.0.2.1`. Without a port 5632 is
    /// meant.
    #[schemars(schema_with = "schema::peers")]
    pub addresses: Vec<String>,
    /// The Secret with the login and the password that all of them have in common, under the keys `login` and `password`. Replicas
    /// of this database use it among themselves, too.
    pub credentials_secret_ref: SecretRef,
    /// The Secret with the certificates that vouch for those over https, under the key `ca.crt`; by default those that the agent's
    /// system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub ca_secret_ref: Option<SecretRef>,
    /// Whether they get our entries; without, we only take theirs.
    #[serde(default = "yes")]
    pub serve: bool,
}

fn replicas() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// How clients reach a database in a cluster. The address they come from is always kept: matching goes by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".nodePort", "!has(self.nodePort) || self.type != 'ClusterIP'", "nodePort needs type NodePort or LoadBalancer"),
]))]
pub struct Service {
    /// Who reaches it: the cluster alone, every node's address, or a load balancer's.
    #[serde(default, rename = "type")]
    pub service_type: ServiceType,
    /// The port of every node; by default one that Kubernetes picks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::port")]
    pub node_port: Option<u16>,
}

/// The words of Kubernetes for who reaches a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Pods and nodes of the cluster.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// Whoever reaches a node.
    NodePort,
    /// Whoever reaches the load balancer.
    LoadBalancer,
}

/// Where the entries of a database are kept: on a volume of each replica, or in an etcd that all replicas share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule_at(".endpoints", "self.type != 'Etcd' || self.endpoints.size() > 0", "type Etcd needs endpoints"),
    rule("self.type == 'Etcd' || (self.endpoints.size() == 0 && !has(self.prefix) && !has(self.credentialsSecretRef) && \
          !has(self.tlsSecretRef))", "endpoints, prefix, credentialsSecretRef and tlsSecretRef are for type Etcd"),
    rule_at(".endpoints",
        "self.endpoints.all(e, e.startsWith('http://')) || self.endpoints.all(e, e.startsWith('https://'))",
        "endpoints begin either all with http:// or all with https://"),
    rule_at(".tlsSecretRef", "self.type != 'Etcd' || has(self.tlsSecretRef) == self.endpoints.exists(e, e.startsWith('https://'))",
        "https:// endpoints, and no others, need tlsSecretRef: something has to vouch for them"),
    rule("self.type == oldSelf.type && has(self.prefix) == has(oldSelf.prefix) && (!has(self.prefix) || self.prefix == oldSelf.prefix)",
        "type and prefix never change: make another database and let servers register there"),
]))]
pub struct Store {
    /// Embedded: each replica has a file of its own, on its volume. Etcd: all replicas share one view, and none has a volume.
    #[serde(default, rename = "type")]
    pub store_type: StoreType,
    /// Where the members of the etcd answer, such as `https://etcd-0.etcd:2379`.
    #[serde(default)]
    #[schemars(schema_with = "schema::etcd_endpoints")]
    pub endpoints: Vec<String>,
    /// What all keys of this database begin with, with a `/` at both ends; by default `/castgate/NAMESPACE/NAME/`. Databases of one
    /// prefix, wherever they run, are one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::etcd_prefix")]
    pub prefix: Option<String>,
    /// The Secret with the user of an etcd where authentication is on, under the keys `login` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub credentials_secret_ref: Option<SecretRef>,
    /// The Secret, of type Opaque, with the certificates that vouch for the members under the key `ca.crt` and, where members ask for
    /// one, a certificate and a key of ours under `tls.crt` and `tls.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub tls_secret_ref: Option<SecretRef>,
}

/// Who keeps the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum StoreType {
    /// Each replica, in a file on its volume.
    #[default]
    Embedded,
    /// An etcd, for all replicas.
    Etcd,
}

/// The volume of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Its size as a quantity of Kubernetes.
    #[serde(default = "storage_size")]
    #[schemars(schema_with = "schema::quantity")]
    pub size: String,
    /// Its storage class; by default that of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub storage_class_name: Option<String>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: storage_size(), storage_class_name: None }
    }
}

/// 300 000 entries, the most that a database holds, take less than a third of it.
fn storage_size() -> String {
    "1Gi".to_owned()
}

/// What a database does at this moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelDatabaseStatus {
    /// Generation of the spec that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Replicas that answer.
    #[serde(default)]
    pub replicas: i32,
    /// Labels of its pods, for `kubectl scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Replicas that answer, of those that should: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answering: Option<String>,
    /// Entries it holds; of several replicas the one that holds most.
    #[serde(default)]
    pub entries: i64,
    /// Its own registrations that stand, of those wanted: `1/1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrations: Option<String>,
    /// The Service in front of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Where a database answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// The address it listens on and registers with; without it, every address of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ipv4")]
    pub address: Option<String>,
    /// The TCP port.
    #[serde(default = "http_port")]
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
    /// What proves it to clients: then it speaks https there, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tls")]
    pub tls: Option<Tls>,
}

/// What proves a database to those who ask it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// A Secret of type `kubernetes.io/tls`: the certificate under the key `tls.crt`, its private key under `tls.key`, and perhaps
    /// under `ca.crt` the certificates that vouch for it, which those who register here by `databaseRef` then believe. When it
    /// changes, new connections are shown the new one.
    pub secret_ref: SecretRef,
}

impl Default for Http {
    fn default() -> Self {
        Self { address: None, port: http_port(), tls: None }
    }
}

fn http_port() -> u16 {
    5632
}
