//! The pod of an agent: what all roles have in common.
//!
//! ```text
//!   /castgate-agent ── /var/run/castgate/token   token (for the operator alone), ca.crt
//!                   ── /var/lib/castgate         the last good snapshot, entries of a database
//!                   ── /run/castgate/agent.sock  where `castgate-agent ask` finds it: probes, and nothing on the network
//! ```

use serde_json::{Value, json};

use super::Part;
use crate::cluster::facts::Settings;
use crate::cluster::names;

/// Who is no root and owns nothing on any node.
const NOBODY: u32 = 65_532;
/// A pod says good-bye to clients and parents in this time.
const GRACE_SECONDS: u32 = 30;

/// What differs between roles.
pub(super) struct Pod<'a> {
    pub(super) role: Part<'a>,
    pub(super) settings: &'a Settings,
    /// Name of the agent, without its node.
    pub(super) agent: String,
    pub(super) account: &'static str,
    /// Whether it uses the network of its node, as root of it without rights.
    pub(super) host_network: bool,
    /// What it may do as root of its node's network beyond what everybody may.
    pub(super) capabilities: Vec<&'static str>,
    /// Whether it listens on a port below 1024 of a network of its own.
    pub(super) privileged_port: bool,
    /// The volume with its state; `None`: a claim of that name is made elsewhere.
    pub(super) state: Option<Value>,
    /// Memory that it needs to begin with.
    pub(super) memory: &'static str,
}

impl Pod<'_> {
    /// The template of its pods.
    pub(super) fn template(self) -> Value {
        let labels = self.role.labels();
        json!({ "metadata": { "labels": labels }, "spec": self.spec() })
    }

    fn spec(self) -> Value {
        let settings = self.settings;
        let mut volumes = vec![
            json!({ "name": "token", "projected": { "sources": [
                { "serviceAccountToken": {
                    "audience": settings.token_audience,
                    "expirationSeconds": settings.token_seconds,
                    "path": "token",
                } },
                { "configMap": {
                    "name": names::CA_CONFIG_MAP,
                    "items": [{ "key": "ca.crt", "path": "ca.crt" }],
                } },
            ] } }),
            json!({ "name": "run", "emptyDir": {} }),
        ];
        if let Some(state) = &self.state {
            let mut volume = state.clone();
            volume["name"] = json!("state");
            volumes.push(volume);
        }
        let mut spec = json!({
            "serviceAccountName": self.account,
            // No agent ever speaks to the API server.
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": self.pod_security(),
            "containers": [self.container()],
            "volumes": volumes,
        });
        if self.host_network {
            spec["hostNetwork"] = json!(true);
            // Names of Services, from the network of the node.
            spec["dnsPolicy"] = json!("ClusterFirstWithHostNet");
        }
        if let Some(class) = &settings.priority_class {
            spec["priorityClassName"] = json!(class);
        }
        if !settings.image_pull_secrets.is_empty() {
            let secrets = settings.image_pull_secrets.iter().map(|name| json!({ "name": name }));
            spec["imagePullSecrets"] = secrets.collect();
        }
        spec
    }

    fn pod_security(&self) -> Value {
        let mut security = json!({ "seccompProfile": { "type": "RuntimeDefault" } });
        if self.host_network {
            return security;
        }
        security["runAsNonRoot"] = json!(true);
        security["runAsUser"] = json!(NOBODY);
        security["runAsGroup"] = json!(NOBODY);
        // Volumes are given to it; a large one only once.
        security["fsGroup"] = json!(NOBODY);
        security["fsGroupChangePolicy"] = json!("OnRootMismatch");
        if self.privileged_port {
            // A capability does not reach who is not root; Kubernetes counts this among the safe settings.
            security["sysctls"] = json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }]);
        }
        security
    }

    fn container_security(&self) -> Value {
        let mut security = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        });
        if self.host_network {
            // Root owns the folder of the state on the node; without capabilities it may do nothing else there.
            security["runAsUser"] = json!(0);
            if !self.capabilities.is_empty() {
                security["capabilities"]["add"] = json!(self.capabilities);
            }
        }
        security
    }

    fn container(&self) -> Value {
        let Settings { agent_image, image_pull_policy, control_endpoint, agent_log, .. } = self.settings;
        let ask = |what: &str| json!({ "command": ["/castgate-agent", "ask", what] });
        let probe = |what: &str, period: u32, failures: u32| json!({ "exec": ask(what), "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures });
        let mut container = json!({
            "name": "agent",
            "image": agent_image,
            "env": [
                { "name": "CASTGATE_NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
                { "name": "CASTGATE_AGENT", "value": format!("{}@$(CASTGATE_NODE)", self.agent) },
                { "name": "CASTGATE_CONTROL", "value": control_endpoint },
                { "name": "CASTGATE_SOCKET", "value": "/run/castgate/agent.sock" },
                { "name": "CASTGATE_LOG", "value": agent_log },
                { "name": "CASTGATE_LOG_JSON", "value": "true" },
            ],
            // No limits: an agent that is slowed down or killed loses the packets of everybody.
            "resources": { "requests": { "cpu": "50m", "memory": self.memory } },
            "securityContext": self.container_security(),
            // A minute to begin; then a minute of silence before it is started again.
            "startupProbe": probe("live", 1, 60),
            "livenessProbe": probe("live", 10, 6),
            "readinessProbe": probe("ready", 5, 2),
            "volumeMounts": [
                { "name": "token", "mountPath": "/var/run/castgate/token", "readOnly": true },
                { "name": "run", "mountPath": "/run/castgate" },
                { "name": "state", "mountPath": "/var/lib/castgate" },
            ],
        });
        if let Some(policy) = image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        container
    }
}
