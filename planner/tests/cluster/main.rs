//! Planning onto a cluster: where servers run, who registers over whom, what is applied, and that nothing else changes it.

#[path = "../common/mod.rs"]
mod common;

mod databases;
mod properties;
mod registrations;
mod relays;
mod servers;
mod workloads;
mod world;
