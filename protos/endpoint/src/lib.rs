//! Sans-IO state machines of the tunnel and hierarchy protocols.

pub mod hierarchy;
pub mod umtp;
