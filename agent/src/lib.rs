//! The agent: runs the roles of one snapshot and moves packets.
