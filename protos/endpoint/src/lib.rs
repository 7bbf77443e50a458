//! Sans-IO state machines of the tunnel and hierarchy protocols.
