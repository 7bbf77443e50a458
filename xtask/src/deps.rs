//! Who may depend on whom: the arrows of `docs/architecture.md`, checked against what cargo resolves.

use crate::shell;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Every crate of the workspace and the crates of the workspace it may use. A crate that is missing here fails the check.
const ARROWS: &[(&str, &[&str])] = &[
    ("castgate-wire", &[]),
    ("castgate-endpoint", &["castgate-wire"]),
    ("castgate-control", &["castgate-wire"]),
    ("castgate-udp", &[]),
    ("castgate-dataplane", &["castgate-wire", "castgate-udp"]),
    (
        "castgate-agent",
        &["castgate-endpoint", "castgate-dataplane", "castgate-control", "castgate-wire", "castgate-udp"],
    ),
    ("castgate-crds", &[]),
    ("castgate-planner", &["castgate-crds", "castgate-control"]),
    ("castgate-client", &["castgate-endpoint", "castgate-udp", "castgate-wire"]),
    (
        "castgate-cli",
        &[
            "castgate-client",
            "castgate-agent",
            "castgate-dataplane",
            "castgate-planner",
            "castgate-crds",
            "castgate-control",
            "castgate-endpoint",
            "castgate-udp",
            "castgate-wire",
        ],
    ),
    ("castgate-e2e", &["castgate-wire", "castgate-endpoint", "castgate-udp"]),
    ("xtask", &[]),
];

/// What a crate must not reach, by any path. `kube-client` is what a kube client is made of.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("castgate-wire", &["tokio", "mio", "socket2", "kube", "kube-client"]),
    ("castgate-endpoint", &["tokio", "mio", "socket2", "kube", "kube-client"]),
    ("castgate-control", &["tokio", "mio", "socket2", "kube", "kube-client"]),
    ("castgate-planner", &["tokio", "mio", "socket2", "kube-client"]),
    ("castgate-crds", &["tokio", "mio", "socket2", "kube-client"]),
    ("castgate-dataplane", &["tokio", "kube", "kube-client"]),
    ("castgate-agent", &["kube", "kube-client"]),
];

/// Checks every rule and names every arrow that breaks one.
pub fn check() -> Result<()> {
    let metadata = shell::stdout(&mut shell::cargo(&["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let graph = Graph::new(&metadata)?;
    let mut broken = wrong_arrows(&graph.members, ARROWS);
    for (krate, forbidden) in FORBIDDEN {
        broken.extend(graph.reached_from(krate, forbidden));
    }
    broken.extend(allowed_unsafe(&graph)?);
    if broken.is_empty() {
        println!("deps: {} crates keep to the architecture", graph.members.len());
        return Ok(());
    }
    bail!("{} broken dependency rules:\n  {}", broken.len(), broken.join("\n  "));
}

/// The resolved graph of normal and build dependencies, by package name.
struct Graph {
    members: BTreeMap<String, BTreeSet<String>>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn new(metadata: &Value) -> Result<Self> {
        let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
        let name_of: BTreeMap<&str, &str> =
            packages.iter().filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?))).collect();
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array().context("cargo metadata resolves nothing")? {
            let name = name_of[node["id"].as_str().context("a node without an id")?];
            let targets = edges.entry(name.to_owned()).or_default();
            for dependency in node["deps"].as_array().into_iter().flatten() {
                let kinds = dependency["dep_kinds"].as_array().context("a dependency without a kind")?;
                // What only tests use cannot reach a user.
                if kinds.iter().any(|kind| kind["kind"] != "dev") {
                    targets
                        .insert(name_of[dependency["pkg"].as_str().context("a dependency without an id")?].to_owned());
                }
            }
        }
        let ids = metadata["workspace_members"].as_array().context("cargo metadata has no members")?;
        let names: BTreeSet<&str> = ids.iter().filter_map(|id| name_of.get(id.as_str()?).copied()).collect();
        let own = |name: &str| edges[name].iter().filter(|target| names.contains(target.as_str())).cloned().collect();
        let members = names.iter().map(|name| ((*name).to_owned(), own(name))).collect();
        Ok(Self { members, edges })
    }

    /// One sentence for each of `forbidden` that `krate` reaches, with the path that leads there.
    fn reached_from(&self, krate: &str, forbidden: &[&str]) -> Vec<String> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut open = vec![krate];
        while let Some(at) = open.pop() {
            for next in self.edges.get(at).into_iter().flatten() {
                if next != krate && !came_from.contains_key(next.as_str()) {
                    came_from.insert(next, at);
                    open.push(next);
                }
            }
        }
        let path = |to: &str| {
            let mut path = vec![to];
            while let Some(from) = came_from.get(path[path.len() - 1]) {
                path.push(from);
            }
            path.reverse();
            path.join(" -> ")
        };
        let reached = forbidden.iter().filter(|name| came_from.contains_key(**name));
        reached.map(|name| format!("{krate} must not reach {name}: {}", path(name))).collect()
    }
}

fn wrong_arrows(members: &BTreeMap<String, BTreeSet<String>>, arrows: &[(&str, &[&str])]) -> Vec<String> {
    let mut broken = Vec::new();
    for (member, uses) in members {
        let Some((_, allowed)) = arrows.iter().find(|(name, _)| name == member) else {
            broken.push(format!("{member} has no place in xtask/src/deps.rs: say what it may use"));
            continue;
        };
        let wrong = uses.iter().filter(|target| !allowed.contains(&target.as_str()));
        broken.extend(wrong.map(|target| format!("{member} must not use {target}")));
    }
    broken
}

/// `unsafe` is for `agent/udp` alone: no other crate may lift the workspace's lint.
fn allowed_unsafe(graph: &Graph) -> Result<Vec<String>> {
    let files =
        shell::stdout(&mut shell::command("git", &["ls-files", "-co", "--exclude-standard", "*.rs", "*Cargo.toml"]))?;
    let mut broken = Vec::new();
    for file in files.lines().filter(|file| !file.starts_with("agent/udp/") && !file.starts_with("xtask/")) {
        let Ok(text) = std::fs::read_to_string(shell::root().join(file)) else { continue };
        if text.contains("allow(unsafe_code") || text.contains("expect(unsafe_code") {
            broken.push(format!("{file} lifts unsafe_code: only agent/udp may"));
        }
        let is_member = text.starts_with("[package]") && !file.contains("/fuzz/");
        if is_member && !text.contains("[lints]\nworkspace = true") {
            broken.push(format!("{file} does not take the workspace's lints"));
        }
    }
    debug_assert!(graph.members.contains_key("castgate-udp"), "the exception names a crate that exists");
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_arrow_that_points_back_is_named() {
        let members = BTreeMap::from([("castgate-wire".to_owned(), BTreeSet::from(["castgate-agent".to_owned()]))]);
        assert_eq!(wrong_arrows(&members, ARROWS), ["castgate-wire must not use castgate-agent"]);
    }

    #[test]
    fn a_crate_without_a_place_is_named() {
        let members = BTreeMap::from([("castgate-new".to_owned(), BTreeSet::new())]);
        assert_eq!(wrong_arrows(&members, ARROWS).len(), 1);
    }

    #[test]
    fn a_forbidden_crate_is_found_at_any_depth_and_its_path_is_shown() {
        let graph = Graph::new(&small_metadata("normal")).unwrap();
        assert_eq!(graph.reached_from("a", &["c"]), ["a must not reach c: a -> b -> c"]);
    }

    #[test]
    fn what_only_tests_use_is_not_reached() {
        let graph = Graph::new(&small_metadata("dev")).unwrap();
        assert!(graph.reached_from("a", &["c"]).is_empty());
    }

    fn small_metadata(kind: &str) -> Value {
        let kind = if kind == "normal" { Value::Null } else { json!(kind) };
        json!({
            "packages": [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}, {"id": "3", "name": "c"}],
            "workspace_members": ["1"],
            "resolve": {"nodes": [
                {"id": "1", "deps": [{"pkg": "2", "dep_kinds": [{"kind": null}]}]},
                {"id": "2", "deps": [{"pkg": "3", "dep_kinds": [{"kind": kind}]}]},
                {"id": "3", "deps": []},
            ]},
        })
    }
}
