//! Where everything of a cluster lies: addresses, files, and the programs and images that `cargo xtask` built.

use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The API server's host, and everybody's router.
pub(super) const FABRIC: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where the API server listens.
pub(super) const API_PORT: u16 = 6_443;
/// Of Services.
pub(super) const SERVICE_NETWORK: &str = "10.96.0.0/16";
/// `kubernetes.default`: the first of them, and the API server's own second address.
pub(super) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Where pods ask for names.
pub(super) const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Of pods; each node has a /24 of it.
pub(super) const POD_NETWORK: &str = "10.88.0.0/16";
/// The LAN on which nodes and hosts stand, and the hosts' interface in it.
pub const LAN: &str = "fabric";

/// Names the folder that `cargo xtask cluster` filled, for whoever keeps it elsewhere.
const TOOLS_VARIABLE: &str = "CASTGATE_CLUSTER";

/// The address of node number `index`, from 1.
pub(super) fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + index)
}

/// The addresses of its pods.
pub(super) fn pod_subnet(index: u8) -> String {
    format!("10.88.{}.0/24", 10 + index)
}

/// The programs of Kubernetes and the images of every cluster.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Finds them.
    pub(super) fn find() -> Result<Self> {
        let folder = std::env::var_os(TOOLS_VARIABLE).map_or_else(|| cache().join("cluster"), PathBuf::from);
        ensure!(
            folder.join("stamp").is_file(),
            "the cluster's programs are not in {}: `cargo xtask cluster tools` builds them",
            folder.display()
        );
        Ok(Self { folder })
    }

    /// The folder of the programs.
    pub(super) fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// One program.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// The archives of the images that every node has.
    pub(super) fn images(&self) -> Vec<PathBuf> {
        ["pause", "coredns"].map(|name| self.folder.join(format!("images/{name}.tar"))).to_vec()
    }
}

/// As `cargo xtask` has it.
fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("CASTGATE_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("castgate-build")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/castgate-build")))
        .unwrap_or_else(std::env::temp_dir)
}

/// The files of one cluster.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    folder: PathBuf,
}

impl Layout {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn pki(&self) -> PathBuf {
        self.folder.join("pki")
    }

    pub(super) fn admin_config(&self) -> PathBuf {
        self.pki().join("admin.conf")
    }

    pub(super) fn images(&self) -> PathBuf {
        self.folder.join("images")
    }

    pub(super) fn volumes(&self) -> PathBuf {
        self.folder.join("volumes")
    }

    pub(super) fn control_plane(&self) -> PathBuf {
        self.folder.join("control-plane")
    }

    pub(super) fn node(&self, name: &str) -> PathBuf {
        self.folder.join("nodes").join(name)
    }

    /// Fills in `@NAME@`s and writes the file.
    pub(super) fn write(&self, name: &str, template: &str, values: &[(&str, String)]) -> Result<PathBuf> {
        let path = self.folder.join(name);
        write(&path, &fill(template, values))?;
        Ok(path)
    }
}

/// Replaces every `@NAME@`.
pub(super) fn fill(template: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

/// Writes a file and the folders above it.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().context("a file lies in a folder")?;
    std::fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_of_a_name_is_filled_in() {
        assert_eq!(fill("@A@ b @A@ @B@", &[("A", "1".to_owned()), ("B", "2".to_owned())]), "1 b 1 2");
    }

    #[test]
    fn nodes_and_their_pods_have_numbers_that_go_together() {
        assert_eq!(node_address(3).to_string(), "10.77.0.13");
        assert_eq!(pod_subnet(3), "10.88.13.0/24");
    }
}
