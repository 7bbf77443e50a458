//! Real peers: kernels and programs that others wrote, standing in the lab, so that a test can ask whether we speak as the
//! world does.
//!
//! ```text
//!   kernel_amt   a virtual machine in the place of a host: Linux's own AMT driver, as gateway or as relay
//!   bind, dig    a name server with AMTRELAY records, and who asks it; raw_dns answers what BIND refuses to say
//!   etcd         its members, killed and started again
//!   frr          a router: PIM-SSM between its LANs, IGMP querier on each
//!   native       plain sockets of a LAN, of either address family
//!   tshark       what was on a wire, dissected, with every complaint
//! ```
//! Each peer has a test that proves it without castgate (`tests/amt`): when a test with castgate fails, it is not the peer.

pub mod bind;
pub mod dig;
pub mod etcd;
pub mod frr;
pub mod kernel_amt;
mod machine;
pub mod native;
pub mod raw_dns;
pub mod tshark;

pub use machine::require_machine;
