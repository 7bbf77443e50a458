//! What a schema cannot say: each object by itself, and then the objects together.
//!
//! What is CEL in a definition is here too where a better sentence is possible than CEL can say, or where what is read needs it;
//! [`rules`](crate::rules) evaluates the rest.

mod account;
mod amt;
mod bundle;
mod config;
mod fields;
mod hierarchy;
mod policy;
mod relay;
mod secret;
mod server;
mod store;
mod systems;
mod together;

pub(crate) use account::account;
pub(crate) use bundle::bundle;
pub(crate) use config::config;
pub(crate) use hierarchy::database;
pub(crate) use policy::policy;
pub(crate) use relay::relay;
pub(crate) use secret::secret;
pub(crate) use server::server;
pub(crate) use systems::resolve;
pub(crate) use together::{left_together, listeners, together};
