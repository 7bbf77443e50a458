//! The hierarchy of tunnel databases (draft-liefooghe-castgate-02): who holds it, who announces himself, who looks for a server.
//!
//! ```text
//!   registrar ──REGISTER, BYE──▶ ┌──────────┐        accounts: who may claim what
//!   (a tunnel server or a        │ database │ ◀───── (login, password, allowed claims)
//!    database below)             └──────────┘
//!   locator  ──QUERY TYPE=TS──▶   five tiers ──▶ databases further down, or tunnel servers
//! ```
//! Owns the behaviour: matching, soft state, retries, the walk down from the roots. Knows no socket, no name server, no file
//! and no clock; HTTP is a value here (a query string out, a list of servers in). The drivers are the agent's roles
//! `database` and `registrar` and the client library's `Locator`.

pub mod accounts;
pub mod address;
pub mod clock;
pub mod database;
pub mod discovery;
pub mod feed;
pub mod locator;
pub mod member;
pub mod peers;
pub mod policy;
pub mod redirect;
pub mod region;
pub mod registrar;

mod lot;
mod scheme;
