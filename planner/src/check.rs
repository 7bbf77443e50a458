//! What a schema cannot say: each object by itself, and then the objects together.
//!
//! Everything that is CEL in a definition is also here, because nothing evaluates CEL without a cluster.

mod account;
mod bundle;
mod fields;
mod hierarchy;
mod secret;
mod server;
mod together;

pub(crate) use account::account;
pub(crate) use bundle::bundle;
pub(crate) use hierarchy::database;
pub(crate) use secret::secret;
pub(crate) use server::server;
pub(crate) use together::{left_together, listeners, together};
