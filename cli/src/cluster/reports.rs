//! What agents say of themselves, asked in their pods: `castgate-agent ask report` by exec through the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::access::{AGENT_LABELS, Cluster, PODS};

/// An agent answers at once; the way through API server and kubelet takes a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// Agents asked at a time: each is a connection of its own through the API server.
const AT_A_TIME: usize = 8;
/// The largest report that is taken: 100 000 tunnels with three channels each fit.
const REPORT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A pod that an agent runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AgentPod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: String,
    /// server, database or adapter.
    pub(crate) role: String,
    /// Name of the object it works for.
    pub(crate) owner: String,
    pub(crate) phase: String,
}

/// What one agent said, or why it said nothing.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) pod: AgentPod,
    pub(crate) report: Result<Value, String>,
}

/// The part of a report that is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AgentReport {
    pub(crate) agent: String,
    pub(crate) listen: Option<String>,
    pub(crate) channels: Vec<ChannelReport>,
    pub(crate) tunnels: Vec<TunnelReport>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ChannelReport {
    pub(crate) name: String,
    pub(crate) channel: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TunnelReport {
    pub(crate) address: String,
    pub(crate) channels: Vec<String>,
    pub(crate) age_seconds: u64,
}

impl AgentReport {
    /// A channel by the name that people gave it.
    pub(crate) fn name_of<'a>(&'a self, channel: &'a str) -> &'a str {
        self.channels.iter().find(|known| known.channel == channel).map_or(channel, |known| &known.name)
    }
}

/// The pods of the operator's workloads, by namespace and name.
pub(crate) async fn agent_pods(cluster: &Cluster) -> Result<Vec<AgentPod>> {
    let pods = cluster.list_in(PODS, &cluster.scope, Some(AGENT_LABELS)).await?;
    let mut pods: Vec<_> = pods.iter().map(agent_pod).collect();
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(pods)
}

pub(crate) fn agent_pod(pod: &Value) -> AgentPod {
    let text = |pointer| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    AgentPod {
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        node: text("/spec/nodeName"),
        role: text("/metadata/labels/app.kubernetes.io~1component"),
        owner: text("/metadata/labels/castgate.dev~1owner"),
        phase: text("/status/phase"),
    }
}

/// Asks all of them, a few at a time; the answers come in the order of the pods.
pub(crate) async fn ask_all(cluster: &Cluster, pods: Vec<AgentPod>) -> Vec<Asked> {
    let asking = pods.into_iter().map(|pod| async move {
        let report = match timeout(PATIENCE, ask(cluster, &pod)).await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        Asked { pod, report }
    });
    stream::iter(asking).buffered(AT_A_TIME).collect().await
}

async fn ask(cluster: &Cluster, pod: &AgentPod) -> Result<Value> {
    if pod.phase != "Running" {
        bail!("the pod is {}", if pod.phase.is_empty() { "not placed" } else { &pod.phase });
    }
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace);
    let parameters = AttachParams::default().stdin(false).stdout(true).stderr(true);
    let command = ["/castgate-agent", "ask", "report"];
    let mut process = pods.exec(&pod.name, command, &parameters).await.context("the pod cannot be entered")?;
    let status = process.take_status();
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let (said, complained) = tokio::join!(read(stdout), read(stderr));
    let failure = match status {
        Some(status) => status.await.filter(|status| status.status.as_deref() != Some("Success")),
        None => None,
    };
    if let Some(failure) = failure {
        let complained = complained?.trim().to_owned();
        bail!("{}", if complained.is_empty() { failure.message.unwrap_or_default() } else { complained });
    }
    serde_json::from_str(&said?).context("its report is no JSON")
}

async fn read(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Result<String> {
    let mut text = Vec::new();
    if let Some(stream) = stream {
        stream.take(REPORT_BYTES_MAX).read_to_end(&mut text).await?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Sums over reports, as `{channel: tunnels}`; for totals under a table.
pub(crate) fn listeners(reports: &[AgentReport]) -> BTreeMap<String, usize> {
    let mut listeners = BTreeMap::new();
    for report in reports {
        for channel in report.tunnels.iter().flat_map(|tunnel| &tunnel.channels) {
            *listeners.entry(report.name_of(channel).to_owned()).or_default() += 1;
        }
    }
    listeners
}
