//! Bytes and typed packets, both ways.
//!
//! Every format lives in a module of its own and knows bytes only: whether a packet is welcome, from whom, and what
//! follows from it is decided by the endpoints. Each format has a value (`Repr`, or the type that the format is about) with
//! `parse`, `buffer_len` and `emit`, and where packets are looked at in place a checked view (`Packet`).
//!
//! ```text
//!   umtp        trailer, commands, options       draft-finlayson-umtp-09, draft-liefooghe-castgate-02 §5
//!   ipv4, udp   headers and checksums            RFC 791, RFC 768
//!   registry    query strings and XML            draft-liefooghe-castgate-02 §6
//!   pattern     numbered, time-stamped payload   our own
//!   rtp         recognition of payloads          RFC 3550
//! ```
//!
//! Nothing in this crate panics on any input from a network. What is received liberally is emitted strictly: `emit` writes
//! one spelling only, and `parse` of what `emit` wrote gives the same value.

mod checksum;
pub mod fuzzing;
pub mod ipv4;
pub mod pattern;
pub mod registry;
pub mod rtp;
pub mod udp;
pub mod umtp;
