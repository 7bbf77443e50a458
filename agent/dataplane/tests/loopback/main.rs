//! The dataplane on the loopback interface, seen from outside: sources, clients and native listeners on real sockets.

mod downstream;
mod lab;
mod upstream;
