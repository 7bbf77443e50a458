//! How what the state machine refuses is told over HTTP.

use castgate_endpoint::hierarchy::database::Refusal;
use hyper::StatusCode;

use super::super::shared::Trouble;
use crate::http::words::Failure;

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(refusal) => refusal.into(),
            Trouble::Busy(sentence) => Self::busy(&sentence),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).expect("a refusal has a status of HTTP");
        match status {
            StatusCode::UNAUTHORIZED => Self::unauthorized(),
            StatusCode::SERVICE_UNAVAILABLE => Self::busy(&refusal.to_string()),
            _ => Self::new(status, refusal.to_string()),
        }
    }
}
