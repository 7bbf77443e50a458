//! Manifests to what runs, purely: no socket, no clock, no file, no connection to a cluster.
//!
//! ```text
//!   one machine:   (path, text)… ──▶ load ──▶ Objects ──▶ plan ──▶ Plan { agents: [AgentSnapshot], channels, client hints }
//!                                     │                    │
//!                                     └──── Problems ◀─────┘      all of them, sorted, one sentence each
//!
//!   a cluster:     objects ──▶ judge ──▶ Judged ──▶ cluster::fleet ──▶ Fleet { workloads, snapshots, what became of each }
//!                                          │             ▲
//!                       problems by object ◀┘             └── Facts: nodes, namespaces, what runs now
//! ```
//! `castgate up`, `castgate validate` and the operator share it, so the same manifests mean the same everywhere. Equal input
//! gives equal output, whatever the order of files and objects: who compares two plans may stay silent when nothing changed.
//!
//! [`judge`] is `load` for the objects of a cluster, where one that is wrong stops only those that need it.
//! [`load`] refuses what is wrong anywhere. [`plan`] places every object on one machine, and refuses what cannot be there.
//! [`cluster::fleet`] places them on the nodes of a cluster, and says of each what cannot be. [`zone`] is what name servers tell
//! of the relays of either.
//!
//! ```
//! let manifest = "
//! apiVersion: castgate.dev/v1alpha1
//! kind: TunnelServer
//! metadata: { name: brussels, namespace: castgate }
//! spec: { interfaces: [{ name: lo }], limits: { ttl: 300 } }
//! ";
//! let problems = castgate_planner::load([("ts.yaml", manifest)]).unwrap_err();
//! assert_eq!(
//!     problems.to_string(),
//!     "ts.yaml: TunnelServer castgate/brussels: spec.limits.ttl: 300 is not in 1..=255"
//! );
//! ```

mod check;
pub mod cluster;
mod document;
mod judge;
mod load;
mod nearest;
mod objects;
mod plan;
mod problem;
mod rules;
mod schema;
mod url;
pub mod zone;

pub use judge::{Judged, judge};
pub use load::{Validation, load, validate};
pub use objects::{
    Account, Amt, Bundle, BundleChannel, ConfigMap, Database, Entry, Etcd, Feed, Hierarchy, ObjectName, Objects,
    Parent, ParentPlace, Policy, PolicyPool, PolicyRule, RouteSource, Secret, Server, Store, Target, Upstream,
};
pub use plan::{ClientHints, Machine, Plan, PlannedChannel, password_hash, plan};
pub use problem::{Problem, Problems};
pub use url::{DatabaseUrl, DatabaseUrlError};
