//! Control groups of nodes: a node sees its own as the whole, and can be frozen by it.
//!
//! Only version 1, which is what containers on the machines of this project have; see [`usable`].

use crate::lab::names::Owner;
use crate::lab::wait;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
/// How long killed processes may linger in a group.
const LONGEST_DEATH: Duration = Duration::from_secs(10);

/// Whether nodes can have groups of their own here; `Err` says why not.
pub(super) fn usable() -> Result<()> {
    ensure!(
        Path::new(ROOT).join("freezer/cgroup.procs").exists(),
        "the nodes of our own cluster need control groups of version 1 in {ROOT}: name another cluster in KUBECONFIG"
    );
    Ok(())
}

/// The folder of a group in every hierarchy.
pub(super) fn folders(name: &str) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|hierarchy| hierarchy.join(name)).collect()
}

/// Makes a group in every hierarchy.
pub(super) fn create(name: &str) -> Result<()> {
    for folder in folders(name) {
        std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        // A new group has no processor and no memory node until it is told.
        for setting in ["cpuset.cpus", "cpuset.mems"] {
            let path = folder.join(setting);
            if path.exists() {
                let above = folder.parent().context("a group has one above")?.join(setting);
                let value = std::fs::read_to_string(&above).with_context(|| format!("{}", above.display()))?;
                std::fs::write(&path, value).with_context(|| format!("{}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Stops every process of a group in its tracks, or lets them go on.
pub(super) fn freeze(name: &str, frozen: bool) -> Result<()> {
    let path = Path::new(ROOT).join("freezer").join(name).join("freezer.state");
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    std::fs::write(&path, wanted).with_context(|| format!("{} cannot be written", path.display()))?;
    wait::until(&format!("{name} {wanted}"), LONGEST_DEATH, || {
        std::fs::read_to_string(&path).is_ok_and(|state| state.trim() == wanted).then_some(())
    })
}

/// Removes a group whose processes are dying.
pub(super) fn remove(name: &str) -> Result<()> {
    for folder in folders(name) {
        wait::until(&format!("removal of {}", folder.display()), LONGEST_DEATH, || {
            remove_tree(&folder);
            (!folder.exists()).then_some(())
        })?;
    }
    Ok(())
}

/// Lets go what dead programs of ours left frozen: it could not even be killed.
pub(super) fn thaw_orphans() {
    for name in orphans() {
        freeze(&name, false).ok();
    }
}

/// Removes the groups of dead programs of ours.
pub(super) fn sweep() -> Result<()> {
    orphans().iter().try_for_each(|name| remove(name))
}

fn orphans() -> Vec<String> {
    let mut names = Vec::new();
    for hierarchy in hierarchies() {
        let entries = std::fs::read_dir(&hierarchy).into_iter().flatten().flatten();
        names.extend(entries.filter_map(|entry| entry.file_name().into_string().ok()));
    }
    names.retain(|name| Owner::of_name(name).is_some_and(|owner| !owner.is_alive()));
    names.sort_unstable();
    names.dedup();
    names
}

fn hierarchies() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(ROOT).into_iter().flatten().flatten();
    let is_used = |path: &PathBuf| path.join("cgroup.procs").exists() && !path.ends_with("unified");
    entries.map(|entry| entry.path()).filter(is_used).collect()
}

/// The kernel's files in a group go with it; only folders below it must go first.
fn remove_tree(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    std::fs::remove_dir(folder).ok();
}
