//! The client against members that do what a test tells them: the faults that a real etcd does not have on demand.

mod member;

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::response_op::Response as Outcome;
use crate::proto::mvccpb;
use crate::{Client, Config, EtcdError, Event, Fate, Guard, KeyValue, Watch, Write};
use member::{Member, Talk};

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_member_that_is_away_is_passed_over_and_stays_so() {
    let (away, good) = (nobody().await, Member::with_range(|_| Ok(range(7))).start().await);
    let client = client(&[&away, &good.url]);
    for _ in 0..2 {
        assert_eq!(client.range(b"a", b"b", 1, None).await.unwrap().revision, 7);
    }
    assert_eq!(client.current().0, 1);
    // And back, when the other one goes.
    let (first, second) = (Member::with_range(|_| Ok(range(1))).start().await, client.current().1.name);
    drop(good);
    let client = self::client(&[&second, &first.url]);
    assert_eq!(client.range(b"a", b"b", 1, None).await.unwrap().revision, 1);
}

#[tokio::test]
async fn a_member_that_hangs_has_its_time_and_no_more() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = Member::with_range(|_| Ok(range(7))).start().await;
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let client = client(&[&silent_url, &good.url]);
    let start = Instant::now();
    assert_eq!(client.range(b"a", b"b", 1, None).await.unwrap().revision, 7);
    let took = start.elapsed();
    assert!(took >= client.config().request_time && took < PATIENCE, "{took:?}");
}

#[tokio::test]
async fn a_member_without_leader_is_passed_over_and_a_refusal_is_not() {
    let leaderless = Member::with_range(|_| Err(Status::unavailable("etcdserver: no leader"))).start().await;
    let good = Member::with_range(|request| {
        assert_eq!(request.metadata().get("hasleader").unwrap(), "true");
        Ok(range(7))
    });
    let good = good.start().await;
    assert_eq!(client(&[&leaderless.url, &good.url]).range(b"a", b"b", 1, None).await.unwrap().revision, 7);

    let strict = Member::with_range(|_| Err(Status::permission_denied("etcdserver: permission denied"))).start().await;
    let error = client(&[&strict.url, &good.url]).range(b"a", b"b", 1, None).await.unwrap_err();
    let sentence = format!("etcd at {} refuses: etcdserver: permission denied", strict.url);
    assert_eq!(error.to_string(), sentence);
}

#[tokio::test]
async fn when_all_are_away_it_is_said_after_the_time_of_a_call() {
    let (one, other) = (nobody().await, nobody().await);
    let client = client(&[&one, &other]);
    let start = Instant::now();
    let error = client.range(b"a", b"b", 1, None).await.unwrap_err();
    assert!(matches!(&error, EtcdError::Unreachable { member, .. } if [&one, &other].contains(&member)), "{error}");
    let took = start.elapsed();
    assert!(took >= client.config().call_time / 2 && took < PATIENCE, "{took:?}");
}

#[tokio::test]
async fn a_token_that_is_no_longer_good_is_replaced_once() {
    let member = Member {
        authenticate: Some(Box::new(|request, calls| {
            assert_eq!((request.get_ref().name.as_str(), request.get_ref().password.as_str()), ("castgate", "s3cret"));
            Ok(pb::AuthenticateResponse { header: None, token: format!("token-{calls}") })
        })),
        // The first one is forgotten at once, as after a restart.
        range: Some(Box::new(|request, _| {
            match request.metadata().get("token").map(|token| token.to_str().unwrap()) {
                Some("token-1") => Ok(range(7)),
                _ => Err(Status::unauthenticated("etcdserver: invalid auth token")),
            }
        })),
        ..Member::default()
    };
    let member = member.start().await;
    let with_login = |name: &str| {
        let login = crate::Login { name: name.to_owned(), password: "s3cret".to_owned() };
        Client::new(Config { login: Some(login), ..config(&[&member.url]) }).unwrap()
    };
    let client = with_login("castgate");
    assert_eq!(client.range(b"a", b"b", 1, None).await.unwrap().revision, 7);
    assert_eq!(client.range(b"a", b"b", 1, None).await.unwrap().revision, 7, "and kept");
    // A new client gets token-2 and token-3: both are refused, and it ends there.
    let error = with_login("castgate").range(b"a", b"b", 1, None).await.unwrap_err();
    assert!(matches!(error, EtcdError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_final_and_an_etcd_without_logins_wants_none() {
    let refuse = |status: fn() -> Status| Member {
        authenticate: Some(Box::new(move |_, _| Err(status()))),
        range: Some(Box::new(|request, _| {
            assert!(request.metadata().get("token").is_none());
            Ok(range(7))
        })),
        ..Member::default()
    };
    let wrong = || Status::invalid_argument("etcdserver: authentication failed, invalid user ID or password");
    let off = || Status::failed_precondition("etcdserver: authentication is not enabled");
    let (wrong, off) = (refuse(wrong).start().await, refuse(off).start().await);
    let login = Some(crate::Login { name: "castgate".to_owned(), password: "guess".to_owned() });
    let ask = async |url: &str| {
        let client = Client::new(Config { login: login.clone(), ..config(&[url]) }).unwrap();
        client.range(b"a", b"b", 1, None).await
    };
    let error = ask(&wrong.url).await.unwrap_err().to_string();
    assert!(error.contains("invalid user ID or password"), "{error}");
    assert_eq!(ask(&off.url).await.unwrap().revision, 7);
}

#[tokio::test]
async fn members_are_proven_by_certificates_and_so_are_we() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("127.0.0.1");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(&authority.pem));
    let member = Member::with_range(|_| Ok(range(7))).start_with(Some(tls)).await;
    let (certificate, key) = authority.sign("castgate");
    let identity = Some(crate::Identity { certificate, key });
    let ask = async |ca: &str, identity: Option<crate::Identity>| {
        let config = Config { ca: Some(ca.to_owned()), identity, ..config(&[&member.url]) };
        Client::new(config).unwrap().range(b"a", b"b", 1, None).await.map(|page| page.revision)
    };
    assert_eq!(ask(&authority.pem, identity.clone()).await, Ok(7));
    for (ca, identity) in [(Authority::new().pem, identity), (authority.pem.clone(), None)] {
        let error = ask(&ca, identity).await.unwrap_err();
        assert!(matches!(error, EtcdError::Unreachable { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_with_its_field() {
    let refused = |config: Config| Client::new(config).unwrap_err().to_string();
    assert_eq!(refused(config(&[])), "endpoints: there are none");
    assert!(refused(config(&["etcd:2379"])).starts_with("endpoints: etcd:2379: "));
    assert!(refused(config(&["ftp://etcd:2379"])).starts_with("endpoints: ftp://etcd:2379: begins neither"));
    assert_eq!(refused(config(&["https://etcd:2379"])), "ca: holds no certificate in PEM");
    let ca = Some(Authority::new().pem);
    let identity = Some(crate::Identity { certificate: "x".to_owned(), key: "y".to_owned() });
    let config = Config { ca, identity, ..config(&["https://etcd:2379"]) };
    assert_eq!(refused(config), "identity: certificate and key are not both PEM");
}

#[tokio::test]
async fn an_answer_that_is_too_large_says_so_and_a_page_says_where_the_next_begins() {
    let member = Member::with_range(|request| {
        let request = request.get_ref();
        let value = vec![0; if request.limit > 1 { 17 << 20 } else { 1 }];
        let kvs = vec![mvccpb::KeyValue { key: b"k".to_vec(), value, ..mvccpb::KeyValue::default() }];
        Ok(pb::RangeResponse { kvs, more: true, ..range(9) })
    });
    let member = member.start().await;
    let client = client(&[&member.url]);
    assert_eq!(client.range(b"a", b"z", 100, None).await, Err(EtcdError::TooLarge));
    let page = client.range(b"a", b"z", 1, Some(8)).await.unwrap();
    assert_eq!((page.revision, page.next), (8, Some(b"k\0".to_vec())), "as it was asked for");
}

#[tokio::test]
async fn history_that_is_gone_is_no_refusal_like_others() {
    let gone = || Status::out_of_range("etcdserver: mvcc: required revision has been compacted");
    let member = Member::with_range(move |_| Err(gone())).start().await;
    assert_eq!(client(&[&member.url]).range(b"a", b"z", 1, Some(8)).await, Err(EtcdError::Compacted(0)));
}

#[tokio::test]
async fn every_change_of_a_transaction_has_its_own_fate() {
    let txn = |succeeded, response| pb::ResponseOp {
        response: Some(Outcome::ResponseTxn(pb::TxnResponse {
            header: None,
            succeeded,
            responses: vec![pb::ResponseOp { response: Some(response) }],
        })),
    };
    let member = Member {
        txn: Some(Box::new(move |request, _| {
            let put = Outcome::ResponsePut(pb::PutResponse::default());
            let there =
                mvccpb::KeyValue { key: b"b".to_vec(), mod_revision: 4, lease: 6, ..mvccpb::KeyValue::default() };
            let mut responses = vec![
                txn(true, put),
                txn(false, Outcome::ResponseRange(pb::RangeResponse { kvs: vec![there], ..range(9) })),
                txn(false, Outcome::ResponseRange(range(9))),
            ];
            responses.truncate(request.get_ref().success.len());
            Ok(pb::TxnResponse { header: range(9).header, succeeded: true, responses })
        })),
        ..Member::default()
    };
    let member = member.start().await;
    let client = client(&[&member.url]);
    let write = |key: &str| Write { key: key.into(), put: Some((b"v".to_vec(), 5)), guard: Guard::Absent };
    let fates = client.write(&[write("a"), write("b"), write("c")]).await.unwrap();
    let there = KeyValue { key: b"b".to_vec(), value: Vec::new(), revision: 4, lease: 6 };
    assert_eq!(fates, [Fate::Done(9), Fate::Conflict(Some(there)), Fate::Conflict(None)]);
    let error = client.write(&["a", "b", "c", "d"].map(write)).await.unwrap_err();
    assert_eq!(error, EtcdError::Nonsense(member.url.clone()), "an answer too few");
}

#[tokio::test]
async fn a_lease_that_is_not_there_is_none_and_need_not_be_revoked() {
    let member = Member {
        keep_alive: Some(Box::new(|request, _| {
            let ttl = if request.id == 5 { 60 } else { 0 };
            Ok(pb::LeaseKeepAliveResponse { header: None, id: request.id, ttl })
        })),
        revoke: Some(Box::new(|_, _| Err(Status::not_found("etcdserver: requested lease not found")))),
        grant: Some(Box::new(|request, _| {
            Ok(pb::LeaseGrantResponse { header: None, id: 5, ttl: request.get_ref().ttl.max(10), error: String::new() })
        })),
        ..Member::default()
    };
    let member = member.start().await;
    let client = client(&[&member.url]);
    assert_eq!(client.grant(1).await, Ok((5, 10)), "etcd may grant more");
    assert_eq!((client.keep_alive(5).await, client.keep_alive(6).await), (Ok(Some(60)), Ok(None)));
    assert_eq!(client.revoke(6).await, Ok(()));
}

#[tokio::test]
async fn a_watch_goes_on_at_the_next_member_from_where_it_was() {
    let dying = Member::with_watch(async |mut talk: Talk| {
        talk.created(1, 4).await;
        talk.send(events(5, &["a", "b"])).await;
        // Its stream ends.
    });
    let second = Member::with_watch(async |mut talk: Talk| {
        talk.created(6, 5).await;
        talk.send(events(6, &["c"])).await;
        talk.stay().await;
    });
    let (dying, second) = (dying.start().await, second.start().await);
    let mut watch = client(&[&dying.url, &second.url]).watch(b"p/", 1);
    assert_eq!(seen(&mut watch, 3).await, ["5 a", "5 b", "6 c"]);
}

#[tokio::test]
async fn half_of_a_revision_is_not_counted_as_seen() {
    let dying = Member::with_watch(async |mut talk: Talk| {
        talk.created(1, 4).await;
        talk.send(pb::WatchResponse { fragment: true, ..events(5, &["a"]) }).await;
    });
    let second = Member::with_watch(async |mut talk: Talk| {
        talk.created(1, 5).await;
        talk.send(pb::WatchResponse { fragment: true, ..events(5, &["a"]) }).await;
        talk.send(events(5, &["b"])).await;
        talk.stay().await;
    });
    let (dying, second) = (dying.start().await, second.start().await);
    let mut watch = client(&[&dying.url, &second.url]).watch(b"p/", 1);
    assert_eq!(seen(&mut watch, 2).await, ["5 a", "5 b"]);
}

#[tokio::test]
async fn a_watch_whose_history_is_gone_or_another_one_says_so() {
    let compacted = Member::with_watch(async |mut talk: Talk| {
        talk.hear().await;
        talk.send(pb::WatchResponse { created: true, canceled: true, compact_revision: 90, ..events(99, &[]) }).await;
        talk.stay().await;
    });
    let restored = Member::with_watch(async |mut talk: Talk| {
        talk.created(10, 3).await;
        talk.stay().await;
    });
    for (member, revision) in [(compacted, 90), (restored, 10)] {
        let member = member.start().await;
        let mut watch = client(&[&member.url]).watch(b"p/", 10);
        assert_eq!(watch.next().await, Err(EtcdError::Compacted(revision)));
    }
}

#[tokio::test]
async fn a_watch_that_says_nothing_is_asked_for_a_sign_and_then_taken_elsewhere() {
    let lively = Member::with_watch(async |mut talk: Talk| {
        talk.created(1, 0).await;
        for _ in 0..6 {
            talk.pinged().await;
            talk.send(events(1, &[])).await;
        }
        // Then it hangs: it reads and says nothing.
        talk.stay().await;
    });
    let second = Member::with_watch(async |mut talk: Talk| {
        talk.created(1, 0).await;
        talk.send(events(1, &["a"])).await;
        talk.stay().await;
    });
    let (lively, second) = (lively.start().await, second.start().await);
    let client = client(&[&lively.url, &second.url]);
    let mut watch = client.watch(b"p/", 1);
    let start = Instant::now();
    assert_eq!(seen(&mut watch, 1).await, ["1 a"]);
    assert!(start.elapsed() >= client.config().silence * 2, "six signs of life keep it: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_watch_says_after_each_round_that_nobody_is_there() {
    let (one, other) = (nobody().await, nobody().await);
    let mut watch = client(&[&one, &other]).watch(b"p/", 1);
    for _ in 0..2 {
        assert!(matches!(watch.next().await, Err(EtcdError::Unreachable { .. })));
    }
    let strict = Member::with_watch(async |mut talk: Talk| {
        talk.hear().await;
        let cancel_reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied".to_owned();
        talk.send(pb::WatchResponse { canceled: true, cancel_reason, ..events(1, &[]) }).await;
    });
    let strict = strict.start().await;
    let error = client(&[&strict.url]).watch(b"p/", 1).next().await.unwrap_err().to_string();
    assert!(error.contains("permission denied"), "{error}");
}

#[test]
fn the_end_of_a_prefix_is_what_follows_all_that_begin_with_it() {
    for (prefix, end) in [(&b"a/"[..], &b"a0"[..]), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")] {
        assert_eq!(crate::range_end(prefix), end);
    }
}

/// The next events, as `REVISION KEY`.
async fn seen(watch: &mut Watch, wanted: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let collect = async {
        while seen.len() < wanted {
            for event in watch.next().await.unwrap().events {
                let Event::Put(KeyValue { key, revision, .. }) = event else { panic!("{event:?}") };
                seen.push(format!("{revision} {}", String::from_utf8(key).unwrap()));
            }
        }
    };
    tokio::time::timeout(PATIENCE, collect).await.expect("they never come");
    seen
}

fn events(revision: i64, keys: &[&str]) -> pb::WatchResponse {
    let event = |key: &&str| mvccpb::Event {
        r#type: 0,
        kv: Some(mvccpb::KeyValue { key: (*key).into(), mod_revision: revision, ..mvccpb::KeyValue::default() }),
    };
    pb::WatchResponse {
        header: range(revision).header,
        events: keys.iter().map(event).collect(),
        ..pb::WatchResponse::default()
    }
}

fn range(revision: i64) -> pb::RangeResponse {
    let header = Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() });
    pb::RangeResponse { header, ..pb::RangeResponse::default() }
}

/// Where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn client(urls: &[&str]) -> Client {
    Client::new(config(urls)).unwrap()
}

/// Shorter times than usual, far longer than anything takes that works.
fn config(urls: &[&str]) -> Config {
    Config {
        request_time: Duration::from_secs(1),
        call_time: Duration::from_secs(3),
        silence: Duration::from_millis(600),
        ..Config::new(urls.iter().map(|url| (*url).to_owned()).collect())
    }
}

/// Who signs certificates.
struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let pem = issuer.pem();
        Self { issuer, pem }
    }

    /// A certificate for this name and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}
