//! Batched UDP and multicast sockets: the only crate with unsafe code.
