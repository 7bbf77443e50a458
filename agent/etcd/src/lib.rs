//! A small client of etcd (v3), for those who keep soft state in it.
//!
//! ```text
//!   range, write, grant, revoke, keep_alive ─▶ call: deadline, next member, token ─▶ member 1 ┐
//!                                                                                  member 2 ├ etcd
//!   Watch::next ─▶ resume from revision, next member ──────────────────────────▶  member 3 ┘
//! ```
//! Owns the connection to several members: whoever is lost, hangs or has no leader is passed over, within a deadline for each
//! request. Of etcd's services it has what a registry needs: [`range`](Client::range) with pages, [`write`](Client::write) of many
//! guarded changes in one transaction, leases, and [`Watch`]. Knows nothing of what is kept. The messages come from `.proto` files of
//! this crate, which hold the part of etcd's that is used; no `protoc` is needed.

mod call;
mod config;
mod error;
mod kv;
mod lease;
mod watch;

pub use call::Client;
pub use config::{Config, Identity, Login};
pub use error::EtcdError;
pub use kv::{Fate, Guard, KeyValue, Page, WRITES_MAX, Write, range_end};
pub use watch::{Event, News, Watch};

/// The generated messages and services.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented in the .proto files")]
pub(crate) mod proto {
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
}

#[cfg(test)]
mod tests;
