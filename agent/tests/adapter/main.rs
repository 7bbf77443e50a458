//! The adapter role between agents and databases, and the front before it, on loopback.

mod bed;
mod entries;
#[path = "../fleet/mod.rs"]
mod fleet;
mod front;
#[path = "../parents/mod.rs"]
mod parents;
mod peers;
mod questions;
#[path = "../raw_http/mod.rs"]
mod raw_http;
mod strange;
