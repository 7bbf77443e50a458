//! The fleet's own certificate authority: who signs what the operator and the adapters show to their agents.
//!
//! ```text
//!   made ───────── 2/3 of life ──▶ next made ── overlap ──▶ next signs ── overlap ──▶ old one forgotten
//!   bundle [current]               [current, next]          [current, previous]       [current]
//! ```
//! Agents read the bundle from a `ConfigMap` that reaches their nodes with a delay, so a certificate signs only after it was in
//! the bundle for a while, and leaves the bundle only after it has not signed for a while. Owns the state, its form in a
//! Secret and the issuing; reads and writes no Secret itself, and knows no clock: who drives it brings the time.

mod authority;
mod issue;
mod secret;
mod serving;

pub use authority::{Authority, CaPair, Lifetimes, Next, Retired};
pub use secret::{SecretData, from_secret_data, to_secret_data};
pub use serving::{ServingCert, ServingNames};

/// Why a certificate or the authority could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A certificate or a key could not be made.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// A time that no calendar holds.
    #[error("a lifetime of {0:?} from now ends outside the calendar")]
    Time(std::time::Duration),
    /// The Secret lacks a part.
    #[error("{0} is missing in the Secret")]
    Missing(&'static str),
    /// A part of the Secret is not what it should be.
    #[error("{field} of the Secret is damaged: {reason}")]
    Damaged {
        /// Key of the Secret.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// rustls does not take what we issued.
    #[error("the serving certificate cannot be used: {0}")]
    Serve(#[from] rustls::Error),
}
