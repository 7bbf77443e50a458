//! The database role as its callers see it: real sockets on loopback, real files, raw HTTP.

mod durability;
mod peers;
#[path = "../raw_http/mod.rs"]
mod raw_http;
mod requests;
mod room;
mod rules;
#[path = "../support/mod.rs"]
mod support;
