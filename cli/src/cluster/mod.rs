//! The commands that look at a cluster: `status`, `tunnels`, `diagnose`, `sysdump`, and `selftest`, which `helm test` runs.
//!
//! ```text
//!   kubeconfig ──▶ access::Cluster ──lists──▶ fleet::Fleet ──▶ status  (pure)
//!                        │                                 └─▶ diagnose::checks (pure, over diagnose::Facts)
//!                        └──exec──▶ reports::AgentReport ────▶ tunnels (pure)
//! ```
//! What is read becomes plain values first; tables and verdicts are made of those alone, so that they are tested without a
//! cluster. Nothing here writes to a cluster but `selftest`, and nothing reads a Secret.

mod access;
pub(crate) mod diagnose;
mod fleet;
mod reports;
pub(crate) mod selftest;
pub(crate) mod status;
pub(crate) mod sysdump;
mod table;
pub(crate) mod tunnels;
