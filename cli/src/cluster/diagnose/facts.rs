//! What the checks go by, read from a cluster. A list that may not be read is a fact too: its sentence.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::Value;

use crate::cluster::access::{
    AGENT_LABELS, CONFIG_MAPS, Cluster, DAEMON_SETS, DEFINITIONS, DEPLOYMENTS, LEASES, OPERATOR_LABELS, PODS, Resource,
    SERVICES, SLICES, STATEFUL_SETS, Scope,
};
use crate::cluster::fleet::Fleet;

/// A list, or why it could not be read.
pub(crate) type Listed = Result<Vec<Value>, String>;

/// Everything that is checked.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) definitions: Option<Listed>,
    pub(crate) operators: Option<Listed>,
    pub(crate) operator_pods: Option<Listed>,
    pub(crate) leases: Option<Listed>,
    pub(crate) fleet: Option<Result<Fleet, String>>,
    pub(crate) config_maps: Option<Listed>,
    pub(crate) workloads: Option<Listed>,
    pub(crate) pods: Option<Listed>,
    pub(crate) services: Option<Listed>,
    pub(crate) slices: Option<Listed>,
    /// Seconds since 1970, by this machine's clock.
    pub(crate) now: i64,
}

impl Facts {
    /// Asks for all of it. Nothing that fails keeps the rest from being known.
    pub(crate) async fn read(cluster: &Cluster) -> Self {
        let operators = said(cluster.list_in(DEPLOYMENTS, &Scope::All, Some(OPERATOR_LABELS)).await);
        let homes: BTreeSet<String> = operators.iter().flatten().filter_map(namespace_of).collect();
        let mut leases = Ok(Vec::new());
        let mut operator_pods = Ok(Vec::new());
        for home in homes.into_iter().map(Scope::One) {
            add(&mut leases, cluster.list_in(LEASES, &home, None).await);
            add(&mut operator_pods, cluster.list_in(PODS, &home, Some(OPERATOR_LABELS)).await);
        }
        let mut workloads = Ok(Vec::new());
        for resource in [DAEMON_SETS, STATEFUL_SETS, DEPLOYMENTS] {
            add(&mut workloads, agents(cluster, resource).await);
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            definitions: Some(said(cluster.list_in(DEFINITIONS, &Scope::All, None).await)),
            operators: Some(operators),
            operator_pods: Some(operator_pods),
            leases: Some(leases),
            fleet: Some(Fleet::read(cluster).await.map_err(|error| format!("{error:#}"))),
            config_maps: Some(said(cluster.list(CONFIG_MAPS).await)),
            workloads: Some(workloads),
            pods: Some(said(agents(cluster, PODS).await)),
            services: Some(said(agents(cluster, SERVICES).await)),
            slices: Some(said(cluster.list(SLICES).await)),
            now: i64::try_from(seconds).unwrap_or(i64::MAX),
        }
    }
}

async fn agents(cluster: &Cluster, resource: Resource) -> Result<Vec<Value>> {
    cluster.list_in(resource, &cluster.scope, Some(AGENT_LABELS)).await
}

fn namespace_of(object: &Value) -> Option<String> {
    Some(object.pointer("/metadata/namespace")?.as_str()?.to_owned())
}

fn said(list: Result<Vec<Value>>) -> Listed {
    list.map_err(|error| format!("{error:#}"))
}

fn add(all: &mut Listed, more: Result<Vec<Value>>) {
    match (all.as_mut(), more) {
        (Ok(all), Ok(more)) => all.extend(more),
        (Ok(_), Err(error)) => *all = Err(format!("{error:#}")),
        (Err(_), _) => {}
    }
}
