//! The registrar at databases as strangers run them: what counts is the status, everything else is one sentence.

mod parents;

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use castgate_agent::report::RegistrationReport;
use castgate_agent::roles::registrar::Direct;
use castgate_control::{EntryType, Parent, Protocol, RegistrarSnapshot, Registration};
use parents::{PATIENCE, Strange};
use tokio::time::timeout;

#[tokio::test]
async fn a_status_of_success_is_success_whatever_comes_with_it() {
    for answer in [
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Thank you!</html>",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n",
        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        // A body that is never sent.
        "HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\nhalf of",
        "HTTP/1.1 200 OK\r\nX-CastGate-Update-Interval: soon\r\nContent-Length: 0\r\n\r\n",
    ] {
        let report = first_word(answer).await;
        assert_eq!((report.state.as_str(), report.last_refusal), ("registered", None), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_no_success_is_told_in_one_sentence() {
    for (answer, state, cause) in [
        ("", "trying", "connection closed before message completed"),
        ("\u{1}garbage\r\n\r\n", "trying", "invalid HTTP"),
        ("HTTP/1.1 301 Moved\r\n\r\n", "trying", "redirects without saying where to"),
        (
            "HTTP/1.1 301 Moved\r\nLocation: ftp://tds.example/\r\n\r\n",
            "trying",
            "only http:// and https:// are spoken",
        ),
        (
            "HTTP/1.1 307 Moved\r\nLocation: http://192.0.2.1:5632/script/castgate.cgs\r\n\r\n",
            "trying",
            "redirects to `http://192.0.2.1:5632/script/castgate.cgs`, and login and password are not given to another host",
        ),
        ("HTTP/1.1 302 Found\r\nLocation: /script/castgate.cgs\r\n\r\n", "trying", "redirects more than 3 times"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "refused", "404 Not Found"),
        (
            "HTTP/1.0 403 No\r\nContent-Type: text/plain\r\n\r\nnot for you\r\nsecond line\r\n",
            "refused",
            "403: not for you",
        ),
        ("HTTP/1.0 500 Oh\r\nContent-Type: text/html\r\n\r\n<html>\u{7}", "refused", "500 Internal Server Error"),
    ] {
        let report = first_word(answer).await;
        let sentence = report.last_refusal.unwrap_or_default();
        assert_eq!(report.state, state, "{answer:?}: {sentence}");
        assert!(sentence.contains(cause) && !sentence.contains(char::is_control), "{answer:?}: {sentence}");
    }
}

#[tokio::test]
async fn a_redirect_within_the_host_is_followed_and_not_for_ever() {
    let strange = Strange::start(Duration::ZERO, "HTTP/1.1 308 Moved\r\nLocation: /new/castgate.cgs\r\n\r\n").await;
    let registrar = Direct::start(registrar(&strange), &Arc::default()).unwrap();
    told(&registrar).await;
    let asked = strange.lines();
    assert!(asked[0].starts_with("GET /script/castgate.cgs?ACTION=REGISTER&"), "{asked:?}");
    assert!(asked[1..4].iter().all(|line| line.starts_with("GET /new/castgate.cgs?ACTION=REGISTER&")), "{asked:?}");
    drop(registrar);
}

/// How the registration stands after its first try at a database that answers so.
async fn first_word(answer: &'static str) -> RegistrationReport {
    let strange = Strange::start(Duration::ZERO, answer).await;
    let registrar = Direct::start(registrar(&strange), &Arc::default()).unwrap();
    told(&registrar).await
}

async fn told(registrar: &Direct) -> RegistrationReport {
    let mut reports = registrar.reports();
    let is_told = |reports: &Vec<RegistrationReport>| {
        reports.first().is_some_and(|report| report.state != "trying" || report.last_refusal.is_some())
    };
    let seen = timeout(PATIENCE, reports.wait_for(is_told)).await;
    seen.unwrap_or_else(|_| panic!("{:?}", registrar.report())).unwrap()[0].clone()
}

fn registrar(strange: &Strange) -> RegistrarSnapshot {
    let entry = Registration {
        entry_type: EntryType::TunnelServer,
        source: "127.0.2.1".parse().unwrap(),
        port: NonZeroU16::new(10_100).unwrap(),
        protocol: Some(Protocol::Udp),
        networks: Vec::new(),
        country: Some("BE".parse().unwrap()),
        scheme: castgate_control::Scheme::Http,
    };
    let parent = Parent {
        url: format!("http://{}", strange.address),
        login: "be".to_owned(),
        password: "s3cret".to_owned(),
        ca: None,
    };
    let mut snapshot = RegistrarSnapshot::new(vec![entry], vec![parent]);
    // Long: the tests look at the first try.
    snapshot.retry_seconds = NonZeroU32::new(60).unwrap();
    snapshot
}
