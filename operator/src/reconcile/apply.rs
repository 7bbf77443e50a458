//! Brings the API server to what was planned, and writes nothing when it already is there.
//!
//! ```text
//!   wanted, live, what we remember ──▶ decide (pure) ──▶ Keep | Apply
//!                                                          └──▶ server-side apply, forced, one field manager a controller
//! ```
//! An applied object carries the hash of what was wanted. That alone would not notice a stranger's edit: so after each apply
//! the generation (or, for kinds without one, the resource version) is remembered, and another one means: apply again.

use std::collections::HashMap;
use std::hash::Hasher as _;

use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// Annotation with the hash of what was applied.
pub const APPLIED: &str = "castgate.dev/applied";

/// Which object: kind, namespace, name.
pub type Key = (String, String, String);

/// A request to the API server that failed: one sentence that names the object.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {kind} {namespace}/{name}: {source}")]
pub struct ApplyError {
    /// What was tried.
    pub verb: &'static str,
    /// Kind of the object.
    pub kind: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// What the API server said.
    #[source]
    pub source: kube::Error,
}

impl ApplyError {
    /// What the API server will go on to refuse until somebody does something, in its words; `None`: it may be better soon.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match &self.source {
            kube::Error::Api(answer) if matches!(answer.code, 400 | 403 | 422) => {
                Some(format!("the API server refuses {} {}: {}", self.kind, self.name, answer.message))
            }
            _ => None,
        }
    }
}

/// What is done with one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Keep,
    Apply,
}

/// How an object was after we applied it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Remembered {
    hash: String,
    mark: String,
}

/// Applies objects and remembers how they were afterwards.
pub struct Applier {
    client: Client,
    memory: HashMap<Key, Remembered>,
    /// Writes that reached the API server, by manager and verb; whoever shows metrics takes them.
    writes: HashMap<(&'static str, &'static str), u64>,
}

impl Applier {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, memory: HashMap::new(), writes: HashMap::new() }
    }

    /// Writes since the last call, by field manager and verb.
    pub fn take_writes(&mut self) -> HashMap<(&'static str, &'static str), u64> {
        std::mem::take(&mut self.writes)
    }

    /// Makes `wanted` so, unless it is. Whether something was written.
    ///
    /// # Errors
    /// What the API server refused.
    pub async fn apply(
        &mut self,
        manager: &'static str,
        wanted: &Value,
        live: Option<&Value>,
    ) -> Result<bool, ApplyError> {
        let key = key_of(wanted);
        let hash = hash(wanted);
        if decide(&hash, live, self.memory.get(&key)) == Decision::Keep {
            return Ok(false);
        }
        let mut object = wanted.clone();
        object["metadata"]["annotations"][APPLIED] = json!(hash);
        let applied = self.patch(manager, &key, &object, false).await?;
        let mark = mark(&serde_json::to_value(&applied).unwrap_or_default());
        self.memory.insert(key, Remembered { hash, mark });
        Ok(true)
    }

    /// Writes the status of an object of ours.
    ///
    /// # Errors
    /// What the API server refused; an object that is gone is no error.
    pub async fn status(&mut self, manager: &'static str, object: &Value) -> Result<(), ApplyError> {
        self.patch_if_there(manager, object, true).await
    }

    /// Applies without remembering: for small parts of objects that people own, such as a finalizer.
    ///
    /// # Errors
    /// What the API server refused.
    pub async fn part(&mut self, manager: &'static str, object: &Value) -> Result<(), ApplyError> {
        self.patch_if_there(manager, object, false).await
    }

    async fn patch_if_there(&mut self, manager: &'static str, object: &Value, status: bool) -> Result<(), ApplyError> {
        match self.patch(manager, &key_of(object), object, status).await {
            Err(ApplyError { source: kube::Error::Api(answer), .. }) if answer.code == 404 => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Changes parts of a status, when the object still is the one that was looked at.
    ///
    /// # Errors
    /// What the API server refused; an object that is gone, or that somebody else wrote meanwhile, is no error.
    pub async fn merge_status(&mut self, manager: &'static str, object: &Value) -> Result<(), ApplyError> {
        let key = key_of(object);
        *self.writes.entry((manager, "status")).or_default() += 1;
        let parameters = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        match self.api(&key, object).patch_status(&key.2, &parameters, &Patch::Merge(object)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
            Err(source) => Err(error("patch", &key, source)),
        }
    }

    /// Removes an object, when it still is the one that was looked at.
    ///
    /// # Errors
    /// What the API server refused; one that is gone already is no error.
    pub async fn delete(&mut self, manager: &'static str, live: &Value) -> Result<(), ApplyError> {
        let key = key_of(live);
        self.memory.remove(&key);
        let uid = live["metadata"]["uid"].as_str().map(str::to_owned);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::background()
        };
        *self.writes.entry((manager, "delete")).or_default() += 1;
        match self.api(&key, live).delete(&key.2, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
            Err(source) => Err(error("delete", &key, source)),
        }
    }

    async fn patch(
        &mut self,
        manager: &'static str,
        key: &Key,
        object: &Value,
        status: bool,
    ) -> Result<DynamicObject, ApplyError> {
        let api = self.api(key, object);
        let parameters = PatchParams::apply(manager).force();
        *self.writes.entry((manager, if status { "status" } else { "apply" })).or_default() += 1;
        let patch = Patch::Apply(object);
        let applied = if status {
            api.patch_status(&key.2, &parameters, &patch).await
        } else {
            api.patch(&key.2, &parameters, &patch).await
        };
        applied.map_err(|source| error("apply", key, source))
    }

    fn api(&self, key: &Key, object: &Value) -> Api<DynamicObject> {
        let resource = resource_of(object);
        if key.1.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &key.1, &resource)
        }
    }
}

fn error(verb: &'static str, key: &Key, source: kube::Error) -> ApplyError {
    let (kind, namespace, name) = key.clone();
    ApplyError { verb, kind, namespace, name, source }
}

/// What to do, from what is wanted, what is there and what is remembered.
fn decide(hash: &str, live: Option<&Value>, remembered: Option<&Remembered>) -> Decision {
    match (live, remembered) {
        (Some(live), Some(remembered))
            if remembered.hash == hash
                && remembered.mark == mark(live)
                && live["metadata"]["annotations"][APPLIED] == *hash =>
        {
            Decision::Keep
        }
        // Our own write is not in the watch yet: what was remembered is newer than what is seen.
        (Some(live), Some(remembered)) if remembered.hash == hash && is_before(live, remembered) => Decision::Keep,
        _ => Decision::Apply,
    }
}

/// What changes when somebody changes what we applied: the generation where there is one, else the resource version.
fn mark(object: &Value) -> String {
    let metadata = &object["metadata"];
    match metadata["generation"].as_u64() {
        Some(generation) => format!("{} generation {generation}", metadata["uid"]),
        None => format!("{} version {}", metadata["uid"], metadata["resourceVersion"]),
    }
}

fn is_before(live: &Value, remembered: &Remembered) -> bool {
    let number = |mark: &str| mark.rsplit([' ', '"']).find_map(|word| word.parse::<u64>().ok());
    let live_mark = mark(live);
    let uid = |mark: &str| mark.split(' ').next().map(str::to_owned);
    uid(&live_mark) == uid(&remembered.mark)
        && matches!((number(&live_mark), number(&remembered.mark)), (Some(live), Some(ours)) if live < ours)
}

/// Kind, namespace and name of an object.
#[must_use]
pub fn key_of(object: &Value) -> Key {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

fn hash(wanted: &Value) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(wanted.to_string().as_bytes());
    format!("{:032x}", hasher.finish128().as_u128())
}

/// The resource of an object that we make: every plural of ours is regular.
fn resource_of(object: &Value) -> ApiResource {
    let (kind, ..) = key_of(object);
    let known = crate::watch::kinds::Kind::all().find(|known| known.name() == kind);
    known.map_or_else(
        || {
            let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                plural: format!("{}s", kind.to_ascii_lowercase()),
                api_version: api_version.clone(),
                kind: kind.clone(),
            }
        },
        crate::watch::kinds::Kind::resource,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(generation: u64, hash: &str) -> Value {
        json!({"kind": "DaemonSet", "metadata": {
            "uid": "u", "generation": generation, "resourceVersion": "900", "annotations": {APPLIED: hash},
        }})
    }

    fn remembered(generation: u64, hash: &str) -> Remembered {
        Remembered { hash: hash.to_owned(), mark: mark(&live(generation, hash)) }
    }

    #[test]
    fn what_nobody_but_a_person_can_mend_is_told_in_the_words_of_the_api_server() {
        let error = |code| {
            let answer = json!({"code": code, "message": "spec.ports[0].nodePort: provided port is already allocated"});
            let source = kube::Error::Api(serde_json::from_value(answer).unwrap());
            ApplyError {
                verb: "apply",
                kind: "Service".to_owned(),
                namespace: "isp".to_owned(),
                name: "tdb-isp".to_owned(),
                source,
            }
        };
        let sentence =
            "the API server refuses Service tdb-isp: spec.ports[0].nodePort: provided port is already allocated";
        for (code, told) in [(422, true), (403, true), (400, true), (409, false), (429, false), (500, false)] {
            assert_eq!(error(code).refusal().as_deref(), told.then_some(sentence), "{code}");
        }
    }

    #[test]
    fn what_is_as_we_left_it_is_not_written() {
        assert_eq!(decide("a", Some(&live(3, "a")), Some(&remembered(3, "a"))), Decision::Keep);
    }

    #[test]
    fn what_is_missing_changed_edited_or_forgotten_is_applied() {
        assert_eq!(decide("a", None, Some(&remembered(3, "a"))), Decision::Apply);
        assert_eq!(decide("b", Some(&live(3, "a")), Some(&remembered(3, "a"))), Decision::Apply);
        assert_eq!(decide("a", Some(&live(4, "a")), Some(&remembered(3, "a"))), Decision::Apply);
        assert_eq!(decide("a", Some(&live(3, "a")), None), Decision::Apply);
        assert_eq!(decide("a", Some(&live(3, "other")), Some(&remembered(3, "a"))), Decision::Apply);
    }

    #[test]
    fn a_watch_that_lags_behind_our_own_write_does_not_make_us_write_again() {
        assert_eq!(decide("a", Some(&live(2, "old")), Some(&remembered(3, "a"))), Decision::Keep);
        let mut other = live(2, "old");
        other["metadata"]["uid"] = json!("made anew");
        assert_eq!(decide("a", Some(&other), Some(&remembered(3, "a"))), Decision::Apply);
    }

    #[test]
    fn kinds_without_a_generation_go_by_their_resource_version() {
        let object = |version: &str| json!({"metadata": {"uid": "u", "resourceVersion": version, "annotations": {APPLIED: "a"}}});
        let memory = Remembered { hash: "a".to_owned(), mark: mark(&object("12")) };
        assert_eq!(decide("a", Some(&object("12")), Some(&memory)), Decision::Keep);
        assert_eq!(decide("a", Some(&object("13")), Some(&memory)), Decision::Apply);
        assert_eq!(decide("a", Some(&object("9")), Some(&memory)), Decision::Keep);
    }
}
