//! One rule of the client each.
