//! Who wants what on a link: `IGMPv3` (RFC 3376) and `MLDv2` (RFC 3810) without sockets and clocks, one machine for both families.
//!
//! ```text
//!   programs, tunnels ──▶ merge::Merged ──▶ host::Host ──── reports ────▶ router::Router ──▶ merge::Merged ──▶ upstream
//!      one filter each      RFC 3376 §3.2     §5, §7.2 ◀─── queries ───── §6, §7.3  ▲         filters of all endpoints
//!                                                                querier::Querier ──┘ §6.6.2: who asks on a LAN
//! ```
//! A [`Filter`] is what somebody wants of one group. A [`host::Host`] tells routers what an interface wants; a
//! [`router::Router`] learns it for one link, or for one AMT endpoint; [`querier::Querier`] adds what a LAN with several routers
//! needs. [`merge::Merged`] makes one filter of many.
//!
//! The contract is that of [`crate::umtp`]: whatever depends on time takes `now`; after each call, `poll_output` until it
//! returns `None`; then sleep until `next_timeout` at the latest and call `handle_timeout`. Nothing that comes from the network
//! panics, and nothing grows beyond the limits of its configuration. Bytes are `castgate_wire::membership`.

mod compatibility;
mod filter;
pub mod host;
pub mod merge;
pub mod querier;
pub mod router;

pub use compatibility::Compatibility;
pub use filter::Filter;

use std::time::Duration;

/// What fits QRV, and what is believed of it (RFC 3376 §4.1.6).
const ROBUSTNESS_MAX: u8 = 7;
/// What the longest QQIC stands for, and what is believed of it (RFC 3376 §4.1.7).
const QUERY_INTERVAL_MAX: Duration = Duration::from_secs(31_744);

/// The robustness variable as a query tells it: 0 for one that does not fit (RFC 3376 §4.1.6).
fn told_robustness(robustness: std::num::NonZeroU8) -> u8 {
    if robustness.get() > ROBUSTNESS_MAX { 0 } else { robustness.get() }
}
