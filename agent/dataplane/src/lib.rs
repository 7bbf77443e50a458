//! The fan-out engine: one datagram in, N datagrams out.
