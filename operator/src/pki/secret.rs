//! The authority in a Secret: certificates and keys as PEM, times as JSON. A damaged Secret is an error, never a reason for a
//! new authority: that would lock every agent out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::{Authority, CaPair, Next, PkiError, Retired};

/// `data` of a Secret.
pub type SecretData = BTreeMap<String, ByteString>;

const CURRENT_CERTIFICATE: &str = "ca.crt";
const CURRENT_KEY: &str = "ca.key";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const PREVIOUS_CERTIFICATES: &str = "previous.crt";
const TIMES: &str = "times.json";

/// When things happen, as texts that a person can read.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Times {
    current: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_published: Option<String>,
    /// When each of the previous ones leaves the bundle, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    previous_until: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    made: String,
    ends: String,
}

/// The authority as `data` of its Secret.
///
/// # Panics
/// Never: the times are texts.
#[must_use]
pub fn to_secret_data(authority: &Authority) -> SecretData {
    let Authority { current, next, previous } = authority;
    let times = Times {
        current: Span::of(current),
        next: next.as_ref().map(|next| Span::of(&next.pair)),
        next_published: next.as_ref().map(|next| next.published.to_string()),
        previous_until: previous.iter().map(|retired| retired.until.to_string()).collect(),
    };
    let mut data = SecretData::new();
    let mut put = |field: &str, text: String| data.insert(field.to_owned(), ByteString(text.into_bytes()));
    put(CURRENT_CERTIFICATE, current.certificate.clone());
    put(CURRENT_KEY, current.key.clone());
    if let Some(next) = next {
        put(NEXT_CERTIFICATE, next.pair.certificate.clone());
        put(NEXT_KEY, next.pair.key.clone());
    }
    if !previous.is_empty() {
        put(PREVIOUS_CERTIFICATES, previous.iter().map(|retired| retired.certificate.as_str()).collect());
    }
    put(TIMES, serde_json::to_string_pretty(&times).expect("texts can be written as JSON"));
    data
}

/// The authority that a Secret holds.
///
/// # Errors
/// One sentence that names the part that is missing or damaged.
pub fn from_secret_data(data: &SecretData) -> Result<Authority, PkiError> {
    let times: Times = serde_json::from_str(text(data, TIMES)?)
        .map_err(|error| PkiError::Damaged { field: TIMES, reason: error.to_string() })?;
    let current = pair(data, CURRENT_CERTIFICATE, CURRENT_KEY, &times.current)?;
    let next = match (&times.next, &times.next_published) {
        (Some(span), Some(published)) => {
            Some(Next { pair: pair(data, NEXT_CERTIFICATE, NEXT_KEY, span)?, published: time(published)? })
        }
        (None, None) => None,
        _ => return Err(damaged(TIMES, "next and nextPublished belong together")),
    };
    let previous = previous(data, &times.previous_until)?;
    Ok(Authority { current, next, previous })
}

impl Span {
    fn of(pair: &CaPair) -> Self {
        Self { made: pair.made.to_string(), ends: pair.ends.to_string() }
    }
}

fn pair(
    data: &SecretData,
    certificate_field: &'static str,
    key_field: &'static str,
    span: &Span,
) -> Result<CaPair, PkiError> {
    let certificate = text(data, certificate_field)?;
    let der = certificates(certificate_field, certificate)?;
    let [der] = &der[..] else {
        return Err(damaged(certificate_field, format_args!("{} certificates instead of one", der.len())));
    };
    let key_text = text(data, key_field)?;
    let key = KeyPair::from_pem(key_text).map_err(|error| damaged(key_field, error))?;
    // The public key stands in the certificate as it is: no parser is needed to find it.
    let public = key.public_key_raw();
    if !der.windows(public.len()).any(|window| window == public) {
        return Err(damaged(key_field, format_args!("it is not the key of {certificate_field}")));
    }
    let (made, ends) = (time(&span.made)?, time(&span.ends)?);
    if made >= ends {
        return Err(damaged(TIMES, "an authority ends before it is made"));
    }
    Ok(CaPair { certificate: certificate.to_owned(), key: key_text.to_owned(), made, ends })
}

fn previous(data: &SecretData, until: &[String]) -> Result<Vec<Retired>, PkiError> {
    const END: &str = "-----END CERTIFICATE-----";
    if until.is_empty() {
        return Ok(Vec::new());
    }
    let joined = text(data, PREVIOUS_CERTIFICATES)?;
    let count = certificates(PREVIOUS_CERTIFICATES, joined)?.len();
    if count != until.len() {
        return Err(damaged(PREVIOUS_CERTIFICATES, format_args!("{count} certificates for {} times", until.len())));
    }
    let texts = joined.split_inclusive(END).filter(|text| text.contains(END));
    texts
        .zip(until)
        .map(|(certificate, until)| {
            Ok(Retired { certificate: format!("{}\n", certificate.trim()), until: time(until)? })
        })
        .collect()
}

fn certificates(field: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|error| damaged(field, error))
}

fn text<'a>(data: &'a SecretData, field: &'static str) -> Result<&'a str, PkiError> {
    let bytes = data.get(field).ok_or(PkiError::Missing(field))?;
    std::str::from_utf8(&bytes.0).map_err(|error| damaged(field, error))
}

fn time(text: &str) -> Result<Timestamp, PkiError> {
    text.parse().map_err(|error: jiff::Error| damaged(TIMES, error))
}

fn damaged(field: &'static str, reason: impl std::fmt::Display) -> PkiError {
    PkiError::Damaged { field, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Lifetimes;
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes { authority: Duration::from_mins(50), overlap: Duration::from_secs(100) };

    #[test]
    fn every_stage_is_read_as_it_was_written() {
        for authority in stages() {
            assert_eq!(from_secret_data(&to_secret_data(&authority)).unwrap(), authority);
        }
    }

    #[test]
    fn each_missing_part_is_named() {
        for authority in stages() {
            let whole = to_secret_data(&authority);
            for field in whole.keys() {
                let mut part = whole.clone();
                part.remove(field);
                let said = from_secret_data(&part).expect_err("a part is missing").to_string();
                assert_eq!(said, format!("{field} is missing in the Secret"));
            }
        }
    }

    #[test]
    fn each_damaged_part_is_named() {
        for authority in stages() {
            let whole = to_secret_data(&authority);
            for field in whole.keys() {
                let mut damaged = whole.clone();
                damaged.insert(field.clone(), ByteString(b"nonsense".to_vec()));
                let said = from_secret_data(&damaged).expect_err("a part is damaged").to_string();
                assert!(said.starts_with(&format!("{field} of the Secret is damaged: ")), "{said}");
            }
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let mut data = to_secret_data(&stages()[0]);
        data.insert(CURRENT_KEY.to_owned(), to_secret_data(&stages()[0])[CURRENT_KEY].clone());
        let said = from_secret_data(&data).expect_err("the key is a stranger").to_string();
        assert_eq!(said, "ca.key of the Secret is damaged: it is not the key of ca.crt");
    }

    #[test]
    fn no_key_shows_in_a_debug_text() {
        let shown = format!("{:?}", stages());
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }

    /// One authority of each stage of its life.
    fn stages() -> [Authority; 3] {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let first = Authority::create(at(0), &LIFETIMES).unwrap();
        let second = first.turn(at(2000), &LIFETIMES).unwrap().unwrap();
        let third = second.turn(at(2100), &LIFETIMES).unwrap().unwrap();
        [first, second, third]
    }
}
