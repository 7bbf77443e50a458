//! A link that behaves badly on purpose: loss, delay, reorder, duplication, rate.
//!
//! The kernel's own netem is not everywhere, and it cannot say which datagram it dropped. This one can: a test compares
//! what the product reports as lost with what was dropped.
//!
//! ```text
//!    host namespace            this process                LAN namespace
//!   ┌──────────────┐   ┌─────────────────────────┐   ┌───────────────────┐
//!   │ TAP          │◀─▶│ shuttle thread          │◀─▶│ TAP ── bridge     │
//!   └──────────────┘   │  Model up  │ Model down │   └───────────────────┘
//!                      │  journal of decisions   │
//!                      └─────────────────────────┘
//! ```
//! [`Model`] decides (pure, seeded), [`Link`] carries, [`frame`] reads what a frame holds.

pub mod frame;
mod journal;
mod model;
mod shuttle;

pub use frame::Udp;
pub use journal::{Counts, Passage};
pub use model::{Fate, Impairment, Model};
pub use shuttle::{Link, Way};
