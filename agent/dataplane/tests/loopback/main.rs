//! The dataplane on the loopback interface, seen from outside: sources, clients and native listeners on real sockets.

mod amt;
mod amt_lab;
mod amt_upstream;
mod downstream;
mod lab;
mod upstream;
