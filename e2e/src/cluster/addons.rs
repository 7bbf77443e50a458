//! What a fresh cluster needs before anybody installs anything: names, and volumes for who asks.

use super::{Cluster, layout};
use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt;

/// Installs kube-proxy's rights and the name server.
pub(super) fn install(cluster: &Cluster) -> Result<()> {
    let values = [("DNS", layout::DNS_SERVICE.to_string())];
    let manifest = layout::fill(include_str!("../../cluster/addons.yaml"), &values);
    cluster.kubectl_stdin(&["apply", "-f", "-"], &manifest).map(drop)
}

/// Waits until names are answered.
pub(super) fn await_names(cluster: &Cluster) -> Result<()> {
    let wait = ["-n", "kube-system", "wait", "deployment/coredns", "--for=condition=Available", "--timeout=60s"];
    cluster.kubectl(&wait).map(drop)
}

impl Cluster {
    /// Makes volumes for claims that name no storage class. Their data lies where every node sees it, so a pod may move; a
    /// cluster that is there has a provisioner and gets none.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn make_volumes(&self, names: &[&str]) -> Result<()> {
        if !self.is_own() {
            return Ok(());
        }
        for name in names {
            let path = self.layout.volumes().join(name);
            std::fs::create_dir_all(&path).with_context(|| format!("{} cannot be made", path.display()))?;
            // Whoever the pod runs as writes here.
            let everybody = std::fs::Permissions::from_mode(0o777);
            std::fs::set_permissions(&path, everybody).with_context(|| format!("{}", path.display()))?;
            let volume = serde_json::json!({
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {
                    "capacity": {"storage": "10Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": "",
                    "hostPath": {"path": path, "type": "Directory"},
                },
            });
            self.kubectl_stdin(&["apply", "-f", "-"], &volume.to_string())?;
        }
        Ok(())
    }
}
