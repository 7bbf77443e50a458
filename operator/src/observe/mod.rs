//! What the operator says of itself: logs and traces, metrics, probes.
//!
//! Owns the formats and the one HTTP port for them. What is counted is decided where it happens.

mod http;
mod logs;
mod metrics;

pub use http::{Health, serve};
pub use logs::{Format, Level, LogError, LogOptions, Logs};
pub use metrics::{Carried, Metrics};
