//! The commands for a cluster where there is none: one sentence, and a status that scripts see.

mod common;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use common::{castgate, stderr, stdout};

/// Each command with what it needs.
const COMMANDS: &[&[&str]] = &[
    &["status"],
    &["tunnels"],
    &["diagnose"],
    &["sysdump", "--output", "/nonexistent/x"],
    &["selftest", "-n", "castgate"],
];

#[test]
fn a_cluster_that_does_not_answer_is_named_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("config");
    // The port discard: nobody listens there.
    let config = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:9"}}], "users": [{"name": "a", "user": {}}]}"#;
    std::fs::write(&kubeconfig, config).unwrap();
    for words in COMMANDS {
        let output = castgate(words).env("KUBECONFIG", &kubeconfig).output().unwrap();
        check(&output, words, "castgate: the API server http://127.0.0.1:9/ cannot be asked");
    }
    let elsewhere = ["status", "--context", "b"];
    let output = castgate(&elsewhere).env("KUBECONFIG", &kubeconfig).output().unwrap();
    check(&output, &elsewhere, "castgate: cannot use the context b");
}

#[test]
fn no_cluster_at_all_is_said_with_what_to_do() {
    let output = castgate(&["status"]).env("KUBECONFIG", "/nonexistent").output().unwrap();
    check(&output, &["status"], "castgate: cannot use KUBECONFIG");
    let mut nowhere = castgate(&["status"]);
    nowhere.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").env("HOME", "/nonexistent");
    check(&nowhere.output().unwrap(), &["status"], "castgate: no cluster is named: set KUBECONFIG");
}

#[test]
fn a_link_named_after_kubectl_shows_its_usage_as_a_plugin() {
    let help = |name: &str| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_castgate")).arg0(name).args(["status", "--help"]).output().unwrap();
        stdout(&output)
    };
    assert!(help("/somewhere/kubectl-castgate").contains("Usage: kubectl castgate status [OPTIONS]"));
    assert!(help("castgate").contains("Usage: castgate status [OPTIONS]"));
}

fn check(output: &Output, words: &[&str], begins: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
    assert!(said.starts_with(begins) && said.trim_end().lines().count() == 1, "{words:?}: {said}");
}
