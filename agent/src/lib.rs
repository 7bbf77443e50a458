//! The agent: runs the roles of one snapshot and moves packets. Knows no Kubernetes.
//!
//! ```text
//!   file ──▶ service ──▶ Agent ──┬─▶ roles::server ────▶ castgate-dataplane (threads of its own)
//!                          │     ├─▶ roles::database
//!                          │     ├─▶ roles::registrar
//!                          ▼     └─▶ roles::pattern
//!                        report
//! ```
//! `castgate up` uses [`Agent`] directly; the binary `castgate-agent` adds [`service`] around it.

mod app;
pub mod config;
mod http;
pub mod limits;
pub mod report;
pub mod roles;
pub mod service;

pub use app::{Agent, Refusal, StartError};
