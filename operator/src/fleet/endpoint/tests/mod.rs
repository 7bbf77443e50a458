//! One or two replicas that write to an API server with resource versions, in virtual time.

mod writing;

use std::sync::Mutex;

use castgate_crds::tunnel_endpoint::{TunnelEndpoint, TunnelEndpointStatus};
use castgate_rpc::v1::{Hello, State, Verdict};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::super::fixtures::{identity, snapshot};
use super::super::identity::Identity;
use super::super::registry::Stream;
use super::*;

/// One operator pod.
struct Replica {
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    objects: Arc<FakeObjects>,
    writer: JoinHandle<()>,
}

impl Replica {
    fn start(name: &str, api: &Arc<FakeApi>) -> Self {
        let metrics = Arc::new(Metrics::new());
        let fleet = Fleet::new(Arc::clone(&metrics), 1000);
        let objects = Arc::new(FakeObjects { owners_known: Mutex::new(true), api: Arc::clone(api) });
        let writer = Writer::new(
            Arc::clone(&fleet),
            Arc::clone(api),
            Arc::clone(&objects),
            Arc::clone(&metrics),
            Pace::default(),
            name.to_owned(),
        );
        Self { fleet, metrics, objects, writer: tokio::spawn(writer.run()) }
    }

    /// An agent that comes and reports.
    fn agent(&self, node: &str) -> Stream {
        let stream = self.fleet.open(identity(node), &Hello::default()).unwrap();
        stream.state(listening());
        stream
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

async fn drop_after(replica: &Replica, node: &str, seconds: u64) {
    let stream = replica.agent(node);
    pass(seconds).await;
    drop(stream);
}

struct FakeObjects {
    owners_known: Mutex<bool>,
    api: Arc<FakeApi>,
}

impl Objects for FakeObjects {
    fn owners(&self, _: EndpointRole, _: &str, name: &str) -> Vec<OwnerReference> {
        let owner = OwnerReference { name: name.to_owned(), ..OwnerReference::default() };
        if *self.owners_known.lock().unwrap() { vec![owner] } else { Vec::new() }
    }

    fn epoch(&self, namespace: &str, name: &str) -> Option<i64> {
        let objects = self.api.objects.lock().unwrap();
        let status = objects.get(&format!("{namespace}/{name}"))?.status.clone();
        Some(status.and_then(|status| status.stream).map_or(0, |stream| stream.epoch))
    }

    fn held(&self, replica: &str) -> Vec<(String, String)> {
        let objects = self.api.objects.lock().unwrap();
        let stream = |object: &TunnelEndpoint| object.status.as_ref()?.stream.clone();
        let held = objects.iter().filter(|(_, object)| stream(object).is_some_and(|stream| stream.replica == replica));
        let name = |key: &String| key.split_once('/').map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        held.filter_map(|(key, _)| name(key)).collect()
    }
}

/// An API server for endpoints: resource versions, conflicts, and a gate before each write.
struct FakeApi {
    objects: Mutex<BTreeMap<String, TunnelEndpoint>>,
    version: Mutex<u64>,
    written: Mutex<Vec<Instant>>,
    away: Mutex<bool>,
    gate: Semaphore,
}

impl Default for FakeApi {
    fn default() -> Self {
        Self {
            objects: Mutex::default(),
            version: Mutex::default(),
            written: Mutex::default(),
            away: Mutex::default(),
            gate: Semaphore::new(OPEN),
        }
    }
}

/// Permits of a gate that is open.
const OPEN: usize = 1000;

impl FakeApi {
    fn endpoint(&self, node: &str) -> Option<TunnelEndpoint> {
        self.objects.lock().unwrap().get(&format!("isp/ts-edge-{node}")).cloned()
    }

    fn status(&self, node: &str) -> TunnelEndpointStatus {
        self.endpoint(node).expect("there is an endpoint").status.expect("it has a status")
    }

    /// What a leader does with the endpoint of a replica that it takes for gone.
    fn write_off(&self, node: &str, leader: &str) {
        let mut object = self.endpoint(node).expect("there is an endpoint");
        let status = object.status.as_mut().expect("it has a status");
        let holder = status.stream.as_mut().expect("somebody holds it");
        *holder = StreamHolder { replica: leader.to_owned(), epoch: holder.epoch + 1 };
        for condition in &mut status.conditions {
            "False".clone_into(&mut condition.status);
        }
        let object = self.stamp(object);
        self.objects.lock().unwrap().insert(key(&object), object);
    }

    /// Writes of statuses so far.
    fn writes(&self) -> usize {
        self.written.lock().unwrap().len()
    }

    fn times(&self) -> Vec<Instant> {
        self.written.lock().unwrap().clone()
    }

    /// Lets nobody write until [`release`](Self::release).
    fn hold(&self) {
        assert_eq!(self.gate.forget_permits(OPEN), OPEN);
    }

    fn release(&self) {
        self.gate.add_permits(OPEN);
    }

    fn reachable(&self) -> Result<(), StoreError> {
        if *self.away.lock().unwrap() { Err(StoreError::Other("connection refused".to_owned())) } else { Ok(()) }
    }

    fn stamp(&self, mut object: TunnelEndpoint) -> TunnelEndpoint {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        object.metadata.resource_version = Some(version.to_string());
        object
    }
}

impl Store for FakeApi {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<TunnelEndpoint>, StoreError>> {
        Box::pin(async move {
            self.reachable()?;
            Ok(self.objects.lock().unwrap().get(&format!("{namespace}/{name}")).cloned())
        })
    }

    fn create<'a>(&'a self, object: &'a TunnelEndpoint) -> BoxFuture<'a, Result<TunnelEndpoint, StoreError>> {
        Box::pin(async move {
            self.reachable()?;
            let mut objects = self.objects.lock().unwrap();
            let key = key(object);
            if objects.contains_key(&key) {
                return Err(StoreError::Conflict);
            }
            // The status is a subresource: it is not taken with the object.
            let object = self.stamp(TunnelEndpoint { status: None, ..object.clone() });
            objects.insert(key, object.clone());
            Ok(object)
        })
    }

    fn replace_status<'a>(&'a self, object: &'a TunnelEndpoint) -> BoxFuture<'a, Result<TunnelEndpoint, StoreError>> {
        Box::pin(async move {
            let _permit = self.gate.acquire().await.unwrap();
            self.reachable()?;
            let mut objects = self.objects.lock().unwrap();
            let stored = objects.get_mut(&key(object)).ok_or(StoreError::NotFound)?;
            assert!(object.metadata.resource_version.is_some(), "a write without a version overwrites anything");
            if stored.metadata.resource_version != object.metadata.resource_version {
                return Err(StoreError::Conflict);
            }
            *stored = self.stamp(TunnelEndpoint { status: object.status.clone(), ..stored.clone() });
            self.written.lock().unwrap().push(Instant::now());
            Ok(stored.clone())
        })
    }
}

fn key(object: &TunnelEndpoint) -> String {
    let name = |name: &Option<String>| name.clone().expect("it is named");
    format!("{}/{}", name(&object.metadata.namespace), name(&object.metadata.name))
}

/// Replica, epoch, status of the condition Connected.
fn held(status: &TunnelEndpointStatus) -> (&str, i64, &str) {
    let holder = status.stream.as_ref().expect("somebody holds it");
    (&holder.replica, holder.epoch, &status.conditions[0].status)
}

fn listening() -> State {
    State { listen: "192.0.2.1:10000".to_owned(), ..State::default() }
}

/// The agent takes what is published for it.
fn take(stream: &mut Stream) {
    let planned = stream.snapshots.borrow_and_update().clone().expect("something is published");
    let (generation, digest) = (planned.generation, planned.digest.clone());
    stream.verdict(&Verdict { generation, digest, refusal: String::new() });
    stream.state(State { generation, ..listening() });
}

/// Turns the clock: whatever is due meanwhile happens.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
