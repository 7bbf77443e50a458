//! etcd, the API server, the controller manager and the scheduler: four processes in the fabric's namespace.

use super::daemon::Daemon;
use super::fabric::Fabric;
use super::layout::{API_PORT, FABRIC, Layout, SERVICE_NETWORK, Tools};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";

/// The four of one cluster.
#[derive(Debug, Clone)]
pub(super) struct ControlPlane {
    layout: Layout,
    tools: Tools,
    fabric: Fabric,
}

impl ControlPlane {
    pub(super) fn new(layout: &Layout, tools: &Tools, fabric: &Fabric) -> Self {
        Self { layout: layout.clone(), tools: tools.clone(), fabric: fabric.clone() }
    }

    /// Starts the store and the API server; it answers some seconds later.
    pub(super) fn start_api(&self) -> Result<()> {
        let data = self.layout.folder().join("etcd").display().to_string();
        let etcd = [
            format!("--data-dir={data}"),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            format!("--listen-peer-urls={ETCD_PEERS}"),
            "--unsafe-no-fsync".to_owned(),
        ];
        self.start("etcd", &etcd)?;
        self.start_api_server()
    }

    /// Starts the API server alone.
    pub(super) fn start_api_server(&self) -> Result<()> {
        let pki = |name: &str| self.pki(name);
        let arguments = [
            format!("--etcd-servers={ETCD}"),
            format!("--secure-port={API_PORT}"),
            format!("--advertise-address={FABRIC}"),
            format!("--service-cluster-ip-range={SERVICE_NETWORK}"),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("kubelet-client.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", pki("service-accounts.pub")),
            format!("--service-account-signing-key-file={}", pki("service-accounts.key")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            // A restart is felt within the second.
            "--shutdown-delay-duration=0s".to_owned(),
        ];
        self.start("kube-apiserver", &arguments)
    }

    /// Kills the API server.
    pub(super) fn stop_api_server(&self) -> Result<()> {
        self.daemon("kube-apiserver").kill()
    }

    /// Whether the API server runs, be it that it answers or not.
    pub(super) fn api_server_runs(&self) -> bool {
        self.daemon("kube-apiserver").pid().is_some()
    }

    /// Starts those who work through the API server, which has to answer by now.
    pub(super) fn start_controllers(&self) -> Result<()> {
        let config = |name: &str| self.pki(&format!("{name}.conf"));
        let own = config("controller-manager");
        let arguments = [
            format!("--kubeconfig={own}"),
            format!("--authentication-kubeconfig={own}"),
            format!("--authorization-kubeconfig={own}"),
            "--use-service-account-credentials".to_owned(),
            format!("--service-account-private-key-file={}", self.pki("service-accounts.key")),
            format!("--root-ca-file={}", self.pki("ca.crt")),
            format!("--cluster-signing-cert-file={}", self.pki("ca.crt")),
            format!("--cluster-signing-key-file={}", self.pki("ca.key")),
            "--leader-elect=false".to_owned(),
            "--node-monitor-period=1s".to_owned(),
            "--node-monitor-grace-period=12s".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
        ];
        self.start("kube-controller-manager", &arguments)?;
        let arguments = [
            format!("--kubeconfig={}", config("scheduler")),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
        ];
        self.start("kube-scheduler", &arguments)
    }

    fn start(&self, name: &str, arguments: &[String]) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.fabric.namespace().name()]).arg(self.tools.program(name)).args(arguments);
        self.daemon(name).start(command).map(drop)
    }

    fn daemon(&self, name: &str) -> Daemon {
        Daemon::new(&self.layout.control_plane(), name)
    }

    fn pki(&self, name: &str) -> String {
        Path::new(&self.layout.pki()).join(name).display().to_string()
    }
}
