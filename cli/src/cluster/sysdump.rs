//! `castgate sysdump`: everything that somebody needs who cannot look at the cluster himself, in one archive.
//!
//! Secrets are never asked for. What could repeat one all the same is taken out: managed fields, `last-applied-configuration`,
//! values called password or token, passwords in the query strings of logs.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::access::{
    ACCOUNTS, BUNDLES, CONFIG_MAPS, Cluster, ClusterArgs, DAEMON_SETS, DATABASES, DEFINITIONS, DEPLOYMENTS, ENDPOINTS,
    EVENTS, LEASES, NODES, OPERATOR_LABELS, PODS, POLICIES, RELAYS, Resource, SERVERS, SERVICES, SLICES, STATEFUL_SETS,
    Scope, VOLUME_CLAIMS,
};
use super::diagnose::{self, Facts};
use super::fleet::Fleet;
use super::{reports, status};

/// What is taken of each namespace. No Secret, ever.
const OF_A_NAMESPACE: &[Resource] = &[
    SERVERS,
    DATABASES,
    ENDPOINTS,
    BUNDLES,
    ACCOUNTS,
    RELAYS,
    POLICIES,
    PODS,
    DAEMON_SETS,
    STATEFUL_SETS,
    DEPLOYMENTS,
    SERVICES,
    SLICES,
    VOLUME_CLAIMS,
    LEASES,
    EVENTS,
];
/// The one `ConfigMap` that is ours; others may hold what is nobody's business.
const OUR_CONFIG_MAP: &str = "castgate-ca";
/// Of each log the newest so many octets.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Logs fetched at a time.
const LOGS_AT_A_TIME: usize = 4;
const REMOVED: &str = "<removed>";

/// Collect objects, workloads, events, logs and reports of a cluster into one archive
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  castgate sysdump
  kubectl castgate sysdump -A --output /tmp/castgate.tar.gz
  castgate sysdump --output folder/

Secrets are not read. What cannot be read is listed in missing.txt.")]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// A .tar.gz file, or a folder [default: castgate-sysdump-TIME.tar.gz]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// Collects and writes; says where it is.
pub(crate) async fn run(args: Args) -> Result<()> {
    let cluster = Cluster::connect(&args.cluster).await?;
    let version = cluster.version().await?;
    let name = Timestamp::now().strftime("castgate-sysdump-%Y%m%dT%H%M%SZ").to_string();
    let mut dump = Dump::default();
    dump.json("cluster/version.json", version);
    collect(&cluster, &mut dump).await;
    let output = args.output.unwrap_or_else(|| format!("{name}.tar.gz").into());
    let (count, missing) = (dump.files.len(), dump.missing.len());
    dump.write(&output, &name).with_context(|| format!("cannot write {}", output.display()))?;
    let note =
        if missing == 0 { String::new() } else { format!("; {missing} things could not be read: see missing.txt") };
    writeln!(std::io::stdout(), "{} holds {count} files{note}", output.display())
        .context("standard output is closed")?;
    if count <= 1 {
        bail!("nothing of the cluster could be read");
    }
    Ok(())
}

async fn collect(cluster: &Cluster, dump: &mut Dump) {
    let operators = cluster.list_in(DEPLOYMENTS, &Scope::All, Some(OPERATOR_LABELS)).await;
    let homes = dump.note("the operator", operators).unwrap_or_default();
    let mut namespaces: BTreeSet<String> = homes.iter().map(|home| text(home, "/metadata/namespace")).collect();
    match &cluster.scope {
        Scope::One(name) => {
            namespaces.insert(name.clone());
        }
        Scope::All => {
            for resource in [SERVERS, DATABASES, ENDPOINTS, BUNDLES] {
                let objects = cluster.list(resource).await;
                let objects = dump.note(resource.plural, objects).unwrap_or_default();
                namespaces.extend(objects.iter().map(|object| text(object, "/metadata/namespace")));
            }
        }
    }
    if let Some(nodes) = dump.note("nodes", cluster.list_in(NODES, &Scope::All, None).await) {
        dump.json("cluster/nodes.json", Value::Array(nodes));
    }
    if let Some(mut kinds) = dump.note("kinds", cluster.list_in(DEFINITIONS, &Scope::All, None).await) {
        kinds.retain(|kind| text(kind, "/spec/group") == castgate_crds::GROUP);
        dump.json("cluster/kinds.json", Value::Array(kinds));
    }
    for namespace in &namespaces {
        of_namespace(cluster, namespace, dump).await;
    }
    if let Some(fleet) = dump.note("status", Fleet::read(cluster).await) {
        dump.text("status.txt", &status::in_words(&fleet));
    }
    dump.text("diagnose.txt", &diagnose::in_words(&diagnose::checks(&Facts::read(cluster).await)));
    if let Some(pods) = dump.note("pods of agents", reports::agent_pods(cluster).await) {
        for asked in reports::ask_all(cluster, pods).await {
            let path = format!("{}/reports/{}.json", asked.pod.namespace, asked.pod.name);
            let report = asked.report.map_err(|reason| anyhow::anyhow!("{reason}"));
            if let Some(report) = dump.note(&path, report) {
                dump.json(&path, report);
            }
        }
    }
}

async fn of_namespace(cluster: &Cluster, namespace: &str, dump: &mut Dump) {
    let scope = Scope::One(namespace.to_owned());
    let mut pods = Vec::new();
    for resource in OF_A_NAMESPACE {
        let path = format!("{namespace}/{}.json", resource.plural);
        let Some(objects) = dump.note(&path, cluster.list_in(*resource, &scope, None).await) else { continue };
        if *resource == PODS {
            pods.clone_from(&objects);
        }
        if !objects.is_empty() {
            dump.json(&path, Value::Array(objects));
        }
    }
    let maps = cluster.list_in(CONFIG_MAPS, &scope, None).await;
    if let Some(mut maps) = dump.note(&format!("{namespace}/configmaps.json"), maps) {
        maps.retain(|map| text(map, "/metadata/name") == OUR_CONFIG_MAP);
        dump.json(&format!("{namespace}/configmaps.json"), Value::Array(maps));
    }
    let wanted =
        pods.iter().filter(|pod| text(pod, "/metadata/labels/app.kubernetes.io~1name") == "castgate").flat_map(logs_of);
    let fetched: Vec<_> = stream::iter(wanted)
        .map(|Log { path, query }| async move { (path, cluster.text(&query).await) })
        .buffered(LOGS_AT_A_TIME)
        .collect()
        .await;
    for (path, log) in fetched {
        if let Some(log) = dump.note(&path, log.map_err(anyhow::Error::from)) {
            dump.text(&path, &log);
        }
    }
}

/// One log: where it goes, and how it is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Log {
    path: String,
    query: String,
}

/// The logs of a pod's containers; of one that was restarted also that of its last life.
fn logs_of(pod: &Value) -> Vec<Log> {
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let mut logs = Vec::new();
    for container in containers.into_iter().flatten() {
        let container_name = text(container, "/name");
        let query = format!(
            "/api/v1/namespaces/{namespace}/pods/{name}/log?container={container_name}&timestamps=true&limitBytes={LOG_BYTES_MAX}"
        );
        logs.push(Log { path: format!("{namespace}/logs/{name}.{container_name}.log"), query: query.clone() });
        if container["restartCount"].as_i64().unwrap_or_default() > 0 {
            let path = format!("{namespace}/logs/{name}.{container_name}.previous.log");
            logs.push(Log { path, query: query + "&previous=true" });
        }
    }
    logs
}

/// Files that are collected, and what could not be.
#[derive(Debug, Default)]
struct Dump {
    files: Vec<(String, Vec<u8>)>,
    missing: Vec<String>,
}

impl Dump {
    fn json(&mut self, path: &str, mut value: Value) {
        clean(&mut value);
        let text = serde_json::to_string_pretty(&value).expect("JSON that was read can be written");
        self.files.push((path.to_owned(), text.into_bytes()));
    }

    fn text(&mut self, path: &str, text: &str) {
        self.files.push((path.to_owned(), clean_text(text).into_bytes()));
    }

    /// Keeps the reason when something could not be read.
    fn note<T>(&mut self, what: &str, outcome: Result<T>) -> Option<T> {
        outcome.map_err(|error| self.missing.push(format!("{what}: {error:#}"))).ok()
    }

    fn write(mut self, output: &Path, top: &str) -> Result<()> {
        if !self.missing.is_empty() {
            self.files.push(("missing.txt".to_owned(), clean_text(&(self.missing.join("\n") + "\n")).into_bytes()));
        }
        let file_name = output.file_name().unwrap_or_default().to_string_lossy();
        if !file_name.ends_with(".tar.gz") && !file_name.ends_with(".tgz") {
            for (path, contents) in self.files {
                let path = output.join(path);
                std::fs::create_dir_all(path.parent().unwrap_or(output))?;
                std::fs::write(path, contents)?;
            }
            return Ok(());
        }
        let seconds = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let mut archive = tar::Builder::new(GzEncoder::new(std::fs::File::create(output)?, Compression::default()));
        for (path, contents) in self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(seconds);
            archive.append_data(&mut header, format!("{top}/{path}"), contents.as_slice())?;
        }
        archive.into_inner()?.finish()?;
        Ok(())
    }
}

/// Takes out of an object what repeats others, and what might be secret.
fn clean(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(fields) => {
            fields.remove("managedFields");
            fields.remove("kubectl.kubernetes.io/last-applied-configuration");
            for (name, inner) in fields {
                let secret = matches!(name.to_lowercase().as_str(), "password" | "token");
                match inner {
                    Value::String(text) if secret => *inner = json!(removed(text)),
                    Value::String(text) => *text = clean_text(text),
                    _ => clean(inner),
                }
            }
        }
        Value::String(text) => *text = clean_text(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn removed(text: &str) -> &str {
    if text.is_empty() { "" } else { REMOVED }
}

/// Takes passwords and tokens out of a text, whoever wrote them there.
fn clean_text(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, mark)) = next_mark(rest) {
        let value = at + mark.len();
        clean += &rest[..value];
        clean += REMOVED;
        let ends = |letter: char| letter.is_whitespace() || matches!(letter, '&' | '"' | '\'' | '<' | '\\' | ',');
        rest = &rest[value..];
        rest = &rest[rest.find(ends).unwrap_or(rest.len())..];
    }
    clean + rest
}

/// What a password or token follows, in query strings and headers.
fn next_mark(text: &str) -> Option<(usize, &'static str)> {
    const MARKS: &[&str] = &["PASSWORD=", "password=", "Bearer "];
    MARKS.iter().filter_map(|&mark| Some((text.find(mark)?, mark))).min()
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn no_secret_is_ever_asked_for() {
        assert!(OF_A_NAMESPACE.iter().all(|resource| resource.kind != "Secret" && resource.plural != "secrets"));
    }

    #[test]
    fn what_repeats_a_secret_is_taken_out() {
        let mut value = json!({
            "metadata": {
                "managedFields": [{}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2", "note": "kept"},
            },
            "spec": {"login": "brussels", "password": "hunter2", "passwordSecretRef": {"name": "isp", "key": "password"}},
            "status": {"lastRefusal": "GET /script/castgate.cgs?LOGIN=a&PASSWORD=hunter2&TYPE=TS failed"},
        });
        clean(&mut value);
        let text = value.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(value["spec"]["passwordSecretRef"], json!({"name": "isp", "key": "password"}));
        assert_eq!(
            value["status"]["lastRefusal"],
            "GET /script/castgate.cgs?LOGIN=a&PASSWORD=<removed>&TYPE=TS failed"
        );
        assert_eq!(value["metadata"]["annotations"], json!({"note": "kept"}));
    }

    #[test]
    fn logs_lose_tokens_and_nothing_else() {
        let log = "a authorization: Bearer abc.def end\nno secret here\npassword=x";
        assert_eq!(clean_text(log), "a authorization: Bearer <removed> end\nno secret here\npassword=<removed>");
        assert_eq!(clean_text("Bearer "), "Bearer <removed>");
    }

    #[test]
    fn a_container_that_was_restarted_has_two_logs() {
        let pod = json!({
            "metadata": {"namespace": "n", "name": "p"},
            "status": {"containerStatuses": [{"name": "agent", "restartCount": 1}, {"name": "other", "restartCount": 0}]},
        });
        let paths: Vec<_> = logs_of(&pod).into_iter().map(|log| log.path).collect();
        assert_eq!(paths, ["n/logs/p.agent.log", "n/logs/p.agent.previous.log", "n/logs/p.other.log"]);
    }

    #[test]
    fn an_archive_holds_what_a_folder_holds() {
        let folder = tempfile::tempdir().unwrap();
        let dump = || {
            let mut dump = Dump::default();
            dump.text("a/b.txt", "hello");
            assert_eq!(dump.note("c", Err::<(), _>(anyhow::anyhow!("forbidden"))), None);
            dump
        };
        dump().write(&folder.path().join("out"), "top").unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("out/a/b.txt")).unwrap(), "hello");
        assert_eq!(std::fs::read_to_string(folder.path().join("out/missing.txt")).unwrap(), "c: forbidden\n");
        let archive = folder.path().join("out.tar.gz");
        dump().write(&archive, "top").unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(archive).unwrap()));
        let files: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (entry.path().unwrap().display().to_string(), text)
            })
            .collect();
        let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        assert_eq!(files, [file("top/a/b.txt", "hello"), file("top/missing.txt", "c: forbidden\n")]);
    }
}
