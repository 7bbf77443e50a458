//! Making certificates. An authority is made again from its key and its constant name when it signs: nothing is parsed.

use std::net::IpAddr;
use std::time::Duration;

use castgate_control::TlsIdentity;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

use super::authority::after;
use super::{Authority, CaPair, PkiError};

/// The name of every authority of every fleet. Two in one bundle are told apart by their keys.
const AUTHORITY_NAME: &str = "castgate fleet CA";

/// What we sign counts from a little before now: clocks differ.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// A new authority with a new key.
pub(super) fn make_authority(now: Timestamp, lifetime: Duration) -> Result<CaPair, PkiError> {
    let ends = after(now, lifetime)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = authority_params();
    set_validity(&mut params, now, ends)?;
    let certificate = params.self_signed(&key)?;
    Ok(CaPair { certificate: certificate.pem(), key: key.serialize_pem(), made: now, ends })
}

impl Authority {
    /// A certificate for a server of these names, signed by the authority in force. It ends no later than its signer.
    ///
    /// # Errors
    /// A name that is no DNS name, or no randomness.
    pub fn issue(
        &self,
        dns_names: &[String],
        ips: &[IpAddr],
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<TlsIdentity, PkiError> {
        let signer = Issuer::new(authority_params(), KeyPair::from_pem(&self.current.key)?);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        for name in dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.clone().try_into()?));
        }
        params.subject_alt_names.extend(ips.iter().copied().map(SanType::IpAddress));
        // A common name of 64 octets at most, so a constant one: nobody looks at it.
        params.distinguished_name = name("castgate server");
        set_validity(&mut params, now, after(now, lifetime)?.min(self.current.ends))?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &signer)?;
        Ok(TlsIdentity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// What is the same for every authority.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, ends: Timestamp) -> Result<(), PkiError> {
    let since_epoch = |time: Timestamp| {
        u64::try_from(time.as_second()).map(Duration::from_secs).map_err(|_| PkiError::Time(Duration::ZERO))
    };
    // The library's calendar is reached through its own epoch: its type has no name here.
    params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(now.checked_sub(CLOCK_SKEW).unwrap_or(now))?;
    params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(ends)?;
    Ok(())
}
