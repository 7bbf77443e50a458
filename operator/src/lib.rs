//! The operator: custom resources to running agents on a Kubernetes cluster.
//!
//! ```text
//!   API server ══▶ watch::World ──▶ index (pure) ──▶ planner::cluster (pure) ──┬──▶ reconcile ══▶ API server   (leader)
//!                                                                              └──▶ fleet ══▶ agents           (every replica)
//!   agents ══▶ fleet ══▶ TunnelEndpoint status (whoever holds the stream) ══▶ watch::World …
//! ```
//! Every replica watches, plans and serves agents. Writes need the Lease, but for the endpoints of the agents one serves.

pub mod app;
pub mod args;
pub mod events;
pub mod fleet;
pub mod index;
pub mod lease;
pub mod lookup;
pub mod observe;
pub mod pki;
pub mod reconcile;
pub mod secret;
pub mod trust;
pub mod values;
pub mod watch;
pub mod zone;
