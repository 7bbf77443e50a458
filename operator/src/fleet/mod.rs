//! The operator's side of its agents: who they are, what each shall do, what each says, and how that reaches the cluster.
//!
//! ```text
//!   agent ══ TLS ══▶ server ──▶ service ──▶ identity (token, pod ─▶ name)
//!                                  │ ▲
//!                       reports    ▼ │  snapshots
//!                                registry ◀── publish ── planner
//!                                  │
//!                                  └──▶ endpoint::Writer ══▶ status of TunnelEndpoints
//! ```
//! Owns the streams and what is known through them. Plans nothing, and reads no custom resource but the endpoints it writes.

mod endpoint;
#[cfg(test)]
mod fixtures;
mod identity;
mod registry;
mod server;
mod service;
mod token;

pub use endpoint::{KubeStore, Objects, Pace, Store, StoreError, Writer};
pub use identity::{Controller, Identity, PodFacts, Pods, Refusal};
pub use registry::{AgentView, Fleet, Published};
pub use server::{Limits, ServeError, serve};
pub use service::FleetService;
pub use token::{AUDIENCE, CachedReviews, KubeReviewer, ReviewError, Reviewed, TokenReviewer};
