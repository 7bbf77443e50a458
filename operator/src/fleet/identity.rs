//! Who an agent is. Pure: a reviewed token and what is known of its pod become an [`Identity`], or a [`Refusal`].
//!
//! What an agent says of itself decides nothing: its name is derived from the token and the pod, and its Hello must match.
//!
//! ```text
//!   token ── audience, ServiceAccount ns:sa ── bound to pod p (uid u) on node n
//!                                                   │
//!   index ── pod ns/p: uid u? on node n? of sa? made by DaemonSet ts-X, tr-X | StatefulSet tdb-X | the adapter's Deployment?
//!                                                   │
//!   Hello ── agent == ns/ts-X@n and node == n ? ────┴──▶ Identity
//! ```

use std::collections::BTreeMap;

use castgate_crds::tunnel_endpoint::EndpointRole;
use castgate_planner::cluster::names;
use castgate_rpc::v1::Hello;
use tonic::{Code, Status};

use super::token::{AUDIENCE, Reviewed};
use crate::index::{component_of, kind_of};

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

const AGENT_ACCOUNT: &str = "castgate-agent";
const ADAPTER_ACCOUNT: &str = "castgate-adapter";

const LABEL_NAME: &str = "app.kubernetes.io/name";
const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
const LABEL_OWNER: &str = "castgate.dev/owner";

/// What is known of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Its uid.
    pub uid: String,
    /// The node it is bound to.
    pub node: Option<String>,
    /// Its `ServiceAccount`.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What made it; for a pod of a Deployment that is the Deployment, not the `ReplicaSet` between them.
    pub controller: Option<Controller>,
}

/// The owner of a pod that is its controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// As in `DaemonSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Knows the pods of agents.
pub trait Pods: Send + Sync + 'static {
    /// What is known of a pod; `None`: nothing yet.
    fn pod(&self, namespace: &str, name: &str) -> Option<PodFacts>;
}

/// An agent that has proven itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Namespace of the agent and of its object.
    pub namespace: String,
    /// What it does.
    pub role: EndpointRole,
    /// Name of the object it works for; for an adapter the namespace.
    pub owner: String,
    /// The node it runs on.
    pub node: String,
    /// The pod it runs in.
    pub pod: String,
}

/// Why an agent is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No bearer token came with the call.
    #[error("there is no bearer token")]
    NoToken,
    /// The API server does not know the token.
    #[error("the API server does not accept the token: {0}")]
    Token(String),
    /// The token is for somebody else.
    #[error("the token is for {0:?}")]
    Audience(Vec<String>),
    /// The token belongs to a person, a node or another `ServiceAccount`.
    #[error("the token belongs to {0:?}")]
    Account(String),
    /// The token is not bound to a pod and a node.
    #[error("the token does not say one {0}")]
    Unbound(&'static str),
    /// The pod is not known here yet.
    #[error("the pod {0} is not known here yet")]
    UnknownPod(String),
    /// The pod is not what an agent's pod is.
    #[error("the pod {pod} is not the agent's: {reason}")]
    Pod {
        /// Namespace and name.
        pod: String,
        /// What is different.
        reason: String,
    },
    /// The agent claims to be another.
    #[error("{is} says that it is {says}")]
    Hello {
        /// Who it is.
        is: String,
        /// Who it says it is.
        says: String,
    },
    /// The stream does not begin with a Hello, or not in time.
    #[error("the first report is not a Hello")]
    NoHello,
    /// The API server does not answer.
    #[error("the token cannot be reviewed now: {0}")]
    Review(String),
    /// As many streams as there may be.
    #[error("there are {0} streams already")]
    Full(usize),
}

impl Refusal {
    /// The reason as a label of the counter.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoToken => "no-token",
            Self::Token(_) => "token",
            Self::Audience(_) => "audience",
            Self::Account(_) => "account",
            Self::Unbound(_) => "unbound",
            Self::UnknownPod(_) => "unknown-pod",
            Self::Pod { .. } => "pod",
            Self::Hello { .. } => "hello",
            Self::NoHello => "no-hello",
            Self::Review(_) => "review",
            Self::Full(_) => "full",
        }
    }

    /// What the caller is told: enough for the honest, nothing for a stranger.
    #[must_use]
    pub fn status(&self) -> Status {
        let (code, sentence) = match self {
            Self::NoToken => (Code::Unauthenticated, "a bearer token is needed"),
            Self::Token(_) | Self::Audience(_) => (Code::Unauthenticated, "the token is not accepted"),
            Self::Account(_) | Self::Unbound(_) | Self::Pod { .. } | Self::Hello { .. } => {
                (Code::PermissionDenied, "the token is not that of this agent")
            }
            Self::UnknownPod(_) | Self::Review(_) => (Code::Unavailable, "the token cannot be checked now; try again"),
            Self::NoHello => (Code::InvalidArgument, "the first report must be a hello and come at once"),
            Self::Full(_) => (Code::ResourceExhausted, "there are too many streams; try again"),
        };
        Status::new(code, sentence)
    }

    /// Whether trying again may help without anybody doing anything.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::UnknownPod(_) | Self::Review(_) | Self::Full(_))
    }
}

impl Identity {
    /// The agent's name: `isp/ts-edge@node-1`.
    #[must_use]
    pub fn agent(&self) -> String {
        let Self { namespace, owner, node, .. } = self;
        match prefix(self.role) {
            Some(prefix) => format!("{namespace}/{prefix}-{owner}@{node}"),
            None => format!("{namespace}/adapter@{node}"),
        }
    }

    /// Name of its `TunnelEndpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let Self { owner, node, .. } = self;
        match prefix(self.role) {
            Some(prefix) => format!("{prefix}-{owner}-{node}"),
            None => format!("adapter-{node}"),
        }
    }

    /// The role as a word of labels and logs.
    #[must_use]
    pub fn role_word(&self) -> &'static str {
        component_of(self.role)
    }
}

/// What names of the agents of a role begin with; an adapter has a name of its own.
fn prefix(role: EndpointRole) -> Option<&'static str> {
    kind_of(role).and_then(names::prefix)
}

/// The pod that a token is bound to: namespace and name. What is proven by the token alone is proven here.
///
/// # Errors
/// Another audience, another account, or no pod.
pub(super) fn pod_of(reviewed: &Reviewed) -> Result<(&str, &str), Refusal> {
    let Reviewed { username, audiences, extra: _ } = reviewed;
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(Refusal::Audience(audiences.clone()));
    }
    let (namespace, account) = account(username)?;
    if account != AGENT_ACCOUNT && account != ADAPTER_ACCOUNT {
        return Err(Refusal::Account(username.clone()));
    }
    Ok((namespace, bound(reviewed, POD_NAME)?))
}

/// Who holds the token, if the pod is what it should be and the Hello says the same.
///
/// # Errors
/// The first thing that does not fit.
pub(super) fn identify(reviewed: &Reviewed, pod_facts: Option<&PodFacts>, hello: &Hello) -> Result<Identity, Refusal> {
    let (namespace, pod) = pod_of(reviewed)?;
    let (_, account) = account(&reviewed.username)?;
    let uid = bound(reviewed, POD_UID)?;
    let node = bound(reviewed, NODE_NAME)?;
    let place = format!("{namespace}/{pod}");
    let Some(facts) = pod_facts else { return Err(Refusal::UnknownPod(place)) };
    let refuse = |reason: String| Err(Refusal::Pod { pod: place.clone(), reason });
    if facts.uid != uid {
        return refuse(format!("the token is for its namesake with uid {uid}"));
    }
    if facts.node.as_deref() != Some(node) {
        return refuse(format!("the token is for node {node}"));
    }
    if facts.service_account != account {
        return refuse(format!("it runs as {}", facts.service_account));
    }
    let Some((role, owner)) = facts.controller.as_ref().and_then(worker) else {
        return refuse("it was not made by a workload of an agent".to_owned());
    };
    if account != account_of(role) {
        return refuse(format!("a {} does not run as {account}", component_of(role)));
    }
    let label = |key: &str| facts.labels.get(key).map(String::as_str);
    let belongs = role == EndpointRole::Adapter || label(LABEL_OWNER) == Some(owner);
    if label(LABEL_NAME) != Some("castgate") || label(LABEL_COMPONENT) != Some(component_of(role)) || !belongs {
        return refuse("its labels are not those of its workload".to_owned());
    }
    let owner = if role == EndpointRole::Adapter { namespace } else { owner };
    let identity = Identity {
        namespace: namespace.to_owned(),
        role,
        owner: owner.to_owned(),
        node: node.to_owned(),
        pod: pod.to_owned(),
    };
    if hello.agent != identity.agent() || hello.node != identity.node {
        let says = format!("{:?} on {:?}", short(&hello.agent), short(&hello.node));
        return Err(Refusal::Hello { is: identity.agent(), says });
    }
    Ok(identity)
}

/// Namespace and name of a `ServiceAccount`.
fn account(username: &str) -> Result<(&str, &str), Refusal> {
    username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
        .ok_or_else(|| Refusal::Account(username.to_owned()))
}

/// The one value of a key that the API server itself puts into a bound token.
fn bound<'a>(reviewed: &'a Reviewed, key: &'static str) -> Result<&'a str, Refusal> {
    match reviewed.extra.get(key).map(Vec::as_slice) {
        Some([one]) if !one.is_empty() => Ok(one),
        _ => Err(Refusal::Unbound(key)),
    }
}

/// Which agents a workload makes: role and name of the object.
fn worker(controller: &Controller) -> Option<(EndpointRole, &str)> {
    let Controller { kind, name } = controller;
    let (role, owner) = match kind.as_str() {
        "DaemonSet" => [EndpointRole::Server, EndpointRole::Relay].into_iter().find_map(|role| owned(role, name))?,
        "StatefulSet" => owned(EndpointRole::Database, name)?,
        // Whoever looked behind the ReplicaSet may still call it so: its own name is another one.
        "Deployment" | "ReplicaSet" if name == ADAPTER_ACCOUNT => (EndpointRole::Adapter, name.as_str()),
        _ => return None,
    };
    (!owner.is_empty()).then_some((role, owner))
}

/// The object that a workload of this name is for, if it is one of this role.
fn owned(role: EndpointRole, workload: &str) -> Option<(EndpointRole, &str)> {
    Some((role, workload.strip_prefix(prefix(role)?)?.strip_prefix('-')?))
}

fn account_of(role: EndpointRole) -> &'static str {
    match role {
        EndpointRole::Server | EndpointRole::Relay | EndpointRole::Database => AGENT_ACCOUNT,
        EndpointRole::Adapter => ADAPTER_ACCOUNT,
    }
}

/// A stranger's text, short enough for our log.
fn short(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests;
