//! Bytes and typed packets, both ways.
