//! Entries of agents: announced, refreshed and taken back by the adapter.

use std::time::{Duration, Instant};

use castgate_agent::report::{ClientReport, RegistrationReport};
use castgate_agent::roles::adapter::Adapter;
use castgate_control::{AdapterSnapshot, TlsIdentity};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bed::{Bed, OTHER, SERVER, becomes_report, connected, eventually, key, parent, stands};
use crate::fleet::Authority;
use crate::parents::{PATIENCE, Strange, becomes};

#[tokio::test]
async fn entries_reach_the_database_and_leave_with_their_agent() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE", "NL"])]).await;
    let registrar = bed.agent(SERVER, &adapter, &["BE", "NL"]);
    becomes(&bed.database, 2).await;
    stands(&registrar, |reports| reports.len() == 2 && reports.iter().all(|report| report.state == "registered")).await;
    let report = &registrar.report()[0];
    assert_eq!(report.parent, bed.database.local_address().to_string());
    assert_eq!(report.entry, "TS 127.0.2.1:10100 UDP");
    let told = adapter.report();
    assert_eq!((told.len(), told[0].agent.as_str(), told[0].connected), (1, SERVER, true));
    assert_eq!(told[0].registrations, registrar.report());

    registrar.stop().await;
    assert_eq!(bed.database.report().entries, 0, "stop returns after the goodbyes");
    assert_eq!(bed.database.report().byes, 2);
    let nothing = ClientReport { agent: SERVER.to_owned(), connected: false, registrations: Vec::new() };
    becomes_report(&adapter, &[nothing]).await;
    adapter.stop().await;
}

#[tokio::test]
async fn entries_are_refreshed_as_often_as_the_database_wants() {
    let bed = Bed::refreshed_every_second().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"])]).await;
    let _registrar = bed.agent(SERVER, &adapter, &["BE"]);
    let mut entries = bed.database.entries();
    timeout(PATIENCE, entries.wait_for(|entries| *entries == 1)).await.unwrap().unwrap();
    // Without refreshes it would be gone after two seconds.
    let gone = timeout(Duration::from_millis(3_500), entries.wait_for(|entries| *entries == 0)).await;
    assert!(gone.is_err(), "the entry went although it was to be refreshed");
    assert!(bed.database.report().registers >= 3);
}

#[tokio::test]
async fn an_agent_that_is_gone_is_kept_for_its_grace_time_and_then_taken_back() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"])]).await;
    let registrar = bed.agent(SERVER, &adapter, &["BE"]);
    becomes(&bed.database, 1).await;
    // Killed, and started again within the second: nobody above hears of it.
    drop(registrar);
    connected(&adapter, SERVER, false).await;
    let registrar = bed.agent(SERVER, &adapter, &["BE"]);
    connected(&adapter, SERVER, true).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!((bed.database.report().byes, bed.database.report().entries), (0, 1));

    drop(registrar);
    connected(&adapter, SERVER, false).await;
    let began = Instant::now();
    assert_eq!(bed.database.report().entries, 1);
    becomes(&bed.database, 0).await;
    assert!(began.elapsed() >= Duration::from_millis(900), "after {:?}", began.elapsed());
    // Counted when it is answered, a moment after the entry is gone.
    eventually("one BYE", || bed.database.report().byes == 1).await;
}

#[tokio::test]
async fn an_adapter_that_ends_says_no_goodbye_and_its_successor_goes_on() {
    let bed = Bed::new().await;
    let clients = [bed.client(SERVER, &["BE"])];
    let adapter = bed.adapter(&clients).await;
    let registrar = bed.agent(SERVER, &adapter, &["BE"]);
    stands(&registrar, |reports| reports[0].state == "registered").await;
    let address = adapter.local_address();
    adapter.stop().await;
    stands(&registrar, |reports| reports[0].state == "trying").await;
    let refusal = registrar.report()[0].last_refusal.clone().unwrap();
    assert!(refusal.starts_with("the adapter does not answer: "), "{refusal}");
    assert_eq!((bed.database.report().byes, bed.database.report().entries), (0, 1));

    let snapshot = AdapterSnapshot { listen: address, ..bed.snapshot(&clients) };
    let adapter = Adapter::start(snapshot, &bed.around("castgate/adapter@node-3")).await.unwrap();
    stands(&registrar, |reports| reports[0].state == "registered").await;
    assert_eq!(bed.database.report().byes, 0);
    eventually("the successor registers", || bed.database.report().registers == 2).await;
    registrar.stop().await;
    assert_eq!(bed.database.report().entries, 0);
    drop(adapter);
}

#[tokio::test]
async fn who_does_not_show_his_own_key_gets_nothing() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"]), bed.client(OTHER, &["NL"])]).await;
    let cases = [
        (SERVER, "x".repeat(64), "no key of an agent that this adapter works for is shown"),
        (SERVER, String::new(), "no key of an agent that this adapter works for is shown"),
        (SERVER, key(OTHER), "the key that is shown is not that of castgate/ts-one@node-1"),
        ("castgate/ts-three@node-1", key(OTHER), "is no agent that this adapter works for"),
    ];
    for (agent, key, sentence) in cases {
        let registrar = bed.agent_with(agent, &adapter, &["BE"], key);
        let said = |reports: &[RegistrationReport]| {
            reports[0].last_refusal.as_deref().is_some_and(|refusal| refusal.contains(sentence))
        };
        stands(&registrar, said).await;
        assert_eq!(registrar.report()[0].state, "trying");
    }
    assert_eq!(bed.database.report().registers, 0);
    assert!(adapter.report().iter().all(|client| !client.connected));
}

#[tokio::test]
async fn only_entries_that_both_sides_name_are_announced() {
    let bed = Bed::new().await;
    let adapter = &mut bed.adapter(&[bed.client(SERVER, &["BE"])]).await;
    // The second entry has the same address and another country.
    let registrar = bed.agent(SERVER, adapter, &["BE", "NL"]);
    stands(&registrar, |reports| reports.len() == 2 && reports[0].state == "registered").await;
    let refused = registrar.report().remove(1);
    assert_eq!((refused.entry.as_str(), refused.state.as_str()), ("TS 127.0.2.1:10101 UDP", "refused"));
    let reason = refused.last_refusal.unwrap();
    assert_eq!(reason, format!("is not among the entries that {SERVER} may announce"));
    assert_eq!(bed.database.report().entries, 1);

    // Permitted now, over the same stream.
    adapter.apply(&bed.snapshot(&[bed.client(SERVER, &["BE", "NL"])])).unwrap();
    becomes(&bed.database, 2).await;
    stands(&registrar, |reports| reports.iter().all(|report| report.state == "registered")).await;
    assert_eq!(bed.database.report().byes, 0);

    // And no longer.
    adapter.apply(&bed.snapshot(&[bed.client(SERVER, &["BE"])])).unwrap();
    becomes(&bed.database, 1).await;
    registrar.stop().await;
}

#[tokio::test]
async fn who_is_no_client_any_more_is_taken_back_and_refused() {
    let bed = Bed::new().await;
    let adapter = &mut bed.adapter(&[bed.client(SERVER, &["BE"]), bed.client(OTHER, &["NL"])]).await;
    let registrar = bed.agent(SERVER, adapter, &["BE"]);
    let other = bed.agent_at(OTHER, adapter, "127.0.2.2", &["NL"]);
    becomes(&bed.database, 1).await;
    stands(&other, |reports| reports[0].state == "refused").await;

    adapter.apply(&bed.snapshot(&[bed.client(OTHER, &["NL"])])).unwrap();
    becomes(&bed.database, 0).await;
    stands(&registrar, |reports| reports[0].last_refusal.as_deref().is_some_and(|said| said.contains("adapter"))).await;
    eventually("it is forgotten", || adapter.report().len() == 1).await;
    connected(adapter, OTHER, true).await;
}

#[tokio::test]
async fn a_second_stream_of_an_agent_ends_the_first_and_nobody_above_hears_of_it() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"])]).await;
    let mut first = bed.stream(SERVER, &adapter).await;
    becomes(&bed.database, 1).await;
    let second = bed.stream(SERVER, &adapter).await;
    let status = timeout(PATIENCE, async {
        loop {
            match first.1.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends with a reason"),
                Err(status) => return status,
            }
        }
    });
    let status = status.await.unwrap();
    assert_eq!((status.code(), status.message()), (tonic::Code::Aborted, "another stream of this agent took over"));
    drop(first);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!((bed.database.report().byes, bed.database.report().entries), (0, 1), "the second stream lives");
    drop(second);
    becomes(&bed.database, 0).await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_ends_no_stream() {
    let bed = Bed::new().await;
    let clients = [bed.client(SERVER, &["BE"]), bed.client(OTHER, &[])];
    let adapter = &mut bed.adapter(&clients).await;
    let registrar = bed.agent(SERVER, adapter, &["BE"]);
    becomes(&bed.database, 1).await;

    let newer = Authority::new();
    let (certificate, key_pem) = newer.vouch_for("127.0.0.1");
    let mut snapshot = bed.snapshot(&clients);
    snapshot.tls = TlsIdentity { certificate: certificate.clone(), key: "nonsense".to_owned() };
    let refused = adapter.apply(&snapshot).unwrap_err().to_string();
    assert!(refused.starts_with("tls: key: "), "{refused}");
    snapshot.tls = TlsIdentity { certificate, key: key_pem };
    adapter.apply(&snapshot).unwrap();

    let old_trust = bed.agent(OTHER, adapter, &["NL"]);
    stands(&old_trust, |reports| {
        reports[0].last_refusal.as_deref().is_some_and(|said| said.contains("invalid peer certificate"))
    })
    .await;
    // The bundle is read anew at each connect.
    std::fs::write(bed.ca(), &newer.pem).unwrap();
    connected(adapter, OTHER, true).await;
    connected(adapter, SERVER, true).await;
    assert_eq!(registrar.report()[0].state, "registered");
    assert_eq!(bed.database.report().registers, 1, "the first stream was never interrupted");
}

#[tokio::test]
async fn strange_databases_are_spoken_to_as_well() {
    let bed = Bed::new().await;
    let slow = Strange::start(Duration::from_millis(700), "HTTP/1.0 200 OK\r\n\r\n").await;
    let short = "HTTP/1.0 401 Unauthorized\r\nContent-Type: text/plain\r\n\r\nwho are you\r\n";
    let distrustful = Strange::start(Duration::ZERO, short).await;
    let mut client = bed.client(SERVER, &["BE"]);
    client.parents = [slow.address, distrustful.address].map(|address| parent(&address.to_string())).to_vec();
    let adapter = bed.adapter(&[client]).await;
    let registrar = bed.agent(SERVER, &adapter, &["BE"]);
    let state_at = |reports: &[RegistrationReport], strange: &Strange| {
        let report = reports.iter().find(|report| report.parent == strange.address.to_string());
        report.map(|report| (report.state.clone(), report.last_refusal.clone().unwrap_or_default()))
    };
    let words = |state: &str, refusal: &str| Some((state.to_owned(), refusal.to_owned()));
    stands(&registrar, |reports| {
        state_at(reports, &slow) == words("registered", "")
            && state_at(reports, &distrustful) == words("refused", "401: who are you")
    })
    .await;
    let began = Instant::now();
    registrar.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!((slow.asked("REGISTER"), slow.asked("BYE"), distrustful.asked("BYE")), (1, 1, 0));
}

#[tokio::test]
async fn a_database_that_does_not_answer_holds_up_no_goodbye_and_is_shown_as_leaving() {
    let bed = Bed::new().await;
    let silent = Strange::start(Duration::from_mins(1), "").await;
    let mut client = bed.client(SERVER, &["BE"]);
    client.parents.push(parent(&silent.address.to_string()));
    let adapter = bed.adapter(&[client]).await;
    let registrar = bed.agent(SERVER, &adapter, &["BE"]);
    becomes(&bed.database, 1).await;
    let began = Instant::now();
    registrar.stop().await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(2_500) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(bed.database.report().entries, 0, "who answers is told at once");
    let report = adapter.report().remove(0);
    let [leaving] = &report.registrations[..] else { panic!("{report:?}") };
    assert_eq!((leaving.parent.clone(), leaving.state.as_str()), (silent.address.to_string(), "leaving"));
}

/// Strangers hold connections for ten seconds, and not all of them; then agents come in again.
#[tokio::test]
async fn strangers_cannot_fill_the_adapter() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"])]).await;
    let mut strangers = Vec::new();
    for _ in 0..40 {
        strangers.push(TcpStream::connect(adapter.local_address()).await.unwrap());
    }
    let began = Instant::now();
    let closings = strangers.into_iter().map(|mut stranger| {
        tokio::spawn(async move {
            let mut octet = [0];
            let read = timeout(PATIENCE, stranger.read(&mut octet)).await.expect("nobody stays for ever");
            assert!(!matches!(read, Ok(1..)), "nothing is said to a stranger");
            began.elapsed()
        })
    });
    let mut times = Vec::new();
    for closing in closings.collect::<Vec<_>>() {
        times.push(closing.await.unwrap());
    }
    let at_once = times.iter().filter(|time| **time < Duration::from_secs(5)).count();
    assert_eq!(at_once, 8, "32 of one address: {times:?}");
    assert!(times.iter().all(|time| *time < Duration::from_secs(15)), "{times:?}");
    let _registrar = bed.agent(SERVER, &adapter, &["BE"]);
    becomes(&bed.database, 1).await;
}
