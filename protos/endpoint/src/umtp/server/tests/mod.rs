//! One rule of the server each.
