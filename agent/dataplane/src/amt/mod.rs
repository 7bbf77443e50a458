//! AMT beside UMTP (RFC 7450): whole IP packets to the endpoints of a relay, and from relays above to everybody.
//!
//! ```text
//!   packet socket, one an interface and worker ──▶ sniff ──┐        (or rebuild: UDP sockets, no privilege)
//!   inject ────────────────────────────────────────────┐   ├──▶ encap: AMT legs of this worker
//!   gateway socket ──▶ gateway: checked, one hop less ─┴───┴──▶ onward: AMT and UMTP legs of all workers, delivery
//!
//!   AMT socket ──▶ control ──▶ the control thread
//! ```
//! A native packet keeps its hop limit: RFC 7450 describes the relay as a neighbour of the gateways' link. One from a gateway's
//! socket was forwarded by a router, this one, and has a hop less, so that it ends if relays ever form a circle.

pub(crate) mod control;
pub(crate) mod deliver;
pub(crate) mod encap;
pub(crate) mod filter;
pub(crate) mod gateway;
pub(crate) mod listen;
pub(crate) mod natives;
pub(crate) mod onward;
pub(crate) mod rebuild;
pub(crate) mod settings;
pub(crate) mod sniff;
pub(crate) mod table;
pub(crate) mod too_big;
pub(crate) mod whole;
