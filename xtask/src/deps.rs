//! Who may depend on whom: the arrows of `docs/architecture.md`, checked against what cargo resolves.

use crate::shell;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Every crate of the workspace and the crates of the workspace it may use. A crate that is missing here fails the check.
const ARROWS: &[(&str, &[&str])] = &[
    ("castgate-wire", &[]),
    ("castgate-endpoint", &["castgate-wire"]),
    ("castgate-control", &["castgate-endpoint", "castgate-wire"]),
    ("castgate-rpc", &["castgate-control", "castgate-wire"]),
    ("castgate-udp", &[]),
    ("castgate-etcd", &[]),
    ("castgate-dataplane", &["castgate-wire", "castgate-udp"]),
    (
        "castgate-agent",
        &[
            "castgate-client",
            "castgate-endpoint",
            "castgate-etcd",
            "castgate-dataplane",
            "castgate-control",
            "castgate-rpc",
            "castgate-wire",
            "castgate-udp",
        ],
    ),
    ("castgate-crds", &[]),
    ("castgate-planner", &["castgate-crds", "castgate-control"]),
    ("castgate-operator", &["castgate-planner", "castgate-crds", "castgate-control", "castgate-rpc"]),
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

/// What a crate must not reach, by any path, when it is built alone. `kube-client` is what a kube client is made of.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("castgate-wire", &["tokio", "mio", "socket2", "kube", "kube-client"]),
    ("castgate-endpoint", &["tokio", "mio", "socket2", "kube", "kube-client"]),
    ("castgate-control", &["tokio", "mio", "socket2", "kube", "kube-client"]),
    ("castgate-planner", &["tokio", "mio", "socket2", "kube-client"]),
    ("castgate-crds", &["tokio", "mio", "socket2", "kube-client"]),
    ("castgate-dataplane", &["tokio", "kube", "kube-client"]),
    ("castgate-rpc", &["kube", "kube-client"]),
    ("castgate-etcd", &["kube", "kube-client"]),
    ("castgate-agent", &["kube", "kube-core", "kube-derive", "kube-client", "k8s-openapi"]),
    ("castgate-client", &["kube", "kube-client"]),
    ("castgate-operator", &["castgate-dataplane", "castgate-udp", "castgate-agent"]),
];

/// Checks every rule and names every arrow that breaks one.
pub fn check() -> Result<()> {
    let metadata = shell::stdout(&mut shell::cargo(&["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let members = members(&metadata)?;
    let mut broken = wrong_arrows(&members, ARROWS);
    for (krate, forbidden) in FORBIDDEN {
        broken.extend(reached_from(krate, forbidden, &tree(krate)?)?);
    }
    broken.extend(allowed_unsafe(&members)?);
    if broken.is_empty() {
        println!("deps: {} crates keep to the architecture", members.len());
        return Ok(());
    }
    bail!("{} broken dependency rules:\n  {}", broken.len(), broken.join("\n  "));
}

/// Every crate of the workspace, and those of the workspace that it uses other than in tests.
fn members(metadata: &Value) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let name_of: BTreeMap<&str, &str> =
        packages.iter().filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?))).collect();
    let ids = metadata["workspace_members"].as_array().context("cargo metadata has no members")?;
    let names: BTreeSet<&str> = ids.iter().filter_map(|id| name_of.get(id.as_str()?).copied()).collect();
    let mut members = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().context("cargo metadata resolves nothing")? {
        let name = name_of[node["id"].as_str().context("a node without an id")?];
        if !names.contains(name) {
            continue;
        }
        let mut uses = BTreeSet::new();
        for dependency in node["deps"].as_array().into_iter().flatten() {
            let target = name_of[dependency["pkg"].as_str().context("a dependency without an id")?];
            let kinds = dependency["dep_kinds"].as_array().context("a dependency without a kind")?;
            // What only tests use cannot reach a user.
            if names.contains(target) && kinds.iter().any(|kind| kind["kind"] != "dev") {
                uses.insert(target.to_owned());
            }
        }
        members.insert(name.to_owned(), uses);
    }
    Ok(members)
}

/// What a build of `krate` alone is made of. Features of the whole workspace are united in `cargo metadata`: there, whoever
/// shares a crate with the operator would seem to use a Kubernetes client.
fn tree(krate: &str) -> Result<String> {
    let arguments = ["tree", "--locked", "--package", krate, "--edges", "normal,build", "--prefix", "depth"];
    shell::stdout(&mut shell::cargo(&[&arguments[..], &["--no-dedupe", "--format", " {p}"]].concat()))
}

/// One sentence for each of `forbidden` in the tree of `krate`, with the path that leads there. A line of the tree is the
/// depth and the crate: `2 mio v1.0.0`.
fn reached_from(krate: &str, forbidden: &[&str], tree: &str) -> Result<Vec<String>> {
    let mut path: Vec<&str> = Vec::new();
    let mut found: BTreeMap<&str, String> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let (Some(depth), Some(name)) = (words.next(), words.next()) else { continue };
        path.truncate(depth.parse().with_context(|| format!("cargo tree printed `{line}`"))?);
        path.push(name);
        // The first path is as good as any.
        if path.len() > 1 && forbidden.contains(&name) && !found.contains_key(name) {
            found.insert(name, path.join(" -> "));
        }
    }
    if path.is_empty() {
        bail!("cargo tree shows nothing for {krate}");
    }
    Ok(found.iter().map(|(name, path)| format!("{krate} must not reach {name}: {path}")).collect())
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
fn allowed_unsafe(members: &BTreeMap<String, BTreeSet<String>>) -> Result<Vec<String>> {
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
    debug_assert!(members.contains_key("castgate-udp"), "the exception names a crate that exists");
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
        let tree = "0 a v0.1.0 (/src/a)\n1 b v1.0.0\n2 d v1.0.0\n2 c v2.0.0\n1 e v1.0.0\n2 c v2.0.0\n";
        assert_eq!(reached_from("a", &["c"], tree).unwrap(), ["a must not reach c: a -> b -> c"]);
        assert!(reached_from("a", &["f", "a"], tree).unwrap().is_empty());
    }

    #[test]
    fn an_empty_tree_is_no_proof() {
        assert!(reached_from("a", &["c"], "").is_err());
    }

    #[test]
    fn a_crate_that_shares_one_with_the_operator_does_not_get_its_features() {
        // The whole workspace reaches a Kubernetes client through `kube`, which the schemas use, too.
        let alone = tree("castgate-crds").unwrap();
        assert!(
            alone.contains(" kube ") && reached_from("castgate-crds", &["kube-client"], &alone).unwrap().is_empty()
        );
        let operator = tree("castgate-operator").unwrap();
        assert_eq!(reached_from("castgate-operator", &["kube-client"], &operator).unwrap().len(), 1);
    }

    #[test]
    fn what_only_tests_use_is_no_arrow() {
        let uses = |kind: Value| members(&small_metadata(&kind)).unwrap()["a"].clone();
        assert_eq!(uses(Value::Null), BTreeSet::from(["b".to_owned()]));
        assert_eq!(uses(json!("build")), BTreeSet::from(["b".to_owned()]));
        assert!(uses(json!("dev")).is_empty());
    }

    fn small_metadata(kind: &Value) -> Value {
        json!({
            "packages": [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}, {"id": "3", "name": "c"}],
            "workspace_members": ["1", "2"],
            "resolve": {"nodes": [
                {"id": "1", "deps": [
                    {"pkg": "2", "dep_kinds": [{"kind": kind}]},
                    {"pkg": "3", "dep_kinds": [{"kind": null}]},
                ]},
                {"id": "2", "deps": []},
                {"id": "3", "deps": []},
            ]},
        })
    }
}
