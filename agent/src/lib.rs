//! The agent: runs the roles of one snapshot and moves packets. Knows no Kubernetes.
//!
//! ```text
//!   file ──────────────┐              ┌─▶ roles::server ────▶ castgate-dataplane (threads of its own)
//!   operator's stream ─┴▶ service ─▶ Agent ─▶ roles::database
//!                           ▲         │├─▶ roles::registrar
//!   admin socket ───────────┘         │├─▶ roles::adapter, roles::front
//!                                     │└─▶ roles::pattern
//!                                     ▼
//!                                   report
//! ```
//! `castgate up` uses [`Agent`] directly; the binary `castgate-agent` adds [`service`] around it.

pub mod admin;
mod app;
pub mod config;
mod dial;
mod http;
pub mod limits;
mod news;
pub mod report;
pub mod roles;
pub mod service;
mod surroundings;
mod tls;

pub use app::{Agent, Refusal, StartError};
pub use surroundings::Surroundings;
