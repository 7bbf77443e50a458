//! The gRPC services: [`Fleet`](v1::fleet_server::Fleet) between the operator and its agents,
//! [`Hierarchy`](v1::hierarchy_server::Hierarchy) between agents and their adapter.
//!
//! Owns the messages and how they become the types of `castgate-control`. Knows no socket of its own: who serves and who calls
//! brings the connection. A crate apart from `castgate-control`, because the generated code reaches Tokio and planning must not.

mod convert;
mod servers;

pub use convert::EntryError;
pub use servers::chain;

/// The generated messages and services of `castgate/v1/*.proto`.
#[allow(missing_docs, clippy::pedantic, reason = "generated; documented in the .proto files")]
pub mod v1 {
    tonic::include_proto!("castgate.v1");
}
