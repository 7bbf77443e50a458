//! The API server as the writer needs it: one object read, made, and its status replaced.

use std::sync::Arc;

use castgate_crds::tunnel_endpoint::TunnelEndpoint;
use futures::future::BoxFuture;
use kube::api::{Api, PostParams};

use crate::observe::Metrics;

/// The manager of the fields that the fleet writes.
const MANAGER: &str = "castgate-fleet";

/// Why the API server did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The object has changed since it was seen, or is there already.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// There is no such object.
    #[error("the object is gone")]
    NotFound,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Where endpoints are kept. A status is replaced only if the resource version is the one that is there.
pub trait Store: Send + Sync + 'static {
    /// The object, if there is one.
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<TunnelEndpoint>, StoreError>>;
    /// Makes the object. [`StoreError::Conflict`]: there is one already.
    fn create<'a>(&'a self, object: &'a TunnelEndpoint) -> BoxFuture<'a, Result<TunnelEndpoint, StoreError>>;
    /// Replaces the status. [`StoreError::Conflict`]: the object has another resource version by now.
    fn replace_status<'a>(&'a self, object: &'a TunnelEndpoint) -> BoxFuture<'a, Result<TunnelEndpoint, StoreError>>;
}

/// A cluster's API server.
pub struct KubeStore {
    client: kube::Client,
    metrics: Arc<Metrics>,
}

impl KubeStore {
    /// Reads and writes through this client.
    #[must_use]
    pub fn new(client: kube::Client, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics }
    }

    fn api(&self, object: &TunnelEndpoint) -> Api<TunnelEndpoint> {
        Api::namespaced(self.client.clone(), object.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn params() -> PostParams {
        PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
    }
}

impl Store for KubeStore {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<TunnelEndpoint>, StoreError>> {
        let api = Api::namespaced(self.client.clone(), namespace);
        Box::pin(async move { Ok(api.get_opt(name).await?) })
    }

    fn create<'a>(&'a self, object: &'a TunnelEndpoint) -> BoxFuture<'a, Result<TunnelEndpoint, StoreError>> {
        Box::pin(async move {
            self.metrics.api_written(MANAGER, "create");
            Ok(self.api(object).create(&Self::params(), object).await?)
        })
    }

    fn replace_status<'a>(&'a self, object: &'a TunnelEndpoint) -> BoxFuture<'a, Result<TunnelEndpoint, StoreError>> {
        Box::pin(async move {
            self.metrics.api_written(MANAGER, "update");
            let name = object.metadata.name.as_deref().unwrap_or_default();
            Ok(self.api(object).replace_status(name, &Self::params(), object).await?)
        })
    }
}

impl From<kube::Error> for StoreError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            kube::Error::Api(status) if status.code == 404 => Self::NotFound,
            other => Self::Other(other.to_string()),
        }
    }
}
