//! Text to documents, and documents to objects with a kind and a name; nothing of their contents yet.

use std::collections::BTreeMap;
use std::fmt;

use castgate_crds::API_VERSION;
use serde_json::{Map, Value};

use crate::nearest::suggestion;
use crate::objects::ObjectName;
use crate::problem::{Problem, Reporter};

/// Namespace of an object that names none: that of kubectl.
const NAMESPACE_DEFAULT: &str = "default";
/// Longest name: it becomes part of the names of workloads and a label, which hold 63 octets.
const NAME_LENGTH_MAX: usize = 63;
/// Fields of `metadata` that Kubernetes knows; only two of them mean something here.
const METADATA: [&str; 14] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

/// A kind that manifests may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ChannelBundle,
    /// Route tables.
    ConfigMap,
    /// Only that `kubectl apply` finds a place for the rest.
    Namespace,
    Secret,
    TunnelAccount,
    TunnelAssignmentPolicy,
    TunnelDatabase,
    TunnelRelay,
    TunnelServer,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::ChannelBundle,
        Self::ConfigMap,
        Self::Namespace,
        Self::Secret,
        Self::TunnelAccount,
        Self::TunnelAssignmentPolicy,
        Self::TunnelDatabase,
        Self::TunnelRelay,
        Self::TunnelServer,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ChannelBundle => "ChannelBundle",
            Self::ConfigMap => "ConfigMap",
            Self::Namespace => "Namespace",
            Self::Secret => "Secret",
            Self::TunnelAccount => "TunnelAccount",
            Self::TunnelAssignmentPolicy => "TunnelAssignmentPolicy",
            Self::TunnelDatabase => "TunnelDatabase",
            Self::TunnelRelay => "TunnelRelay",
            Self::TunnelServer => "TunnelServer",
        }
    }

    const fn api_version(self) -> &'static str {
        match self {
            Self::ConfigMap | Self::Namespace | Self::Secret => "v1",
            Self::ChannelBundle
            | Self::TunnelAccount
            | Self::TunnelAssignmentPolicy
            | Self::TunnelDatabase
            | Self::TunnelRelay
            | Self::TunnelServer => API_VERSION,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One object as it was written.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) file: String,
    pub(crate) kind: Kind,
    pub(crate) name: ObjectName,
    pub(crate) body: Map<String, Value>,
}

impl Document {
    /// How problems name it.
    pub(crate) fn title(&self) -> String {
        match self.kind {
            Kind::Namespace => format!("{} {}", self.kind, self.name.name),
            kind => format!("{kind} {}", self.name),
        }
    }
}

impl Document {
    /// Its labels. Whoever gave one that is no text has labelled nothing with it.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.body.get("metadata").and_then(|metadata| metadata.get("labels")).and_then(Value::as_object);
        let rows = labels.into_iter().flatten();
        rows.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }
}

/// Finds out which object of an API server this is; `None`: one that means nothing here.
///
/// The server has looked at its metadata; a name that no manifest may have is reported by the judge.
pub(crate) fn given(object: Value) -> Option<Document> {
    let Value::Object(body) = object else { return None };
    let text = |pointer: &str| body.get(pointer).and_then(Value::as_str);
    let (api_version, word) = (text("apiVersion")?, text("kind")?);
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == word && kind.api_version() == api_version)?;
    let metadata = body.get("metadata")?;
    let name = metadata.get("name")?.as_str()?.to_owned();
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Document { file: String::new(), kind, name: ObjectName { namespace, name }, body })
}

/// Splits a file into its objects. What is none is reported.
pub(crate) fn read(file: &str, text: &str, problems: &mut Vec<Problem>) -> Vec<Document> {
    let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
        Ok(documents) => documents,
        Err(error) => {
            let line = error.location().map(|location| format!("line {}", location.line()));
            Reporter::new(file, "", problems).report(line.unwrap_or_default(), syntax(&error));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let place = title_of(&document).unwrap_or_else(|| format!("document {}", index + 1));
        let mut reporter = Reporter::new(file, &place, problems);
        match document {
            // Two separators with nothing between them.
            Value::Null => {}
            Value::Object(body) => found.extend(identify(file, body, &mut reporter)),
            _ => reporter.report("", "is not an object with apiVersion, kind and metadata"),
        }
    }
    found
}

/// What the parser says, without its excerpt of the file and without the place, which is the field.
fn syntax(error: &serde_saphyr::Error) -> String {
    let text = match error.without_snippet() {
        serde_saphyr::Error::Message { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    let text = text.lines().next().unwrap_or_default();
    let place = text.find(" at line ").or_else(|| text.find(" (line "));
    let text = place.map_or(text, |end| &text[..end]);
    // The parser's advice is for whoever calls it.
    let text = text.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    format!("is not YAML: {text}")
}

/// How a document that may be none of ours names itself.
fn title_of(document: &Value) -> Option<String> {
    let kind = document.get("kind")?.as_str()?;
    let metadata = document.get("metadata")?;
    let name = metadata.get("name")?.as_str()?;
    let namespace = metadata.get("namespace").map_or(Some(NAMESPACE_DEFAULT), Value::as_str)?;
    Some(if kind == Kind::Namespace.name() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") })
}

/// Finds out which object a document is.
fn identify(file: &str, body: Map<String, Value>, reporter: &mut Reporter) -> Option<Document> {
    let api_version = text_of(&body, "apiVersion", reporter);
    let kind = text_of(&body, "kind", reporter);
    let kind = find_kind(api_version?, kind?, reporter)?;
    let metadata = match body.get("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(_) => {
            reporter.report("metadata", "is not a list of fields");
            return None;
        }
        None => {
            reporter.report("metadata", "is missing");
            return None;
        }
    };
    for field in metadata.keys().filter(|field| !METADATA.contains(&field.as_str())) {
        reporter.report(format!("metadata.{field}"), unknown(field, METADATA.into_iter()));
    }
    let name = label_of(metadata, "name", reporter)?;
    let namespace = match kind {
        Kind::Namespace => String::new(),
        _ if metadata.contains_key("namespace") => label_of(metadata, "namespace", reporter)?,
        _ => NAMESPACE_DEFAULT.to_owned(),
    };
    Some(Document { file: file.to_owned(), kind, name: ObjectName { namespace, name }, body })
}

fn find_kind(api_version: &str, word: &str, reporter: &mut Reporter) -> Option<Kind> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == word);
    match kind {
        Some(kind) if kind.api_version() == api_version => return Some(kind),
        Some(kind) => reporter
            .report("apiVersion", format_args!("\"{api_version}\" is not {}, that of {kind}", kind.api_version())),
        None if word == "TunnelEndpoint" && api_version == API_VERSION => {
            reporter.report("kind", "a TunnelEndpoint is made by the operator alone: remove it");
        }
        None if api_version.starts_with(castgate_crds::GROUP) => {
            let ours = Kind::ALL.into_iter().filter(|kind| kind.api_version() == API_VERSION);
            let suggestion = suggestion(word, ours.map(Kind::name));
            reporter.report("kind", format_args!("\"{word}\" is no kind of {API_VERSION}{suggestion}"));
        }
        None => {
            let suggestion = suggestion(word, Kind::ALL.into_iter().map(Kind::name));
            reporter.report("kind", format_args!("castgate reads no \"{word}\" of {api_version}{suggestion}"));
        }
    }
    None
}

/// What is said about a field that does not exist.
pub(crate) fn unknown<'a>(field: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("unknown field{}", suggestion(field, known))
}

fn text_of<'a>(body: &'a Map<String, Value>, field: &str, reporter: &mut Reporter) -> Option<&'a str> {
    match body.get(field) {
        Some(Value::String(text)) => return Some(text),
        Some(_) => reporter.report(field, "is not a text"),
        None => reporter.report(field, "is missing"),
    }
    None
}

fn label_of(metadata: &Map<String, Value>, field: &str, reporter: &mut Reporter) -> Option<String> {
    let path = format!("metadata.{field}");
    match metadata.get(field) {
        Some(Value::String(text)) if is_label(text) => return Some(text.clone()),
        Some(Value::String(text)) => reporter.report(path, not_a_label(text)),
        Some(_) => reporter.report(path, "is not a text: write it in quotes"),
        None => reporter.report(path, "is missing"),
    }
    None
}

/// Whether a text may name an object or a row: a DNS label.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    (1..=NAME_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// What is said about a text that may not.
pub(crate) fn not_a_label(text: &str) -> String {
    format!("\"{text}\" is not a name of at most {NAME_LENGTH_MAX} small letters, digits and inner hyphens")
}
