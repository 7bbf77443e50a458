//! Real handshakes in memory while the clock is turned: who connects in which stage of a rotation.

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

use super::super::Lifetimes;
use super::*;

const LIFETIMES: Lifetimes = Lifetimes { authority: Duration::from_mins(500), overlap: Duration::from_secs(1000) };
const SERVER: &str = "castgate-operator.castgate-system.svc";

#[test]
fn an_agent_with_the_old_bundle_connects_until_the_new_authority_signs() {
    let first = Authority::create(at(0), &LIFETIMES).unwrap();
    let serving = serve(&first, 0);
    let old_bundle = first.bundle();
    assert_eq!(connect(&serving, &old_bundle, SERVER, 10), Ok(()));

    // Stage 1: published, not yet signing.
    let published = first.turn(at(20_000), &LIFETIMES).unwrap().unwrap();
    serving.refresh(&published, at(20_000)).unwrap();
    assert_eq!(connect(&serving, &old_bundle, SERVER, 20_001), Ok(()), "it has not heard of the new one");
    assert_eq!(connect(&serving, &published.bundle(), SERVER, 20_001), Ok(()));

    // Stage 2: signing. An agent that got the bundle of stage 1 in time connects, and so does one with the newest.
    let signing = published.turn(at(21_000), &LIFETIMES).unwrap().unwrap();
    assert!(serving.refresh(&signing, at(21_000)).unwrap(), "the signer changed");
    assert_eq!(connect(&serving, &published.bundle(), SERVER, 21_001), Ok(()));
    assert_eq!(connect(&serving, &signing.bundle(), SERVER, 21_001), Ok(()));
    let refusal = connect(&serving, &old_bundle, SERVER, 21_001).expect_err("it missed a whole overlap");
    assert!(refusal.contains("InvalidCertificate"), "{refusal}");
}

#[test]
fn what_the_old_authority_signed_is_trusted_until_it_leaves_the_bundle() {
    let first = Authority::create(at(0), &LIFETIMES).unwrap();
    let published = first.turn(at(20_000), &LIFETIMES).unwrap().unwrap();
    let signing = published.turn(at(21_000), &LIFETIMES).unwrap().unwrap();
    let alone = signing.turn(at(22_000), &LIFETIMES).unwrap().unwrap();
    // An adapter that still shows what the old authority signed.
    let stale = serve(&first, 20_500);
    assert_eq!(connect(&stale, &signing.bundle(), SERVER, 21_500), Ok(()));
    assert!(connect(&stale, &alone.bundle(), SERVER, 22_001).is_err());
}

#[test]
fn a_certificate_is_issued_again_after_half_its_life_and_not_before() {
    let authority = Authority::create(at(0), &LIFETIMES).unwrap();
    let serving = serve(&authority, 0);
    assert_eq!(serving.renewal(), at(1800));
    assert!(!serving.refresh(&authority, at(1799)).unwrap());
    assert!(serving.refresh(&authority, at(1800)).unwrap());
    assert_eq!(connect(&serving, &authority.bundle(), SERVER, 5000), Ok(()));
    assert!(connect(&serving, &authority.bundle(), SERVER, 5401).is_err(), "an hour after it was issued it ends");
}

#[test]
fn another_name_or_another_fleet_is_not_trusted() {
    let authority = Authority::create(at(0), &LIFETIMES).unwrap();
    let stranger = Authority::create(at(0), &LIFETIMES).unwrap();
    let serving = serve(&authority, 0);
    assert!(connect(&serving, &authority.bundle(), "castgate-operator.elsewhere.svc", 10).is_err());
    assert!(connect(&serving, &stranger.bundle(), SERVER, 10).is_err(), "same name of the authority, another key");
    assert_eq!(connect(&serving, &authority.bundle(), "127.0.0.1", 10), Ok(()));
}

#[test]
fn a_clock_that_is_some_minutes_behind_is_no_reason_to_refuse() {
    let authority = Authority::create(at(0), &LIFETIMES).unwrap();
    assert_eq!(connect(&serve(&authority, 0), &authority.bundle(), SERVER, -240), Ok(()));
    assert!(connect(&serve(&authority, 0), &authority.bundle(), SERVER, -360).is_err());
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn serve(authority: &Authority, second: i64) -> Arc<ServingCert> {
    let names = ServingNames {
        dns_names: vec![SERVER.to_owned()],
        ips: vec!["127.0.0.1".parse().unwrap()],
        lifetime: Duration::from_hours(1),
    };
    ServingCert::new(authority, names, at(second)).unwrap()
}

/// One whole handshake in memory, seen by a client whose clock shows `second`.
fn connect(serving: &Arc<ServingCert>, bundle: &str, name: &str, second: i64) -> Result<(), String> {
    let mut client = client(bundle, name, second);
    let mut server = ServerConnection::new(Arc::new(serving.server_config().unwrap())).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().map_err(|error| format!("server: {error:?}"))?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(|error| format!("{error:?}"))?;
    }
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    Ok(())
}

fn client(bundle: &str, name: &str, second: i64) -> ClientConnection {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Clock(at(second))))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}

#[derive(Debug)]
struct Clock(Timestamp);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.as_second().unsigned_abs())))
    }
}
