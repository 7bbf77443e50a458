//! Sans-IO state machines of the tunnel and hierarchy protocols.

pub mod amt;
mod deadlines;
pub mod hierarchy;
pub mod membership;
pub mod reasons;
pub mod umtp;
