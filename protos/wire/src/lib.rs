//! Bytes and typed packets, both ways.
//!
//! Every format lives in a module of its own and knows bytes only: whether a packet is welcome, from whom, and what
//! follows from it is decided by the endpoints. Each format has a value (`Repr`, or the type that the format is about) with
//! `parse`, `buffer_len` and `emit`, and where packets are looked at in place a checked view (`Packet`).
//!
//! ```text
//!   umtp        trailer, commands, options       draft-finlayson-umtp-09, draft-liefooghe-castgate-02 §5
//!   amt         control messages, data           RFC 7450 §5.1, RFC 9601
//!   amtrelay    relays of a source in the DNS    RFC 8777 §4
//!   membership  igmp, mld: queries, reports      RFC 3376 §4, RFC 3810 §5, and the versions before them
//!   ip          ipv4, ipv6: headers, fragments   RFC 791, RFC 8200
//!   udp         header and checksum              RFC 768
//!   icmp        packets that are too long        RFC 792, RFC 4443
//!   ecn         congestion marks in tunnels      RFC 6040
//!   registry    query strings and XML            draft-liefooghe-castgate-02 §6
//!   pattern     numbered, time-stamped payload   our own
//!   rtp         recognition of payloads          RFC 3550
//! ```
//!
//! Nothing in this crate panics on any input from a network. What is received liberally is emitted strictly: `emit` writes
//! one spelling only, and `parse` of what `emit` wrote gives the same value.

pub mod amt;
pub mod amtrelay;
mod checksum;
pub mod ecn;
pub mod fuzzing;
pub mod icmp;
pub mod igmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod membership;
pub mod mld;
pub mod pattern;
pub mod registry;
pub mod rtp;
pub mod udp;
pub mod umtp;
