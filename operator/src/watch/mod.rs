//! Watches the API server: one reflector for each kind and namespace, and one signal that something changed.
//!
//! ```text
//!   API server ══watch══▶ reflectors (memory) ──▶ World: what there is, as JSON
//!                               └──▶ changed: only when the relevant part of an object did
//! ```
//! Objects are kept as JSON: one that does not fit its type is the planner's to report and stops no other. Owns no decision.

pub mod kinds;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Api, DynamicObject};
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_objects};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::kinds::{Kind, MANAGED_BY, OPERATOR, ROUTES};

/// What the API server holds of every kind that is watched.
#[derive(Clone)]
pub struct World {
    stores: Arc<BTreeMap<Kind, Vec<Store<DynamicObject>>>>,
    changed: watch::Receiver<u64>,
}

impl World {
    /// Starts watching: everywhere, or in `namespaces` and the operator's own. The tasks end with the returned set.
    #[must_use]
    pub fn watch(client: &Client, namespaces: &[String], own_namespace: &str) -> (Self, JoinSet<()>) {
        let (signal, changed) = watch::channel(0);
        let signal = Arc::new(signal);
        let mut tasks = JoinSet::new();
        let mut stores: BTreeMap<Kind, Vec<Store<DynamicObject>>> = BTreeMap::new();
        for kind in Kind::all() {
            for scope in scopes(kind, namespaces, own_namespace) {
                let resource = kind.resource();
                let api: Api<DynamicObject> = match &scope {
                    Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                    None => Api::all_with(client.clone(), &resource),
                };
                let writer = reflector::store::Writer::new(resource);
                stores.entry(kind).or_default().push(writer.as_reader());
                tasks.spawn(follow(kind, api, writer, signal.clone()));
            }
        }
        (Self { stores: Arc::new(stores), changed }, tasks)
    }

    /// Waits until every kind was listed once.
    ///
    /// # Errors
    /// When a watch ended before that.
    pub async fn wait_until_listed(&self) -> Result<(), String> {
        for (kind, stores) in &*self.stores {
            for store in stores {
                store.wait_until_ready().await.map_err(|_| format!("the watch of {} ended", kind.name()))?;
            }
        }
        Ok(())
    }

    /// Says when something changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Every object of a kind, whole, with apiVersion and kind.
    #[must_use]
    pub fn objects(&self, kind: Kind) -> Vec<Value> {
        let resource = kind.resource();
        let stores = self.stores.get(&kind).into_iter().flatten();
        let objects = stores.flat_map(Store::state);
        objects.map(|object| whole(&object, &resource.api_version, &resource.kind)).collect()
    }

    /// One object.
    #[must_use]
    pub fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        let resource = kind.resource();
        let found = self.stores.get(&kind)?.iter().find_map(|store| {
            let key = reflector::ObjectRef::new_with(name, resource.clone());
            store.get(&if kind.is_cluster_wide() { key } else { key.within(namespace) })
        })?;
        Some(whole(&found, &resource.api_version, &resource.kind))
    }
}

/// Which namespaces a kind is watched in; `None`: all of them at once.
fn scopes(kind: Kind, namespaces: &[String], own_namespace: &str) -> Vec<Option<String>> {
    if namespaces.is_empty() || kind.is_cluster_wide() {
        return vec![None];
    }
    let mut scopes: Vec<String> = namespaces.to_vec();
    // The authority's Secret and the other replicas are there.
    if matches!(kind, Kind::Secret | Kind::Pod) {
        scopes.push(own_namespace.to_owned());
    }
    scopes.sort_unstable();
    scopes.dedup();
    scopes.into_iter().map(Some).collect()
}

/// Secrets that are many or large and never our business: tokens, logins of registries, releases of helm.
const FOREIGN_SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
    type!=bootstrap.kubernetes.io/token,type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg";

fn config(kind: Kind) -> watcher::Config {
    let config = watcher::Config::default();
    match kind {
        // Opaque ones and those of type kubernetes.io/tls are read. A selector cannot say "either", and others are seen in passing.
        Kind::Secret => config.fields(FOREIGN_SECRETS),
        Kind::RouteTable => config.labels(ROUTES),
        Kind::Pod | Kind::ReplicaSet => config.labels("app.kubernetes.io/name=castgate"),
        Kind::Applied(_) => config.labels(&format!("{MANAGED_BY}={OPERATOR}")),
        Kind::Own(_) | Kind::Node | Kind::Namespace => config,
    }
}

async fn follow(
    kind: Kind,
    api: Api<DynamicObject>,
    writer: reflector::store::Writer<DynamicObject>,
    signal: Arc<watch::Sender<u64>>,
) {
    let mut seen: HashMap<(String, String), u64> = HashMap::new();
    let mut fresh: HashMap<(String, String), u64> = HashMap::new();
    let events = watch_objects(api, config(kind))
        .backoff(Patience::default())
        .modify(|object| object.managed_fields_mut().clear());
    let mut events = std::pin::pin!(events.reflect(writer));
    while let Some(event) = events.next().await {
        let changed = match event {
            Ok(Event::Apply(object)) => {
                let digest = digest(kind, &object);
                seen.insert(key(&object), digest) != Some(digest)
            }
            Ok(Event::Delete(object)) => seen.remove(&key(&object)).is_some(),
            Ok(Event::Init) => {
                fresh.clear();
                false
            }
            Ok(Event::InitApply(object)) => {
                fresh.insert(key(&object), digest(kind, &object));
                false
            }
            Ok(Event::InitDone) => {
                let changed = fresh != seen;
                seen = std::mem::take(&mut fresh);
                changed
            }
            Err(error) => {
                tracing::warn!(kind = kind.name(), %error, "watch interrupted");
                false
            }
        };
        if changed {
            signal.send_modify(|count| *count += 1);
        }
    }
}

/// Between two tries at an API server that does not answer: that of every client, and no longer than this. When it is back,
/// agents and people wait for what we have not seen yet.
const RETRY_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Patience(DefaultBackoff);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(RETRY_MAX))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.0.reset();
    }
}

fn key(object: &DynamicObject) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn digest(kind: Kind, object: &DynamicObject) -> u64 {
    let relevant = kind.relevant(&serde_json::to_value(object).unwrap_or_default());
    let mut hasher = DefaultHasher::new();
    relevant.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Lists leave out what every row has in common.
fn whole(object: &DynamicObject, api_version: &str, kind: &str) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["apiVersion"] = api_version.into();
    value["kind"] = kind.into();
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_longer_than_the_bound_however_often_it_fails() {
        let waits: Vec<Duration> = Patience::default().take(50).collect();
        assert_eq!(waits.len(), 50, "it never gives up");
        assert!(waits.iter().all(|wait| *wait <= RETRY_MAX));
        assert_eq!(waits.last(), Some(&RETRY_MAX));
    }
}
