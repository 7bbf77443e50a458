//! The client of `castgate-etcd` against what it is written for. Faults that a real etcd does not have on demand are tested beside
//! its code.

use crate::SOON;
use anyhow::{Context, Result, ensure};
use castgate_e2e::lab::{Host, Lab, Scenario};
use castgate_e2e::peers::etcd::Etcd;
use castgate_etcd::{
    Client, Config, EtcdError, Event, Fate, Guard, Identity, Login, WRITES_MAX, Watch, Write, range_end,
};
use std::collections::BTreeMap;
use std::time::Duration;

const TOPOLOGY: &str = "site: etcd 10.5.0.1/24, client 10.5.0.20/24";

#[test]
fn guarded_changes_pages_and_leases_are_as_etcd_has_them() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let etcd = one(lab, &[])?;
        within(lab.host("client"), async {
            let client = Client::new(Config::new(etcd.endpoints()))?;
            let (lease, seconds) = client.grant(60).await?;
            ensure!(seconds == 60);
            let name = |number: usize| format!("p/{number:03}").into_bytes();
            let put = |number, value: &str| Write {
                key: name(number),
                put: Some((value.into(), lease)),
                guard: Guard::Absent,
            };
            let writes: Vec<Write> = (0..WRITES_MAX).map(|number| put(number, "one")).collect();
            let fates = client.write(&writes).await?;
            ensure!(fates.len() == WRITES_MAX);
            let Fate::Done(revision) = fates[0] else { anyhow::bail!("{fates:?}") };

            let again = client.write(&[put(0, "two"), put(900, "two")]).await?;
            let [Fate::Conflict(Some(there)), Fate::Done(_)] = again.as_slice() else { anyhow::bail!("{again:?}") };
            ensure!((there.value.as_slice(), there.revision, there.lease) == (b"one", revision, lease), "{there:?}");
            let change = |guard| Write { key: name(900), put: None, guard };
            ensure!(matches!(
                client.write(&[change(Guard::Unchanged(revision))]).await?[..],
                [Fate::Conflict(Some(_))]
            ));
            ensure!(matches!(client.write(&[change(Guard::Unchanged(revision + 1))]).await?[..], [Fate::Done(_)]));

            let mut keys = Vec::new();
            let (mut from, mut at) = (Some(b"p/".to_vec()), None);
            while let Some(key) = from {
                let page = client.range(&key, &range_end(b"p/"), 10, at).await?;
                ensure!(page.kvs.len() <= 10);
                keys.extend(page.kvs.into_iter().map(|kv| kv.key));
                (from, at) = (page.next, Some(page.revision));
            }
            ensure!(keys == (0..WRITES_MAX).map(name).collect::<Vec<_>>());

            ensure!(client.keep_alive(lease).await? == Some(60));
            client.revoke(lease).await?;
            client.revoke(lease).await?;
            ensure!(client.keep_alive(lease).await?.is_none());
            ensure!(
                client.range(b"p/", &range_end(b"p/"), 10, None).await?.kvs.is_empty(),
                "they went with their lease"
            );
            Ok(())
        })
    });
}

#[test]
fn a_watch_has_no_gap_over_a_restart_and_says_when_history_is_gone() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let mut etcd = one(lab, &[])?;
        within(lab.host("client"), async {
            let client = Client::new(Config::new(etcd.endpoints()))?;
            let put = async |number: usize| -> Result<()> {
                let key = format!("p/{number}").into_bytes();
                let fates = client.write(&[Write { key, put: Some((b"v".to_vec(), 0)), guard: Guard::Absent }]).await?;
                ensure!(matches!(fates[..], [Fate::Done(_)]), "{fates:?}");
                Ok(())
            };
            let mut watch = client.watch(b"p/", 1);
            put(0).await?;
            ensure!(seen(&mut watch, 1).await? == BTreeMap::from([("p/0".to_owned(), 1)]));
            etcd.kill(0)?;
            etcd.start_all()?;
            put(1).await?;
            put(2).await?;
            let expected = BTreeMap::from([("p/1".to_owned(), 1), ("p/2".to_owned(), 1)]);
            ensure!(seen(&mut watch, 2).await? == expected);

            etcd.post(0, "/v3/kv/compaction", r#"{"revision":"4"}"#)?;
            let mut late = client.watch(b"p/", 2);
            let refusal = async {
                loop {
                    if let Err(error) = late.next().await {
                        return error;
                    }
                }
            };
            let error = tokio::time::timeout(SOON, refusal).await?;
            ensure!(error == EtcdError::Compacted(4), "{error:?}");
            let error = client.range(b"p/", b"p0", 1, Some(2)).await.err();
            ensure!(matches!(error, Some(EtcdError::Compacted(_))), "{error:?}");
            Ok(())
        })
    });
}

#[test]
fn a_login_is_needed_where_etcd_wants_one_and_survives_its_restart() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let mut etcd = one(lab, &[])?;
        for (path, body) in [
            ("/v3/auth/user/add", r#"{"name":"root","password":"s3cret"}"#),
            ("/v3/auth/role/add", r#"{"name":"root"}"#),
            ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
            ("/v3/auth/enable", "{}"),
        ] {
            etcd.post(0, path, body).context(path)?;
        }
        within(lab.host("client"), async {
            let login = |password: &str| Some(Login { name: "root".to_owned(), password: password.to_owned() });
            let client = |login| Client::new(Config { login, call_time: SOON, ..Config::new(etcd.endpoints()) });
            for login in [None, login("guess")] {
                let error = client(login)?.range(b"p/", b"p0", 1, None).await.err();
                ensure!(matches!(error, Some(EtcdError::Refused { .. })), "{error:?}");
            }
            let client = client(login("s3cret"))?;
            client.range(b"p/", b"p0", 1, None).await?;
            let (lease, _) = client.grant(60).await?;
            ensure!(client.keep_alive(lease).await? == Some(60));
            client.watch(b"p/", 1).next().await?;
            // It forgets the tokens that it gave; the request waits until it is there again.
            etcd.kill(0)?;
            etcd.start([0])?;
            client.range(b"p/", b"p0", 1, None).await?;
            Ok(())
        })
    });
}

#[test]
fn members_and_clients_prove_themselves_with_certificates() {
    Scenario::new(TOPOLOGY).run(|lab| {
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate()?)?;
        let sign = |name: &str| -> Result<(String, String)> {
            let key = rcgen::KeyPair::generate()?;
            let mut params = rcgen::CertificateParams::new(vec![name.to_owned()])?;
            // etcd asks itself, with the same certificate.
            params.extended_key_usages =
                vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            Ok((params.signed_by(&key, &authority)?.pem(), key.serialize_pem()))
        };
        let write = |name: &str, text: &str| -> Result<String> {
            let path = lab.folder().join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let (certificate, key) = sign("10.5.0.1")?;
        let (ca, certificate, key) =
            (write("ca.pem", &authority.pem())?, write("etcd.pem", &certificate)?, write("etcd.key", &key)?);
        let arguments = [
            format!("--cert-file={certificate}"),
            format!("--key-file={key}"),
            format!("--trusted-ca-file={ca}"),
            "--client-cert-auth".to_owned(),
        ];
        let etcd = one(lab, &arguments.each_ref().map(String::as_str))?;
        within(lab.host("client"), async {
            let (certificate, key) = sign("castgate")?;
            let client = |identity| {
                let ca = Some(authority.pem());
                Client::new(Config { ca, identity, ..Config::new(etcd.endpoints()) })
            };
            client(Some(Identity { certificate, key }))?.range(b"p/", b"p0", 1, None).await?;
            let error = client(None)?.range(b"p/", b"p0", 1, None).await.err();
            ensure!(matches!(error, Some(EtcdError::Unreachable { .. })), "{error:?}");
            Ok(())
        })
    });
}

fn one<'a>(lab: &'a Lab, arguments: &[&str]) -> Result<Etcd<'a>> {
    let mut etcd = Etcd::new(&[lab.host("etcd")], "site", arguments)?;
    etcd.start_all()?;
    Ok(etcd)
}

/// Does asynchronous work on a host.
fn within(host: &Host, work: impl Future<Output = Result<()>> + Send) -> Result<()> {
    host.enter(|| {
        // One thread: others would not be on the host.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work)
    })?
}

/// The next events: how often each key was put.
async fn seen(watch: &mut Watch, wanted: usize) -> Result<BTreeMap<String, usize>> {
    let mut seen = BTreeMap::new();
    let collect = async {
        let mut count = 0;
        while count < wanted {
            // While its only member is away, the watch says so in each round.
            let Ok(news) = watch.next().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            for event in news.events {
                let Event::Put(kv) = event else { anyhow::bail!("{event:?}") };
                *seen.entry(String::from_utf8(kv.key)?).or_default() += 1;
                count += 1;
            }
        }
        Ok(())
    };
    tokio::time::timeout(SOON, collect).await.context("the events never come")??;
    Ok(seen)
}
