//! HTTP/1 as the hierarchy speaks it: small requests, small answers, everything bounded in size and time.
//!
//! Owns connections and bytes. What a request means is the caller's: [`server`] carries the roles database and front, [`client`] the
//! registrar.

pub(crate) mod client;
pub(crate) mod content;
mod pace;
mod places;
pub(crate) mod rate;
pub(crate) mod server;
pub(crate) mod source;
pub(crate) mod words;

use hyper::header::HeaderName;

/// `X-CastGate-Update-Interval`, in seconds, in the answer to a REGISTER.
pub(crate) static UPDATE_INTERVAL: HeaderName = HeaderName::from_static("x-castgate-update-interval");
/// `X-CastGate-Match`, a tier, in the answer to a QUERY.
pub(crate) static MATCH: HeaderName = HeaderName::from_static("x-castgate-match");
