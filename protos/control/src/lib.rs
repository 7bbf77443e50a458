//! What the control plane tells an agent: one whole [`AgentSnapshot`], never a delta.
//!
//! ```text
//!   manifests ──▶ planner ──▶ AgentSnapshot ──▶ YAML file or stream ──▶ AgentSnapshot ──▶ roles of the agent
//! ```
//! Owns the shape, the defaults and the rules of the snapshot. A value that [`AgentSnapshot::from_yaml`] returns keeps all of
//! them; one that a program put together is proven by [`AgentSnapshot::check`]. Knows no socket, no clock, no Kubernetes.

mod accounts;
mod adapter;
mod amt;
mod database;
mod error;
mod front;
mod integer;
mod pattern;
mod place;
mod policy;
mod registrar;
mod server;
mod snapshot;
mod store;
mod tls;
mod upstream;
mod words;
mod yaml;

pub use accounts::AccountsFile;
pub use adapter::{AdapterClient, AdapterPeers, AdapterRef, AdapterSnapshot};
pub use amt::{AMT_PORT, AmtLimits, AmtSnapshot, AmtTimers, AnycastSnapshot};
pub use database::{Account, Allow, DatabaseSnapshot, PeersSnapshot};
pub use error::SnapshotError;
pub use front::FrontSnapshot;
pub use pattern::PatternSource;
pub use place::{Place, PlaceError, is_host_address};
pub use policy::{
    ExclusionSnapshot, MatchSnapshot, PolicySnapshot, PoolServerSnapshot, PoolSnapshot, RoutesSnapshot, RuleSnapshot,
    ServerPlaceSnapshot, TimeWindowSnapshot,
};
pub use registrar::{
    DatabaseRole, Parent, RegistrarDiscovery, RegistrarSnapshot, Registration, SystemsSnapshot, networks_of_systems,
};
pub use server::{ChannelRule, LoopCheck, Ports, PortsError, ServerLimits, ServerSnapshot, ServerTimers};
pub use snapshot::AgentSnapshot;
pub use store::{EtcdSnapshot, StoreSnapshot};
pub use tls::{TlsFiles, TlsIdentity};
pub use upstream::{
    AnycastDiscovery, DeliverySnapshot, Discovery, DriadDiscovery, GatewaySnapshot, HierarchyDiscovery, MapDiscovery,
    MapRow, StaticDiscovery, UpstreamProtocol, UpstreamSnapshot,
};
// Words of the wire that stand in a snapshot, or follow from one: who plans snapshots needs no other crate for them.
pub use castgate_endpoint::hierarchy::address::{DatabaseAddress, Place as DatabasePlace};
pub use castgate_endpoint::hierarchy::policy::{Policy, RouteTable, RouteTableError, routes};
pub use castgate_endpoint::hierarchy::region::{RegionError, Regions};
pub use castgate_wire::amtrelay;
pub use castgate_wire::registry::{Country, EntryType, Protocol, Scheme};
pub use castgate_wire::umtp::Channel;

#[cfg(test)]
mod tests;
