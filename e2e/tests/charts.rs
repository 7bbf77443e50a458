//! The chart `castgate` as Helm renders it: goldens, lint, and refusals. No cluster is needed, and no root.
//!
//! Helm comes from `CASTGATE_CLUSTER_BIN`, from the cache where `cargo xtask` builds the cluster's programs, or from the PATH.
//! `CASTGATE_BLESS=1` writes the goldens; read the difference before you commit it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Each golden with the values it stands for.
const GOLDENS: &[(&str, &[&str])] = &[
    ("default", &[]),
    ("single-namespace", &["--values", "tests/single-namespace.yaml"]),
    ("everything", &["--values", "tests/everything.yaml"]),
    // Helm has made the namespace: the chart must not make it again.
    ("own-namespace", &["--namespace", "castgate-system", "--show-only", "templates/namespaces.yaml"]),
];

/// Values that are refused, and what the refusal names.
const REFUSED: &[(&str, &str)] = &[
    ("operator.replicas=17", "/operator/replicas"),
    ("operator.replica=1", "'replica'"),
    ("operator.replicas=null", "'replicas'"),
    ("operator.namespace.name=", "/operator/namespace/name"),
    ("operator.otlpEndpoint=collector:4317", "/operator/otlpEndpoint"),
    ("operator.withdrawTimeout=20", "/operator/withdrawTimeout"),
    ("agents.image.pullPolicy=Sometimes", "/agents/image/pullPolicy"),
    ("agents.image.tag=a b", "/agents/image/tag"),
    ("scope.namespaces[0]=Upper", "/scope/namespaces/0"),
    ("test.channel=232.1.2.3", "/test/channel"),
    ("test.seconds=0", "/test/seconds"),
];

#[test]
fn the_chart_renders_as_committed() {
    let Some(helm) = Helm::find() else { return };
    let bless = std::env::var_os("CASTGATE_BLESS").is_some();
    let mut stale = Vec::new();
    for (name, options) in GOLDENS {
        let output = helm.run(&[&["template", "castgate", "."], *options].concat());
        let rendered = text(&output.stdout);
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        let path = chart().join(format!("tests/golden/{name}.yaml"));
        if bless {
            std::fs::write(&path, &rendered).unwrap();
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != rendered {
            stale.push(path.display().to_string());
        }
    }
    assert!(
        stale.is_empty(),
        "stale: {}; run this test with CASTGATE_BLESS=1 and read the difference",
        stale.join(", ")
    );
}

#[test]
fn the_chart_passes_lint() {
    let Some(helm) = Helm::find() else { return };
    for (name, options) in GOLDENS.iter().filter(|(_, options)| !options.contains(&"--show-only")) {
        let output = helm.run(&[&["lint", "--strict", "."], *options].concat());
        assert!(output.status.success(), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn a_value_that_is_wrong_is_refused_by_its_name() {
    let Some(helm) = Helm::find() else { return };
    for (value, named) in REFUSED {
        let output = helm.run(&["template", "castgate", ".", "--set", value]);
        let sentence = text(&output.stderr);
        assert!(!output.status.success() && sentence.contains(named), "{value}: {sentence}");
    }
}

#[test]
fn an_operator_of_one_namespace_reads_no_secret_of_the_cluster() {
    let rendered = golden("single-namespace");
    let cluster_wide = documents(&rendered).filter(|document| document.contains("\nkind: ClusterRole\n"));
    let mut seen = 0;
    for role in cluster_wide.filter(|role| !role.contains("aggregate-to-view") && !role.contains("aggregate-to-edit")) {
        assert!(!role.contains("secrets") && !role.contains("castgate.dev]"), "{role}");
        seen += 1;
    }
    assert_eq!(seen, 1, "the one cluster-wide role of the operator");
    assert!(
        documents(&golden("default"))
            .any(|document| document.contains("\nkind: ClusterRole\n") && document.contains("secrets"))
    );
}

#[test]
fn nothing_but_the_operator_and_the_test_is_made_without_being_asked_for() {
    let rendered = golden("default");
    for kind in ["PodMonitor", "PrometheusRule", "castgate-dashboard"] {
        assert!(!rendered.contains(kind), "{kind} is off by default");
        assert!(golden("everything").contains(kind), "{kind} is missing");
    }
}

#[test]
fn every_pod_may_live_in_a_restricted_namespace() {
    let rendered = golden("everything");
    let pods = documents(&rendered).filter(|document| document.contains("containers:"));
    let mut count = 0;
    for pod in pods {
        for line in [
            "runAsNonRoot: true",
            "type: RuntimeDefault",
            "allowPrivilegeEscalation: false",
            "readOnlyRootFilesystem: true",
            "drop: [ALL]",
        ] {
            assert!(pod.contains(line), "{line} is missing in {pod}");
        }
        count += 1;
    }
    assert_eq!(count, 2, "the operator and the test");
}

/// The program, with a home of its own.
struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Helm {
    /// Finds it, or says that the running test is skipped.
    fn find() -> Option<Self> {
        let cache = || -> Option<PathBuf> {
            let from = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            from("CASTGATE_CACHE")
                .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("castgate-build")))
                .or_else(|| from("HOME").map(|home| home.join(".cache/castgate-build")))
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let named = std::env::var_os("CASTGATE_CLUSTER_BIN").map(PathBuf::from);
        let folders =
            named.into_iter().chain(cache().map(|cache| cache.join("cluster/bin"))).chain(std::env::split_paths(&path));
        let Some(program) = folders.map(|folder| folder.join("helm")).find(|program| program.is_file()) else {
            skip("the program `helm` is missing (cargo xtask test builds it with the cluster)");
            return None;
        };
        Some(Self { program, home: tempfile::tempdir().expect("a folder for Helm") })
    }

    /// Runs it in the folder of the chart, with nothing of this machine's settings.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(chart()).env("HOME", self.home.path()).env_remove("KUBECONFIG");
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.home.path());
        }
        command.output().expect("helm runs")
    }
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/castgate")
}

fn golden(name: &str) -> String {
    std::fs::read_to_string(chart().join(format!("tests/golden/{name}.yaml"))).expect("a committed golden")
}

fn documents(rendered: &str) -> impl Iterator<Item = &str> {
    rendered.split("\n---\n")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Says it to whoever reads along, and to the test command that counts.
fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}", thread.name().unwrap_or("a test"));
    eprintln!("SKIPPED: {line}");
    if let Some(path) = std::env::var_os("CASTGATE_SKIP_FILE") {
        let file = std::fs::OpenOptions::new().append(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.expect("a skipped test that is not counted would pass for one that ran");
    }
}
