//! The API server as the election needs it: one Lease read, made, and replaced if nobody else did.

use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Api, ObjectMeta, PostParams};

use crate::fleet::StoreError;

/// The manager of the Lease's fields.
const MANAGER: &str = "castgate-lease";

/// Where the Lease is kept.
pub(super) trait Leases: Send + Sync + 'static {
    /// The Lease, if there is one.
    fn read(&self) -> BoxFuture<'_, Result<Option<Lease>, StoreError>>;
    /// Makes it. [`StoreError::Conflict`]: there is one already.
    fn create(&self, spec: LeaseSpec) -> BoxFuture<'_, Result<Lease, StoreError>>;
    /// Replaces it. [`StoreError::Conflict`]: it has another resource version by now.
    fn replace(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, StoreError>>;
}

/// A Lease in a cluster.
pub(super) struct KubeLeases {
    api: Api<Lease>,
    name: String,
}

impl KubeLeases {
    pub(super) fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned() }
    }

    fn params() -> PostParams {
        PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
    }
}

impl Leases for KubeLeases {
    fn read(&self) -> BoxFuture<'_, Result<Option<Lease>, StoreError>> {
        Box::pin(async { Ok(self.api.get_opt(&self.name).await?) })
    }

    fn create(&self, spec: LeaseSpec) -> BoxFuture<'_, Result<Lease, StoreError>> {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec) };
        Box::pin(async move { Ok(self.api.create(&Self::params(), &lease).await?) })
    }

    fn replace(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, StoreError>> {
        Box::pin(async move { Ok(self.api.replace(&self.name, &Self::params(), &lease).await?) })
    }
}
