//! The Common Multicast API as a library: locate, join, receive, send.
