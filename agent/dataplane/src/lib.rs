//! The fan-out engine: one datagram in, N datagrams out.
//!
//! ```text
//!                     publish(Table)              Event (two bounded queues)
//!   control thread ────────┬──────────────────────────▲──────────── transmit, multicast
//!                          ▼                          │
//!                 ┌── worker 0 ── tunnel socket ──────┤      one address and port for all workers, steered by
//!   native ──────▶├── worker 1 ── tunnel socket ──────┤      the client's address
//!   multicast     └── worker n ── tunnel socket ──────┘
//!                          │
//!                          └──▶ egress: one socket an interface, for what tunnels send upstream
//! ```
//! - Tunnels belong to the worker that [`castgate_udp::shard_of`] names for the client's address; a worker takes in a channel
//!   if and only if one of its own tunnels has it. Workers share nothing but counters and the table.
//! - The [`Table`] never changes. The control thread edits a [`TableBuilder`] and [publishes](Dataplane::publish) what it
//!   builds; each worker takes the next table with one atomic load when it wakes up.
//! - A worker drains what has arrived and then sends to each tunnel once. While it sends, the next datagrams queue up: under
//!   load batches grow, and with them what one worker can carry; without load nothing is delayed.
//! - Native to tunnels and DATA of attached tunnels never leave the workers. Everything else that arrives at a tunnel socket
//!   goes to the control thread as [`Event::Control`].
//!
//! The same workers are the relay of AMT, by the same table: whole packets to endpoints, see the module `amt`.
//!
//! Knows UMTP trailers, the header of AMT's data, and nothing else of the protocols: who may join, what a cookie is worth and when a tunnel ends is
//! decided by whoever owns the control thread. Threads are plain; there is no runtime here.

mod amt;
pub mod bench;
mod counters;
mod dataplane;
mod egress;
mod events;
mod fanout;
mod handle;
mod ingress;
mod native;
mod settings;
mod sharded;
mod table;
mod upstream;
mod worker;

pub use amt::filter::SourceFilter;
pub use amt::gateway::GatewayId;
pub use amt::settings::{AmtSettings, Delivery, Dscp, TunnelMtu, WholePackets};
pub use counters::{Counters, DropReason, Flows, Traffic};
pub use dataplane::{ChannelReport, Dataplane, Joined, TunnelReport};
pub use events::{Event, Events, Waker};
pub use handle::{EndpointReport, GroupReport, NativeReport};
pub use settings::{Interface, Settings, StartError};
pub use table::{Cookies, Table, TableBuilder};
