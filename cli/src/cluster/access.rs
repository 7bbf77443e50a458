//! The way to a cluster: which one, which namespaces, and how lists are read.
//!
//! Objects arrive as JSON and are decoded where they are used: one that a newer operator wrote differently must not hide the
//! others.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::Client;
use kube::config::{Config, KubeConfigOptions};
use serde_json::Value;

/// Namespace of the objects when neither the command nor the context names one: where the chart puts them.
const OUR_NAMESPACE: &str = "castgate";
/// What a kubeconfig that names no namespace means.
const NO_NAMESPACE: &str = "default";
/// A cluster that does not answer for so long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Which cluster, and which part of it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Namespace of the objects [default: that of the context, or castgate]
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The objects of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Context of the kubeconfig; KUBECONFIG names the file
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
}

/// The namespaces that are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    One(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "any namespace"),
            Self::One(name) => write!(f, "namespace {name}"),
        }
    }
}

/// What a list is asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resource {
    /// `api/v1` or `apis/GROUP/VERSION`.
    pub(crate) api: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
}

impl Resource {
    const fn new(api: &'static str, plural: &'static str, kind: &'static str) -> Self {
        Self { api, plural, kind }
    }

    const fn ours(plural: &'static str, kind: &'static str) -> Self {
        Self::new("apis/castgate.dev/v1alpha1", plural, kind)
    }
}

pub(crate) const SERVERS: Resource = Resource::ours("tunnelservers", "TunnelServer");
pub(crate) const DATABASES: Resource = Resource::ours("tunneldatabases", "TunnelDatabase");
pub(crate) const ENDPOINTS: Resource = Resource::ours("tunnelendpoints", "TunnelEndpoint");
pub(crate) const BUNDLES: Resource = Resource::ours("channelbundles", "ChannelBundle");
pub(crate) const ACCOUNTS: Resource = Resource::ours("tunnelaccounts", "TunnelAccount");
pub(crate) const RELAYS: Resource = Resource::ours("tunnelrelays", "TunnelRelay");
pub(crate) const POLICIES: Resource = Resource::ours("tunnelassignmentpolicies", "TunnelAssignmentPolicy");
pub(crate) const PODS: Resource = Resource::new("api/v1", "pods", "Pod");
pub(crate) const NODES: Resource = Resource::new("api/v1", "nodes", "Node");
pub(crate) const SERVICES: Resource = Resource::new("api/v1", "services", "Service");
pub(crate) const CONFIG_MAPS: Resource = Resource::new("api/v1", "configmaps", "ConfigMap");
pub(crate) const VOLUME_CLAIMS: Resource = Resource::new("api/v1", "persistentvolumeclaims", "PersistentVolumeClaim");
pub(crate) const SLICES: Resource = Resource::new("apis/discovery.k8s.io/v1", "endpointslices", "EndpointSlice");
pub(crate) const DAEMON_SETS: Resource = Resource::new("apis/apps/v1", "daemonsets", "DaemonSet");
pub(crate) const STATEFUL_SETS: Resource = Resource::new("apis/apps/v1", "statefulsets", "StatefulSet");
pub(crate) const DEPLOYMENTS: Resource = Resource::new("apis/apps/v1", "deployments", "Deployment");
pub(crate) const EVENTS: Resource = Resource::new("apis/events.k8s.io/v1", "events", "Event");
pub(crate) const LEASES: Resource = Resource::new("apis/coordination.k8s.io/v1", "leases", "Lease");
pub(crate) const DEFINITIONS: Resource =
    Resource::new("apis/apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition");

/// Labels of the operator's pods, as the chart sets them.
pub(crate) const OPERATOR_LABELS: &str = "app.kubernetes.io/name=castgate,app.kubernetes.io/component=operator";
/// Label of everything that runs for an object of ours.
pub(crate) const AGENT_LABELS: &str = "app.kubernetes.io/name=castgate,app.kubernetes.io/managed-by=castgate-operator";

/// A cluster that can be asked.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) scope: Scope,
    /// Where the API server is, for people.
    url: String,
}

impl Cluster {
    /// Reads the kubeconfig, or what a pod is given. Asks nothing yet.
    pub(crate) async fn connect(args: &ClusterArgs) -> Result<Self> {
        // Whoever comes second finds it installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let named = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
        let mut config = match &args.context {
            Some(context) => {
                Config::from_kubeconfig(&options).await.with_context(|| format!("cannot use the context {context}"))?
            }
            None if named => Config::from_kubeconfig(&options).await.context("cannot use KUBECONFIG")?,
            None => Config::infer().await.context("no cluster is named: set KUBECONFIG")?,
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        let scope = match (&args.namespace, args.all_namespaces) {
            (_, true) => Scope::All,
            (Some(namespace), false) => Scope::One(namespace.clone()),
            (None, false) => Scope::One(namespace_of(&config.default_namespace).to_owned()),
        };
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(Self { client, scope, url })
    }

    /// The objects of a resource in the scope of the command.
    pub(crate) async fn list(&self, resource: Resource) -> Result<Vec<Value>> {
        self.list_in(resource, &self.scope, None).await
    }

    /// The objects of a resource in some namespaces, by labels where they are given.
    pub(crate) async fn list_in(&self, resource: Resource, scope: &Scope, labels: Option<&str>) -> Result<Vec<Value>> {
        let Resource { api, plural, kind } = resource;
        let namespace = match scope {
            Scope::One(name) => format!("namespaces/{name}/"),
            Scope::All => String::new(),
        };
        let selector =
            labels.map(|labels| format!("?labelSelector={}", labels.replace('=', "%3D").replace(',', "%2C")));
        let path = format!("/{api}/{namespace}{plural}{}", selector.unwrap_or_default());
        let mut list: Value = self.get(&path).await.map_err(|error| self.told(error, resource, scope))?;
        let Value::Array(mut items) = list["items"].take() else { bail!("{path} is no list of {kind}") };
        for item in &mut items {
            // Items of a list do not say what they are.
            item["apiVersion"] = api.trim_start_matches("apis/").trim_start_matches("api/").into();
            item["kind"] = kind.into();
        }
        Ok(items)
    }

    /// One object of the API server.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, kube::Error> {
        self.client.request(request(path)).await
    }

    /// The version of the API server, and with it whether there is one.
    pub(crate) async fn version(&self) -> Result<Value> {
        self.get("/version").await.with_context(|| format!("the API server {} cannot be asked", self.url))
    }

    /// One sentence with what to do, for the errors that people meet.
    fn told(&self, error: kube::Error, resource: Resource, scope: &Scope) -> anyhow::Error {
        let Resource { kind, plural, api } = resource;
        match error {
            kube::Error::Api(status) if status.code == 404 && api.contains("castgate.dev") => {
                anyhow::anyhow!("the cluster does not know {kind}: install the chart castgate-crds")
            }
            kube::Error::Api(status) if status.code == 403 => {
                anyhow::anyhow!("you may not list {plural} in {scope}: {}", status.message)
            }
            kube::Error::Api(status) => anyhow::anyhow!("cannot list {plural}: {}", status.message),
            error => anyhow::Error::new(error).context(format!("the API server {} cannot be asked", self.url)),
        }
    }

    /// Text that is no object, such as a log.
    pub(crate) async fn text(&self, path: &str) -> Result<String, kube::Error> {
        self.client.request_text(request(path)).await
    }
}

fn request(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path).body(Vec::new()).expect("a path of names that the API server gave")
}

/// The namespace of the context, if it has one.
fn namespace_of(context: &str) -> &str {
    if context == NO_NAMESPACE { OUR_NAMESPACE } else { context }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_without_a_namespace_means_the_namespace_of_the_chart() {
        assert_eq!(namespace_of("default"), "castgate");
        assert_eq!(namespace_of("isp"), "isp");
    }
}
