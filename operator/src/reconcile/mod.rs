//! One turn: from what the API server holds to what it should hold, and to what agents should do.
//!
//! ```text
//!   World ─▶ Index ─▶ judge ─▶ planner::cluster ─┬─▶ Fleet::publish                                   every replica
//!                                                └─▶ trust ─▶ finalizers ─▶ workloads ─▶ statuses ─▶ withdrawals    leader
//! ```
//! A turn is level-driven: it looks at everything and remembers only how objects were after it wrote them. Whatever fails is
//! logged, counted, and tried again with the next turn.

pub mod apply;
pub mod conditions;
pub mod endpoints;
pub mod objects;
mod rotation;
pub mod status;
pub mod withdraw;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use castgate_control::AgentSnapshot;
use castgate_planner::cluster::{self, Facts, Fleet as Plan, Settings};
use castgate_planner::{Judged, ObjectName};
use jiff::Timestamp;
use k8s_openapi::jiff::Timestamp as KubeTimestamp;
use kube::Client;
use serde_json::{Value, json};

use self::apply::{Applier, ApplyError, Key, key_of};
use self::objects::Refusals;
use self::withdraw::Withdrawal;
use crate::events::Events;
use crate::index::{ADAPTER_SECRET, FINALIZER, Index, away_since, name_of};
use crate::observe::Metrics;
use crate::pki::{Authority, Lifetimes};
use crate::trust::{self, AUTHORITY};
use crate::watch::World;
use crate::watch::kinds::Kind;

/// After a request that failed.
const RETRY: Duration = Duration::from_secs(2);
/// The longest a replica sleeps without looking again, whatever it was told.
const AT_LEAST_EVERY: Duration = Duration::from_mins(5);

const FLEET: &str = "castgate-fleet";
const DATABASES: &str = "castgate-tunneldatabase";
const STATUS: &str = "castgate-status";
const REGISTRATIONS: &str = "castgate-registrations";

/// What a turn needs to know of this replica.
#[derive(Debug, Clone)]
pub struct Place {
    /// Namespace of the operator.
    pub namespace: String,
    /// Name of this replica's pod.
    pub pod: String,
    /// How long deleted objects wait for their registrations.
    pub withdraw_timeout: Duration,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
    /// How agents are started.
    pub settings: Settings,
}

/// What a turn found out.
pub struct Turn {
    /// Who the fleet trusts; `None` while nobody has made it.
    pub authority: Option<Arc<Authority>>,
    /// What agents should do.
    pub snapshots: BTreeMap<String, AgentSnapshot>,
    /// When to look again, if nothing changes.
    pub again: Duration,
}

/// Carries out turns.
pub struct Reconciler {
    world: World,
    place: Place,
    applier: Applier,
    events: Events,
    metrics: Arc<Metrics>,
    /// Snapshots of the last plan: agents of an object that somebody broke keep theirs.
    previous: BTreeMap<String, AgentSnapshot>,
}

impl Reconciler {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(client: Client, world: World, place: Place, metrics: Arc<Metrics>) -> Self {
        let events = Events::new(client.clone(), &place.pod);
        Self { world, place, applier: Applier::new(client), events, metrics, previous: BTreeMap::new() }
    }

    /// Looks, plans, and, when `leads`, writes.
    #[tracing::instrument(skip_all, fields(leads))]
    pub async fn turn(&mut self, leads: bool) -> Turn {
        let began = std::time::Instant::now();
        let now = Timestamp::now();
        let index = Index::of(&self.world);
        let mut again = AT_LEAST_EVERY;
        let authority = self.authority(leads, now, &mut again).await;
        let mut facts = index.facts(&self.world, &self.place.settings);
        facts.previous.clone_from(&self.previous);
        // Hashing a new password takes tens of milliseconds: other tasks of this thread move on meanwhile.
        let (judged, plan) = tokio::task::block_in_place(|| {
            let judged = castgate_planner::judge(index.objects.iter().cloned());
            let plan = cluster::fleet(&judged, &index.metas, &facts);
            (judged, plan)
        });
        self.previous.clone_from(&plan.snapshots);
        if leads && let Some(authority) = &authority {
            let view = View { index: &index, judged: &judged, plan: &plan, facts: &facts, now };
            self.write(&view, authority, &mut again).await;
        }
        for ((manager, verb), count) in self.applier.take_writes() {
            for _ in 0..count {
                self.metrics.api_written(manager, verb);
            }
        }
        self.metrics.reconciled(began.elapsed());
        Turn { authority: authority.map(Arc::new), snapshots: plan.snapshots, again }
    }

    /// Reads the authority; the leader makes and turns it.
    async fn authority(&mut self, leads: bool, now: Timestamp, again: &mut Duration) -> Option<Authority> {
        let live = self.world.object(Kind::Secret, &self.place.namespace, AUTHORITY);
        let read = match trust::authority_of(live.as_ref()) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(secret = AUTHORITY, %error, "the certificate authority cannot be used; restore or delete its Secret");
                return None;
            }
        };
        if !leads {
            return read;
        }
        let lifetimes = &self.place.lifetimes;
        if let Some(authority) = &read {
            let due = now.duration_until(authority.next_turn(lifetimes));
            *again = (*again).min(Duration::try_from(due).unwrap_or(RETRY).max(Duration::from_secs(1)));
        }
        match trust::turned(read.as_ref(), lifetimes, now) {
            Ok(None) => read,
            Ok(Some(turned)) => {
                let secret = trust::authority_secret(&turned, &self.place.namespace);
                match self.applier.apply(FLEET, &secret, live.as_ref()).await {
                    Ok(_) => {
                        tracing::info!(first = read.is_none(), "certificate authority turned");
                        Some(turned)
                    }
                    Err(error) => {
                        Self::complain(&error, again);
                        read
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "the certificate authority cannot be made");
                read
            }
        }
    }

    async fn write(&mut self, view: &View<'_>, authority: &Authority, again: &mut Duration) {
        let mut planned: BTreeSet<Key> = BTreeSet::new();
        self.write_trust(view, authority, &mut planned, again).await;
        self.write_peers(view, again).await;
        self.hold_objects(view, again).await;
        let mut refusals = Refusals::default();
        for workload in &view.plan.workloads {
            let key = key_of(&workload.object);
            let live = view.index.applied(&key.0, &key.1, &key.2);
            planned.insert(key);
            match self.applier.apply(workload.manager, &workload.object, live).await {
                Ok(true) => tracing::info!(object = ?key_of(&workload.object), "applied"),
                Ok(false) => {}
                Err(error) => {
                    if let Some(sentence) = error.refusal() {
                        objects::note_refusal(&mut refusals, &workload.object, &sentence);
                    }
                    Self::complain(&error, again);
                }
            }
        }
        self.remove_unplanned(view, &planned, again).await;
        self.write_statuses(view, &refusals, again).await;
        self.let_go(view, again).await;
        self.tidy_endpoints(view, again).await;
    }

    /// The bundle in every namespace with agents, and what its adapter proves itself with.
    async fn write_trust(
        &mut self,
        view: &View<'_>,
        authority: &Authority,
        planned: &mut BTreeSet<Key>,
        again: &mut Duration,
    ) {
        for (namespace, owners) in objects::owners_by_namespace(view.index) {
            if view.facts.namespaces.get(&namespace).is_some_and(|facts| facts.terminating) {
                continue;
            }
            let bundle = trust::bundle(authority, &namespace, &owners.all);
            planned.insert(key_of(&bundle));
            let live = view.index.applied("ConfigMap", &namespace, AUTHORITY);
            if let Err(error) = self.applier.apply(FLEET, &bundle, live).await {
                Self::complain(&error, again);
            }
            if owners.registering.is_empty() {
                continue;
            }
            let name = ObjectName { namespace: namespace.clone(), name: ADAPTER_SECRET.to_owned() };
            let live = view.index.object("Secret", &name);
            let host = cluster::names::adapter_host(&namespace);
            match trust::adapter_secret(authority, &namespace, &host, &owners.registering, live, view.now) {
                Ok(secret) => {
                    if let Err(error) = self.applier.apply("castgate-adapter", &secret, live).await {
                        Self::complain(&error, again);
                    }
                }
                Err(error) => tracing::error!(namespace, %error, "no certificate for the adapter"),
            }
        }
    }

    /// What the replicas of each database show to each other, where no other login is named.
    async fn write_peers(&mut self, view: &View<'_>, again: &mut Duration) {
        for (database, owners) in objects::with_replicas(view) {
            let name = database.sibling(&cluster::names::peers_secret(database));
            let live = view.index.object("Secret", &name);
            match trust::peers_secret(database, &owners, live) {
                Ok(secret) => {
                    if let Err(error) = self.applier.apply(DATABASES, &secret, live).await {
                        Self::complain(&error, again);
                    }
                }
                Err(error) => tracing::error!(%database, %error, "no login for its replicas"),
            }
        }
    }

    /// Objects that register get the finalizer, before anything of them is registered.
    async fn hold_objects(&mut self, view: &View<'_>, again: &mut Duration) {
        for object in view.index.objects.iter().filter(|object| objects::wants_hold(object)) {
            if let Err(error) = self.applier.part(REGISTRATIONS, &objects::held(object, true)).await {
                Self::complain(&error, again);
            }
        }
    }

    async fn remove_unplanned(&mut self, view: &View<'_>, planned: &BTreeSet<Key>, again: &mut Duration) {
        let spared = objects::spared(view.index, view.plan);
        for live in view.index.applied.values().flatten() {
            let is_ours = castgate_owned(live);
            let goes = is_ours && !planned.contains(&key_of(live)) && !objects::is_spared(live, &spared);
            if !goes || live["metadata"]["deletionTimestamp"].is_string() {
                continue;
            }
            tracing::info!(object = ?key_of(live), "removed");
            if let Err(error) = self.applier.delete(FLEET, live).await {
                Self::complain(&error, again);
            }
        }
    }

    async fn write_statuses(&mut self, view: &View<'_>, refusals: &Refusals, again: &mut Duration) {
        for told in objects::statuses(view, refusals) {
            let Some((status, flips)) = told.change() else { continue };
            let object = json!({
                "apiVersion": castgate_crds::API_VERSION, "kind": told.object["kind"],
                "metadata": { "name": told.object["metadata"]["name"], "namespace": told.object["metadata"]["namespace"] },
                "status": status,
            });
            match self.applier.status(STATUS, &object).await {
                Ok(()) => {
                    for condition in flips {
                        self.events.condition(told.object, &condition).await;
                    }
                }
                Err(error) => Self::complain(&error, again),
            }
        }
    }

    /// Objects that are deleted go when their registrations are taken back, or when that takes too long.
    async fn let_go(&mut self, view: &View<'_>, again: &mut Duration) {
        let deleted = view.index.objects.iter().filter(|object| {
            let finalizers = object["metadata"]["finalizers"].as_array();
            object["metadata"]["deletionTimestamp"].is_string()
                && finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER))
        });
        for object in deleted {
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = name_of(object);
            let bound = self.place.withdraw_timeout;
            let withdrawal = withdraw::withdrawal(view.index, kind, &name, object, bound, view.now);
            match &withdrawal {
                Withdrawal::Waits(what, rest) => {
                    tracing::debug!(object = %name, what, "waits for its registrations");
                    *again = (*again).min(*rest + Duration::from_millis(50));
                    continue;
                }
                Withdrawal::Done => tracing::info!(kind, object = %name, "registrations taken back"),
                Withdrawal::GivenUp(what) => {
                    tracing::warn!(kind, object = %name, what, "let go before its registrations were taken back");
                    self.events.left_behind(object, what).await;
                }
            }
            if let Err(error) = self.applier.part(REGISTRATIONS, &objects::held(object, false)).await {
                Self::complain(&error, again);
            }
        }
    }

    /// Endpoints whose agent or whose operator replica is gone.
    async fn tidy_endpoints(&mut self, view: &View<'_>, again: &mut Duration) {
        let since = |node: &str| {
            let node = self.world.object(Kind::Node, "", node);
            // A pod of a node that is gone stays in the list for minutes.
            node.map_or(Some(KubeTimestamp::MAX), |node| away_since(&node))
        };
        let pods = self.world.objects(Kind::Pod);
        let replicas = pods
            .iter()
            .filter(|pod| pod["metadata"]["namespace"] == *self.place.namespace)
            .filter_map(|pod| {
                let name = pod["metadata"]["name"].as_str()?.to_owned();
                Some((name, since(pod["spec"]["nodeName"].as_str()?)))
            })
            .chain([(self.place.pod.clone(), None)])
            .collect();
        for step in endpoints::tidy(view.index, view.facts, &replicas, &self.place.pod, view.now) {
            let outcome = match step {
                endpoints::Step::Remove(object) => self.applier.delete(FLEET, &object).await,
                endpoints::Step::TakeOver(object) => self.applier.merge_status(FLEET, &object).await,
            };
            if let Err(error) = outcome {
                Self::complain(&error, again);
            }
        }
    }

    fn complain(error: &ApplyError, again: &mut Duration) {
        use std::error::Error as _;
        tracing::warn!(%error, cause = error.source().map(ToString::to_string), "not written, will be tried again");
        *again = (*again).min(RETRY);
    }
}

/// What one turn looks at.
pub struct View<'a> {
    /// What there is.
    pub index: &'a Index,
    /// What of it is good.
    pub judged: &'a Judged,
    /// What should be.
    pub plan: &'a Plan,
    /// What the cluster is like.
    pub facts: &'a Facts,
    /// The time of the turn.
    pub now: Timestamp,
}

/// Whether an object of the managed kinds belongs to an object of ours: the chart's own carry another label or no owner.
fn castgate_owned(live: &Value) -> bool {
    let owners = live["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| {
        owners
            .iter()
            .any(|owner| owner["apiVersion"].as_str().is_some_and(|version| version.starts_with(castgate_crds::GROUP)))
    })
}
