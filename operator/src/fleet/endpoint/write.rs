//! One write of one endpoint: made if missing, claimed with the next epoch, fenced by the resource version.

use std::sync::Arc;

use castgate_crds::tunnel_endpoint::{StreamHolder, TunnelEndpoint, TunnelEndpointSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::super::registry::AgentView;
use super::plan::Claim;
use super::status::{desired, is_lost};
use super::store::{Store, StoreError};
use super::wall_clock;

/// Conflicts in a row before the write waits for its next turn.
const ATTEMPTS: usize = 4;

/// What is to be written.
pub(super) struct Task<S> {
    pub(super) store: Arc<S>,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) replica: String,
    pub(super) claim: Option<Claim>,
    /// Another replica held a newer stream when we looked last.
    pub(super) fenced: bool,
    /// The agent still has time to do what is published.
    pub(super) settling: bool,
    pub(super) view: AgentView,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Written {
        stream: u64,
        claim: Claim,
        connected: bool,
    },
    /// It stands there as it should already.
    Unchanged {
        stream: u64,
        claim: Claim,
        connected: bool,
    },
    /// Another replica holds a newer stream.
    Fenced {
        stream: u64,
        holder: StreamHolder,
    },
    /// The object of an agent that is gone is gone too.
    Gone {
        stream: u64,
    },
    /// Nobody to own the object is known yet.
    NoOwner,
    /// The object belongs to another agent whose names happen to join to the same.
    Taken,
    Failed(StoreError),
}

impl<S: Store> Task<S> {
    pub(super) async fn run(mut self) -> Outcome {
        for _ in 0..ATTEMPTS {
            match self.attempt().await {
                Ok(outcome) => return outcome,
                // Seen anew, it may be made or written.
                Err(StoreError::Conflict | StoreError::NotFound) => {}
                Err(error) => return Outcome::Failed(error),
            }
        }
        Outcome::Failed(StoreError::Conflict)
    }

    async fn attempt(&mut self) -> Result<Outcome, StoreError> {
        let stream = self.view.stream;
        let connected = self.view.connected;
        let mine = self.claim.as_ref().map(|claim| claim.epoch);
        let seen = self.claim.as_ref().filter(|claim| !claim.is_doubtful()).map(|claim| claim.object.clone());
        // Whatever goes wrong from here: an epoch that we hold stays ours, and the object is read again.
        if let Some(claim) = &mut self.claim {
            claim.doubt();
        }
        let object = match seen {
            Some(object) => object,
            None => match self.read_or_create().await? {
                Ok(object) => object,
                Err(outcome) => return Ok(outcome),
            },
        };
        let epoch = match self.epoch(&object, mine) {
            Ok(epoch) => epoch,
            Err(holder) => return Ok(Outcome::Fenced { stream, holder }),
        };
        let written = object.status.clone().unwrap_or_default();
        let holder = StreamHolder { replica: self.replica.clone(), epoch };
        let next = desired(&self.view, &written, holder, wall_clock(), self.settling);
        if next == written {
            return Ok(Outcome::Unchanged { stream, claim: Claim { epoch, object }, connected });
        }
        // Only a claim that was written counts: until then, each attempt takes a number above the one that it finds.
        let object = self.store.replace_status(&TunnelEndpoint { status: Some(next), ..object }).await?;
        Ok(Outcome::Written { stream, claim: Claim { epoch, object }, connected })
    }

    async fn read_or_create(&self) -> Result<Result<TunnelEndpoint, Outcome>, StoreError> {
        let identity = &self.view.identity;
        let name = identity.endpoint();
        let spec =
            TunnelEndpointSpec { role: identity.role, owner_name: identity.owner.clone(), node: identity.node.clone() };
        if let Some(object) = self.store.read(&identity.namespace, &name).await? {
            let is_ours = object.spec == spec;
            return Ok(if is_ours { Ok(object) } else { Err(Outcome::Taken) });
        }
        if !self.view.connected {
            return Ok(Err(Outcome::Gone { stream: self.view.stream }));
        }
        if self.owners.is_empty() {
            return Ok(Err(Outcome::NoOwner));
        }
        let mut object = TunnelEndpoint::new(&name, spec);
        object.metadata.namespace = Some(identity.namespace.clone());
        object.metadata.owner_references = Some(self.owners.clone());
        let labels = [
            ("app.kubernetes.io/name", "castgate"),
            ("app.kubernetes.io/component", identity.role_word()),
            ("app.kubernetes.io/managed-by", "castgate-operator"),
            ("castgate.dev/owner", identity.owner.as_str()),
        ];
        object.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        self.store.create(&object).await.map(Ok)
    }

    /// The epoch to write with; `Err`: another replica has the say.
    fn epoch(&self, object: &TunnelEndpoint, mine: Option<i64>) -> Result<i64, StreamHolder> {
        let status = object.status.clone().unwrap_or_default();
        let lost = is_lost(&status);
        let holder = status.stream.unwrap_or_default();
        match mine {
            // Somebody has written our stream off, and it lives: a replica is taken for gone while its node is not ready.
            Some(mine) if holder.epoch > mine && lost && self.view.connected => Ok(holder.epoch.saturating_add(1)),
            // Of two that took the same number the first one to write has it.
            Some(mine) if holder.epoch > mine || (holder.epoch == mine && holder.replica != self.replica) => {
                Err(holder)
            }
            Some(mine) => Ok(mine),
            // We were fenced, and the other's stream still lives.
            None if self.fenced && !lost && holder.replica != self.replica => Err(holder),
            None => Ok(holder.epoch.saturating_add(1)),
        }
    }
}
