//! The lab: network namespaces, real peers, tests named after what a user does.
//!
//! ```text
//!   topology text ──▶ lab::Lab ──▶ hosts (namespaces), LANs (bridges), links (veth, or TAP pairs that impair), NAT
//!                        │
//!                        └──▶ processes in hosts: castgate, castgate-agent, ffmpeg, tshark; plain sockets in hosts
//! ```
//! [`cluster::Cluster`] is the second place: a real Kubernetes of several nodes, with hosts on the same network.
//! A test builds its own [`lab::Lab`], starts in it what a user would start, and compares what arrives with what was sent.
//! Nothing outlives the test, however it ends: see [`lab`]. Needs root; the tests are in `tests/`.

pub mod capture;
pub mod cluster;
pub mod fleet;
pub mod forger;
pub mod hostile;
pub mod lab;
pub mod media;
pub mod peers;
pub mod programs;
pub mod receive;
pub mod recorder;
pub mod registry;
