//! The lab: network namespaces, real peers, tests named after what a user does.
